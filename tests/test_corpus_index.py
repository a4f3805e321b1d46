"""What a run keeps of its recordings: asked of the file system, decoded when anything may have changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from audio_files import tone, write_audio
from gmp_atl_hf.data import audio, corpus_index
from gmp_atl_hf.data.corpus_index import INDEX_FILE
from gmp_atl_hf.data.table import Corpus, read_corpora
from gmp_atl_hf.files import check_files
from runs import recipe_dict, run, write_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Any]:
    for number, samples in enumerate((3_200, 4_800, 6_400)):
        write_audio(tmp_path / f"data/sad/anna/{number}.wav", tone(samples, seed=number))
    return {"name": "folder", "root": tmp_path / "data", "speaker": "parent"}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the recordings that are opened to be decoded, or for their headers."""
    names: list[str] = []
    opened = audio.open_audio
    monkeypatch.setattr(
        audio, "open_audio", lambda name, encoded: names.append(Path(name).name) or opened(name, encoded)
    )
    return names


def again(corpus: dict[str, Any], run: Path, decoded: list[str], **options: Any) -> tuple[Corpus, list[str]]:
    """Read a corpus with the index of a run; also give what was decoded for it."""
    decoded.clear()
    found = read_corpora([corpus | options], index=run)
    found.index.save()
    return found, sorted(decoded)


def same(first: Corpus, second: Corpus) -> bool:
    return first.table[:] == second.table[:] and first.digests == second.digests and first.problems == second.problems


def test_a_corpus_that_is_as_it_was_is_not_decoded_again(corpus, tmp_path, decoded):
    write_audio(tmp_path / "data/sad/anna/silent.wav", 0 * tone(1_600))
    write_audio(tmp_path / "data/sad/anna/twin.wav", tone(3_200, seed=0))
    first, names = again(corpus, tmp_path / "run", decoded)
    assert len(names) == 5 and len(first.problems) == 2
    second, names = again(corpus, tmp_path / "run", decoded)
    assert names == [] and same(first, second)
    assert same(first, read_corpora([corpus]))
    check_files(tmp_path / "run", INDEX_FILE)


def test_recordings_in_memory_are_told_by_their_content(tmp_path, decoded):
    write_audio(tmp_path / "x.wav", tone(16_000))
    (tmp_path / "x.csv").write_text("file,emotion,speaker,start,end\nx.wav,sad,a,0,0.5\nx.wav,sad,a,0.5,1\n")
    lists = {"name": "csv", "root": tmp_path / "x.csv"}
    first, names = again(lists, tmp_path / "run", decoded)
    assert len(names) == 2
    second, names = again(lists, tmp_path / "run", decoded)
    assert names == [] and same(first, second)


@pytest.mark.parametrize("keeps_date", [False, True])
def test_a_recording_that_changes_is_decoded_again_and_no_other(corpus, tmp_path, decoded, keeps_date):
    again(corpus, tmp_path / "run", decoded)
    file = tmp_path / "data/sad/anna/1.wav"
    before = file.stat()
    write_audio(file, tone(4_800, seed=7))
    if keeps_date:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    found, names = again(corpus, tmp_path / "run", decoded)
    assert file.stat().st_size == before.st_size
    assert names == ["1.wav"] and same(found, read_corpora([corpus]))
    assert again(corpus, tmp_path / "run", decoded)[1] == []


def test_recordings_come_and_go(corpus, tmp_path, decoded):
    again(corpus, tmp_path / "run", decoded)
    (tmp_path / "data/sad/anna/0.wav").unlink()
    write_audio(tmp_path / "data/sad/anna/3.wav", tone(2_000, seed=3))
    found, names = again(corpus, tmp_path / "run", decoded)
    assert names == ["3.wav"] and found.table["num_samples"][:] == [4_800, 6_400, 2_000]


@pytest.mark.parametrize("damage", ["removed", "cut", "changed", "nonsense", "other decoder"])
def test_an_index_that_is_damaged_or_of_another_decoder_counts_for_nothing(
    corpus, tmp_path, decoded, damage, monkeypatch
):
    first, _ = again(corpus, tmp_path / "run", decoded)
    index = tmp_path / "run" / INDEX_FILE
    text = index.read_text()
    if damage == "removed":
        index.unlink()
    elif damage == "cut":
        index.write_text(text[:-20])
    elif damage == "changed":
        index.write_text(text.replace("4800", "4801"))
    elif damage == "nonsense":
        index.write_text("[1]")
        (tmp_path / "run/hashes.json").unlink()
    else:
        monkeypatch.setattr(corpus_index, "_DECODER", "another")
    second, names = again(corpus, tmp_path / "run", decoded)
    assert len(names) == 3 and same(first, second)
    assert again(corpus, tmp_path / "run", decoded)[1] == []


def test_lengths_from_headers_stand_for_no_digest(corpus, tmp_path, decoded):
    unchecked, _ = again(corpus, tmp_path / "run", decoded, check_audio=False)
    assert again(corpus, tmp_path / "run", decoded, check_audio=False)[1] == []
    found, names = again(corpus, tmp_path / "run", decoded)
    assert len(names) == 3 and len(found.digests) == 3 and not unchecked.digests
    _, names = again(corpus, tmp_path / "run", decoded, check_audio=False)
    assert len(names) == 3


def test_what_was_decoded_stays_known_where_another_asks_for_lengths_alone(corpus, tmp_path, decoded):
    entries = [corpus, corpus | {"corpus_name": "other", "check_audio": False}]
    read_corpora(entries, index=tmp_path / "run").index.save()
    assert again(corpus, tmp_path / "run", decoded)[1] == []


def test_a_broken_recording_is_looked_at_every_time(corpus, tmp_path, decoded):
    file = tmp_path / "data/sad/anna/2.wav"
    file.write_bytes(file.read_bytes()[:1_000])
    for _ in range(2):
        found, names = again(corpus, tmp_path / "run", decoded, unreadable="drop")
        assert "2.wav" in names and [one.file for one in found.left_out] == ["folder/sad/anna/2.wav"]
    assert names == ["2.wav"]


def test_nothing_is_written_unless_it_is_asked_for(corpus, tmp_path):
    read_corpora([corpus], index=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_decodes_nothing(tmp_path, decoded):
    recipe = recipe_dict(write_corpus(tmp_path / "corpus"), final=False, variants=["direct"])
    recipe["stages"]["finetune"]["num_train_epochs"] = 1
    first = run(recipe, tmp_path / "run", folds=[1])
    assert decoded
    decoded.clear()
    assert run(recipe, tmp_path / "run", folds=[1]) == first
    assert decoded == []
