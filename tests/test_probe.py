"""`gmp-atl probe`: a linear classifier on the layers of a frozen encoder, by the corpus' protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.evaluation.probe import ProbeFold, probe_layers, score
from runs import SPEAKER_PATTERN, SPLIT, SPLIT_EMOTION_PATTERN, write_corpus
from teachers import FAMILIES, make_teacher

LABELS = np.tile(np.arange(3), 20)
SPEAKERS = [f"s{index // 12}" for index in range(60)]
FOLDS = [
    ProbeFold(*(np.flatnonzero((np.asarray(SPEAKERS) == f"s{number}") == tested) for tested in (False, True)))
    for number in range(5)
]


def layers(signal: int | None) -> dict[int, np.ndarray]:
    """Three layers of noise, one of which says the label."""
    rng = np.random.default_rng(0)
    found = {layer: rng.standard_normal((60, 8)) for layer in range(3)}
    if signal is not None:
        found[signal][:, :3] += 4 * np.eye(3)[LABELS]
    return found


def test_the_layer_that_tells_is_found_without_the_test_speakers() -> None:
    result = probe_layers(layers(1), LABELS, SPEAKERS, FOLDS, 0.1, (0.01, 0.1))
    scores = {layer: score(said, LABELS, SPEAKERS, 3)["uar"] for layer, said in result.layers.items()}
    assert scores[1] > 0.95 and max(scores[0], scores[2]) < 0.6
    assert {layer for layer, _ in result.chosen} == {1} and result.nested is not None
    assert score(result.nested, LABELS, SPEAKERS, 3)["uar"] > 0.95


def test_the_choice_does_not_look_at_the_labels_of_the_test_speakers() -> None:
    features = layers(None)
    honest = probe_layers(features, LABELS, SPEAKERS, FOLDS[:1], 0.1, (0.01, 0.1))
    others = LABELS.copy()
    others[FOLDS[0].test] = (others[FOLDS[0].test] + 1) % 3
    assert probe_layers(features, others, SPEAKERS, FOLDS[:1], 0.1, (0.01, 0.1)).chosen == honest.chosen
    moved = {layer: values.copy() for layer, values in features.items()}
    for values in moved.values():
        values[FOLDS[0].test] += 100
    assert probe_layers(moved, LABELS, SPEAKERS, FOLDS[:1], 0.1, (0.01, 0.1)).chosen == honest.chosen


def test_with_one_training_speaker_nothing_is_chosen() -> None:
    one = ProbeFold(np.arange(12), np.arange(12, 60))
    assert probe_layers(layers(1), LABELS, SPEAKERS, [one], 0.1, (0.1,)).nested is None


@pytest.mark.parametrize(("family", "layers"), [*((family, "0,-1") for family in FAMILIES), ("mini", "-1,-2")])
def test_every_family_can_be_probed(
    family: str, layers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = family if family == "mini" else str(make_teacher(family, tmp_path / "encoder"))
    write_corpus(tmp_path / "corpus")
    words = [
        "probe",
        model,
        "--corpus",
        "folder",
        "--root",
        str(tmp_path / "corpus"),
        "--options",
        f"speaker={SPEAKER_PATTERN}",
    ]
    capsys.readouterr()
    assert main([*words, "--folds", "2", "--layers", layers, "--json", "--picture", str(tmp_path / "p.png")]) == 0
    report = json.loads(capsys.readouterr().out)
    top = 4 if family == "mini" else 3
    assert [entry["layer"] for entry in report["layers"]] == ([0, top] if layers == "0,-1" else [top, top - 1])
    assert all(0 <= entry["uar"] <= 1 and {"war", "uar_ci95"} < set(entry) for entry in report["layers"])
    assert len(report["nested"]["chosen"]) == report["protocol"]["num_folds"] == 2
    assert bool(report["stamps"])
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def probed(root: Path, capsys: pytest.CaptureFixture[str], pattern: str, *words: str) -> tuple[dict[str, Any], str]:
    """The report and the remarks of a probe of the first states of `mini` on a folder of recordings."""
    capsys.readouterr()
    options = ["--root", str(root), "--options", f"speaker={pattern}", *words]
    assert main(["probe", "mini", "--corpus", "folder", *options, "--layers", "0", "--json"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def test_nobody_is_held_back_for_development(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Without any two of them an emotion would be missing: nobody could be spared for development.
    root = write_corpus(tmp_path / "three", ("f1", "f2", "f3"))
    for name in ("anger/f1", "neutral/f2", "sadness/f3"):
        for take in range(2):
            (root / f"{name}_{take}.wav").unlink()
    protocol = probed(root, capsys, SPEAKER_PATTERN, "--protocol", "leave-one-speaker-out")[0]["protocol"]
    assert "speakers per fold: 2 for training, none for development, 1 for the test" in protocol["sentence"]
    assert protocol["train"] == {"speakers": [2, 2], "recordings": [8, 8]}


def test_the_development_part_of_a_given_split_is_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path, split=SPLIT)
    protocol = probed(tmp_path, capsys, SPLIT_EMOTION_PATTERN, "--protocol", "given")[0]["protocol"]
    assert "4 for training, none for development, 2 for the test" in protocol["sentence"]


def test_recordings_that_are_left_out_are_listed_with_their_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path)
    (tmp_path / "anger/f1_0.wav").write_bytes(b"no sound")
    report, said = probed(tmp_path, capsys, SPEAKER_PATTERN, "unreadable=drop", "--folds", "2")
    (left_out,) = report["left_out"]
    assert left_out["file"] == "folder/anger/f1_0.wav" and left_out["reason"]
    assert f"left out: folder/anger/f1_0.wav: {left_out['reason']}" in said
    assert report["corpus"]["recordings"] == 35


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--layers", "9"], "layer 9"),
        (["--layers", "a"], "whole numbers"),
        (["--layers", "-1,a"], "--layers is '-1,a'"),
        (["--c", "0"], "C is 0"),
        (["--c", "inf"], "C is inf"),
        (["--picture", "p.jpg"], ".png"),
        (["--protocol", "no-such"], "no protocol"),
    ],
)
def test_a_wrong_request_is_refused(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path)
    status = main(
        [
            "probe",
            "mini",
            "--corpus",
            "folder",
            "--root",
            str(tmp_path),
            "--options",
            f"speaker={SPEAKER_PATTERN}",
            *words,
        ]
    )
    assert status == 2 and said in capsys.readouterr().err
