"""Settings of the fine-tuning that each fold's development speakers choose."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.evaluation.calibration import fit_temperature
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run import search, steps
from gmp_atl_hf.run.search import Candidate, choose_for_all, dev_logits_of, train_candidates
from kills import run_until
from recipes import SMALL, recipe, refused
from runs import EMOTIONS, SPLIT, digests, given_split, read_json, read_lines, recipe_dict, results, run, write_corpus

RATE = "stages.finetune.learning_rate"
RATES = [1e-9, 3e-3]
WEIGHTS = ("model.safetensors", "training.json", "dev_logits.jsonl")

# ---- the recipe ------------------------------------------------------------------------------------------------------


def test_every_combination_is_a_candidate_in_the_order_written() -> None:
    made = recipe(variants=["direct"], search={RATE: [1e-3, 1e-4], "stages.finetune.num_train_epochs": [2, 4]})
    found = [each.stages.finetune.arguments for each in made.method("direct").candidates()]
    settings = [(each["learning_rate"], each["num_train_epochs"]) for each in found]
    assert settings == [(1e-3, 2), (1e-3, 4), (1e-4, 2), (1e-4, 4)]


def test_a_candidate_has_nothing_left_to_search() -> None:
    made = recipe(variants=["direct"], search={RATE: [1e-3, 1e-4]}).method("direct")
    assert [each.search for each in made.candidates()] == [{}, {}]


def test_a_recipe_without_search_is_its_own_only_candidate() -> None:
    made = recipe(variants=["direct"])
    assert made.method("direct").candidates() == (made.method("direct"),)
    assert "search" not in made.to_dict()


def test_a_search_survives_yaml(tmp_path: Path) -> None:
    made = recipe(search={RATE: [1e-3, 1e-4]})
    file = tmp_path / "recipe.yaml"
    file.write_text(made.to_yaml(), encoding="utf-8")
    assert Recipe.from_yaml(file) == made


@pytest.mark.parametrize(
    ("searched", "found"),
    [
        ({"stages.multitask.learning_rate": [1, 2]}, "`search` has `stages.multitask.learning_rate`"),
        ({"stages.finetune.skip": [True, False]}, "`search` has `stages.finetune.skip`"),
        ({RATE: [1e-3]}, f"`search.{RATE}` has 1 values"),
        ({RATE: [1e-3, 1e-3]}, f"`search.{RATE}` has 0.001 twice"),
        ({RATE: 1e-3}, f"`search.{RATE}` is 0.001, a number"),
        ({"stages.finetune.model": [{}, 1], "stages.finetune.model.pooling": ["mean", "attention"]}, "`search` has"),
    ],
)
def test_what_cannot_be_searched_is_refused(searched: dict[str, Any], found: str) -> None:
    assert refused({**SMALL, "search": searched}).found.startswith(found)


def test_what_a_variant_sets_is_not_searched() -> None:
    low = {"name": "low", "set": {RATE: 1e-5}}
    assert "the variant low sets" in refused({**SMALL, "variants": ["direct", low], "search": {RATE: [1, 2]}}).found
    losses = {"stages.finetune.model.emotion_loss": ["am-softmax", "cross-entropy"]}
    assert "the variant cross-entropy sets" in refused({**SMALL, "variants": ["cross-entropy"], "search": losses}).found


def test_a_search_may_be_nested_or_set_on_the_command_line(tmp_path: Path) -> None:
    nested = recipe(search={"stages": {"finetune": {"learning_rate": [1, 2]}}})
    assert nested.search == {RATE: (1, 2)}
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe().to_yaml(), encoding="utf-8")
    assert Recipe.from_yaml(file, [f"search.{RATE}=[1, 2]"]).search == {RATE: (1, 2)}


def test_a_misspelt_setting_is_refused_with_the_right_one() -> None:
    with pytest.raises(RequestError) as caught:
        recipe(search={"stages.finetune.learning_rat": [1, 2]}).check_field_names()
    assert "did you mean `learning_rate`?" in str(caught.value)


def test_variants_search_the_same() -> None:
    refusal = refused({**SMALL, "variants": [{"name": "mine", "set": {"search": {RATE: [1, 2]}}}]})
    assert "search" in (refusal.expected or "")


def test_folds_without_development_speakers_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split={**SPLIT, "m2": "train"})
    with pytest.raises(RequestError, match="no development speakers"):
        run(given_split(root, search={RATE: RATES}, protocol__dev_speakers=0), tmp_path / "run")
    assert not (tmp_path / "run" / "gmp-atl").exists()


# ---- the run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """One run without search per learning rate."""
    folders = {rate: tmp_path_factory.mktemp("alone") / "run" for rate in RATES}
    for rate, folder in folders.items():
        run(searching(corpus, None, stages__finetune__learning_rate=rate, final=False), folder)
    return folders


@pytest.fixture(scope="module")
def searched(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("searched") / "run"
    return folder, run(searching(corpus, RATES), folder)


def searching(root: Path, rates: list[float] | None, **changes: Any) -> dict[str, Any]:
    grid = {} if rates is None else {"search": {RATE: rates}}
    epochs = {"stages__finetune__num_train_epochs": 4}
    return recipe_dict(root, variants=["direct"], **grid, **epochs, **changes)


def finetuned(folder: Path, fold: int) -> Path:
    return folder / "direct" / "seed-0" / f"fold-{fold:02d}" / "4-finetune"


@pytest.mark.parametrize("fold", [1, 2])
def test_the_choice_is_the_best_on_development_speakers(
    searched: tuple[Path, dict[str, Any]], alone: dict[float, Path], fold: int
) -> None:
    found = read_json(finetuned(searched[0], fold) / "search.json")
    scores = [read_json(finetuned(alone[rate], fold) / "training.json")["best_dev_uar"] for rate in RATES]
    assert [each["best_dev_uar"] for each in found["candidates"]] == scores
    assert [each["overrides"] for each in found["candidates"]] == [{RATE: rate} for rate in RATES]
    assert found["chosen"] == scores.index(max(scores))
    assert scores[0] != scores[1]  # or nothing was there to choose


@pytest.mark.parametrize("fold", [1, 2])
def test_the_model_is_that_of_a_run_with_the_chosen_settings_alone(
    searched: tuple[Path, dict[str, Any]], alone: dict[float, Path], fold: int
) -> None:
    chosen = RATES[read_json(finetuned(searched[0], fold) / "search.json")["chosen"]]
    assert digests(finetuned(searched[0], fold), *WEIGHTS) == digests(finetuned(alone[chosen], fold), *WEIGHTS)
    ours, theirs = (finetuned(each, fold).parent / "predictions.jsonl" for each in (searched[0], alone[chosen]))
    assert ours.read_bytes() == theirs.read_bytes()


def test_weights_that_were_not_chosen_are_deleted(searched: tuple[Path, dict[str, Any]]) -> None:
    assert not list(searched[0].rglob("candidates"))
    for fold in (1, 2):
        assert [file.name for file in finetuned(searched[0], fold).glob("*.safetensors")] == ["model.safetensors"]


def test_the_report_says_what_was_chosen_how_often(searched: tuple[Path, dict[str, Any]]) -> None:
    folder, report = searched
    chosen = [read_json(finetuned(folder, fold) / "search.json")["chosen"] for fold in (1, 2)]
    counts = [chosen.count(number) for number in (0, 1)]
    sentence = (
        f"direct: development speakers chose learning_rate 1e-09 in {counts[0]}, "
        f"learning_rate 0.003 in {counts[1]} of 2 fine-tunings."
    )
    assert sentence in report["notes"]
    assert sentence in (folder / "report.md").read_text(encoding="utf-8")


def test_a_searched_run_that_is_finished_has_nothing_left_to_do(
    searched: tuple[Path, dict[str, Any]], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digests(searched[0], "**/*.safetensors")
    run(searching(corpus, RATES), searched[0])
    assert "nothing was left to do" in capsys.readouterr().out
    assert digests(searched[0], "**/*.safetensors") == before


def test_the_final_model_has_the_settings_that_were_best_on_average(searched: tuple[Path, dict[str, Any]]) -> None:
    found = [read_json(finetuned(searched[0], fold) / "search.json")["candidates"] for fold in (1, 2)]
    means = [statistics.mean(fold[number]["best_dev_uar"] for fold in found) for number in (0, 1)]
    best = means.index(max(means))
    everyone = read_json(searched[0] / "direct" / "seed-0" / "all-speakers" / "4-finetune" / "step.json")["inputs"]
    assert everyone["arguments"]["learning_rate"] == RATES[best]
    assert everyone["stop_after"] == statistics.median(fold[best]["best_epoch"] for fold in found)


@pytest.mark.parametrize(
    ("point", "where"),
    [
        ("after_step", {"stage": "4-finetune · 2 of 2", "step": 3}),
        ("around_the_file", {"ending": "search.json", "written": False}),
        ("around_the_file", {"ending": "search.json", "written": True}),
    ],
)
@pytest.mark.slow
def test_a_search_that_was_killed_ends_as_an_undisturbed_one(
    corpus: Path, searched: tuple[Path, dict[str, Any]], tmp_path: Path, point: str, where: dict[str, Any]
) -> None:
    recipe, folder = searching(corpus, RATES), tmp_path / "run"
    run_until(recipe, folder, point, **where)
    trained: list[str] = []
    original = steps.GMPATLTrainer

    def noted(*args: Any, **options: Any) -> Any:
        trained.append(str(options.get("description")))
        return original(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "GMPATLTrainer", noted)
        run(recipe, folder)
    # A training that goes on in the middle of an epoch logs the mean loss of the steps since then.
    logs = {"direct/seed-0/fold-01/4-finetune/training.json"}
    found, expected = results(folder), results(searched[0])
    assert {name for name in {*found, *expected} if found.get(name) != expected.get(name)} <= logs
    chosen = [read_json(finetuned(each, 1) / "search.json") for each in (folder, searched[0])]
    assert chosen[0] == chosen[1]
    first = [name for name in trained if "fold-01 · 4-finetune · 1 of 2" in name]
    assert first == [], "a candidate that was finished is trained again"


def test_the_card_says_what_was_searched_and_what_this_model_has(searched: tuple[Path, dict[str, Any]]) -> None:
    here = choose_for_all([finetuned(searched[0], fold) for fold in (1, 2)])[0][RATE]
    card = (searched[0] / "model" / "README.md").read_text(encoding="utf-8")
    assert f"learning_rate, chosen in each fold by development speakers | of 1e-09, 0.003; {here} in this model" in card


def test_a_changed_value_is_refused_by_its_name(searched: tuple[Path, dict[str, Any]], corpus: Path) -> None:
    with pytest.raises(RequestError, match=r"candidates\.1\.arguments\.learning_rate: 0\.003 → 0\.002"):
        run(searching(corpus, [RATES[0], 2e-3]), searched[0])


def test_the_final_temperature_is_that_of_the_settings_of_the_final_model(
    searched: tuple[Path, dict[str, Any]], alone: dict[float, Path]
) -> None:
    folders = [finetuned(searched[0], fold) for fold in (1, 2)]
    rate = choose_for_all(folders)[0][RATE]
    rows = [row for fold in (1, 2) for row in read_lines(finetuned(alone[rate], fold) / "dev_logits.jsonl")]
    expected = fit_temperature(
        np.asarray([row["logits"] for row in rows]), [EMOTIONS.index(r["emotion"]) for r in rows]
    )
    assert read_json(searched[0] / "model" / "config.json")["logit_temperature"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("fold", [1, 2])
def test_development_logits_of_every_candidate_are_kept(
    searched: tuple[Path, dict[str, Any]], alone: dict[float, Path], fold: int
) -> None:
    for rate in RATES:
        kept = dev_logits_of(finetuned(searched[0], fold), {RATE: rate})
        assert kept.read_bytes() == (finetuned(alone[rate], fold) / "dev_logits.jsonl").read_bytes()


def test_several_settings_at_once_are_named_one_by_one(tmp_path: Path) -> None:
    tried = [{"overrides": {"stages.finetune.model": each, RATE: 1}} for each in ({}, {"hidden_dropout": 0.1})]
    (tmp_path / "search.json").write_text(json.dumps({"chosen": 1, "candidates": tried}), encoding="utf-8")
    step = SimpleNamespace(finished=True, resolve=lambda: tmp_path)
    assert search.describe_choices("direct", [step]) == (  # type: ignore[list-item]
        "direct: development speakers chose model () and learning_rate 1 in 0, "
        "model (hidden_dropout 0.1) and learning_rate 1 in 1 of 1 fine-tunings."
    )


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([{RATE: 1}, {RATE: 2}], None),
        ([{"stages.finetune.average_epochs": 0}, {"stages.finetune.average_epochs": 3}], "average_epochs"),
        (
            [{"stages.finetune": {}}, {"stages.finetune": {"num_train_epochs": 9, "eval_steps": 4}}],
            "num_train_epochs and eval_steps",
        ),
        ([{"stages.finetune": {"num_train_epochs": 9, "seed": n}} for n in (1, 2)], None),
    ],
)
def test_values_with_other_numbers_of_evaluations_are_told(
    tmp_path: Path, values: list[dict[str, Any]], names: str | None
) -> None:
    found = {"chosen": 1, "candidates": [{"overrides": each} for each in values]}
    (tmp_path / "search.json").write_text(json.dumps(found), encoding="utf-8")
    step = SimpleNamespace(finished=True, resolve=lambda: tmp_path)
    described = search.describe_choices("direct", [step])  # type: ignore[list-item]
    told = f" With {names} the number of evaluations changes"
    assert described is not None and (told in described if names else "evaluations" not in described)


# ---- the step --------------------------------------------------------------------------------------------------------


def candidates(scores: list[float | None], trained: list[int]) -> list[Candidate]:
    def of(number: int, score: float | None) -> Candidate:
        def train(folder: Path) -> None:
            trained.append(number)
            (folder / "model.safetensors").write_text(str(number), encoding="utf-8")
            training = {"best_dev_uar": score, "best_step": 10 * number}
            (folder / "training.json").write_text(json.dumps(training), encoding="utf-8")

        return Candidate({RATE: number}, train)

    return [of(number, score) for number, score in enumerate(scores)]


def test_the_first_among_equals_is_kept(tmp_path: Path) -> None:
    train_candidates(tmp_path, candidates([0.3, 0.5, 0.5], []))
    assert (tmp_path / "model.safetensors").read_text(encoding="utf-8") == "1"
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "training.json", "search.json"}


def test_a_candidate_that_was_never_evaluated_is_not_chosen(tmp_path: Path) -> None:
    train_candidates(tmp_path, candidates([None, 0.1], []))
    assert (tmp_path / "model.safetensors").read_text(encoding="utf-8") == "1"


def test_candidates_that_were_never_evaluated_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="ever evaluated"):
        train_candidates(tmp_path, candidates([None, None], []))


def test_a_choice_that_was_cut_off_while_files_were_moved_is_finished_without_training(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(search, "_keep", _move_one_and_stop)
        train_candidates(tmp_path, candidates([0.3, 0.5], []))
    trained: list[int] = []
    train_candidates(tmp_path, candidates([0.9, 0.1], trained))
    assert trained == []
    assert (tmp_path / "model.safetensors").read_text(encoding="utf-8") == "1"
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "training.json", "search.json"}


def _move_one_and_stop(chosen: Path, folder: Path) -> None:
    (chosen / "model.safetensors").replace(folder / "model.safetensors")
    raise KeyboardInterrupt
