"""`gmp-atl embed`: embeddings of any corpus or folder, by any speech encoder, as parquet or npz."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from audio_files import tone, write_audio
from gmp_atl_hf import embed_corpus, embed_files
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.data.audio import read_clip
from gmp_atl_hf.embeddings import embed, writers
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.pretraining.teachers import Teacher, teacher_facts
from runs import EMOTIONS, SPEAKER_PATTERN, write_corpus
from teachers import FAMILIES, make_teacher

POOLED = {
    "mean": lambda states: states.mean(0),
    "statistics": lambda states: np.concatenate([states.mean(0), states.std(0)]),
    "max": lambda states: states.max(0),
    "none": lambda states: states,
}


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    return str(make_teacher("hubert", tmp_path / "encoder"))


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    for number, name in enumerate(("a/x.wav", "b.flac", "c.wav")):
        write_audio(tmp_path / "in" / name, tone(4_000 + 3_000 * number, 150 * (number + 1)))
    return tmp_path / "in"


def rows_of(file: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(file).to_pylist())


def states_of(model: str, file: str | Path, layer: int) -> np.ndarray:
    return Teacher(teacher_facts(model), [layer], torch.device("cpu")).states(read_clip(file))[layer].numpy()


@pytest.mark.parametrize("family", [*FAMILIES, "mini"])
def test_every_family_is_embedded(family: str, tmp_path: Path, recordings: Path) -> None:
    model = family if family == "mini" else str(make_teacher(family, tmp_path / "encoder"))
    assert main(["embed", model, str(recordings), "--output", str(tmp_path / "x.parquet")]) == 0
    rows = rows_of(tmp_path / "x.parquet")
    assert [row["file"] for row in rows] == sorted(str(file) for file in recordings.rglob("*.*"))
    assert [row["num_samples"] for row in rows] == [4_000, 7_000, 10_000]
    for row in rows:
        expected = states_of(model, row["file"], 4 if family == "mini" else 3).mean(0)
        np.testing.assert_allclose(row["embedding"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", embed.POOLINGS)
@pytest.mark.parametrize("layer", [0, 2, -1])
def test_a_layer_is_pooled_as_asked(pooling: str, layer: int, encoder: str, recordings: Path, tmp_path: Path) -> None:
    report = embed_files(encoder, recordings, tmp_path / "x.parquet", layer=layer, pooling=pooling)
    rows = rows_of(tmp_path / "x.parquet")
    resolved = 3 if layer == -1 else layer
    for row in rows:
        expected = POOLED[pooling](states_of(encoder, row["file"], resolved))
        assert expected.shape[-1] == report.width
        np.testing.assert_allclose(row["embedding"], expected, rtol=1e-4, atol=1e-4)
    schema = pq.read_schema(tmp_path / "x.parquet")
    noted = json.loads(schema.metadata[writers.METADATA_KEY.encode()])
    assert (noted["model"], noted["layer"], noted["pooling"]) == (encoder, resolved, pooling)
    assert noted["gmp_atl_hf"] and "float" in str(schema.field("embedding").type)


def test_npz_and_parquet_hold_the_same(encoder: str, recordings: Path, tmp_path: Path) -> None:
    for name in ("x.parquet", "x.npz"):
        embed_files(encoder, [recordings / "b.flac", recordings / "a"], tmp_path / name, pooling="statistics")
    rows = rows_of(tmp_path / "x.parquet")
    with np.load(tmp_path / "x.npz") as arrays:  # without pickle
        assert arrays["embedding"].dtype == np.float32
        np.testing.assert_array_equal(arrays["embedding"], np.asarray([row["embedding"] for row in rows], "float32"))
        assert arrays["file"].tolist() == [row["file"] for row in rows]
        assert arrays["num_samples"].tolist() == [row["num_samples"] for row in rows]
        assert json.loads(str(arrays["metadata"]))["pooling"] == "statistics"


def test_a_corpus_brings_speakers_genders_and_emotions(encoder: str, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    corpus = ["--corpus", "folder", "--root", str(tmp_path / "corpus"), "--options", f"speaker={SPEAKER_PATTERN}"]
    labels = ["--labels", "anger=anger", "neutral=calm", "sadness=null"]
    assert main(["embed", encoder, *corpus, *labels, "--output", str(tmp_path / "x.parquet")]) == 0
    rows = rows_of(tmp_path / "x.parquet")
    assert len(rows) == 24 and {row["emotion"] for row in rows} == {"anger", "calm"}
    assert {(row["speaker"][-2:], row["gender"]) for row in rows} == {
        (speaker, "female" if speaker[0] == "f" else "male") for speaker in ("f1", "f2", "f3", "m1", "m2", "m3")
    }
    for row in rows[::7]:
        expected = states_of(encoder, tmp_path / "corpus" / row["file"], 3).mean(0)
        np.testing.assert_allclose(row["embedding"], expected, rtol=1e-4, atol=1e-4)


def test_a_recording_that_cannot_be_read_has_a_row_and_a_word(
    encoder: str, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recordings / "broken.wav").write_text("no audio")
    (recordings / "notes.txt").write_text("no audio")
    for name in ("x.parquet", "x.npz"):
        assert main(["embed", encoder, str(recordings), "--output", str(tmp_path / name)]) == 1
        said = capsys.readouterr().err
        assert f"not embedded: {recordings / 'broken.wav'} is not audio" in said
        assert "1 of 4 recordings could not be embedded" in said and "notes.txt" in said
    [bad] = [row for row in rows_of(tmp_path / "x.parquet") if row["error"] is not None]
    assert bad["file"].endswith("broken.wav") and bad["embedding"] is None and bad["num_samples"] is None
    with np.load(tmp_path / "x.npz") as arrays:
        wrong = np.isnan(arrays["embedding"]).all(axis=1)
        assert wrong.tolist() == [bool(text) for text in arrays["error"]] and wrong.sum() == 1


def test_damage_found_late_in_a_corpus_has_a_row_too(encoder: str, tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", speakers=("f1", "m1"), takes=1)
    bad = write_audio(root / "anger" / "f2_0.wav", np.full(4_000, np.nan, dtype=np.float32), subtype="FLOAT")
    corpus = {"name": "folder", "root": str(root), "speaker": SPEAKER_PATTERN, "check_audio": False}
    report = embed_corpus(encoder, corpus, tmp_path / "x.parquet")
    [row] = [row for row in rows_of(tmp_path / "x.parquet") if row["error"] is not None]
    assert row["file"].endswith(bad.name) and row["emotion"] == EMOTIONS[0] and report.problems == [row["error"]]


def test_rows_reach_the_disk_while_others_are_still_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "_GROUP_ROWS", 4)
    parquet = writers.ParquetRows(tmp_path / "x.parquet", {}, frames=False)
    npz = writers.NpzRows(tmp_path / "x.npz", {}, (40, 1_000))
    kept = []
    for number in range(40):
        row = writers.Row(id=str(number), file="f", num_samples=1, embedding=np.full(1_000, number, np.float32))
        parquet.write(row)
        npz.write(row)
        kept.append(len(parquet._rows))
    assert max(kept) < 4 and (tmp_path / "x.npz").stat().st_size > 100_000
    parquet.close()
    npz.close()
    assert pq.ParquetFile(tmp_path / "x.parquet").num_row_groups == 10
    assert [row["embedding"][0] for row in rows_of(tmp_path / "x.parquet")] == list(range(40))
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["embedding"][:, -1].tolist() == list(range(40))


@pytest.mark.parametrize("name", ["x.parquet", "x.npz"])
def test_what_is_not_finished_never_has_the_name(
    name: str, encoder: str, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out" / name
    target.parent.mkdir()
    target.write_text("old")

    def interrupt(_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(embed, "POOLINGS", {"mean": interrupt})
        assert main(["embed", encoder, str(recordings), "--output", str(target)]) == 130
    assert target.read_text() == "old" and list(target.parent.iterdir()) == [target]
    assert main(["embed", encoder, str(recordings), "--output", str(target)]) == 0
    assert target.stat().st_size > 100 and list(target.parent.iterdir()) == [target]


def test_wrong_requests_are_refused(
    encoder: str, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, out = str(recordings), ["--output", str(tmp_path / "x.parquet")]
    table = tmp_path / "calls.csv"
    table.touch()
    for words, message in [
        (["embed", encoder, *out], "neither recordings nor a corpus"),
        (["embed", encoder, good, "--corpus", "folder", *out], "recordings and a corpus"),
        (["embed", encoder, good, "--labels", "a=b", *out], "without a corpus"),
        (["embed", encoder, str(table), *out], "--corpus csv --root TABLE"),
        (["embed", encoder, good, "--layer", "4", *out], f"layer 4 of the encoder {encoder}, which has 3"),
        (["embed", encoder, good, "--pooling", "sum", *out], "pooling is 'sum'"),
        (["embed", encoder, good, "--output", str(tmp_path / "x.csv")], ".parquet or .npz"),
        (["embed", encoder, good, "--pooling", "none", "--output", str(tmp_path / "x.npz")], "any number of frames"),
        (["embed", encoder, good, "--output", str(tmp_path / "no" / "x.npz")], "mkdir -p"),
        (["embed", encoder, good, "--output", good], "is a folder"),
        (["embed", good, good, *out], f"the encoder {good} cannot be read"),
        (["embed", encoder, good, "--device", "cuda:77", *out], "device"),
    ]:
        assert main(words) == 2, words
        assert message in capsys.readouterr().err, words
    with pytest.raises(RequestError, match="pooling"):
        embed_files(encoder, recordings, tmp_path / "x.parquet", pooling="median")
