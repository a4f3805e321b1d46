"""`gmp-atl evaluate` with models that are not ours: any audio classifier of transformers, and dimensional models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, HubertForCTC

from audio_files import RATE, write_audio
from foreign import SECONDS, make_foreign
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.data.audio import read_audio
from gmp_atl_hf.errors import DivergenceError, RequestError
from gmp_atl_hf.protocols.leakage import MAYBE_SEEN_STAMP
from gmp_atl_hf.run.any_model import NO_NEIGHBOURS
from gmp_atl_hf.run.centres import Centres
from gmp_atl_hf.run.evaluate import evaluate_model
from gmp_atl_hf.run.label_match import LabelMatch, suggest
from models import tiny_hubert_config
from runs import EMOTIONS, SPEAKER_PATTERN, clip, read_json, read_lines, write_corpus

LABELS = ("Sadness", "anger", "NEUTRAL")
PREDICTIONS = "model/seed-0/fold-01/predictions.jsonl"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recordings of four speakers, two of them of one length; must not be changed."""
    root = write_corpus(tmp_path_factory.mktemp("corpus"), ("f7", "f8", "m7", "m8"), takes=1)
    for speaker in ("f7", "m7"):
        write_audio(root / "anger" / f"{speaker}_0.wav", clip(0, int(speaker[1]), ord(speaker[0]))[:1_600])
    return root


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base-shaped classifier whose labels are the corpus' but for their case; must not be changed."""
    return make_foreign("hubert", tmp_path_factory.mktemp("hubert") / "someones", LABELS)


def corpus_of(root: Path, **options: Any) -> dict[str, Any]:
    return {"name": "folder", "root": str(root), "speaker": SPEAKER_PATTERN, **options}


def words_of(model: Path, root: Path, *more: str) -> list[str]:
    options = f"speaker={json.dumps(SPEAKER_PATTERN)}"
    return ["evaluate", str(model), "--corpus", "folder", "--root", str(root), "--options", options, *more]


def by_hand(model: Path, file: Path, rate: int = RATE) -> np.ndarray:
    """Logits of one recording by transformers alone, (labels,)."""
    inputs = AutoFeatureExtractor.from_pretrained(model)(
        read_audio(file, rate), sampling_rate=rate, return_tensors="pt"
    )
    with torch.inference_mode():
        return AutoModelForAudioClassification.from_pretrained(model).eval()(**inputs).logits[0].numpy()


# ---- the numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["hubert", "wav2vec2", "whisper"])
def test_the_scores_are_those_that_transformers_gives_each_recording_alone(
    family: str, corpus: Path, tmp_path: Path
) -> None:
    model = make_foreign(family, tmp_path / "someones", LABELS)
    together = evaluate_model(model, corpus_of(corpus), batch_size=8, output_dir=tmp_path / "8")
    evaluate_model(model, corpus_of(corpus), batch_size=1, output_dir=tmp_path / "1")
    rows, alone = (read_lines(tmp_path / size / PREDICTIONS) for size in ("8", "1"))
    assert len(rows) == 12 and np.std([row["scores"]["anger"] for row in rows]) > 1e-3
    for row, single in zip(rows, alone, strict=True):
        logits = torch.from_numpy(by_hand(model, corpus / row["file"]))
        expected = dict(zip(("sadness", "anger", "neutral"), logits.softmax(-1).tolist(), strict=True))
        assert row["scores"] == pytest.approx(expected, abs=1e-5)
        assert single["scores"] == pytest.approx(expected, abs=1e-5)
        assert row["predicted"] == max(expected, key=expected.__getitem__)
    assert NO_NEIGHBOURS in together["notes"]


def test_a_report_is_stamped_since_nobody_knows_whom_the_model_has_seen(
    hubert: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(hubert, corpus, "--output-dir", str(tmp_path / "out"))) == 0
    assert f"*** {MAYBE_SEEN_STAMP} ***" in capsys.readouterr().out
    report = read_json(tmp_path / "out/report.json")
    assert report["stamps"] == [MAYBE_SEEN_STAMP]
    assert MAYBE_SEEN_STAMP in (tmp_path / "out/report.md").read_text()
    assert report["protocol"]["sentence"].startswith(
        "the finished model someones, trained on speakers that are not known, tested once on folder: 4 speakers"
    )
    assert report["protocol"]["label_map"] == {"Sadness": "sadness", "anger": "anger", "NEUTRAL": "neutral"}
    assert report["labels"] == sorted(EMOTIONS) and report["left_out"] == {}
    assert main(words_of(hubert, corpus, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["variants"] == report["variants"]


def test_a_recording_comes_at_the_sampling_rate_of_the_extractor(corpus: Path, tmp_path: Path) -> None:
    model = make_foreign("wav2vec2", tmp_path / "narrow", LABELS, rate=8_000)
    evaluate_model(model, corpus_of(corpus), output_dir=tmp_path / "out")
    for row in read_lines(tmp_path / "out" / PREDICTIONS):
        scores = torch.from_numpy(by_hand(model, corpus / row["file"], 8_000)).softmax(-1).tolist()
        assert [row["scores"][name] for name in ("sadness", "anger", "neutral")] == pytest.approx(scores, abs=1e-5)


def test_what_an_extractor_cuts_off_is_said(corpus: Path, tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "long", ("f7",), takes=1)
    write_audio(root / "anger" / "f7_0.wav", np.tile(clip(0, 7, 0), 20)[: 2 * SECONDS * RATE])
    notes = evaluate_model(make_foreign("whisper", tmp_path / "someones", LABELS), corpus_of(root))["notes"]
    assert "The model takes 1 s: of 1 longer recording it got only the beginning." in notes


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_labels_of_other_names_are_refused_with_a_map_that_then_works(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_foreign("hubert", tmp_path / "someones", ("ang", "hap", "neu", "sad"))
    assert main(words_of(model, corpus)) == 2
    error = capsys.readouterr().err
    assert "has the labels ang, hap, neu, sad, which the corpus has not under the same name" in error
    assert "The corpus has anger (4), neutral (4), sadness (4)" in error
    assert '--labels "ang=anger,hap=null,neu=neutral,sad=sadness"' in error
    assert main(words_of(model, corpus, "--labels", "ang=anger,hap=null,neu=neutral,sad=sadness", "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    summary = report["variants"]["model"]
    assert report["labels"] == ["anger", "neutral", "sadness", "hap"]
    assert summary["absent_labels"] == ["hap"] and summary["chance_uar"] == pytest.approx(1 / 3)
    answered = sum(row[3] for row in summary["confusion"])
    assert f"hap ({answered:g})" in " ".join(report["notes"])
    recalls = [summary["per_class_recall"][name] for name in EMOTIONS]
    assert summary["uar"]["pooled"] == pytest.approx(np.mean(recalls))
    (tmp_path / "map.yaml").write_text("ang: anger\nhap: null\nneu: neutral\nsad: sadness\n")
    assert main(words_of(model, corpus, "--labels", str(tmp_path / "map.yaml"), "--json")) == 0
    assert json.loads(capsys.readouterr().out)["variants"]["model"] == summary


def test_emotions_that_a_model_cannot_say_are_left_out_listed_and_stamped(corpus: Path, tmp_path: Path) -> None:
    model = make_foreign("hubert", tmp_path / "someones", ("anger", "neutral"))
    report = evaluate_model(model, corpus_of(corpus), output_dir=tmp_path / "out")
    summary = report["variants"]["model"]
    assert report["left_out"] == {"the model has no answer for sadness": 4}
    listed = {row["file"] for row in read_lines(tmp_path / "out/left_out.jsonl")}
    tested = {row["id"] for row in read_lines(tmp_path / "out" / PREDICTIONS)}
    assert len(listed) == 4 and len(tested) == summary["utterances"] == 8 and listed.isdisjoint(tested)
    assert any(
        "2 of the corpus' 3 emotions" in stamp and "no answer for sadness (4)" in stamp for stamp in report["stamps"]
    )
    assert report["protocol"]["emotions_without_label"] == {"sadness": 4}
    assert summary["chance_uar"] == 0.5


def test_labels_of_one_emotion_add_up() -> None:
    match = LabelMatch({"calm": "neutral", "angry": "anger", "neutral": "neutral", "bored": None}, ["anger", "neutral"])
    logits = np.log([[0.3, 0.4, 0.2, 0.1]])
    assert match.answers == ["anger", "neutral", "bored"]
    np.testing.assert_allclose(match.scores(logits), [[0.4, 0.5, 0.1]])


def test_a_label_without_meaning_is_told_from_an_emotion_of_the_same_name() -> None:
    match = LabelMatch({"joy": "happy", "happy": None}, ["happy", "sad"])
    assert match.answers == ["happy", "happy (of the model)"] and match.untold == ["sad"]


@pytest.mark.parametrize(
    ("label", "emotion"),
    [
        ("Happy", "happiness"),
        ("fea", "fear"),
        ("neu", "neutral"),
        ("scared", "fear"),
        ("calm", None),
        ("LABEL_0", None),
    ],
)
def test_a_suggestion_follows_the_word(label: str, emotion: str | None) -> None:
    assert suggest(label, ["anger", "fear", "happiness", "neutral", "sadness"]) == emotion


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("anger=sadnes,neutral=neutral,Sadness=null", "did you mean `sadness`"),
        ("angr=anger", "did you mean `anger`"),
        ("bliss=neutral", "turn it round, --labels NEUTRAL=bliss"),
        ("anger=null,neutral=null,Sadness=null", "no label of .* means an emotion of the corpus"),
        ("anger=true", "the label map says anger=True\n"),
        ("anger=anger,anger=neutral", "gives 'anger' twice"),
    ],
)
def test_a_wrong_map_is_refused(
    labels: str, words: str, hubert: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(hubert, corpus, "--labels", labels)) == 2
    assert re.search(words, capsys.readouterr().err)


# ---- scales ----------------------------------------------------------------------------------------------------------


def test_a_dimensional_model_has_the_emotion_of_the_nearest_centre_and_none_without_centres(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_foreign(
        "wav2vec2", tmp_path / "scales", ("arousal", "dominance", "valence"), problem_type="regression"
    )
    assert main(words_of(model, corpus)) == 2
    error = capsys.readouterr().err
    assert "gives values on scales (arousal, dominance, valence) and no emotions" in error
    assert "--dimensions centres.yaml, with a line such as anger: {arousal: …, dominance: …, valence: …}" in error
    values = {file: by_hand(model, file) for file in sorted(corpus.rglob("*.wav"))}
    middle = np.mean([*values.values()], axis=0)
    arousal = float(middle[0])
    places = {"Anger": arousal - 1, "neutral": arousal, "joy": arousal + 1}
    centres = {name: {"Arousal": place, "valence": 0} for name, place in places.items()}
    (tmp_path / "centres.json").write_text(json.dumps(centres))
    options = ["--dimensions", str(tmp_path / "centres.json"), "--output-dir", str(tmp_path / "out")]
    assert main(words_of(model, corpus, *options)) == 0
    report, rows = read_json(tmp_path / "out/report.json"), read_lines(tmp_path / "out" / PREDICTIONS)
    assert report["left_out"] == {"the model has no answer for sadness": 4} and len(rows) == 8
    assert report["labels"] == ["anger", "neutral", "joy"] and report["variants"]["model"]["calibration"] is None
    for row in rows:
        arousal, dominance, valence = by_hand(model, corpus / row["file"])
        assert row["values"] == pytest.approx(
            {"arousal": arousal, "dominance": dominance, "valence": valence}, abs=1e-5
        )
        apart = {name: abs(arousal - place) for name, place in places.items()}
        assert row["predicted"] == min(apart, key=apart.__getitem__).lower()
    assert any("Not used: dominance." in note for note in report["notes"])
    options[-1] = str(tmp_path / "other")
    assert main(words_of(model, corpus, *options, "--labels", "arousal=anger")) == 2
    assert "leave out --labels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("centres", "words"),
    [
        ({"anger": {"arousal": 1}}, "centres of 1 emotions"),
        ({"anger": {"arousal": 1}, "fear": {"arosal": 1}}, "did you mean `arousal`"),
        ({"anger": {"arousal": 1}, "fear": {"arousal": "high"}}, "fear has arousal 'high'"),
        ({"anger": {"arousal": 1, "valence": 1}, "fear": {"arousal": 1}}, "give fear its arousal, valence"),
        ({"anger": {"arousal": 1}, "fear": {"arousal": 1.0}}, "two emotions have the same centre"),
        ({"anger": 3, "fear": {"arousal": 1}}, "the entry 'anger': 3"),
    ],
)
def test_wrong_centres_are_refused(centres: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Centres.of(centres, ["arousal", "valence"], "someones")


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_speakers_that_a_model_says_it_has_seen_are_refused_and_may_be_left_out(corpus: Path, tmp_path: Path) -> None:
    model = make_foreign("hubert", tmp_path / "someones", LABELS, seen_speakers=["folder/f7"])
    with pytest.raises(RequestError, match="has seen the test speaker folder/f7"):
        evaluate_model(model, corpus_of(corpus))
    report = evaluate_model(model, corpus_of(corpus), unseen_only=True)
    assert report["left_out"] == {"the model has seen the speaker": 3}
    assert report["stamps"] == [MAYBE_SEEN_STAMP]


def test_what_is_no_whole_audio_classifier_is_refused_before_the_corpus_is_read(tmp_path: Path) -> None:
    nowhere = corpus_of(tmp_path / "no corpus")

    def refused(folder: Path, words: str) -> None:
        with pytest.raises(RequestError, match=words):
            evaluate_model(folder, nowhere)

    HubertForCTC(tiny_hubert_config()).save_pretrained(tmp_path / "ctc")
    refused(tmp_path / "ctc", r"'hubert' model \(HubertForCTC\), no fine-tuned emotion classifier")
    several = make_foreign("hubert", tmp_path / "several", LABELS, problem_type="multi_label_classification")
    refused(several, "gives several labels at once")
    deaf = make_foreign("hubert", tmp_path / "deaf", LABELS)
    (deaf / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor", "size": 224}')
    refused(deaf, "the feature extractor of .* is not for audio: ViTImageProcessor, with sampling_rate None")
    (deaf / "preprocessor_config.json").unlink()
    refused(deaf, "the feature extractor of .* cannot be read")
    other = make_foreign("hubert", tmp_path / "other", LABELS)
    config = read_json(other / "config.json")
    (other / "config.json").write_text(json.dumps({**config, "classifier_proj_size": 9}))
    refused(other, "lacks or has in another shape: classifier.weight, projector.bias, projector.weight")
    (other / "config.json").write_text(json.dumps({**config, "model_type": "vit"}))
    refused(other, "is a 'vit' model")


def test_a_model_that_gives_no_numbers_is_refused(hubert: Path, corpus: Path, tmp_path: Path) -> None:
    model = make_foreign("hubert", tmp_path / "wild", LABELS)
    loaded = AutoModelForAudioClassification.from_pretrained(model)
    with torch.no_grad():
        loaded.classifier.weight.fill_(3e38)
    loaded.save_pretrained(model)
    with pytest.raises(DivergenceError, match="gives no finite numbers for folder/"):
        evaluate_model(model, corpus_of(corpus))


def test_centres_for_a_model_that_tells_emotions_are_refused(hubert: Path, corpus: Path) -> None:
    with pytest.raises(RequestError, match="centres on scales are given"):
        evaluate_model(hubert, corpus_of(corpus), dimensions={"anger": {"arousal": 1}, "fear": {"arousal": 0}})
