"""The method by hand, without recipe and runner: the example, its scores, and what a training refuses to touch."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Audio, Dataset, concatenate_datasets
from safetensors.torch import load_file
from transformers import HubertModel, TrainerCallback

import gmp_atl_hf as gmp
from gmp_atl_hf.checkpoints import locate
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from gmp_atl_hf.recipe.sections import PseudoLabelSpec
from gmp_atl_hf.run.stages import MODEL_CLASSES
from models import tiny_hubert_config
from runs import changed_recipe, files_of, read_json, read_lines, run
from tables import feature_extractor, small_model, speech_table, training_arguments

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "four_steps.py"
needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason='needs pip install "gmp-atl-hf[demo]"'
)


# ---- the example -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The example's own variables after a run on 24 clips, with one epoch of each training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path_factory.mktemp("hand")), "--sizes", *"61111"])
        return runpy.run_path(str(EXAMPLE))


def test_the_example_can_be_read_at_a_glance_and_uses_public_names_only() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 35
    assert [line for line in lines if "import" in line] == [
        "from transformers import HfArgumentParser, set_seed",
        "import gmp_atl_hf as gmp",
    ]


def test_the_example_explains_its_arguments_and_trains_nothing_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(EXAMPLE))
    assert "folder for all that is made" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_example_wants_all_its_sizes_or_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "out", "--sizes", "6", "1"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(EXAMPLE))
    assert "--sizes: expected 5 arguments" in capsys.readouterr().err


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "by-hand.md").read_text(encoding="utf-8")
    code = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert [line for line in code if line.strip() and line not in page] == []


@needs_espeak
def test_by_hand_the_scores_are_those_of_the_recipe_to_the_last_bit(hand: dict[str, Any], tmp_path: Path) -> None:
    # On one machine and in one process nothing is left to differ: same rows, same seeds, same order of operations.
    changes = {
        "variants": ["gmp-atl"],
        "corpus": {"name": "demo", "root": f"{hand['out']}/corpus", "speakers": 6, "sentences": 1},
        **{f"stages__{name}__num_train_epochs": 1 for name in ("multitask", "retrain", "finetune")},
    }
    run(changed_recipe(gmp.Recipe.from_yaml("demo").to_dict(), **changes), tmp_path)
    for by_hand, step in (("1", "1-multitask"), ("3", "3-retrain"), ("4", "4-finetune")):
        expected = load_file(tmp_path / "gmp-atl" / "seed-0" / "fold-01" / step / "model.safetensors")
        made = load_file(Path(hand["out"], by_hand, "model.safetensors"))
        assert made.keys() == expected.keys()
        assert [name for name in made if not torch.equal(made[name], expected[name])] == [], step
    shipped, made_config = read_json(tmp_path / "model" / "config.json"), hand["trainer"].model.config
    assert shipped["logit_temperature"] == made_config.logit_temperature != 1.0
    fold = tmp_path / "gmp-atl" / "seed-0" / "fold-01"
    scored = hand["trainer"].evaluate(hand["parts"]["test"])
    metrics = read_json(fold / "metrics.json")
    assert (scored["eval_uar"], scored["eval_war"]) == (metrics["uar"], metrics["war"])
    classify = gmp.SpeechEmotionClassifier.from_pretrained(f"{hand['out']}/4", device="cpu")
    assert classify.labels == list(read_lines(fold / "predictions.jsonl")[0]["scores"])


@needs_espeak
def test_by_hand_one_front_end_cache_serves_all_and_no_optimiser_stays(hand: dict[str, Any]) -> None:
    files = files_of(Path(hand["out"]))
    features = [file for file in files if file.endswith(".npy")]
    assert len(features) == len(hand["table"]) == 24
    assert all(file.startswith("front-end/") for file in features)
    assert not [file for file in files if "optimizer" in file]


# ---- checkpoints by their names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*MODEL_CLASSES.values(), gmp.GMPATLConfig, gmp.GMPATLModel])
def test_the_encoder_that_comes_along_is_known_by_its_name(kind: Any) -> None:
    fields = {"frame_scales": {"gmp_layer4_k5": 5}} if kind is gmp.HubertForGMPATLFrameClassification else {}
    loaded = kind.from_pretrained("mini", **fields)
    config = getattr(loaded, "config", loaded)
    assert (config.model_type, config.hidden_size) == ("gmp_atl", 256)
    if loaded is not config:
        assert loaded.dtype == torch.float32
        stored = load_file(Path(locate("mini"), "model.safetensors"))
        name = "encoder.layers.0.attention.k_proj.weight"
        assert torch.equal(getattr(loaded, "hubert", loaded).state_dict()[name], stored[name].float())


def test_the_encoder_alone_has_the_states_of_the_encoder_in_a_model_also_by_its_folder() -> None:
    clip = 0.1 * torch.randn(1, 8_000, generator=torch.Generator().manual_seed(0))
    within = gmp.HubertForGMPATL.from_pretrained("mini").eval().hubert
    for place in ("mini", locate("mini")):
        alone = gmp.GMPATLModel.from_pretrained(place).eval()
        with torch.inference_mode():
            assert torch.equal(alone(clip).last_hidden_state, within(clip).last_hidden_state)
    assert gmp.GMPATLModel.from_pretrained("mini", dtype=torch.float16).dtype == torch.float16


def test_a_model_without_emotions_is_no_classifier_also_by_its_name() -> None:
    with pytest.raises(RequestError, match="a 'hubert' model .*no fine-tuned emotion classifier"):
        gmp.SpeechEmotionClassifier.from_pretrained("mini")


@pytest.mark.parametrize(
    "load",
    [
        gmp.HubertForGMPATL.from_pretrained,
        gmp.GMPATLModel.from_pretrained,
        gmp.GMPATLConfig.from_pretrained,
        gmp.load_feature_extractor,
        gmp.SpeechEmotionClassifier.from_pretrained,
    ],
)
def test_a_name_that_does_not_come_along_is_refused_without_asking_the_hub(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((OSError, RequestError), match=r"'gigantic' is neither a folder nor an encoder .*mini"):
        load("gigantic")


def test_a_folder_goes_before_an_encoder_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_model(gmp.HubertForGMPATL).save_pretrained("mini")
    assert gmp.HubertForGMPATL.from_pretrained("mini").config.hidden_size == 32
    assert gmp.GMPATLConfig.from_pretrained(Path("mini")).hidden_size == 32


# ---- what a training begins with -------------------------------------------------------------------------------------


def masks(model: GMPATLPreTrainedModel) -> tuple[float, int, int]:
    config = model.config
    return config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks


def test_masks_are_the_method_s_where_a_training_begins_and_the_checkpoint_s_where_it_goes_on(tmp_path: Path) -> None:
    HubertModel(tiny_hubert_config(mask_time_prob=0.3)).save_pretrained(tmp_path / "0")
    scales = {"frame_scales": {"gmp_layer1_k5": 5}}
    student = gmp.HubertForGMPATLFrameClassification.from_pretrained(tmp_path / "0", **scales)
    assert masks(student) == (0.8, 10, 1)
    student.save_pretrained(tmp_path / "3")
    assert masks(gmp.HubertForGMPATL.from_pretrained(tmp_path / "3")) == (0.05, 10, 0)
    assert masks(gmp.HubertForGMPATLMultiTask.from_pretrained(tmp_path / "0")) == (0.05, 10, 0)
    own = gmp.HubertForGMPATLFrameClassification.from_pretrained(tmp_path / "0", mask_time_prob=0.2, **scales)
    assert masks(own) == (0.2, 10, 1)
    own.save_pretrained(tmp_path / "own")
    assert masks(gmp.HubertForGMPATLFrameClassification.from_pretrained(tmp_path / "own")) == (0.2, 10, 1)


def test_k_means_by_hand_draws_as_many_frames_as_a_recipe() -> None:
    assert gmp.MultiScaleKMeans.fit_model.__defaults__[:2] == ((-3,), PseudoLabelSpec().sample_frames)  # type: ignore[index]


# ---- tables, clusters ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table() -> Dataset:
    """Twelve clips of four speakers, who have three each."""
    tones = speech_table(12)
    return tones.add_column("speaker", [f"tones/{row % 4}" for row in range(len(tones))])


def of_speakers(table: Dataset, *numbers: int) -> Dataset:
    return table.select([row for row, name in enumerate(table["speaker"]) if int(name[-1]) in numbers])


def test_label_maps_are_what_a_model_takes_and_names_need_a_class_label(table: Dataset) -> None:
    maps = gmp.label_maps(table)
    assert maps == {
        "id2label": {0: "anger", 1: "neutral", 2: "sadness"},
        "label2id": {"anger": 0, "neutral": 1, "sadness": 2},
    }
    assert gmp.GMPATLConfig.from_pretrained("mini", **maps).id2label == maps["id2label"]
    with pytest.raises(RequestError, match="no emotion of datasets.ClassLabel"):
        gmp.label_maps(table.remove_columns("emotion"))


def test_clusters_of_a_model_know_their_scales_and_whose_frames_they_are(table: Dataset, tmp_path: Path) -> None:
    model, extractor = small_model(gmp.HubertForGMPATLMultiTask), feature_extractor()
    kmeans = gmp.MultiScaleKMeans([4, 6]).fit_model(model, of_speakers(table, 0, 1), extractor, layers=[-1])
    assert kmeans.frame_scales == {"gmp_layer2_k4": 4, "gmp_layer2_k6": 6}
    assert kmeans.scales["gmp_layer2_k4"].training_speakers == ["tones/0", "tones/1"]
    kmeans.save(tmp_path)
    assert gmp.MultiScaleKMeans.load(tmp_path).frame_scales == kmeans.frame_scales
    with pytest.raises(RequestError, match="no column speaker"):
        gmp.MultiScaleKMeans([4]).fit_model(model, table.remove_columns("speaker"), extractor, layers=[-1])
    with pytest.raises(RequestError, match="no rows"):
        gmp.attach_pseudo_labels(table.select([]), kmeans, model, extractor)


# ---- held-out rows ---------------------------------------------------------------------------------------------------


def trainer_of(folder: Path, train: Dataset, dev: Dataset | None, held_out: Dataset | None, **fields: Any) -> Any:
    model = small_model(gmp.HubertForGMPATL, **fields)
    arguments = training_arguments(folder, num_train_epochs=1, eval_strategy="no" if dev is None else "epoch")
    return gmp.GMPATLTrainer(model, arguments, train, dev, feature_extractor(), held_out=held_out)


@pytest.mark.parametrize(
    ("train", "dev", "seen", "said"),
    [
        ((0, 3), (2,), None, "training would use the test speaker tones/3"),
        ((0, 1), (2, 3), None, "choosing the epoch would use the test speaker tones/3"),
        ((0, 1), (2,), ["tones/3"], "the model has seen the test speaker tones/3"),
    ],
)
def test_a_held_out_speaker_is_nobody_s_before_the_test(
    table: Dataset, tmp_path: Path, train: tuple[int, ...], dev: tuple[int, ...], seen: list[str] | None, said: str
) -> None:
    parts = (of_speakers(table, *train), of_speakers(table, *dev))
    with pytest.raises(RequestError, match=said):
        trainer_of(tmp_path, *parts, of_speakers(table, 3), seen_speakers=seen)
    # The same parts given afterwards are no way round.
    trainer = trainer_of(tmp_path, of_speakers(table, 0, 1), of_speakers(table, 2), of_speakers(table, 3))
    trainer.train_dataset, trainer.eval_dataset, trainer.model.config.seen_speakers = *parts, seen
    with pytest.raises(RequestError, match=said):
        trainer.train()


def test_a_held_out_recording_is_nobody_s_under_another_name(table: Dataset, tmp_path: Path) -> None:
    held_out = of_speakers(table, 3)
    renamed = held_out.select([0]).map(lambda row: {"speaker": "tones/0"})
    with pytest.raises(RequestError, match=f"training would use the test recording {held_out[0]['id']}"):
        trainer_of(tmp_path, concatenate_datasets([of_speakers(table, 0), renamed]), None, held_out)
    nameless = held_out.remove_columns("speaker")
    with pytest.raises(RequestError, match="the test recording"):
        trainer_of(tmp_path, table.remove_columns("speaker"), None, nameless)


def test_where_a_column_of_speakers_is_missing_it_is_said_that_recordings_alone_are_guarded(
    table: Dataset, tmp_path: Path
) -> None:
    rows = of_speakers(table, 3)
    some, others = (rows.select(range(place, len(rows), 2)) for place in (0, 1))
    with pytest.raises(RequestError, match="training would use the test speaker tones/3"):
        trainer_of(tmp_path, some, None, others)
    with pytest.warns(UserWarning, match="rows to train on or to choose the epoch by do not say who speaks"):
        trainer_of(tmp_path, some.remove_columns("speaker"), None, others)
    with pytest.warns(UserWarning, match="the test rows do not say who speaks"):
        trainer_of(tmp_path, some, None, others.remove_columns("speaker"))
    with pytest.warns(UserWarning, match="rows to train on or to choose the epoch by do not say who speaks"):
        trainer_of(tmp_path, some.map(lambda row: {"speaker": None}), None, others)
    with pytest.raises(RequestError, match="nothing can be compared"):
        trainer_of(tmp_path, some.remove_columns("speaker"), None, others.remove_columns("id"))


@pytest.mark.parametrize(
    "shown",
    [
        lambda table: table.with_format("pandas"),
        lambda table: table.with_format("arrow"),
        lambda table: table.with_format("torch", columns=["num_samples", "emotion"]),
        lambda table: table.cast_column("audio", Audio(sampling_rate=16_000)),
    ],
)
def test_a_table_may_be_shown_in_any_format(
    table: Dataset, tmp_path: Path, shown: Callable[[Dataset], Dataset]
) -> None:
    parts = [of_speakers(table, *numbers) for numbers in ((0, 1), (2,), (3,))]
    scores, labels = [], []
    for given in (parts, list(map(shown, parts))):
        torch.manual_seed(0)
        trainer = trainer_of(tmp_path, *given)
        trainer.train()
        scores.append(trainer.predict(given[2]).predictions)
        extractor, model = feature_extractor(), small_model(gmp.HubertForGMPATLMultiTask)
        kmeans = gmp.MultiScaleKMeans([4]).fit_model(model, given[0], extractor, layers=[-1])
        labels.append(gmp.attach_pseudo_labels(given[0], kmeans, model, extractor).with_format(None)["gmp_layer2_k4"])
    assert np.array_equal(*scores)
    assert list(labels[0]) == list(labels[1])


def test_while_training_goes_on_held_out_rows_are_not_even_looked_at(table: Dataset, tmp_path: Path) -> None:
    held_out = of_speakers(table, 3)
    for look in ("evaluate", "predict"):
        trainer = trainer_of(tmp_path, of_speakers(table, 0, 1), None, held_out)

        class Peek(TrainerCallback):
            def on_step_end(self, *_: Any, trainer: Any = trainer, look: str = look, **__: Any) -> None:
                getattr(trainer, look)(held_out)

        trainer.add_callback(Peek())
        with pytest.raises(RequestError, match="choosing the epoch would use the test speaker tones/3"):
            trainer.train()
    trainer = trainer_of(tmp_path, of_speakers(table, 0, 1), of_speakers(table, 2), held_out)
    trainer.train()
    assert 0 <= trainer.evaluate(held_out)["eval_uar"] <= 1


# ---- calibration -----------------------------------------------------------------------------------------------------


def test_calibration_sets_a_temperature_that_lowers_the_loss_and_a_second_one_agrees(
    table: Dataset, tmp_path: Path
) -> None:
    dev = of_speakers(table, 2)
    trainer = trainer_of(tmp_path, of_speakers(table, 0, 1), dev, of_speakers(table, 3), logit_temperature=5.0)
    trainer.train()
    assert trainer.model.config.logit_temperature == 1.0  # the old one was that of other weights

    def loss() -> float:
        output = trainer.predict(dev)
        return float(
            torch.nn.functional.cross_entropy(torch.tensor(output.predictions), torch.tensor(output.label_ids))
        )

    before = loss()
    temperature = trainer.calibrate(dev)
    assert temperature == trainer.model.config.logit_temperature != 1.0
    assert loss() < before
    assert trainer.calibrate(dev) == pytest.approx(temperature, rel=1e-4)


def test_an_end_of_the_range_of_temperatures_is_said(table: Dataset, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, of_speakers(table, 0, 1), None, None)
    dev = of_speakers(table, 2)
    told = trainer.predict(dev).predictions.argmax(1)
    wrong = dev.map(lambda row, place: {"emotion": (int(told[place]) + 1) % 3}, with_indices=True)
    with pytest.warns(UserWarning, match=r"the temperature is 100, an end .* of which 0 % are told right"):
        trainer.calibrate(wrong)


def test_calibration_refuses_rows_of_the_training_and_of_the_test(table: Dataset, tmp_path: Path) -> None:
    train, held_out = of_speakers(table, 0, 1), of_speakers(table, 3)
    trainer = trainer_of(tmp_path, train, None, held_out)
    with pytest.raises(RequestError, match=f"calibration would use the training recording {train[0]['id']}"):
        trainer.calibrate(concatenate_datasets([of_speakers(table, 2), train.select([0])]))
    with pytest.raises(RequestError, match="calibration would use the test speaker tones/3"):
        trainer.calibrate(held_out)
    unlabelled = of_speakers(table, 2).map(lambda row: {"emotion": None})
    with pytest.raises(RequestError, match="0 recordings with an emotion"):
        trainer.calibrate(unlabelled)
    student = small_model(gmp.HubertForGMPATLFrameClassification)
    learner = gmp.GMPATLTrainer(student, training_arguments(tmp_path), train, None, feature_extractor())
    with pytest.raises(RequestError, match="HubertForGMPATLFrameClassification and 0 recordings with an emotion"):
        learner.calibrate(of_speakers(table, 2))
