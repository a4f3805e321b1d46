"""Frames centred and scaled by their own speaker or gender before they are clustered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATLMultiTask
from gmp_atl_hf.protocols.fold import Fold
from gmp_atl_hf.pseudo_labels.attach import attach_pseudo_labels
from gmp_atl_hf.pseudo_labels.averaging import averaged
from gmp_atl_hf.pseudo_labels.codebook import FeatureSource
from gmp_atl_hf.pseudo_labels.feature_stream import FeatureExtraction, Stream
from gmp_atl_hf.pseudo_labels.features import extract_features
from gmp_atl_hf.pseudo_labels.kmeans import MultiScaleKMeans
from gmp_atl_hf.pseudo_labels.normalization import GroupStatistics, measure_groups
from gmp_atl_hf.pseudo_labels.preparation import Preparation
from gmp_atl_hf.pseudo_labels.process_group import ProcessGroup
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run import plan
from tables import SCALES, feature_extractor, small_model, speech_table, training_config

LAYER, CHANNELS = 1, 4
VOICES = {"a": (5.0, 2.0), "b": (-3.0, 0.5), "c": (0.0, 1.0), "unknown": (40.0, 9.0)}


def rows_of(*speakers: str, seed: int = 0) -> Dataset:
    """Rows without sound: the features below follow from speaker and id."""
    lengths = np.random.default_rng(seed).integers(9_000, 20_000, len(speakers)).tolist()
    return Dataset.from_dict(
        {
            "id": [f"{seed}/{row}" for row in range(len(speakers))],
            "speaker": [f"made/{name}" for name in speakers],
            "gender": [{"a": 0, "b": 1}.get(name, -1) for name in speakers],
            "num_samples": lengths,
        }
    )


def features_of(table: Dataset, row: int) -> Tensor:
    config = training_config()
    mean, deviation = VOICES[table["speaker"][row].partition("/")[2]]
    generator = torch.Generator().manual_seed(int(table["id"][row].replace("/", "")))
    frames = frame_count(table["num_samples"][row], config.conv_kernel, config.conv_stride)
    return mean + deviation * torch.randn(frames, CHANNELS, generator=generator)


def extract(table: Dataset, batches: Iterable[Sequence[int]]) -> Stream:
    for batch in batches:
        for row in batch:
            yield row, {LAYER: features_of(table, row)}


EXTRACTION = FeatureExtraction(
    extract, FeatureSource("made", {LAYER: "hash"}, (LAYER,)), CHANNELS, training_config(), batch_seconds=2.0
)


def measured(table: Dataset, by: str = "speaker") -> GroupStatistics:
    found = measure_groups(EXTRACTION, table, by)  # type: ignore[arg-type]
    assert found is not None
    return found


def normalized_rows(table: Dataset, statistics: GroupStatistics) -> dict[int, Tensor]:
    stream = Preparation(groups=statistics).applied(EXTRACTION, (0.02,)).extract(table, [list(range(len(table)))])
    return {row: states[LAYER] for row, states in stream}


def test_statistics_are_those_of_each_speaker_s_own_frames() -> None:
    table = rows_of(*"abab")
    found = measured(table)
    assert found.groups == ("made/a", "made/b")
    for place, rows in enumerate(([0, 2], [1, 3], [0, 1, 2, 3])):
        frames = torch.cat([features_of(table, row) for row in rows]).double()
        assert torch.allclose(found.means[LAYER][place].double(), frames.mean(0), atol=1e-4)
        assert torch.allclose(found.deviations[LAYER][place].double(), frames.std(0, correction=0), rtol=1e-4)


def test_normalised_frames_of_every_training_speaker_have_mean_zero_and_deviation_one() -> None:
    table = rows_of(*"abab")
    own = normalized_rows(table, measured(table))
    for rows in ([0, 2], [1, 3]):
        frames = torch.cat([own[row] for row in rows])
        assert torch.allclose(frames.mean(0), torch.zeros(CHANNELS), atol=1e-3)
        assert torch.allclose(frames.std(0, correction=0), torch.ones(CHANNELS), atol=1e-3)


def test_a_speaker_who_was_not_clustered_has_statistics_of_their_own() -> None:
    known = measured(rows_of(*"abab"))
    table = rows_of(*"cac", seed=1)
    completed = known.completed(EXTRACTION, table)
    assert completed.groups == ("made/a", "made/b", "made/c")
    for name in ("means", "deviations"):
        before, after = getattr(known, name)[LAYER], getattr(completed, name)[LAYER]
        assert torch.equal(before[[0, 1, 2]], after[[0, 1, 3]]), "what was measured before stays"
    own = normalized_rows(table, completed)
    assert torch.allclose(torch.cat([own[0], own[2]]).mean(0), torch.zeros(CHANNELS), atol=1e-3)
    trained = (features_of(table, 1) - known.means[LAYER][0]) / known.deviations[LAYER][0]
    assert torch.allclose(own[1], trained)


def test_a_speaker_whom_nobody_knows_has_those_of_all_training_frames() -> None:
    known = measured(rows_of(*"abab"))
    table = rows_of("unknown", "unknown", seed=1)
    assert known.completed(EXTRACTION, table) is known
    assert known.rows_of(table) == [2, 2]


def test_nameless_training_frames_count_among_all_frames_only() -> None:
    table = rows_of("a", "unknown")
    found = measured(table)
    everything = torch.cat([features_of(table, 0), features_of(table, 1)])
    assert found.groups == ("made/a",)
    assert torch.allclose(found.means[LAYER][-1], everything.mean(0), atol=1e-3)


def test_genders_are_groups_as_well() -> None:
    found = measured(rows_of(*"aabc"), "gender")
    assert found.groups == ("female", "male")
    assert found.rows_of(rows_of(*"bca", seed=1)) == [1, 2, 0]


def test_a_channel_that_does_not_move_is_scaled_by_that_of_all_frames() -> None:
    def still(table: Dataset, batches: Iterable[Sequence[int]]) -> Stream:
        for row, states in extract(table, batches):
            states[LAYER][:, 0] = {"a": 1.0, "b": 3.0}[table["speaker"][row][-1]]
            states[LAYER][:, 1] = 1e4 / 3
            yield row, states

    table = rows_of(*"ab").map(lambda row: {**row, "num_samples": 10_000})
    found = measure_groups(FeatureExtraction(still, EXTRACTION.source, CHANNELS, EXTRACTION.config), table, "speaker")
    assert found is not None
    assert torch.allclose(found.deviations[LAYER][:, 0], torch.ones(3)), "1 and 3, as often, are 1 from their mean"
    assert torch.equal(found.deviations[LAYER][:, 1], torch.ones(3))


def test_statistics_do_not_depend_on_how_many_processes_share_the_work() -> None:
    class Part(ProcessGroup):
        parts: list[Tensor] = []

        def sum(self, values: Tensor) -> Tensor:
            self.parts.append(values.clone())
            return values

    table = rows_of(*"abcabcabc")
    shares = []
    for index in range(2):
        Part.parts = []
        measure_groups(EXTRACTION, table, "speaker", group=Part(index, 2))
        shares.append(Part.parts)
    Part.parts = []
    measure_groups(EXTRACTION, table, "speaker", group=Part(0, 1))
    assert len(Part.parts) == 2 and all(int(part[:-1].abs().sum()) for share in shares for part in share)
    # The last row is filled in afterwards, and after the copy.
    for alone, first, second in zip(Part.parts, *shares, strict=True):
        assert torch.equal(alone, first + second)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_frames_that_are_no_numbers_are_refused(value: float) -> None:
    def broken(table: Dataset, batches: Iterable[Sequence[int]]) -> Stream:
        for row, states in extract(table, batches):
            states[LAYER][0, 0] = value
            yield row, states

    extraction = FeatureExtraction(broken, EXTRACTION.source, CHANNELS, EXTRACTION.config)
    with pytest.raises(RequestError, match=r"not finite, or far too large, in 0/\d"):
        measure_groups(extraction, rows_of(*"ab"), "speaker")


def test_a_model_s_clusters_are_normalised_saved_and_said(tmp_path: Path) -> None:
    model, extractor = small_model(HubertForGMPATLMultiTask, initializer_range=0.2), feature_extractor()
    table = speech_table(8).remove_columns(list(SCALES)).add_column("speaker", [f"t/{row % 3}" for row in range(8)])
    train, dev = table.select([0, 1, 3, 4, 6, 7]), table.select([2, 5])
    kmeans = MultiScaleKMeans((3,), windows=(0.02, 0.1), normalize="speaker")
    kmeans.fit_model(model, train, extractor, [-1], sample_frames=100)
    kmeans.save(tmp_path)
    said = json.loads((tmp_path / "codebooks.json").read_text())
    assert (said["format_version"], said["normalize"], said["normalized_by"]["groups"]) == (
        2,
        "speaker",
        ["t/0", "t/1"],
    )
    assert all(scale["feature"]["normalize"] == "speaker" for scale in said["scales"].values())
    read = MultiScaleKMeans.load(tmp_path)
    assert read.fingerprint == kmeans.fingerprint
    together = attach_pseudo_labels(table, kmeans, model, extractor)
    apart = attach_pseudo_labels(dev, read, model, extractor)
    for column in kmeans.columns:
        assert list(apart[column]) == [together[row][column] for row in (2, 5)]
    states = {row: own[2] for row, own in extract_features(model, dev, [-1], extractor)}
    mean, deviation = torch.cat(list(states.values())).mean(0), torch.cat(list(states.values())).std(0, correction=0)
    for row, own in states.items():
        for column, labels in kmeans.predict(
            averaged({2: (own - mean) / deviation}, {0.02: 0, 0.1: 2}), kmeans.source, prepared=True
        ).items():
            agreeing = np.mean(np.array(apart[column][row]) == labels.numpy())
            assert agreeing > 0.97, "a development speaker is normalised by their own frames"
    plain = MultiScaleKMeans((3,)).fit_model(model, train, extractor, [-1], sample_frames=100)
    assert (
        plain.fingerprint
        != MultiScaleKMeans((3,), normalize="gender")
        .fit_model(model, train, extractor, [-1], sample_frames=100)
        .fingerprint
    )
    with pytest.raises(RequestError, match="nobody says that they are prepared"):
        kmeans.predict(averaged({2: next(iter(states.values()))}, {0.02: 0, 0.1: 2}), kmeans.source)
    with pytest.raises(RequestError, match="no column speaker"):
        attach_pseudo_labels(dev.remove_columns("speaker"), read, model, extractor)


def test_features_of_nobody_knows_whom_are_refused() -> None:
    source = FeatureSource("made", {LAYER: "hash"}, (LAYER,))
    with pytest.raises(RequestError, match="no statistics of each speaker"):
        MultiScaleKMeans((2,), normalize="speaker").fit({LAYER: torch.randn(9, 2)}, source, ["made/a"])
    with pytest.raises(RequestError, match="one of none, speaker, gender"):
        MultiScaleKMeans((2,), normalize="voice")  # type: ignore[arg-type]


def test_recordings_without_a_group_are_counted_in_the_report() -> None:
    corpus: Any = SimpleNamespace(table=rows_of("a", "b", "unknown"))
    for by, expected in (("speaker", "1 of 3 recordings has no known speaker"), ("none", None)):
        made = Recipe.from_dict({"name": "mine", "corpus": {"name": "demo"}, "pseudo_labels": {"normalize": by}})
        notes = plan._notes({"gmp-atl": made.method("gmp-atl")}, corpus, [])
        assert [note.partition(":")[0] for note in notes if "recordings" in note] == ([expected] if expected else [])


def test_recordings_of_unknown_speakers_that_are_trained_on_are_counted_in_the_report() -> None:
    corpus: Any = SimpleNamespace(table=rows_of("a", "b", "unknown", "unknown"))
    names = corpus.table["speaker"]
    made = Recipe.from_dict({"name": "mine", "corpus": {"name": "demo"}}).method("direct")

    def notes_of(train: set[str], dev: set[str], test: set[str]) -> list[str]:
        fold = Fold(1, tuple(train), tuple(dev), tuple(test))
        return [note for note in plan._notes({"direct": made}, corpus, [fold]) if "unknown speakers" in note]

    known, unknown = set(names[:1]), set(names[2:])
    other = set(names[1:2])
    assert notes_of(unknown, known, other) == [
        "2 recordings of unknown speakers are trained on, and no epoch or temperature is chosen by them."
    ]
    assert notes_of(known, unknown, other) == []
    assert notes_of(known, other, unknown) == []
