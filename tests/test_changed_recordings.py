"""Recordings that change in their middle: the row's fingerprint stays, and nothing may be mixed of the two."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from audio_files import tone, write_audio
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.data import corpus_index
from gmp_atl_hf.data.corpus_index import INDEX_FILE, Changes, CorpusIndex
from gmp_atl_hf.data.fingerprints import Recordings, row_fingerprints
from gmp_atl_hf.data.table import read_corpora
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.pretraining import run as pretraining
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run.changed_recordings import refuse_changed_recordings
from gmp_atl_hf.run.plan import RunPlan, plan_run
from pretrainings import pretrain, pretrain_dict
from runs import EMOTIONS, SPLIT, given_split, recipe_dict, write_recipe

LONG, SHORT = 5 * 16_000, 8_000


def write_clips(root: Path, split: bool = False) -> Path:
    """One clip of each speaker and emotion, longer than what a fingerprint reads of it."""
    for number, (speaker, part) in enumerate(SPLIT.items()):
        for emotion, name in enumerate(EMOTIONS):
            place = root / part / name if split else root / name
            write_audio(place / f"{speaker}_0.wav", tone(LONG, 200 * (1 + emotion), seed=number))
    return root


def mute_middle(file: Path) -> bytes:
    """Overwrite a tenth of a second in the middle of a long clip; give what was there."""
    before = file.read_bytes()
    middle = len(before) // 2
    file.write_bytes(before[:middle] + bytes(3_200) + before[middle + 3_200 :])
    return before


# ---- what has changed ------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Any]:
    for number, samples in enumerate((SHORT, LONG, LONG)):
        write_audio(tmp_path / f"data/sad/anna/{number}.wav", tone(samples, seed=number))
    entry = {"name": "folder", "root": tmp_path / "data", "speaker": "parent"}
    read_corpora([entry], index=tmp_path / "run").index.save()
    return entry


def changes(corpus: dict[str, Any], run: Path, **options: Any) -> Changes:
    found = read_corpora([corpus | options], index=run)
    return found.index.changes(found.table)


def ids(*numbers: int) -> frozenset[str]:
    return frozenset(f"folder/sad/anna/{number}.wav" for number in numbers)


@pytest.mark.parametrize("options", [{}, {"check_audio": False}])
def test_other_samples_are_a_change_that_the_fingerprint_does_not_see(corpus, tmp_path, options):
    before = row_fingerprints(read_corpora([corpus]).table)
    mute_middle(tmp_path / "data/sad/anna/1.wav")
    assert row_fingerprints(read_corpora([corpus]).table) == before
    assert changes(corpus, tmp_path / "run", **options) == Changes(ids(1))


def test_a_file_that_was_only_touched_or_copied_is_no_change(corpus, tmp_path):
    os.utime(tmp_path / "data/sad/anna/0.wav")
    file = tmp_path / "data/sad/anna/1.wav"
    file.write_bytes(file.read_bytes())
    assert changes(corpus, tmp_path / "run") == Changes()


def test_a_corpus_that_was_moved_is_known_by_its_samples(corpus, tmp_path):
    shutil.move(tmp_path / "data", tmp_path / "moved")
    there = corpus | {"root": tmp_path / "moved"}
    assert changes(there, tmp_path / "run") == Changes()
    mute_middle(tmp_path / "moved/sad/anna/2.wav")
    assert changes(there, tmp_path / "run") == Changes(new=ids(2))


def test_another_version_that_decodes_alike_compares_all_the_same(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_index, "_DECODER", corpus_index._DECODER.replace(corpus_index.__version__, "9.9"))
    mute_middle(tmp_path / "data/sad/anna/1.wav")
    assert changes(corpus, tmp_path / "run") == Changes(ids(1))


@pytest.mark.parametrize("lacking", ["index", "decoder", "samples"])
def test_where_no_samples_can_be_compared_long_recordings_are_unclear(corpus, tmp_path, lacking, monkeypatch):
    if lacking == "index":
        (tmp_path / "run" / INDEX_FILE).unlink()
    elif lacking == "decoder":
        monkeypatch.setattr(corpus_index, "_DECODER", "format 9, another")
    else:
        shutil.rmtree(tmp_path / "run")
        read_corpora([corpus | {"check_audio": False}], index=tmp_path / "run").index.save()
    for number in range(3):
        os.utime(tmp_path / f"data/sad/anna/{number}.wav")
    # Of the short one the fingerprint knows everything.
    assert changes(corpus, tmp_path / "run") == Changes(unclear=ids(1, 2))


def test_recordings_in_memory_are_known_by_their_rows(corpus, tmp_path):
    table = read_corpora([corpus]).table
    held = table.map(lambda row: {"audio": {"bytes": Path(row["audio"]["path"]).read_bytes(), "path": None}})
    assert CorpusIndex(tmp_path / "nothing").changes(held) == Changes()


# ---- during a run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoded", [True, False])
def test_a_middle_that_changes_during_the_work_is_noticed(corpus, decoded):
    found = read_corpora([corpus | {"check_audio": decoded}])
    recordings = Recordings(found.table, found.digests)
    with pytest.raises(RequestError, match=r"sad/anna/1\.wav .* was replaced while"), recordings.unchanged():
        mute_middle(corpus["root"] / "sad/anna/1.wav")


def test_what_sounds_the_same_is_only_touched(corpus):
    found = read_corpora([corpus])
    with Recordings(found.table, found.digests).unchanged():
        for file in corpus["root"].rglob("*.wav"):
            file.write_bytes(file.read_bytes())
    with Recordings(found.table).unchanged():  # of which nobody knows the samples
        for file in corpus["root"].rglob("*.wav"):
            file.chmod(0o600)


# ---- between two starts ----------------------------------------------------------------------------------------------


def small(recipe: dict[str, Any]) -> dict[str, Any]:
    recipe |= {"variants": ["direct"], "final": False}
    recipe["stages"]["finetune"] |= {"num_train_epochs": 1}
    return recipe


def test_a_run_refuses_recordings_that_changed_since_its_first_fold(tmp_path, capsys):
    root = write_clips(tmp_path / "corpus")
    recipe = write_recipe(tmp_path / "recipe.yaml", small(recipe_dict(root)))
    words = ["run", str(recipe), "--output-dir", str(tmp_path / "run")]
    assert main([*words, "--folds", "1"]) == 0
    files = sorted(root.rglob("*.wav"))
    before = [mute_middle(file) for file in files]
    capsys.readouterr()
    for _ in range(2):  # the second time as well: nothing was noted of what was refused
        assert main(words) == 2
        complained = capsys.readouterr().err
        assert "18 recordings have other samples than when" in complained
        assert "folder/anger/f1_0.wav, folder/anger/f2_0.wav, folder/anger/f3_0.wav and 15 more" in complained
        assert "fix: put them back" in complained
    for file, content in zip(files, before, strict=True):
        file.write_bytes(content)
    assert main(words) == 0
    assert "finished before" in (said := capsys.readouterr().out) and "were compared with" not in said
    (tmp_path / "run" / INDEX_FILE).unlink()
    assert main(words) == 0
    assert "Note: Of 18 recordings that finished or begun steps have heard, only size" in capsys.readouterr().out


def started(tmp_path: Path) -> tuple[dict[str, Any], RunPlan]:
    """A run whose index is saved, and of which nothing is done."""
    recipe = small(given_split(write_clips(tmp_path / "corpus", split=True)))
    plan = plan_run(Recipe.from_dict(recipe), tmp_path / "run")
    plan.corpus.index.save()
    return recipe, plan


def refuse(recipe: dict[str, Any], folder: Path, tested: bool = False) -> list[str]:
    return refuse_changed_recordings(plan_run(Recipe.from_dict(recipe), folder), lambda planned: tested)


def test_what_nothing_was_made_of_may_change(tmp_path):
    recipe, _ = started(tmp_path)
    mute_middle(tmp_path / "corpus/train/anger/f1_0.wav")
    assert refuse(recipe, tmp_path / "run") == []


def test_half_a_step_is_not_continued_with_other_sound(tmp_path):
    recipe, plan = started(tmp_path)
    with pytest.raises(KeyboardInterrupt), plan.planned[0].steps[-1].folder.work(plan.processes):
        raise KeyboardInterrupt
    content = mute_middle(tested := tmp_path / "corpus/test/anger/f3_0.wav")
    assert refuse(recipe, tmp_path / "run") == []
    tested.write_bytes(content)
    mute_middle(tmp_path / "corpus/dev/anger/m2_0.wav")
    with pytest.raises(RequestError, match=r"1 recording has other samples .*: folder/dev/anger/m2_0\.wav"):
        refuse(recipe, tmp_path / "run")


def test_a_finished_test_does_not_stand_for_other_sound(tmp_path):
    recipe, _ = started(tmp_path)
    mute_middle(tmp_path / "corpus/test/anger/f3_0.wav")
    with pytest.raises(RequestError, match=r"folder/test/anger/f3_0\.wav"):
        refuse(recipe, tmp_path / "run", tested=True)


def test_what_a_variant_has_heard_that_is_not_asked_for_now_counts_too(tmp_path):
    recipe, plan = started(tmp_path)
    other = plan_run(Recipe.from_dict(recipe | {"seeds": [1]}), tmp_path / "run").planned[0].steps[-1].folder
    with pytest.raises(KeyboardInterrupt), other.work(plan.processes):
        raise KeyboardInterrupt
    write_audio(tmp_path / "corpus/train/anger/f1_1.wav", tone(LONG, seed=99))
    assert refuse(recipe, tmp_path / "run") == []  # a new one has not been heard
    mute_middle(tmp_path / "corpus/train/anger/f1_0.wav")
    with pytest.raises(RequestError, match=r": folder/train/anger/f1_0\.wav"):
        refuse(recipe, tmp_path / "run")


def test_a_moved_recording_that_has_changed_is_refused(tmp_path):
    recipe, plan = started(tmp_path)
    with pytest.raises(KeyboardInterrupt), plan.planned[0].steps[-1].folder.work(plan.processes):
        raise KeyboardInterrupt
    shutil.move(tmp_path / "corpus", tmp_path / "moved")
    recipe["corpus"]["root"] = str(tmp_path / "moved")
    assert refuse(recipe, tmp_path / "run") == []
    mute_middle(tmp_path / "moved/train/anger/f1_0.wav")
    with pytest.raises(RequestError, match=r": folder/train/anger/f1_0\.wav"):
        refuse(recipe, tmp_path / "run")


def test_a_finished_backbone_has_heard_nothing(tmp_path):
    recipe, plan = started(tmp_path)
    backbone = plan.planned[0].steps[0]
    with backbone.folder.work(plan.processes) as folder:
        backbone.perform(folder)
    mute_middle(tmp_path / "corpus/train/anger/f1_0.wav")
    assert refuse(recipe, tmp_path / "run") == []


def test_a_pretraining_refuses_recordings_that_changed_since_it_was_begun(tmp_path, monkeypatch):
    lines = ["file_name,speaker"]
    for number in range(8):
        write_audio(tmp_path / f"{number}.wav", tone(LONG, seed=number))
        lines.append(f"{number}.wav,{number % 4}")
    (tmp_path / "speech.csv").write_text("\n".join(lines), encoding="utf-8")
    recipe = pretrain_dict(tmp_path / "speech.csv")

    def interrupted(*_: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr(pretraining, "cluster_and_label", interrupted)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            pretrain(recipe, tmp_path / "run")
    heard = json.loads((tmp_path / "run" / INDEX_FILE).read_text())["recordings"]
    for path, *_ in heard:
        mute_middle(Path(path))
    with pytest.raises(RequestError, match="8 recordings have other samples than when"):
        pretrain(recipe, tmp_path / "run")
