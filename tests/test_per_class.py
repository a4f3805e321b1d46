"""K-means per emotion or per gender: a share of the clusters each, centres joined, labels by the clip's own class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel, HubertForGMPATLMultiTask
from gmp_atl_hf.pseudo_labels.attach import attach_pseudo_labels
from gmp_atl_hf.pseudo_labels.classes import Classes, FrameClasses, refuse_too_few_frames
from gmp_atl_hf.pseudo_labels.feature_stream import frames_of
from gmp_atl_hf.pseudo_labels.features import extract_features, hidden_state_extraction
from gmp_atl_hf.pseudo_labels.frame_sample import take_sample
from gmp_atl_hf.pseudo_labels.kmeans import MultiScaleKMeans
from recipes import SMALL, refused
from runs import EMOTIONS, SPLIT, given_split, read_json, run, write_corpus
from tables import LABELS, SCALES, feature_extractor, small_model, speech_table
from test_kmeans import SPEAKERS, mixture, source

EMOTION = Classes("emotion", tuple(LABELS))


@pytest.fixture(scope="module")
def model() -> GMPATLPreTrainedModel:
    return small_model(HubertForGMPATLMultiTask, initializer_range=0.2)


@pytest.fixture(scope="module")
def table() -> Dataset:
    """17 clips of four speakers."""
    rows = speech_table(17).remove_columns(list(SCALES))
    return rows.add_column("speaker", [f"tones/{row % 4}" for row in range(len(rows))])


@pytest.mark.parametrize(("clusters", "shares"), [(3, [1, 1, 1]), (100, [34, 33, 33]), (101, [34, 34, 33])])
def test_clusters_are_shared_out_evenly(clusters: int, shares: list[int]) -> None:
    assert EMOTION.shares(clusters) == shares
    slices = [EMOTION.centres(name, clusters) for name in LABELS]
    assert [part.stop - part.start for part in slices] == shares
    assert (slices[0].start, slices[1].start, slices[2].stop) == (0, shares[0], clusters)
    assert EMOTION.centres(None, clusters) == EMOTION.centres("calm", clusters) == slice(0, clusters)


def test_fewer_clusters_than_classes_are_refused() -> None:
    with pytest.raises(RequestError, match="2 clusters per emotion, of which there are 3: anger, neutral, sadness"):
        EMOTION.shares(2)


def fit_per_emotion(features: torch.Tensor, places: torch.Tensor, clusters: int) -> MultiScaleKMeans:
    classes = FrameClasses(EMOTION, places)
    runs = [1500, 2500]
    return MultiScaleKMeans((clusters,), per="emotion").fit(
        {10: features}, source(), SPEAKERS, runs=runs, classes=classes
    )


def test_centres_of_a_class_are_those_of_its_frames_alone() -> None:
    features, places = mixture(), torch.arange(4000) % 4 - 1  # a quarter is not known
    kmeans = fit_per_emotion(features, places, 14)
    joined = kmeans.codebooks["gmp_layer10_k14"]
    for place, (name, share) in enumerate(zip(LABELS, (5, 5, 4), strict=True)):
        chosen = places == place
        own = [int(chosen[:1500].sum()), int(chosen[1500:].sum())]
        alone = MultiScaleKMeans((share,)).fit({10: features[chosen]}, source(), SPEAKERS, runs=own)
        assert torch.equal(joined[EMOTION.centres(name, 14)], alone.codebooks[f"gmp_layer10_k{share}"])
    scale = kmeans.scales["gmp_layer10_k14"]
    assert (scale.k, scale.frames, scale.feature["per"]) == (14, 3000, "emotion")


def test_labels_of_a_class_are_its_nearest_centres_and_of_no_class_the_nearest_of_all() -> None:
    features, places = mixture(), torch.arange(4000) % 3
    kmeans = fit_per_emotion(features, places, 14)
    centres = kmeans.codebooks["gmp_layer10_k14"]
    distances = torch.cdist(features[:200], centres, compute_mode="donot_use_mm_for_euclid_dist")
    for name in (*LABELS, None):
        own = EMOTION.centres(name, 14)
        found = kmeans.predict({10: features[:200]}, source(), name)["gmp_layer10_k14"]
        assert torch.equal(found.long(), distances[:, own].argmin(1) + own.start)


def test_what_was_clustered_per_class_survives_saving(tmp_path: Path) -> None:
    features = mixture()
    kmeans = fit_per_emotion(features, torch.arange(4000) % 3, 14)
    kmeans.save(tmp_path)
    content = json.loads((tmp_path / "codebooks.json").read_text())
    assert (content["format_version"], content["per"], content["classes"]) == (2, "emotion", LABELS)
    again = MultiScaleKMeans.load(tmp_path)
    assert again.classes == kmeans.classes and again.fingerprint == kmeans.fingerprint
    found = (each.predict({10: features}, source(), "neutral")["gmp_layer10_k14"] for each in (kmeans, again))
    assert torch.equal(*found)


def test_classes_and_settings_have_to_agree() -> None:
    with pytest.raises(RequestError, match="features and no emotion of each frame"):
        MultiScaleKMeans((4,), per="emotion").fit({10: mixture()}, source(), SPEAKERS)
    with pytest.raises(RequestError, match="per 'speaker'"):
        MultiScaleKMeans((4,), per="speaker")  # type: ignore[arg-type]


def test_a_class_with_too_few_frames_is_named() -> None:
    places = torch.zeros(4000, dtype=torch.int64)
    places[:3], places[3:9] = 1, 2
    with pytest.raises(RequestError, match="emotion neutral: 3 frames of layer 10 for 5 clusters"):
        fit_per_emotion(mixture(), places, 14)


@pytest.mark.parametrize("frames", [60, 10**6])
def test_a_sample_knows_the_clip_of_each_frame(model: GMPATLPreTrainedModel, table: Dataset, frames: int) -> None:
    extraction = hidden_state_extraction(model, (2,), feature_extractor(), batch_seconds=0.5)
    sample = take_sample(extraction, table, frames, seed=3)
    states = {row: found[2] for row, found in extract_features(model, table, (2,), feature_extractor())}
    assert len(sample.rows) == len(sample.features[2]) and len(set(sample.rows.tolist())) > 9
    for row, state in zip(sample.rows.tolist(), sample.features[2], strict=True):
        assert (states[row] - state).abs().max(1).values.min() < 1e-4


@pytest.mark.parametrize("per", ["emotion", "gender"])
def test_rows_of_clustered_speakers_are_labelled_by_their_own_class(
    per: Any, model: GMPATLPreTrainedModel, table: Dataset
) -> None:
    clustered = table.filter(lambda row: row["speaker"] != "tones/3")
    extractor = feature_extractor()
    kmeans = MultiScaleKMeans((7,), per=per).fit_model(model, clustered, extractor, [-1], description=None)
    labelled = attach_pseudo_labels(table, kmeans, model, extractor, description=None)
    assert kmeans.classes is not None
    names = table.features[per].names
    others: set[bool] = set()
    for row in labelled:
        own = kmeans.classes.centres(None if row[per] is None else names[row[per]], 7)
        inside = np.isin(row["gmp_layer2_k7"], range(own.start, own.stop))
        if row["speaker"] != "tones/3":
            assert inside.all()
        elif row[per] is not None:
            others |= set(inside.tolist())
    assert False in others, "somebody who was not clustered has the nearest of all centres"


def test_columns_that_are_missing_are_named(model: GMPATLPreTrainedModel, table: Dataset) -> None:
    extractor, genderless = feature_extractor(), table.remove_columns("gender")
    with pytest.raises(RequestError, match="no column gender"):
        MultiScaleKMeans((4,), per="gender").fit_model(model, genderless, extractor, [-1], description=None)
    kmeans = MultiScaleKMeans((4,), per="gender").fit_model(model, table, extractor, [-1], description=None)
    with pytest.raises(RequestError, match="no column speaker"):
        attach_pseudo_labels(table.remove_columns("speaker"), kmeans, model, extractor, description=None)
    nobody = (
        table.remove_columns("gender")
        .add_column("gender", [None] * len(table))
        .cast_column("gender", table.features["gender"])
    )
    with pytest.raises(RequestError, match="no recording has a known gender"):
        MultiScaleKMeans((4,), per="gender").fit_model(model, nobody, extractor, [-1], description=None)


def test_a_recipe_clusters_per_emotion(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    folder = tmp_path / "run"
    run(given_split(root, variants=["per-emotion"], final=False), folder)
    fold = folder / "per-emotion/seed-0/fold-01"
    said = read_json(fold / "2-pseudo-labels/codebooks.json")
    assert (said["per"], said["classes"]) == ("emotion", list(EMOTIONS))
    assert read_json(fold / "2-pseudo-labels/step.json")["inputs"]["per"] == "emotion"
    classes = Classes("emotion", EMOTIONS)
    table = pq.read_table(fold / "2-pseudo-labels/labels.parquet").to_pydict()
    outside = 0
    for name, labels in zip(table["id"], table["gmp_layer2_k5"], strict=True):
        own = classes.centres(name.split("/")[-2], 5)
        inside = np.isin(labels, range(own.start, own.stop)).all()
        if SPLIT[Path(name).name.split("_")[0]] == "train":
            assert inside
        outside += not inside
    assert outside, "development clips are labelled without their emotion"


def test_too_few_clusters_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    assert "one of none, emotion, gender" in str(refused({**SMALL, "pseudo_labels": {"per": "speaker"}}))
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    recipe = given_split(root, pseudo_labels__clusters=[2], pseudo_labels__per="emotion")
    with pytest.raises(RequestError, match="2 clusters per emotion, of which there are 3"):
        run(recipe, tmp_path / "run")
    recipe = given_split(
        root, pseudo_labels__clusters=[12], pseudo_labels__per="emotion", pseudo_labels__sample_frames=12
    )
    with pytest.raises(
        RequestError, match=r"\d frames of emotion \w+ for 4 of 12 clusters .sample_frames 12 draws"
    ) as e:
        run(recipe, tmp_path / "run")
    assert "a larger pseudo_labels.sample_frames" in str(e.value)
    assert not list((tmp_path / "run").rglob("training.json"))


def test_a_class_is_refused_for_the_frames_that_will_be_drawn_of_it(
    model: GMPATLPreTrainedModel, table: Dataset
) -> None:
    frames, seed = frames_of(table, model.config), 3
    extraction = hidden_state_extraction(model, (2,), feature_extractor(), batch_seconds=0.5)
    for sample_frames in (20, 60, 10**6):
        sample = take_sample(extraction, table, sample_frames, seed)
        of_class = FrameClasses.of(sample, table, "gender").places
        rarest, commonest = sorted(torch.bincount(of_class[of_class >= 0], minlength=2).tolist())
        refuse_too_few_frames(table, frames, "gender", [2 * rarest], sample_frames, seed)
        with pytest.raises(RequestError, match=rf"({rarest}|{commonest}) frames of gender \w+ for {rarest + 1} of"):
            refuse_too_few_frames(table, frames, "gender", [2 * rarest + 2], sample_frames, seed)
