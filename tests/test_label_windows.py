"""Scales in time: hidden states averaged over windows before they are clustered, and the names of such columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from gmp_atl_hf.data.scale_names import ScaleName, column_name
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel, HubertForGMPATLMultiTask
from gmp_atl_hf.pseudo_labels.attach import attach_pseudo_labels
from gmp_atl_hf.pseudo_labels.averaging import averaged, averaging_radii
from gmp_atl_hf.pseudo_labels.features import extract_features
from gmp_atl_hf.pseudo_labels.kmeans import MultiScaleKMeans
from tables import SCALES, feature_extractor, small_model, speech_table, training_config

COLUMNS = ["gmp_layer2_k3", "gmp_layer2_k5", "gmp_layer2_w100ms_k3", "gmp_layer2_w100ms_k5"]


@pytest.fixture(scope="module")
def table() -> Dataset:
    made = speech_table(9).remove_columns(list(SCALES))
    return made.add_column("speaker", [f"tones/{row % 3}" for row in range(9)])


@pytest.fixture(scope="module")
def model() -> GMPATLPreTrainedModel:
    return small_model(HubertForGMPATLMultiTask, initializer_range=0.2)


@pytest.fixture(scope="module")
def kmeans(table: Dataset, model: GMPATLPreTrainedModel) -> MultiScaleKMeans:
    clusters = MultiScaleKMeans((3, 5), windows=(0.02, 0.1))
    return clusters.fit_model(model, table, feature_extractor(), [-1], sample_frames=150)


# ---- averaging -------------------------------------------------------------------------------------------------------


def test_a_window_is_centred_and_ends_where_the_clip_ends() -> None:
    frames = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0], [6.0, 1.0], [28.0, 1.0]])
    found = averaged({3: frames}, {0.02: 0, 0.06: 1})
    assert torch.equal(found[3], frames)
    expected = torch.tensor([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0], [38 / 3, 1.0], [17.0, 1.0]])
    assert torch.allclose(found[3, 0.06], expected)


def test_a_window_longer_than_the_clip_is_the_clip() -> None:
    frames = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    found = averaged({1: frames}, {20.0: 500})[1, 20.0]
    assert torch.allclose(found, frames.mean(0).expand(4, 3), atol=1e-6)
    assert averaged({1: frames[:1]}, {20.0: 500})[1, 20.0].shape == (1, 3)


def test_windows_hold_the_nearest_odd_number_of_frames() -> None:
    assert averaging_radii((0.02, 0.04, 0.22, 0.5, 1.0), training_config()) == {
        0.02: 0, 0.04: 1, 0.22: 5, 0.5: 12, 1.0: 25,
    }  # fmt: skip


def test_windows_that_hold_the_same_frames_are_refused() -> None:
    with pytest.raises(RequestError, match="both hold 25 of this backbone's frames"):
        averaging_radii((0.5, 0.51), training_config())
    coarse = training_config(conv_stride=(5, 2, 2, 2, 2, 2, 4))
    with pytest.raises(RequestError, match="holds one of this backbone's frames"):
        averaging_radii((0.05,), coarse)


@pytest.mark.parametrize("windows", [(), (0.5, 0.5), (0.03,), (0.0,), (-1.0,), (0.1234,)])
def test_windows_that_name_no_scale_are_refused(windows: tuple[float, ...]) -> None:
    with pytest.raises(RequestError, match=r"for example pseudo_labels\.windows"):
        MultiScaleKMeans((3,), windows=windows)


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "name"),
    [
        (ScaleName(10, 50), "gmp_layer10_k50"),
        (ScaleName(3, 100, 0.5), "gmp_layer3_w500ms_k100"),
        (ScaleName(3, 100, 1.0), "gmp_layer3_w1000ms_k100"),
        (ScaleName(None, 7), "gmp_oracle_k7"),
    ],
)
def test_a_name_says_what_its_scale_is(scale: ScaleName, name: str) -> None:
    assert str(scale) == name
    assert ScaleName.parse(name) == scale
    torch.nn.ModuleDict({name: torch.nn.Identity()})  # heads are named after their columns


def test_other_columns_are_no_scales() -> None:
    assert column_name(10, 50) == "gmp_layer10_k50"
    for other in ("id", "gmp_layer10", "gmp_layer10_w0.5_k3", "loss_gmp_layer10_k50"):
        with pytest.raises(ValueError, match="no column of frame labels"):
            ScaleName.parse(other)


# ---- from a model to columns -----------------------------------------------------------------------------------------


def test_every_window_and_k_has_a_column_with_a_label_for_each_frame(
    table: Dataset, model: GMPATLPreTrainedModel, kmeans: MultiScaleKMeans
) -> None:
    labelled = attach_pseudo_labels(table, kmeans, model, feature_extractor())
    assert labelled.column_names == [*table.column_names, *COLUMNS]
    assert kmeans.frame_scales == dict(zip(COLUMNS, (3, 5, 3, 5), strict=True))
    radii = {0.02: 0, 0.1: 2}
    for row, states in extract_features(model, table, (2,), feature_extractor(), batch_seconds=0.001):
        for column, labels in kmeans.predict(averaged(states, radii), kmeans.source).items():
            assert labelled[row][column] == labels.tolist()
    assert labelled["gmp_layer2_k3"] != labelled["gmp_layer2_w100ms_k3"]


def test_windows_are_saved_and_said(kmeans: MultiScaleKMeans, tmp_path: Path) -> None:
    kmeans.save(tmp_path)
    read = MultiScaleKMeans.load(tmp_path)
    assert read.windows == (0.02, 0.1)
    assert read.fingerprint == kmeans.fingerprint
    assert [scale.feature.get("window") for scale in read.scales.values()] == [None, None, 0.1, 0.1]


def test_one_frame_is_what_it_always_was(
    table: Dataset, model: GMPATLPreTrainedModel, kmeans: MultiScaleKMeans, tmp_path: Path
) -> None:
    for name, settings in (("absent", {}), ("given", {"windows": [0.02], "normalize": "none"})):
        clusters = MultiScaleKMeans((3, 5), **settings)  # type: ignore[arg-type]
        clusters.fit_model(model, table, feature_extractor(), [-1], sample_frames=150).save(tmp_path / name)
    for file in ("codebooks.json", "codebooks.safetensors"):
        assert (tmp_path / "absent" / file).read_bytes() == (tmp_path / "given" / file).read_bytes()
    said = json.loads((tmp_path / "absent" / "codebooks.json").read_text())
    common = ["format_version", "package_version", "seed", "algorithm", "source", "clusters", "tensors", "scales"]
    assert (list(said), said["format_version"]) == (common, 1)
    assert set(said["scales"]["gmp_layer2_k3"]["feature"]) == {"kind", "checkpoint", "layer", "settings"}
    assert torch.equal(MultiScaleKMeans.load(tmp_path / "absent").codebooks[COLUMNS[0]], kmeans.codebooks[COLUMNS[0]])
