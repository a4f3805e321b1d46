"""A folder of a model that is damaged in any way is refused by a sentence that names the file, whoever reads it."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from audio_files import write_audio
from gmp_atl_hf import HubertForGMPATL, SpeechEmotionClassifier
from gmp_atl_hf.checkpoints import default_feature_extractor, describe_backbone
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from models import build
from runs import recipe_dict, write_recipe

CONFIG, WEIGHTS, EXTRACTOR = "config.json", "model.safetensors", "preprocessor_config.json"


class Evil:
    """Would write a file if a pickle of it were read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path("executed"), "evil"))


def content(file: str, text: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(text.encode() if isinstance(text, str) else text)


def fields(file: str, **values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        before = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**before, **values}))

    return change


def cut(file: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size])


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def rewrite(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, metadata={"format": "pt"})

    return rewrite


def pickled(value: Any) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / "pytorch_model.bin").write_bytes(
            value if isinstance(value, bytes) else pickle.dumps(value, protocol=2)
        )

    return write


def as_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a model")


CONV = "hubert.feature_extractor.conv_layers.0.conv.weight"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (as_file, "is a file"),
    "no folder": (shutil.rmtree, "there is no folder"),
    "no model": (lambda folder: [file.unlink() for file in folder.iterdir()], "no config.json"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), "no config.json"),
    **{
        f"config {text[:20]!r}": (content(CONFIG, text), CONFIG)
        for text in (
            "",
            "null",
            "[]",
            "[1]",
            '"gmp_atl"',
            "3",
            "{",
            b"\xff\xfe\x00",
            "[" * 100_000,
        )
    },
    "no kind": (fields(CONFIG, model_type=[]), "a [] model"),
    "another kind": (fields(CONFIG, model_type="bert"), "'bert' model"),
    "quantized": (
        fields(CONFIG, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "quantized",
    ),
    **{
        f"config {name} {value!r}": (fields(CONFIG, **{name: value}), CONFIG)
        for name, value in {
            "conv_stride": [0] * 7,
            "conv_kernel": [10] * 3,
            "conv_dim": None,
            "hidden_act": "nope",
            "feat_extract_activation": 3,
            "hidden_size": 0,
            "num_hidden_layers": -1,
            "num_attention_heads": 5,
            "layer_norm_eps": float("nan"),
            "id2label": {"x": "anger"},
            "hidden_dropout": 2,
            "conv_pos_batch_norm": True,
            "pooling": "best",
            "logit_temperature": 0,
            "am_softmax_scale": float("inf"),
            "frame_scales": [1],
        }.items()
    },
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "holds no weights"),
    "empty weights": (content(WEIGHTS, ""), WEIGHTS),
    "garbage weights": (content(WEIGHTS, b"garbage" * 1000), WEIGHTS),
    "cut weights": (cut(WEIGHTS, 20_000), WEIGHTS),
    "cut header": (cut(WEIGHTS, 100), WEIGHTS),
    "weights in a folder": (
        lambda folder: ((folder / WEIGHTS).unlink(), (folder / WEIGHTS).mkdir()),
        "holds no weights",
    ),
    "no shards": (
        lambda folder: (folder / WEIGHTS).rename(folder / "away") and content(f"{WEIGHTS}.index.json", "{}")(folder),
        f"{WEIGHTS}.index.json",
    ),
    "evil pickle": (pickled(Evil()), "pytorch_model.bin"),
    "garbage pickle": (pickled(b"garbage"), "pytorch_model.bin"),
    "pickle of a list": (pickled([1, 2]), "pytorch_model.bin"),
    "a tensor gone": (tensors(lambda found: found.pop(CONV)), CONV),
    "a tensor of another shape": (tensors(lambda found: found.update({CONV: torch.zeros(3, 1, 10)})), CONV),
    "NaN": (tensors(lambda found: found[CONV].view(-1)[3:4].fill_(float("nan"))), "no finite numbers"),
    "infinity": (tensors(lambda found: found[CONV].view(-1)[:1].fill_(float("-inf"))), CONV),
    **{
        f"extractor {text[:20]!r}": (content(EXTRACTOR, text), EXTRACTOR)
        for text in ("", "null", "[]", "[1]", "{", b"\xff", '"text"')
    },
    **{
        f"extractor {name} {value!r}": (fields(EXTRACTOR, **{name: value}), name)
        for name, value in {
            "sampling_rate": 8_000,
            "feature_size": 80,
            "do_normalize": "yes",
            "padding_value": None,
            "padding_side": "left",
        }.items()
    },
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is as it should be; must not be changed."""
    folder = tmp_path_factory.mktemp("sound") / "model"
    model = build(HubertForGMPATL)
    model.save_pretrained(folder)
    default_feature_extractor(model.config).save_pretrained(folder)
    return folder


@pytest.fixture(params=BROKEN)
def broken(
    request: pytest.FixtureRequest, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, str]:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sound, tmp_path / "model")
    damage, named = BROKEN[request.param]
    damage(tmp_path / "model")
    return tmp_path / "model", named


def check(message: str, folder: Path, named: str) -> None:
    assert named in message
    assert str(folder) in message
    assert "expected: " in message and "fix: " in message
    assert "weights_only" not in message and "Traceback" not in message
    assert not Path("executed").exists()


def test_no_broken_model_becomes_a_classifier_or_a_backbone(broken: tuple[Path, str]) -> None:
    for read in (SpeechEmotionClassifier.from_pretrained, describe_backbone):
        with pytest.raises(RequestError) as caught:
            read(str(broken[0]))
        check(str(caught.value), *broken)


@pytest.mark.parametrize("kind", ["config 'null'", "evil pickle", "cut weights", "NaN", "extractor '[]'", "a file"])
@pytest.mark.parametrize("verb", ["predict", "evaluate", "run", "pretrain"])
def test_every_verb_that_takes_a_model_refuses_a_broken_one(
    verb: str,
    kind: str,
    sound: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model"
    shutil.copytree(sound, model)
    damage, named = BROKEN[kind]
    damage(model)
    write_audio(tmp_path / "a.wav")
    recipe = write_recipe(tmp_path / "recipe.yaml", recipe_dict(tmp_path / "nowhere", backbone=str(model)))
    speech = {"name": "mine", "corpus": {"name": "folder", "root": "nowhere"}, "backbone": str(model)}
    own = write_recipe(tmp_path / "pretrain.yaml", {**speech, "iterations": [{}]})
    words = {
        "predict": [str(model), "a.wav"],
        "evaluate": [str(model), "--corpus", "folder", "--root", "nowhere"],
        "run": [str(recipe)],
        "pretrain": [str(own)],
    }
    before = set(tmp_path.rglob("*"))
    assert main([verb, *words[verb]]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    check(said.err, model, named)
    assert set(tmp_path.rglob("*")) == before
