"""Frames without what they say of nothing but their place in the clip."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from families import make_stock, take_over
from gmp_atl_hf.checkpoints import load_feature_extractor
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATLMultiTask
from gmp_atl_hf.pseudo_labels.attach import attach_pseudo_labels
from gmp_atl_hf.pseudo_labels.choices import Positions
from gmp_atl_hf.pseudo_labels.codebook import FeatureSource
from gmp_atl_hf.pseudo_labels.feature_stream import FeatureExtraction, Stream
from gmp_atl_hf.pseudo_labels.kmeans import MultiScaleKMeans
from gmp_atl_hf.pseudo_labels.positions import PRIOR_CLIPS, PositionMeans, measure_positions
from gmp_atl_hf.pseudo_labels.preparation import Preparation
from gmp_atl_hf.pseudo_labels.process_group import ProcessGroup
from gmp_atl_hf.recipe.recipe import Recipe
from tables import SCALES, feature_extractor, speech_table, training_config

LAYER, CHANNELS = 1, 4
CLOCK = 10 * torch.randn(500, CHANNELS, generator=torch.Generator().manual_seed(7))


def rows(*lengths: int) -> Dataset:
    """Rows without sound: the features below follow from row and place."""
    return Dataset.from_dict({"id": [f"made/{row}" for row in range(len(lengths))], "num_samples": list(lengths)})


def sounds(row: int, frames: int) -> Tensor:
    """One of two sounds in each frame, by chance."""
    return (torch.rand(frames, generator=torch.Generator().manual_seed(row)) < 0.5).long()


def extract(table: Dataset, batches: Iterable[Sequence[int]]) -> Stream:
    config = training_config()
    for batch in batches:
        for row in batch:
            frames = frame_count(table["num_samples"][row], config.conv_kernel, config.conv_stride)
            content = torch.tensor([[-1.0], [1.0]])[sounds(row, frames)].expand(-1, CHANNELS)
            yield row, {LAYER: CLOCK[:frames] + content}


EXTRACTION = FeatureExtraction(
    extract, FeatureSource("made", {LAYER: "hash"}, (LAYER,)), CHANNELS, training_config(), batch_seconds=2.0
)


def measured(table: Dataset) -> PositionMeans:
    found = measure_positions(EXTRACTION, table, "remove")
    assert found is not None
    return found


def states_of(table: Dataset, positions: PositionMeans | None) -> dict[int, Tensor]:
    stream = Preparation(positions).applied(EXTRACTION, (0.02,)).extract(table, [list(range(len(table)))])
    return {row: states[LAYER] for row, states in stream}


def test_clusters_hear_the_sound_and_not_the_time() -> None:
    table = rows(*[16_000] * 200)
    for positions, heard in ((measured(table), True), (None, False)):
        own = states_of(table, positions)
        source = EXTRACTION.source
        labels = MultiScaleKMeans((2,)).fit({LAYER: torch.cat(list(own.values()))}, source, ["made/a"])
        found = labels.predict({LAYER: torch.cat(list(own.values()))}, source)[f"gmp_layer{LAYER}_k2"]
        truth = torch.cat([sounds(row, len(states)) for row, states in own.items()])
        agreement = normalized_mutual_info_score(truth, found)
        assert (agreement > 0.9) if heard else (agreement < 0.1)


def test_a_place_that_few_clips_reach_keeps_most_of_what_they_say() -> None:
    table = rows(*[8_000] * 20, 16_000)
    mean = measured(table).means[LAYER]
    states = states_of(table, None)
    whole = torch.cat(list(states.values())).mean(0)
    last = len(states[20]) - 1
    assert len(mean) == last + 2
    expected = (states[20][last] + PRIOR_CLIPS * whole) / (1 + PRIOR_CLIPS)
    assert torch.allclose(mean[last], expected, atol=1e-3)
    first = torch.stack([own[0] for own in states.values()])
    assert torch.allclose(mean[0], (first.sum(0) + PRIOR_CLIPS * whole) / (21 + PRIOR_CLIPS), atol=1e-3)


def test_behind_the_longest_training_clip_stands_the_mean_of_all_frames() -> None:
    positions = measured(rows(8_000, 8_000))
    longer = rows(16_000)
    plain, own = states_of(longer, None)[0], states_of(longer, positions)[0]
    assert torch.allclose(own[-1], plain[-1] - positions.means[LAYER][-1])


def test_means_do_not_depend_on_how_many_processes_share_the_work() -> None:
    class Part(ProcessGroup):
        parts: list[Tensor] = []

        def sum(self, values: Tensor) -> Tensor:
            self.parts.append(values.clone())
            return values

    table = rows(*range(8_000, 17_000, 1_000))
    shares = []
    for index, count in ((0, 2), (1, 2), (0, 1)):
        Part.parts = []
        measure_positions(EXTRACTION, table, "remove", group=Part(index, count))
        shares.append(Part.parts[0])
    assert shares[0].abs().sum() > 0 and shares[1].abs().sum() > 0
    assert torch.equal(shares[0] + shares[1], shares[2])


def test_broken_frames_are_refused() -> None:
    def broken(table: Dataset, batches: Iterable[Sequence[int]]) -> Stream:
        for row, states in extract(table, batches):
            states[LAYER][0, 0] = float("nan")
            yield row, states

    extraction = FeatureExtraction(broken, EXTRACTION.source, CHANNELS, EXTRACTION.config)
    with pytest.raises(RequestError, match=r"not finite, or far too large, in made/\d"):
        measure_positions(extraction, rows(8_000), "remove")


def test_auto_removes_them_where_an_encoder_has_absolute_positions(tmp_path: Path) -> None:
    table = speech_table(8).remove_columns(list(SCALES)).add_column("speaker", [f"t/{row % 3}" for row in range(8)])
    made: dict[tuple[str, Positions], MultiScaleKMeans] = {}
    choices: tuple[Positions, ...] = ("auto", "keep", "remove")
    for case in ("hubert", "whisper"):
        make_stock(case, tmp_path / case)
        model = take_over(HubertForGMPATLMultiTask, tmp_path / case)
        extractor: Any = load_feature_extractor(tmp_path / case) if case == "whisper" else feature_extractor()
        for positions in choices:
            kmeans = MultiScaleKMeans((3,), positions=positions)
            made[case, positions] = kmeans.fit_model(model, table, extractor, [-1], sample_frames=100)
        kmeans = made[case, "auto"]
        assert kmeans.fingerprint == made[case, "remove" if case == "whisper" else "keep"].fingerprint
        assert kmeans.fingerprint != made[case, "keep" if case == "whisper" else "remove"].fingerprint
        kmeans.save(tmp_path / case / "codebooks")
        said = json.loads((tmp_path / case / "codebooks" / "codebooks.json").read_text())
        assert (said["format_version"], said.get("positions")) == ((2, "removed") if case == "whisper" else (1, None))
        read = MultiScaleKMeans.load(tmp_path / case / "codebooks")
        assert read.fingerprint == kmeans.fingerprint
        (column,) = kmeans.columns
        labels = [list(attach_pseudo_labels(table, each, model, extractor)[column]) for each in (kmeans, read)]
        assert labels[0] == labels[1]


def test_raw_features_are_not_taken_for_others() -> None:
    with pytest.raises(RequestError, match="features with their places in them"):
        MultiScaleKMeans((2,), positions="remove").fit({LAYER: torch.randn(9, 4)}, EXTRACTION.source, ["made/a"])
    preparation = Preparation(measured(rows(8_000)))
    kmeans = MultiScaleKMeans((2,)).fit(
        {LAYER: torch.randn(9, 4)}, EXTRACTION.source, ["made/a"], preparation=preparation
    )
    with pytest.raises(RequestError, match="nobody says that they are prepared"):
        kmeans.predict({LAYER: torch.randn(9, 4)}, EXTRACTION.source)
    assert kmeans.predict({LAYER: torch.randn(9, 4)}, EXTRACTION.source, prepared=True)


def test_other_words_are_refused() -> None:
    with pytest.raises(RequestError, match="one of auto, keep, remove"):
        MultiScaleKMeans((2,), positions="no")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="positions"):
        Recipe.from_dict({"name": "mine", "corpus": {"name": "demo"}, "pseudo_labels": {"positions": "no"}})
