"""Stop it anywhere, start it again; let it grow; nothing is done twice, and every bit is as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.files import seal
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run import fold_plan as plan
from gmp_atl_hf.run.perform import Worker
from gmp_atl_hf.run.plan import plan_run
from kills import run_until
from runs import (
    SPLIT,
    changed_recipe,
    digests,
    given_split,
    read_json,
    read_lines,
    recipe_dict,
    results,
    run,
    stamps,
    write_corpus,
    write_recipe,
)

FOLD = "gmp-atl/seed-0/fold-01"
# Of a run that is continued these change: the recipe may have grown, and the report with it.
TOP = {"recipe.yaml", "environment.json", "left_out.jsonl", "report.json", "report.md", "report.html"}


@pytest.fixture(scope="module")
def split_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("split-corpus"), split=SPLIT)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def disturbed_recipe(split_corpus: Path) -> dict[str, Any]:
    """Three updates an epoch; checkpoints between epochs and in the middle of them; fine-tuning that stops early."""
    return given_split(
        split_corpus,
        stages__multitask__num_train_epochs=3,
        stages__retrain__num_train_epochs=2,
        stages__retrain__save_strategy="steps",
        stages__retrain__save_steps=2,
        stages__retrain__eval_strategy="steps",
        stages__retrain__eval_steps=2,
        stages__finetune__num_train_epochs=6,
        # Too slow to change any prediction: the first epoch stays the best, and patience runs out.
        stages__finetune__learning_rate=1e-9,
        stages__finetune__early_stopping_patience=2,
        backbone__hidden_dropout=0.2,
    )


@pytest.fixture(scope="module")
def undisturbed(disturbed_recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run(disturbed_recipe, folder)
    return folder


def test_the_undisturbed_run_is_a_hard_case(undisturbed: Path) -> None:
    trained = {step: read_json(undisturbed / FOLD / step / "training.json") for step in ("1-multitask", "4-finetune")}
    assert trained["1-multitask"]["updates"] == 9
    assert (trained["4-finetune"]["updates"], trained["4-finetune"]["best_step"]) == (9, 3), "early stopping, far back"


def without_losses(file: Path) -> dict[str, Any]:
    """What a training wrote of itself, without the losses of its epochs."""
    content: dict[str, Any] = read_json(file)
    log = [{name: value for name, value in entry.items() if not name.startswith("loss")} for entry in content["log"]]
    return {**content, "log": log}


POINTS: list[tuple[str, dict[str, Any]]] = [
    ("around_the_file", {"ending": "backbone/seed-0.unfinished/step.json", "written": False}),
    ("after_step", {"stage": "1-multitask", "step": 2}),  # before the first checkpoint
    ("in_a_checkpoint", {"stage": "1-multitask", "step": 6}),
    ("after_step", {"stage": "1-multitask", "step": 5}),
    ("in_the_trainer_state", {"stage": "1-multitask", "step": 6}),
    ("after_step", {"stage": "1-multitask", "step": 8}),
    ("in_the_weights", {"stage": "1-multitask"}),
    ("while_checkpoints_are_deleted", {"stage": "1-multitask"}),
    ("after_the_clusters", {}),
    ("around_the_file", {"ending": "2-pseudo-labels.unfinished/step.json", "written": True}),
    ("after_step", {"stage": "3-retrain", "step": 3}),  # after a checkpoint in the middle of an epoch
    ("after_step", {"stage": "3-retrain", "step": 5}),
    ("around_the_file", {"ending": "3-retrain.unfinished/training.json", "written": True}),
    ("after_step", {"stage": "4-finetune", "step": 4}),
    ("after_step", {"stage": "4-finetune", "step": 8}),  # one evaluation of patience is used up
    ("around_the_file", {"ending": "4-finetune.unfinished/training.json", "written": False}),
    ("while_checkpoints_are_deleted", {"stage": "4-finetune"}),
    ("around_the_file", {"ending": "fold-01/metrics.json", "written": False}),
    ("around_the_file", {"ending": "model/README.md", "written": False}),
]


@pytest.mark.slow
def test_a_run_killed_again_and_again_equals_one_that_was_left_alone(
    undisturbed: Path, disturbed_recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    finished: dict[str, int] = {}
    for point, where in POINTS:
        run_until(disturbed_recipe, folder, point, **where)
        now = stamps(folder)
        assert {name: now.get(name) for name in finished} == finished, f"{point} {where} repeats a finished step"
        # A folder under its proper name is finished; a fold's own files are the test's, which metrics.json ends.
        finished = {
            name: time for name, time in now.items() if Path(name).parent.joinpath("step.json").as_posix() in now
        }
        finished = {name: time for name, time in finished.items() if ".unfinished/" not in name}
    run(disturbed_recipe, folder)
    alone, again = results(undisturbed), results(folder)
    # Of the one training that went on in the middle of an epoch, the log has the mean loss of the steps since then.
    retrained = f"{FOLD}/3-retrain/training.json"
    assert {name for name in alone if alone[name] != again.get(name)} <= {retrained}
    assert without_losses(folder / retrained) == without_losses(undisturbed / retrained)
    assert not list(folder.rglob("*.unfinished"))
    files = [{name for name in stamps(one) if not name.startswith("figures/")} for one in (folder, undisturbed)]
    assert files[0] == files[1]


def test_a_half_finished_training_from_another_learning_rate_is_begun_anew(
    split_corpus: Path, disturbed_recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe = changed_recipe(disturbed_recipe, variants=["direct"], stages__finetune__learning_rate=1e-2, final=False)
    other = changed_recipe(recipe, stages__finetune__learning_rate=1e-3)
    run_until(other, tmp_path / "run", "after_step", stage="4-finetune", step=5)
    assert list((tmp_path / "run").rglob("checkpoint-3"))
    run(recipe, tmp_path / "run")
    run(recipe, tmp_path / "alone")
    assert results(tmp_path / "run") == results(tmp_path / "alone")


# ---- nothing is repeated ---------------------------------------------------------------------------------------------


def test_running_a_finished_recipe_again_does_nothing_and_says_so(
    split_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = given_split(split_corpus, variants=["gmp-atl", "multitask-only"])
    for stage in recipe["stages"].values():
        stage["num_train_epochs"] = 1
    words = ["run", str(write_recipe(tmp_path / "recipe.yaml", recipe)), "--output-dir", str(tmp_path / "run")]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert "nothing was left to do" not in first
    times, content = stamps(tmp_path / "run"), digests(tmp_path / "run")
    for name in ("train", "make_pseudo_labels", "save_scratch_backbone"):
        monkeypatch.setattr(plan, name, None)
    monkeypatch.setattr("gmp_atl_hf.run.perform.predict", None)
    assert main(words) == 0
    assert "All 10 steps and tests were finished before; nothing was left to do." in capsys.readouterr().out
    assert {name: time for name, time in stamps(tmp_path / "run").items() if times[name] != time}.keys() <= {
        *TOP,
        *(name for name in times if name.startswith("figures/")),
    }
    assert digests(tmp_path / "run") == content


def test_a_run_that_moves_names_every_machine(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_dict(corpus, final=False, variants=["direct"], stages__finetune__num_train_epochs=1)
    run(recipe, tmp_path / "run", folds=[1])
    here = read_json(tmp_path / "run" / "environment.json")
    there = {**here, "cpu": "Another", "gpus": [{"name": "Some GPU", "memory_gib": 80.0}]}
    monkeypatch.setattr("gmp_atl_hf.run.perform.describe_environment", lambda: there)
    assert run(recipe, tmp_path / "run", folds=[1])["environment"] == here, "nothing was made there"
    report = run(recipe, tmp_path / "run")
    assert report["environment"] == {**there, "earlier": [here]}
    shown = (tmp_path / "run" / "report.md").read_text()
    assert shown.index("Environment of the last part") < shown.index("Some GPU")
    assert shown.index("Environment of an earlier part") > shown.index("Some GPU")


def test_only_machines_that_worked_are_named(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_dict(corpus, final=False, variants=["direct"], stages__finetune__num_train_epochs=2)
    folder = tmp_path / "run"

    def fail(*_: Any) -> None:
        raise OSError("no work today")

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "perform_fold", fail)
        with pytest.raises(OSError, match="no work today"):
            run(recipe, folder, folds=[1])
    assert not (folder / "environment.json").exists(), "nothing was computed there"
    run_until(recipe, folder, "after_step", stage="4-finetune", step=3)
    worked = read_json(folder / "environment.json")
    there = {**worked, "cpu": "Another"}
    monkeypatch.setattr("gmp_atl_hf.run.perform.describe_environment", lambda: there)
    report = run(recipe, folder, folds=[1])
    assert report["environment"] == {**there, "earlier": [worked]}, "it left half a training behind"


def test_a_run_grows(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = recipe_dict(corpus, final=False, variants=["direct"])
    for stage in base["stages"].values():
        stage["num_train_epochs"] = 1
    folder = tmp_path / "run"

    def grow(folds: list[int] | None = None, **changes: Any) -> tuple[dict[str, Any], str]:
        """Run with changes; nothing that was there before may be touched."""
        before = {name: time for name, time in stamps(folder).items() if "seed-" in name or name.startswith("model/")}
        report = run(changed_recipe(base, **changes), folder, folds=folds)
        now = stamps(folder)
        assert {name: now.get(name) for name in before} == before
        return report, capsys.readouterr().out

    report, said = grow([1], final=True)
    assert report["variants"]["direct"]["folds_done"] == "1 of 2 folds"
    assert "1 of 2" in said
    assert "No final model yet" in said
    assert "1 of 2" in (folder / "report.md").read_text()
    report, _ = grow()
    assert report["variants"]["direct"]["folds_done"] == "2 of 2 folds"
    report, said = grow(seeds=[0, 1])
    assert report["variants"]["direct"]["seeds_done"] == "2 of 2 seeds"
    assert "finished before" in said
    report, _ = grow(seeds=[0, 1], variants=["direct", "multitask-only"])
    assert report["variants"]["multitask-only"]["seeds_done"] == "2 of 2 seeds"
    assert not (folder / "model").exists()
    _, said = grow(seeds=[0, 1], variants=["direct", "multitask-only"], final=True)
    assert f"Model: {folder / 'model'}" in said
    assert (folder / "model" / "model.safetensors").is_file()
    # One that comes in front, where the final model is not asked for, points to what is there.
    trained: list[Path] = []
    original = plan.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "train", lambda path, task: (trained.append(path), original(path, task)))
        grow(seeds=[0, 1], variants=["gmp-atl", "multitask-only"])
    assert {path.name for path in trained} == {"3-retrain.unfinished", "4-finetune.unfinished"}
    assert len(trained) == 2 * 2 * 2


def test_a_report_counts_what_was_tested_so_far(corpus: Path, tmp_path: Path) -> None:
    recipe = recipe_dict(corpus, final=False, variants=["direct"], stages__finetune__num_train_epochs=1)
    report = run(recipe, tmp_path, folds=[2])
    summary = report["variants"]["direct"]
    rows = read_lines(tmp_path / "direct/seed-0/fold-02/predictions.jsonl")
    assert summary["folds"] == [2]
    assert summary["utterances"] == len(rows) == 18
    assert not (tmp_path / "direct/seed-0/fold-01").exists()


def test_predictions_are_made_again_when_only_the_test_recordings_have_changed(
    split_corpus: Path, tmp_path: Path
) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    recipe = given_split(root, final=False, variants=["direct"], stages__finetune__num_train_epochs=1)
    run(recipe, tmp_path / "run")
    fold = tmp_path / "run/direct/seed-0/fold-01"
    before, trained = digests(fold, "*.jsonl"), stamps(fold / "4-finetune")
    for file in (root / "test" / "anger").glob("*.wav"):
        file.write_bytes((root / "test" / "sadness" / file.name).read_bytes())
    run(recipe, tmp_path / "run")
    assert digests(fold, "*.jsonl") != before
    assert stamps(fold / "4-finetune") == trained


# ---- what a step depends on ------------------------------------------------------------------------------------------


def keys(recipe: dict[str, Any], folder: Path, processes: int | None = None) -> dict[str, str]:
    """Step → key, of the first variant, seed and fold; nothing is run."""
    planned = plan_run(Recipe.from_dict(recipe), folder)
    if processes is not None:
        planned.planner.processes = processes
        variant = recipe["variants"][0]
        again = planned.planner.plan(variant, planned.variants[variant], recipe["seeds"][0], planned.folds[0])
    else:
        again = planned.planned[0]
    return {step.folder.inputs["step"]: step.folder.key for step in again.steps}


@pytest.fixture(scope="module")
def keyed(corpus: Path) -> dict[str, Any]:
    return recipe_dict(corpus, variants=["gmp-atl"], seeds=[0])


ALL = {"1-multitask", "2-pseudo-labels", "3-retrain", "4-finetune"}


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"stages__multitask__learning_rate": 0.5}, ALL),
        ({"stages__retrain__learning_rate": 0.5}, {"3-retrain", "4-finetune"}),
        ({"stages__finetune__learning_rate": 0.5}, {"4-finetune"}),
        ({"stages__finetune__bf16": True}, {"4-finetune"}),
        ({"stages__finetune__model": {"am_softmax_margin": 0.1}}, {"4-finetune"}),
        ({"model": {"emotion_weight": 0.5}}, ALL),
        ({"pseudo_labels__clusters": [3, 4]}, ALL - {"1-multitask"}),
        ({"pseudo_labels__layers": [-1]}, ALL - {"1-multitask"}),
        ({"pseudo_labels__sample_frames": 100}, ALL - {"1-multitask"}),
        ({"pseudo_labels__seed": 1}, ALL - {"1-multitask"}),
        ({"pseudo_labels__source": "backbone"}, ALL - {"1-multitask"}),
        ({"data__max_seconds": 0.1}, ALL),
        ({"data__shuffle_labels": True}, ALL),
        ({"protocol__seed": 1}, ALL),
        ({"protocol__dev_speakers": 0}, ALL),
        ({"labels": {"anger": "anger", "neutral": "calm", "sadness": "sadness"}}, ALL),
        ({"backbone__hidden_dropout": 0.3}, ALL | {"backbone"}),
        ({"seeds": [1]}, ALL | {"backbone"}),
    ],
)
def test_keys_change_with_what_a_step_depends_on(
    keyed: dict[str, Any], tmp_path: Path, changes: dict[str, Any], steps: set[str]
) -> None:
    before, after = keys(keyed, tmp_path), keys(changed_recipe(keyed, **changes), tmp_path)
    assert {step for step in before if before[step] != after[step]} == steps


def test_keys_change_with_a_training_recording_and_not_with_where_it_lies(
    keyed: dict[str, Any], corpus: Path, tmp_path: Path
) -> None:
    before = keys(keyed, tmp_path)
    copied = write_corpus(tmp_path / "copy")
    recipe = changed_recipe(keyed, corpus__root=str(copied))
    assert keys(recipe, tmp_path) == before
    [split] = [each.fold for each in plan_run(Recipe.from_dict(recipe), tmp_path).planned[:1]]
    file = copied / "anger" / f"{split.train[0].removeprefix('folder/')}_0.wav"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # the last sample, a little; length and time of the file stay
    file.write_bytes(content)
    after = keys(recipe, tmp_path)
    assert {step for step in before if before[step] != after[step]} == ALL


def test_keys_do_not_change_with_names_and_what_else_is_asked_for(keyed: dict[str, Any], tmp_path: Path) -> None:
    before = keys(keyed, tmp_path / "one")
    changed = changed_recipe(
        keyed,
        name="other",
        final=False,
        seeds=[0, 5],
        variants=[{"name": "also-gmp-atl", "set": {"data.augment": "none"}}, "direct"],
    )
    assert keys(changed, tmp_path / "other") == before


@pytest.mark.parametrize("variant", ["gmp-atl", "direct-long"])
def test_what_is_finished_stays_finished_under_another_number_of_processes(
    keyed: dict[str, Any], tmp_path: Path, variant: str
) -> None:
    recipe = changed_recipe(keyed, variants=[variant])
    assert keys(recipe, tmp_path, processes=2) == keys(recipe, tmp_path)


def test_the_updates_of_all_stages_decide_how_long_a_training_is(keyed: dict[str, Any], tmp_path: Path) -> None:
    recipe = changed_recipe(keyed, variants=["direct-long"])
    longer = changed_recipe(recipe, stages__retrain__num_train_epochs=9)
    assert keys(recipe, tmp_path)["4-finetune"] != keys(longer, tmp_path)["4-finetune"]


def test_folds_trained_in_different_numbers_of_processes_are_reported_as_such(
    split_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = given_split(split_corpus, variants=["direct"], final=False, stages__finetune__num_train_epochs=1)
    assert run(recipe, tmp_path / "run")["stamps"] == []
    step = tmp_path / "run" / "direct/seed-0/fold-01/4-finetune/step.json"
    note = {name: value for name, value in read_json(step).items() if name != "sha256"}
    step.write_text(json.dumps(seal({**note, "manner": {"processes": 4}})))
    capsys.readouterr()
    assert run(recipe, tmp_path / "run")["stamps"] == [], "one number, though not this run's"
    assert "Note: finished trainings ran in 4 processes, this run has 1" in capsys.readouterr().out
    [stamp] = run(changed_recipe(recipe, seeds=[0, 1]), tmp_path / "run")["stamps"]
    assert "Trainings ran in 1 and 4 processes" in stamp


def test_half_a_training_is_not_continued_by_another_number_of_processes(
    split_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = given_split(split_corpus, variants=["direct"], final=False, stages__finetune__num_train_epochs=3)
    run_until(recipe, tmp_path / "run", "after_step", stage="4-finetune", step=2)
    started = next((tmp_path / "run").rglob("started.json"))
    started.write_text(started.read_text().replace('"processes": 1', '"processes": 2'))
    with pytest.raises(RequestError, match=r"4-finetune\.unfinished was begun otherwise: processes: 2 → 1"):
        run(recipe, tmp_path / "run")
