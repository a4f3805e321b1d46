"""The label columns: one integer for every frame of every row, and everything else as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset, List, Value

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel, HubertForGMPATLMultiTask
from gmp_atl_hf.pseudo_labels import labelling as labels_of_windows
from gmp_atl_hf.pseudo_labels.attach import attach_pseudo_labels
from gmp_atl_hf.pseudo_labels.features import extract_features
from gmp_atl_hf.pseudo_labels.kmeans import MultiScaleKMeans
from tables import SCALES, feature_extractor, small_model, speech_table

COLUMNS = ["gmp_layer2_k4", "gmp_layer2_k6", "gmp_layer1_k4", "gmp_layer1_k6"]


@pytest.fixture(scope="module")
def table() -> Dataset:
    return speech_table(17).remove_columns(list(SCALES))


@pytest.fixture(scope="module")
def model() -> GMPATLPreTrainedModel:
    return small_model(HubertForGMPATLMultiTask, dropout=0.5, initializer_range=0.2)


@pytest.fixture(scope="module")
def kmeans(table: Dataset, model: GMPATLPreTrainedModel) -> MultiScaleKMeans:
    layers = (-1, -2)
    speakers = table.add_column("speaker", ["tones/1"] * len(table))
    return MultiScaleKMeans((4, 6)).fit_model(model, speakers, feature_extractor(), layers, sample_frames=300)


@pytest.fixture(scope="module")
def labelled(table: Dataset, model: GMPATLPreTrainedModel, kmeans: MultiScaleKMeans) -> Dataset:
    return attach_pseudo_labels(table, kmeans, model, feature_extractor())


def test_columns_are_named_after_resolved_layer_and_clusters(table: Dataset, labelled: Dataset) -> None:
    assert labelled.column_names == [*table.column_names, *COLUMNS]
    for column in COLUMNS:
        assert labelled.features[column] == List(Value("int32"))


def test_every_row_has_one_label_for_each_frame(
    labelled: Dataset, model: GMPATLPreTrainedModel, table: Dataset
) -> None:
    config = model.config
    frames = [frame_count(n, config.conv_kernel, config.conv_stride) for n in table["num_samples"]]
    for column in COLUMNS:
        assert [len(labels) for labels in labelled[column]] == frames
        used = {label for labels in labelled[column] for label in labels}
        assert used == set(range(int(column.rsplit("k", 1)[1])))


def test_the_rest_of_the_table_and_its_order_are_unchanged(table: Dataset, labelled: Dataset) -> None:
    assert labelled.remove_columns(COLUMNS).to_list() == table.to_list()
    assert {name: labelled.features[name] for name in table.column_names} == table.features


def test_labels_are_those_of_the_row_s_own_frames(
    table: Dataset, labelled: Dataset, model: GMPATLPreTrainedModel, kmeans: MultiScaleKMeans
) -> None:
    for row, states in extract_features(model, table, (1, 2), feature_extractor(), batch_seconds=0.001):
        for column, labels in kmeans.predict(states, kmeans.source).items():
            assert labelled[row][column] == labels.tolist()


def test_labels_do_not_depend_on_batches_or_on_the_order_of_rows(
    table: Dataset,
    labelled: Dataset,
    model: GMPATLPreTrainedModel,
    kmeans: MultiScaleKMeans,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (labels_of_windows,):
        monkeypatch.setattr(module, "WINDOW_ROWS", 3)
    monkeypatch.setattr(labels_of_windows, "LABELLED_FRAMES", 10)
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0)).tolist()
    again = attach_pseudo_labels(table.select(order), kmeans, model, feature_extractor(), batch_seconds=0.5)
    assert again["id"] == [f"tones/{row}" for row in order]
    for column in COLUMNS:
        assert list(again[column]) == [labelled[row][column] for row in order]


def test_labels_that_were_there_are_replaced(
    labelled: Dataset, model: GMPATLPreTrainedModel, kmeans: MultiScaleKMeans
) -> None:
    again = attach_pseudo_labels(labelled, kmeans, model, feature_extractor())
    assert again.column_names == labelled.column_names
    assert again.to_list() == labelled.to_list()


def test_the_model_keeps_its_mode(table: Dataset, model: GMPATLPreTrainedModel, kmeans: MultiScaleKMeans) -> None:
    model.train()
    attach_pseudo_labels(table.select(range(2)), kmeans, model, feature_extractor())
    assert model.training


@pytest.mark.parametrize(
    ("other", "normalise", "named"),
    [
        (small_model(HubertForGMPATLMultiTask, seed=5, initializer_range=0.2), False, "checkpoint up to layer 2"),
        (None, True, "settings"),
    ],
)
def test_another_checkpoint_or_preparation_is_refused(
    table: Dataset, model: GMPATLPreTrainedModel, kmeans: MultiScaleKMeans, other: Any, normalise: bool, named: str
) -> None:
    with pytest.raises(RequestError, match=named):
        attach_pseudo_labels(table, kmeans, other or model, feature_extractor(normalise))


def test_an_encoder_that_differs_only_above_the_layer_is_not_refused(table: Dataset) -> None:
    model = small_model(HubertForGMPATLMultiTask, num_hidden_layers=3)
    layers, extractor = (1,), feature_extractor()
    speakers = table.add_column("speaker", ["tones/1"] * len(table))
    kmeans = MultiScaleKMeans((4,)).fit_model(model, speakers, extractor, layers, sample_frames=200)
    with torch.no_grad():
        model.hubert.encoder.layers[2].final_layer_norm.weight.mul_(3)
    assert attach_pseudo_labels(table, kmeans, model, extractor).column_names[-1] == "gmp_layer1_k4"


def test_a_shortest_clip_has_its_one_label(model: GMPATLPreTrainedModel, kmeans: MultiScaleKMeans) -> None:
    short = speech_table(2, shortest=400, longest=401).remove_columns(list(SCALES))
    assert [len(labels) for labels in attach_pseudo_labels(short, kmeans, model, feature_extractor())[COLUMNS[0]]] == [
        1,
        1,
    ]
