"""A classifier that gets to know a speaker by unlabelled recordings: exact, shrunk, kept in a file, and marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor

from audio_files import RATE, tone, write_audio
from classifiers import make_classifier, values
from gmp_atl_hf import HubertForGMPATL, SpeechEmotionClassifier
from gmp_atl_hf.checkpoints import default_feature_extractor
from gmp_atl_hf.data.audio import read_audio
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.inference import classifier as classifier_module
from gmp_atl_hf.inference.scorers import PaddedScorer
from gmp_atl_hf.inference.sources import Item
from gmp_atl_hf.inference.speakers import SOFTENED, SpeakerStatistics, statistics_of
from models import EMOTIONS, build

LENGTHS = (9_000, 14_000, 20_000, 9_000, 30_000)
CLIPS = [(RATE, tone(length, pitch=100 + 60 * number, seed=number)) for number, length in enumerate(LENGTHS)]
OTHER = (RATE, tone(17_000, pitch=300, seed=9))


def standardizing(seed: int = 0) -> SpeechEmotionClassifier:
    """A classifier whose statistics are those of a new model."""
    model: Any = build(HubertForGMPATL, "large", seed, standardize=True, pooling="statistics", logit_temperature=2.0)
    return SpeechEmotionClassifier(model, default_feature_extractor(model.config))


def trained(seed: int = 0) -> SpeechEmotionClassifier:
    """A classifier with statistics as a training leaves them."""
    classifier = standardizing(seed)
    generator = torch.Generator().manual_seed(0)
    standardization = classifier.model.standardization
    size = standardization.mean.shape[0]
    standardization.fit(pooled(classifier, CLIPS[:3]) + 0.1 * torch.randn(3, size, generator=generator))
    standardization.fit_emotions(
        standardization.mean + standardization.deviation * torch.randn(16, size, generator=generator),
        torch.arange(16) % len(EMOTIONS),
    )
    return classifier


@pytest.fixture(scope="module")
def classifier() -> SpeechEmotionClassifier:
    return trained()


@torch.no_grad()
def pooled(classifier: SpeechEmotionClassifier, clips: list[Any]) -> Tensor:
    """(clips, size): what the model's heads read, clip by clip."""
    found = []
    for clip in clips:
        inputs = classifier.feature_extractor(read_audio(clip), sampling_rate=RATE, return_tensors="pt")
        encoded = classifier.model.hubert(inputs["input_values"])
        found.append(classifier.model.pooling(encoded.last_hidden_state, encoded.frame_mask))
    return torch.cat(found)


def by_hand(classifier: SpeechEmotionClassifier, clips: list[Any]) -> np.ndarray:
    """(2, size): mean and deviation that stand in for the training clips' own."""
    model, standardization = classifier.model, classifier.model.standardization
    usual, deviation, emotions, spread = (
        getattr(standardization, name).double().numpy() for name in ("mean", "deviation", "emotion_means", "spread")
    )
    vectors = pooled(classifier, clips)
    with torch.no_grad():
        logits = model.score(vectors)[0]["logits"].double().numpy() * model.config.logit_temperature
    shares = softmax(logits / SOFTENED, axis=1).mean(0)
    n, own = len(clips), (vectors.double().numpy() - usual) / deviation
    expected = sum(share * mean for share, mean in zip(shares, emotions, strict=True))
    variance = sum(share * (mean - expected) ** 2 for share, mean in zip(shares, emotions, strict=True)) + spread**2
    mean = (n * (own.mean(0) - expected) + 4 * 0) / (n + 4)
    scale = (n * own.var(0) / variance + 4 * 1) / (n + 4)
    return np.stack([usual + deviation * mean, deviation * np.sqrt(scale)])


@pytest.mark.parametrize("clips", [CLIPS, CLIPS[:1]], ids=["five clips", "one clip"])
def test_statistics_are_exactly_those_computed_by_hand(classifier: SpeechEmotionClassifier, clips: list[Any]) -> None:
    found = classifier.adapt(clips)
    assert found.clips == len(clips)
    np.testing.assert_allclose(
        np.stack([found.mean, found.deviation]), by_hand(classifier, clips), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("padded", [False, True])
def test_an_adapted_score_is_that_of_vectors_standardised_by_the_speaker(padded: bool) -> None:
    classifier = trained()
    if padded:
        classifier._ready = PaddedScorer(classifier.model, classifier.feature_extractor)
    speaker = classifier.adapt(CLIPS)
    prediction = classifier(OTHER, speaker=speaker)
    model = classifier.model
    with torch.no_grad():
        vectors = (pooled(classifier, [OTHER]) - torch.from_numpy(speaker.mean)) / torch.from_numpy(speaker.deviation)
        logits = model.config.am_softmax_scale * model.classifier(vectors) / model.config.logit_temperature
    np.testing.assert_allclose(values(prediction), logits.softmax(-1)[0].numpy(), atol=1e-5)
    assert (prediction.speaker_clips, prediction.speaker) == (5, None)
    assert np.abs(values(prediction) - values(classifier(OTHER))).max() > 1e-3


def test_one_clip_changes_less_than_many_and_none_of_it_changes_plain_scores(
    classifier: SpeechEmotionClassifier,
) -> None:
    before = values(classifier(OTHER))
    standardization = classifier.model.standardization

    def moved(clips: list[Any]) -> float:
        moved = torch.from_numpy(classifier.adapt(clips).mean) - standardization.mean
        return float((moved / standardization.deviation).norm())

    assert 0 < moved(CLIPS[4:]) < moved(CLIPS[4:] * 20)
    np.testing.assert_array_equal(values(classifier(OTHER)), before)


def test_who_sounds_like_the_training_clips_keeps_the_plain_scores() -> None:
    """However one-sided the emotions: what clips of them have in common is not the voice."""
    classifier = trained()
    standardization = classifier.model.standardization
    shares = torch.tensor([[1.0, 0, 0, 0]])
    mean = standardization.mean + standardization.deviation * standardization.emotion_means[:1]
    variance = (standardization.deviation * standardization.spread).square()[None]
    found = standardization.of_speakers(torch.tensor([50]), mean, variance, shares)[0]
    torch.testing.assert_close(found, torch.stack([standardization.mean, standardization.deviation]))


def test_statistics_are_kept_in_a_file(classifier: SpeechEmotionClassifier, tmp_path: Path) -> None:
    speaker = classifier.adapt(CLIPS)
    speaker.save(tmp_path / "caller.safetensors")
    again = SpeakerStatistics.load(tmp_path / "caller.safetensors")
    assert (again.clips, again.model) == (5, classifier.fingerprint)
    np.testing.assert_array_equal(again.tensor(), speaker.tensor())
    np.testing.assert_array_equal(values(classifier(OTHER, speaker=again)), values(classifier(OTHER, speaker=speaker)))
    assert (tmp_path / "caller.safetensors").stat().st_size < 2_000


def test_a_file_of_something_else_is_refused(classifier: SpeechEmotionClassifier, tmp_path: Path) -> None:
    classifier.model.save_pretrained(tmp_path)
    write_audio(tmp_path / "x.wav", 500)
    for name in ("model.safetensors", "x.wav", "nothing"):
        with pytest.raises(RequestError, match="holds no statistics of a speaker"):
            SpeakerStatistics.load(tmp_path / name)


def test_statistics_of_another_model_are_refused(classifier: SpeechEmotionClassifier) -> None:
    speaker = trained(seed=1).adapt(CLIPS)
    with pytest.raises(RequestError, match="of another model"):
        classifier(OTHER, speaker=speaker)


def test_a_file_in_place_of_statistics_is_refused_with_what_reads_it(classifier: SpeechEmotionClassifier) -> None:
    with pytest.raises(RequestError, match=r"SpeakerStatistics\.load"):
        classifier(OTHER, speaker="caller.safetensors")  # type: ignore[arg-type]


def test_a_model_that_does_not_standardise_is_refused_with_the_fix() -> None:
    classifier = make_classifier()
    with pytest.raises(RequestError, match="standardize: false") as refusal:
        classifier.adapt(CLIPS)
    assert "standardize: true" in str(refusal.value)
    with pytest.raises(RequestError, match="standardize: false"):
        classifier.predict_by_speaker([Item("x", CLIPS[0])], ["a"])


def test_a_recording_that_cannot_be_read_is_named(classifier: SpeechEmotionClassifier, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    with pytest.raises(RequestError, match=r"broken\.wav"):
        classifier.adapt([CLIPS[0], tmp_path / "broken.wav"])
    with pytest.raises(RequestError, match="no recording"):
        classifier.adapt([])


def test_a_model_of_an_earlier_version_is_adapted_with_a_warning() -> None:
    classifier = standardizing()
    with pytest.warns(UserWarning, match="several emotions"):
        assert classifier.adapt(CLIPS).clips == 5


def test_each_speaker_of_many_is_adapted_to_their_own(classifier: SpeechEmotionClassifier, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    items = [Item(str(number), clip) for number, clip in enumerate(CLIPS)] + [Item("bad", tmp_path / "broken.wav")]
    owners = ["a", "b", "a", "b", "a", "c"]
    found = classifier.predict_by_speaker(items, owners)
    assert [(one.speaker, one.speaker_clips) for one in found] == [
        *(("a", 3), ("b", 2), ("a", 3), ("b", 2), ("a", 3)),
        ("c", None),
    ]
    assert found[5].error is not None
    for name in ("a", "b"):
        own = [clip for clip, owner in zip(CLIPS, owners, strict=False) if owner == name]
        wanted = classifier(own, speaker=classifier.adapt(own))
        for one, other in zip([one for one in found if one.speaker == name], wanted, strict=True):
            np.testing.assert_allclose(values(one), values(other), atol=1e-5)
    assert found[0].to_dict()["speaker_clips"] == 3
    assert "speaker_clips" not in classifier(OTHER).to_dict()


def test_speakers_are_taken_one_after_another_so_that_memory_is_for_the_clips_of_one(
    classifier: SpeechEmotionClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    def statistics(model: HubertForGMPATL, pooled: Tensor, chosen: Tensor) -> Tensor:
        shapes.append((len(pooled), tuple(chosen.shape)))
        return statistics_of(model, pooled, chosen)

    monkeypatch.setattr(classifier_module, "statistics_of", statistics)
    items = [Item(str(number), clip) for number, clip in enumerate(CLIPS)]
    found = classifier.predict_by_speaker(items, ["a", "b", "c", "b", "a"], window=1.5)
    assert [one.speaker_clips for one in found] == [3, 2, 1, 2, 3]  # one of five has two windows
    assert shapes == [(3, (1, 3)), (2, (1, 2)), (1, (1, 1))]
