"""Pre-training with a teacher: its frames, its states on the disk, and a student that learns to say them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    HubertModel,
    TrainerCallback,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from gmp_atl_hf.batching.speed import change_sound
from gmp_atl_hf.checkpoints import load_model, seen_speakers
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.data.table import read_corpora
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count
from gmp_atl_hf.pretraining import distillation
from gmp_atl_hf.pretraining.filters import mel_filters
from gmp_atl_hf.pretraining.positions import position_means
from gmp_atl_hf.pretraining.student import HubertForTeacherRegression, StudentTrainer
from gmp_atl_hf.pretraining.teachers import CHUNK_SECONDS, Teacher, teacher_facts
from pretrainings import pretrain, pretrain_dict, write_speech
from runs import BACKBONE, read_json, results, write_recipe
from teachers import FAMILIES, make_teacher

# The teacher's shape: `start: teacher` takes over its layers.
STUDENT = {**BACKBONE, "do_stable_layer_norm": True}
LENGTHS = [400, 401, 639, 640, 719, 720, 721, 1_039, 1_040, 16_000, 39_999, 40_000]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: make_teacher(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech"))


def lesson(speech: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """One iteration with a teacher; further keys are the iteration's."""
    return pretrain_dict(
        speech,
        backbone=dict(STUDENT),
        model={"mask_time_prob": 0.0, "frame_targets": "all"},
        iterations=[
            {
                "features": "teacher",
                "teacher": str(folder),
                "layers": [2],
                "objective": "regression",
                "start": "teacher",
                "num_train_epochs": 2,
                **changes,
            }
        ],
    )


@pytest.fixture(scope="module")
def finished(folders: dict[str, Path], speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lesson") / "run"
    pretrain(lesson(speech, folders["whisper"]), folder)
    return folder


def test_a_place_that_keeps_no_states_is_refused_at_once(
    folders: dict[str, Path], speech: Path, tmp_path: Path
) -> None:
    recipe = lesson(speech, folders["whisper"]) | {"teacher_states": str(speech)}
    with pytest.raises(RequestError, match="`teacher_states` is"):
        pretrain(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_teacher_has_a_frame_for_each_of_the_students(family: str, folders: dict[str, Path]) -> None:
    teacher = Teacher(teacher_facts(str(folders[family])), [0, 2], torch.device("cpu"))
    waveform = np.random.default_rng(0).standard_normal(CHUNK_SECONDS * 16_000 + 1_000).astype(np.float32)
    for length in [*LENGTHS, len(waveform)]:
        states = teacher.states(waveform[:length])
        ours = frame_count(length, STUDENT["conv_kernel"], STUDENT["conv_stride"])
        assert {layer: values.shape[1] for layer, values in states.items()} == {0: 16, 2: 16}
        for values in states.values():
            assert len(values) == teacher.facts.grid.count(length)
            assert ours <= len(values) <= ours + 1, length
            assert bool(values.isfinite().all())


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_states_are_those_that_transformers_gives(family: str, folders: dict[str, Path]) -> None:
    facts = teacher_facts(str(folders[family]))
    waveform = np.random.default_rng(0).standard_normal(4_000).astype(np.float32)
    states = Teacher(facts, [0, 1, 2], torch.device("cpu")).states(waveform)
    whole = AutoModel.from_pretrained(folders[family])
    inputs = facts.extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_values
    theirs = whole(inputs, output_hidden_states=True).hidden_states
    for layer, values in states.items():
        torch.testing.assert_close(values, theirs[layer][0], rtol=1e-4, atol=1e-4)


def test_whispers_states_are_those_of_its_own_thirty_seconds(folders: dict[str, Path]) -> None:
    facts = teacher_facts(str(folders["whisper"]))
    waveform = np.random.default_rng(0).standard_normal(12 * 16_000).astype(np.float32)
    states = Teacher(facts, [0], torch.device("cpu")).states(waveform)[0]
    encoder = AutoModel.from_pretrained(folders["whisper"]).encoder
    spectra = facts.extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_features
    theirs = encoder(spectra, output_hidden_states=True).hidden_states[0][0]
    torch.testing.assert_close(states, theirs[: len(states)], rtol=1e-4, atol=1e-4)


def test_another_teacher_layer_or_precision_has_another_key(folders: dict[str, Path], tmp_path: Path) -> None:
    device = torch.device("cpu")
    facts = teacher_facts(str(folders["hubert"]))
    other = teacher_facts(str(make_teacher("hubert", tmp_path, conv_dim=(9,) * 7)))
    keys = {
        Teacher(facts, [1, 2], device).key(1),
        Teacher(facts, [1, 2], device).key(2),
        Teacher(facts, [1, 2], device, bf16=True).key(2),
        Teacher(other, [2], device).key(2),
    }
    assert len(keys) == 4
    assert Teacher(facts, [1], device).key(1) in keys  # whatever else is kept


def test_the_student_gets_nearer_to_what_the_teacher_says(
    folders: dict[str, Path], speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Teacher] = []
    monkeypatch.setattr(distillation, "Teacher", lambda *words: loaded.append(Teacher(*words)) or loaded[-1])
    recipe = lesson(speech, folders["whisper"], num_train_epochs=20, learning_rate=5e-3)
    entry = pretrain(recipe, tmp_path)["iterations"][0]
    cosines = [row["eval_accuracy_teacher_layer2"] for row in entry["log"] if "eval_loss" in row]
    assert entry["cosines"]["teacher_layer2"] == cosines[-1] > max(cosines[0], 0.3)
    assert HubertModel.from_pretrained(tmp_path / "model").config.hidden_size == 16
    assert len(loaded) == 1  # the student finds what has been said without asking again
    assert "unknown" in seen_speakers(tmp_path / "model")  # nobody knows whom the teacher was trained on


def test_a_student_begins_with_its_teachers_layers(finished: Path, folders: dict[str, Path]) -> None:
    start = load_model(HubertForTeacherRegression, finished / "iteration-1/1-teacher-states/start", seed=0)
    facts = teacher_facts(str(folders["whisper"]))
    teacher = Teacher(facts, [2], torch.device("cpu"))
    hidden = torch.randn(1, 7, 16)
    for ours, theirs in zip(list(start.hubert.encoder.layers)[:2], teacher.blocks, strict=True):
        torch.testing.assert_close(_output(ours.eval()(hidden)), _output(theirs.eval().forward(hidden, None)))


def _output(given: Any) -> torch.Tensor:
    return given[0] if isinstance(given, tuple) else given


def test_a_finished_lesson_has_nothing_left_to_do(
    finished: Path, folders: dict[str, Path], speech: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(lesson(speech, folders["whisper"]), finished)
    assert "nothing was left to do" in capsys.readouterr().out
    assert (finished / "curves.png").is_file()


def test_an_interrupted_lesson_ends_like_an_undisturbed_one(
    finished: Path, folders: dict[str, Path], speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupt(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.epoch > 1:
                raise KeyboardInterrupt

    built: Any = StudentTrainer.__init__

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> None:
        built(self, *args, **{**kwargs, "callbacks": [Interrupt()]})

    with monkeypatch.context() as patch:
        patch.setattr(StudentTrainer, "__init__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain(lesson(speech, folders["whisper"]), tmp_path)
    pretrain(lesson(speech, folders["whisper"]), tmp_path)
    ours, theirs = results(tmp_path), results(finished)
    assert set(ours) == set(theirs)
    assert {name for name in theirs if ours[name] != theirs[name]} <= {"iteration-1/2-training/training.json"}


def bert(folder: Path) -> Path:
    BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(folder)
    return folder


def at_8_khz(folder: Path) -> Path:
    make_teacher("hubert", folder)
    Wav2Vec2FeatureExtractor(sampling_rate=8_000).save_pretrained(folder)
    return folder


def with_other_spectra(folder: Path) -> Path:
    make_teacher("whisper", folder)
    WhisperFeatureExtractor(feature_size=128).save_pretrained(folder)
    return folder


def without_weights(folder: Path) -> Path:
    (make_teacher("hubert", folder) / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize(
    ("make", "changes", "words"),
    [
        (bert, {}, "is a 'bert' model"),
        (lambda folder: folder / "nowhere", {}, "cannot be read: there is no folder"),
        (lambda folder: make_teacher("hubert", folder, conv_stride=(5, 2, 2, 2, 2, 2, 1)), {}, "do not line up"),
        (at_8_khz, {}, "takes 8000 samples a second"),
        (with_other_spectra, {}, "makes 128"),
        (without_weights, {}, "holds no weights"),
        (lambda folder: make_teacher("whisper", folder), {"layers": [4]}, "layer 4 of the teacher"),
        (lambda folder: make_teacher("whisper", folder, encoder_ffn_dim=8), {}, "intermediate_size 8 against 32"),
        (lambda folder: make_teacher("wavlm", folder), {}, "layers of a 'wavlm' model are not HuBERT's"),
        (lambda folder: make_teacher("hubert", folder), {}, "do_stable_layer_norm False against True"),
        (lambda folder: make_teacher("whisper", folder), {"features": "mfcc"}, "its features are mfcc"),
        (lambda folder: make_teacher("whisper", folder), {"teacher": None}, "there is none"),
        (lambda folder: make_teacher("whisper", folder), {"augment": "speed"}, "augment is speed"),
    ],
)
def test_who_cannot_teach_is_refused_by_name_before_anything_is_trained(
    make: Any, changes: dict[str, Any], words: str, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = make(tmp_path / "some-teacher")
    recipe = write_recipe(tmp_path / "recipe.yaml", lesson(speech, teacher, **changes))
    assert main(["pretrain", str(recipe), "--output-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "some-teacher" in said or changes or "not HuBERT's" in words
    assert not (tmp_path / "run" / "_teacher-states").exists()


@pytest.mark.parametrize(("start", "targets"), [("scratch", "masked"), ("teacher", "all")])
def test_clusters_of_what_the_teacher_says_are_learned_as_hubert_learns(
    start: str, targets: str, folders: dict[str, Path], speech: Path, tmp_path: Path
) -> None:
    changes = {"objective": "clusters", "clusters": [3, 5], "start": start, "max_steps": 1, "layers": [-1, 1]}
    recipe = lesson(speech, folders["whisper"], **changes)
    recipe["model"] = {"mask_time_prob": 0.5, "mask_time_length": 2, "frame_targets": targets}
    report = pretrain(recipe, tmp_path)
    entry = report["iterations"][0]
    named = {f"gmp_layer{layer}_k{k}" for layer in (1, 3) for k in (3, 5)}
    assert set(entry["labels"]) == set(entry["masked_frames_right"]) == named
    assert entry["teacher"]["copied_layers"] == (3 if start == "teacher" else 0)
    codebooks = read_json(tmp_path / "iteration-1/1-frame-labels/codebooks.json")
    assert codebooks["source"]["kind"] == "teacher"
    assert "unknown" in seen_speakers(tmp_path / "model")


def test_what_was_copied_learns_at_its_own_rate(
    folders: dict[str, Path], speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: dict[str, float] = {}
    build = StudentTrainer.create_optimizer

    def noted(self: StudentTrainer, model: Any = None) -> torch.optim.Optimizer:
        optimizer = build(self, model)
        groups = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
        rates.update({name: groups[id(each)] for name, each in self.model.named_parameters() if each.requires_grad})
        return optimizer

    monkeypatch.setattr(StudentTrainer, "create_optimizer", noted)
    pretrain(lesson(speech, folders["whisper"], max_steps=1, copied_rate=0.25, learning_rate=1e-3), tmp_path)
    copied = {name for name, rate in rates.items() if rate == pytest.approx(2.5e-4)}
    assert copied == {
        name for name in rates if name.startswith(("hubert.encoder.layers.0.", "hubert.encoder.layers.1."))
    }
    assert {rate for name, rate in rates.items() if name not in copied} == {1e-3}


def test_masked_frames_alone_are_learned_where_that_is_asked(
    folders: dict[str, Path], speech: Path, tmp_path: Path
) -> None:
    recipe = lesson(speech, folders["hubert"], start="scratch", max_steps=2, layers=[1, 3], augment="sound")
    recipe["model"] = {"mask_time_prob": 0.5, "mask_time_length": 2, "frame_targets": "masked"}
    entry = pretrain(recipe, tmp_path)["iterations"][0]
    assert set(entry["cosines"]) == {"teacher_layer1", "teacher_layer3"}
    recipe["model"]["mask_time_prob"] = 0.0
    with pytest.raises(RequestError, match="no frame would be masked"):
        pretrain(recipe, tmp_path / "other")


def test_another_pretraining_finds_what_the_teacher_has_said(
    folders: dict[str, Path], speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {**lesson(speech, folders["whisper"], max_steps=1), "teacher_states": str(tmp_path / "said")}
    pretrain(recipe, tmp_path / "first")
    damaged = next((tmp_path / "said").rglob("*.npy"))
    damaged.write_bytes(damaged.read_bytes()[:-40])
    asked: list[int] = []
    states = Teacher.states
    monkeypatch.setattr(Teacher, "states", lambda self, wave: asked.append(len(wave)) or states(self, wave))
    pretrain({**recipe, "seed": 1}, tmp_path / "second")
    assert len(asked) == 1  # the damaged one alone


def test_sound_changes_and_nothing_moves_in_time() -> None:
    wave = np.zeros(16_000, dtype=np.float32)
    wave[8_000] = 1
    for number in range(20):
        changed = change_sound(wave, np.random.default_rng(number))
        assert changed.shape == wave.shape and changed.dtype == np.float32 and np.isfinite(changed).all()
        assert abs(int(np.abs(changed).argmax()) - 8_000) <= 1 and not np.array_equal(changed, wave)
    assert not change_sound(np.zeros(401, dtype=np.float32), np.random.default_rng(0)).any()


def two_lessons(speech: Path, folder: Path) -> dict[str, Any]:
    """The front end alone, then the teacher's layers on top of it."""
    recipe = lesson(speech, folder)
    whole = recipe["iterations"][0]
    alone = {**whole, "layers": [0], "student_layers": 0, "start": "scratch", "learning_rate": 1e-2}
    return {**recipe, "filters": "mel", "iterations": [alone, {**whole, "max_steps": 1}]}


def test_a_front_end_learns_alone_before_the_teachers_layers_come_on_top(
    folders: dict[str, Path], speech: Path, tmp_path: Path
) -> None:
    first, second = pretrain(two_lessons(speech, folders["whisper"]), tmp_path)["iterations"]
    assert first["log"][-1]["eval_loss"] < first["log"][1]["eval_loss"] or first["updates"] < 3
    assert set(first["cosines"]) == {"teacher_layer0"} and set(second["cosines"]) == {"teacher_layer2"}
    alone = load_model(HubertForTeacherRegression, tmp_path / "iteration-1/2-training", seed=0)
    start = load_model(HubertForTeacherRegression, tmp_path / "iteration-2/1-teacher-states/start", seed=0)
    assert len(alone.hubert.encoder.layers) == 0 and len(start.hubert.encoder.layers) == STUDENT["num_hidden_layers"]
    learned = alone.hubert.state_dict()
    assert learned and all(torch.equal(start.hubert.state_dict()[name], learned[name]) for name in learned)
    # What leaves the front end is what enters the teacher's first layer, and not a linear map of it.
    assert all(head.linear is None for head in alone.state_heads.values())
    assert HubertModel.from_pretrained(tmp_path / "model").config.num_hidden_layers == STUDENT["num_hidden_layers"]


def test_mel_filters_pass_their_own_band_and_come_in_pairs(folders: dict[str, Path]) -> None:
    filters = mel_filters(64, 240)[:, 0]
    spectra = torch.fft.rfft(filters, 16_000).abs()
    peaks = spectra.argmax(1)[::2]
    assert (peaks.diff() > 0).all() and abs(int(peaks[0]) - 100) < 30 and abs(int(peaks[-1]) - 7_600) < 30
    torch.testing.assert_close((filters[::2] * filters[1::2]).sum(1), torch.zeros(32), atol=1e-4, rtol=0)
    torch.testing.assert_close(filters.norm(dim=1), torch.ones(64))


def test_what_a_whisper_state_says_of_its_place_is_taken_away(
    folders: dict[str, Path], speech: Path, tmp_path: Path
) -> None:
    table = read_corpora([{**lesson(speech, folders["whisper"])["corpus"], "root": str(speech)}]).table
    teacher = Teacher(teacher_facts(str(folders["whisper"])), [0, 2], torch.device("cpu"))
    waveform = np.random.default_rng(0).standard_normal(CHUNK_SECONDS * 16_000).astype(np.float32) * 0.1
    before, plain = teacher.states(waveform), teacher.key(2)
    teacher.take_away(*position_means(tmp_path, teacher, table))
    after = teacher.states(waveform)
    positions = teacher.encoder.embed_positions.weight[: len(before[0])]
    wanted = before[0] - (positions - positions.mean(0))
    # Of layer 0 the positions are a term of the sum; the rest of a place's mean is the chance of who spoke there.
    assert (after[0] - wanted).square().mean() < 0.1 * (before[0] - wanted).square().mean()
    assert teacher.key(2) != plain
    [kept] = tmp_path.glob("positions-*.safetensors")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-10])
    again = Teacher(teacher.facts, [0, 2], torch.device("cpu"))
    assert position_means(tmp_path, again, table)[1].keys() == {0, 2}
    assert kept.read_bytes() == whole, "what was damaged has been computed again"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([{"student_layers": 0, "start": "scratch", "layers": [0]}], "in the last iteration"),
        ([{"student_layers": 1}, {}], "start teacher"),
        ([{"student_layers": 1, "objective": "clusters", "start": "scratch"}, {}], "objective clusters"),
    ],
)
def test_student_layers_that_lead_nowhere_are_refused(
    changes: list[dict[str, Any]], words: str, folders: dict[str, Path], speech: Path, tmp_path: Path
) -> None:
    recipe = lesson(speech, folders["whisper"])
    recipe["iterations"] = [{**recipe["iterations"][0], **each} for each in changes]
    with pytest.raises(RequestError, match=words):
        pretrain(recipe, tmp_path / "run")


def test_a_teacher_that_is_not_there_or_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "rec").mkdir()
    for name, said in (
        (tmp_path / "gone" / "model", "there is no folder"),
        (tmp_path / "rec", "it has no config.json"),
    ):
        with pytest.raises(RequestError, match=said):
            teacher_facts(str(name))
