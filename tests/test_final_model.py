"""The model to ship, where cross-validation has left nobody to test it on, and where nobody chose the epoch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import yaml
from transformers import TrainerControl, TrainerState, TrainingArguments

from gmp_atl_hf.environment import describe_environment
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.evaluation.calibration import fit_temperature
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run import final_model, perform
from gmp_atl_hf.run.final_length import Stop, best_epoch, stop_like
from gmp_atl_hf.run.plan import plan_run
from gmp_atl_hf.training.callbacks import StopAtEpoch
from runs import EMOTIONS, SPEAKERS, SPLIT, digests, given_split, read_json, read_lines, recipe_dict, run, write_corpus

VARIANT = "multitask-only"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def crossed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds; fine-tuning is too slow to become better after its first epoch, so patience runs out."""
    folder = tmp_path_factory.mktemp("crossed") / "run"
    recipe = recipe_dict(
        corpus,
        variants=[VARIANT, "direct"],
        protocol__folds=3,
        stages__multitask__num_train_epochs=2,
        stages__finetune__num_train_epochs=5,
        stages__finetune__learning_rate=1e-9,
        stages__finetune__early_stopping_patience=1,
        # Tame logits, so that the best temperature is no extreme.
        model__am_softmax_scale=2.0,
    )
    run(recipe, folder, command="gmp-atl run tones.yaml")
    return folder


def trained(folder: Path, fold: str, step: str) -> dict[str, Any]:
    content: dict[str, Any] = read_json(folder / VARIANT / "seed-0" / fold / step / "training.json")
    return content


FOLDS = ("fold-01", "fold-02", "fold-03")


def test_it_is_trained_for_the_median_best_epoch_and_without_early_stopping(crossed: Path) -> None:
    for step in ("1-multitask", "4-finetune"):
        folds = [trained(crossed, fold, step) for fold in FOLDS]
        steps = [next(entry["step"] for entry in fold["log"] if entry["epoch"] == 1) for fold in folds]
        best = [fold["best_step"] / of_one for fold, of_one in zip(folds, steps, strict=True)]
        everyone = trained(crossed, "all-speakers", step)
        assert everyone["updates"] == 6 * median(best) > median(fold["best_step"] for fold in folds)
    finetuned = trained(crossed, "all-speakers", "4-finetune")
    assert finetuned["updates"] == 6, "one epoch, though patience let each fold begin a second one"
    assert trained(crossed, FOLDS[0], "4-finetune")["updates"] == 2 * 3
    # The schedule of the whole length, of which only the beginning is trained.
    assert finetuned["planned_updates"] == 5 * 6
    assert not any("eval_loss" in entry for entry in finetuned["log"])


def test_a_finished_model_is_not_that_of_another_variant(crossed: Path) -> None:
    recipe = yaml.safe_load((crossed / "recipe.yaml").read_text(encoding="utf-8"))
    digest, model = digests(crossed), digests(crossed, "model/**/*")
    with pytest.raises(
        RequestError, match=f"is the model of {VARIANT}, seed 0; the first variant .* is direct"
    ) as found:
        run({**recipe, "variants": ["direct"]}, crossed)
    assert f"list the variant {VARIANT} and the seed 0 first, add --set final=false" in str(found.value)
    assert digests(crossed) == digest
    run({**recipe, "variants": ["direct"], "final": False}, crossed)  # the way out that is named
    assert digests(crossed, "model/**/*") == model
    run(recipe, crossed)


def test_the_card_says_how_many_epochs_that_is(crossed: Path) -> None:
    assert ": 1 epochs, the median of the folds |" in (crossed / "model/README.md").read_text()


def test_a_model_that_an_older_version_made_by_steps_stays_as_it_is(crossed: Path, tmp_path: Path) -> None:
    plan = plan_run(Recipe.from_yaml(crossed / "recipe.yaml"), crossed)
    folds = plan.of(VARIANT, 0)
    by_epochs = final_model._plan_all_speakers(plan, VARIANT, 0, folds)
    assert by_epochs.finetune.inputs["stop_after"] == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(final_model, "stop_like", final_model.stop_at_step)
        by_steps = final_model._plan_all_speakers(plan, VARIANT, 0, folds)
    step = by_steps.find("multitask")
    assert step is not None and step.inputs["stop_at"] == median(
        trained(crossed, fold, "1-multitask")["best_step"] for fold in FOLDS
    )
    kept = step.path.rename(tmp_path / "kept")
    step.path.mkdir()
    (step.path / "step.json").write_text(json.dumps({"key": step.key, "inputs": dict(step.inputs)}))
    assert final_model._plan_all_speakers(plan, VARIANT, 0, folds).finetune.key == by_steps.finetune.key
    shutil.rmtree(step.path)
    kept.rename(step.path)
    assert final_model._plan_all_speakers(plan, VARIANT, 0, folds).finetune.key == by_epochs.finetune.key


@pytest.mark.parametrize(("epochs", "steps"), [(2.0, 134), (2.84, 190), (3.6, 241), (0.001, 1)])
def test_a_training_ends_at_the_step_next_to_its_number_of_epochs(epochs: float, steps: int) -> None:
    def asks_to_stop(step: int, called: str = "on_step_end") -> bool:
        state, control = TrainerState(global_step=step, epoch=step / 67, max_steps=268), TrainerControl()
        getattr(StopAtEpoch(epochs), called)(TrainingArguments(use_cpu=True), state, control)
        return control.should_training_stop

    assert [step for step in range(1, 269) if asks_to_stop(step)][:1] == [steps]
    assert asks_to_stop(steps, "on_train_begin")
    assert not asks_to_stop(0, "on_train_begin")


def test_epochs_of_the_folds_are_counted_in_steps_of_their_own() -> None:
    logs = [[{"epoch": n, "step": n * steps} for n in (1, 2, 3, 4)] for steps in (44, 47, 51)]
    folds = [{"best_step": 4 * log[0]["step"], "log": log} for log in logs]
    noted = [{**fold, "best_epoch": best_epoch(fold)} for fold in folds]
    assert stop_like(noted) == Stop(epoch=4.0)
    assert stop_like([*noted[:2], {**folds[2], "best_epoch": None}]) == Stop(step=188), "a fold that logged nothing"
    assert stop_like(folds) == Stop(step=188), "folds of a search by an older version"
    assert best_epoch({"best_step": 66, "log": logs[0]}) == 1.5
    assert best_epoch({"best_step": 9, "log": []}) is None


def test_it_is_trained_on_every_speaker(crossed: Path) -> None:
    for step in ("1-multitask", "4-finetune"):
        data = read_json(crossed / VARIANT / "seed-0/all-speakers" / step / "step.json")["inputs"]["data"]
        assert (data["train"], data["dev"]) == ([f"folder/{name}" for name in SPEAKERS], [])


def test_its_weights_are_those_of_all_speakers_and_only_the_first_variant_has_them(crossed: Path) -> None:
    everyone = crossed / VARIANT / "seed-0/all-speakers/4-finetune"
    assert digests(crossed / "model", "*.safetensors") == digests(everyone, "*.safetensors")
    assert not (crossed / "direct/seed-0/all-speakers").exists()


def test_its_temperature_comes_from_development_logits_of_the_folds_own_models(crossed: Path) -> None:
    rows = [
        row for fold in FOLDS for row in read_lines(crossed / VARIANT / "seed-0" / fold / "4-finetune/dev_logits.jsonl")
    ]
    dev = [name for fold in FOLDS for name in read_json(crossed / VARIANT / "seed-0" / fold / "split.json")["dev"]]
    assert sorted({f"folder/{row['id'].split('/')[2].split('_')[0]}" for row in rows}) == sorted(set(dev))
    expected = fit_temperature(np.asarray([r["logits"] for r in rows]), [EMOTIONS.index(r["emotion"]) for r in rows])
    assert read_json(crossed / "model/config.json")["logit_temperature"] == pytest.approx(expected)
    assert expected != 1


def test_its_card_says_whose_the_figures_are_and_how_they_were_made(crossed: Path) -> None:
    card, report = (crossed / "model/README.md").read_text(), read_json(crossed / "report.json")
    assert "has itself not been tested" in card
    assert report["protocol"]["sentence"] in card
    assert "`gmp-atl run tones.yaml`" in card
    assert "3 of 3 folds" in card
    assert "1 of 1 seeds (0)" in card
    assert f"{100 * report['variants'][VARIANT]['uar']['pooled']:.1f}" in card
    assert "pipeline_tag: audio-classification" in card
    assert "anger, neutral, sadness" in card


def test_without_development_speakers_the_last_step_is_kept_and_nothing_is_calibrated(
    corpus: Path, tmp_path: Path
) -> None:
    recipe = recipe_dict(
        corpus,
        protocol__dev_speakers=0,
        variants=["gmp-atl"],
        stages__multitask__num_train_epochs=1,
        stages__retrain__num_train_epochs=1,
        stages__finetune__num_train_epochs=2,
        stages__finetune__early_stopping_patience=1,
    )
    run(recipe, tmp_path)
    for fold in ("fold-01", "fold-02"):
        folder = tmp_path / "gmp-atl/seed-0" / fold
        assert read_json(folder / "split.json")["dev"] == []
        training = read_json(folder / "4-finetune/training.json")
        # 3 speakers, 18 recordings, 6 to an update
        assert (training["best_step"], training["updates"], training["best_dev_uar"]) == (6, 6, None)
        assert not list(folder.rglob("dev_logits.jsonl"))
    everyone = read_json(tmp_path / "gmp-atl/seed-0/all-speakers/4-finetune/training.json")
    assert everyone["updates"] == 12  # two epochs too, of all 36 recordings
    assert read_json(tmp_path / "model/config.json")["logit_temperature"] == 1


def test_the_model_of_a_single_fold_was_tested_itself_and_says_so(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    recipe = given_split(root, variants=["direct"], stages__finetune__num_train_epochs=1, data__shuffle_labels=True)
    run(recipe, tmp_path / "run")
    card = (tmp_path / "run/model/README.md").read_text()
    assert "this very model on unseen speakers" in card
    assert "shuffled" in card
    tested = read_json(tmp_path / "run/report.json")["variants"]["direct"]["utterances"]
    assert f" The {tested} test utterances of the figures above are among them, and were not trained on." in card
    assert not (tmp_path / "run/direct/seed-0/all-speakers").exists()


def test_the_card_follows_a_run_that_grows_and_stays_as_it_is_when_nothing_is_done(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    recipe = given_split(root, variants=["direct"], stages__finetune__num_train_epochs=1)
    run(recipe, tmp_path / "run")
    card, weights = tmp_path / "run/model/README.md", tmp_path / "run/model/model.safetensors"
    before = card.read_text(), weights.stat().st_mtime_ns
    assert "1 of 1 seeds (0)" in before[0]
    report = run({**recipe, "seeds": [0, 1]}, tmp_path / "run")
    after = card.read_text()
    assert "2 of 2 seeds (0, 1)" in after
    assert f"{100 * report['variants']['direct']['uar']['pooled']:.1f}" in after
    assert weights.stat().st_mtime_ns == before[1]
    written = card.stat().st_mtime_ns
    run({**recipe, "seeds": [0, 1]}, tmp_path / "run")
    assert card.stat().st_mtime_ns == written


def test_the_environment_is_that_of_the_trainings_not_of_a_report_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    recipe = given_split(root, variants=["direct"], stages__finetune__num_train_epochs=1, final=False)
    here = describe_environment()

    def run_on(machine: str, **changes: Any) -> Any:
        monkeypatch.setattr(perform, "describe_environment", lambda: {**here, "platform": machine})
        return run({**recipe, **changes}, tmp_path / "run")["environment"]["platform"]

    assert run_on("A") == "A"
    assert run_on("B") == "A"
    assert run_on("C", final=True) == "C"
    assert run_on("D", final=True) == "C"
    assert run_on("E", final=True, seeds=[0, 1]) == "E"
