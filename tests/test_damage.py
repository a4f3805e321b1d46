"""What a run has written is used as it was written, made again, or refused in a sentence; it never changes a number."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from damages import DAMAGES, fault_of, numbers, perform
from gmp_atl_hf.card.repository import files_of_run
from gmp_atl_hf.card.usage import write_usage
from gmp_atl_hf.cli.console import explain_file_error
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.files import (
    STEP_FILE,
    check_files,
    is_whole,
    read_json,
    read_jsonl,
    remember,
    remove_half_written,
    write_known,
)
from gmp_atl_hf.run import steps
from gmp_atl_hf.run_folder.step_folder import StepFolder
from kills import run_until
from runs import SPLIT, changed_recipe, files_of, given_split, results, run, stamps, write_corpus, write_recipe

FOLD = "gmp-atl/seed-0/fold-01"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


@pytest.fixture(scope="module")
def recipe(scratch: Path) -> dict[str, Any]:
    root = write_corpus(scratch / "corpus", split=SPLIT)
    return given_split(root, **{f"stages__{name}__num_train_epochs": 1 for name in ("multitask", "retrain")})


@pytest.fixture(scope="module")
def words(recipe: dict[str, Any], scratch: Path) -> list[str]:
    return ["run", str(write_recipe(scratch / "recipe.yaml", recipe)), "--output-dir", str(scratch / "run")]


@pytest.fixture(scope="module")
def kept(words: list[str], scratch: Path) -> Path:
    """A finished run, which nobody touches."""
    assert main(words) == 0
    (scratch / "run").rename(scratch / "kept")
    return scratch / "kept"


@pytest.fixture
def finished(kept: Path, scratch: Path) -> Iterator[Path]:
    """A copy of it, where it was made."""
    yield Path(shutil.copytree(kept, scratch / "run"))
    shutil.rmtree(scratch / "run")


def test_damage_to_any_file_of_any_step_is_found_and_named_with_the_fix(finished: Path) -> None:
    folders = [file.parent for file in finished.rglob(STEP_FILE)]
    assert len(folders) == 6
    for folder in folders:
        check_files(folder)
        made = [name for name in files_of(folder) if name in read_json(folder / STEP_FILE)["files"]]
        assert "config.json" in made or "labels.parquet" in made
        for name in made:
            for do in DAMAGES.values():
                content = (folder / name).read_bytes()
                do(folder / name)
                with pytest.raises(RequestError, match=f"{name}.*\n.*\n.*fix: delete the folder {folder} and run"):
                    check_files(folder)
                (folder / name).write_bytes(content)
        check_files(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "modeling_gmp_atl.py", "usage.json", "config.json"])
def test_a_model_outside_its_run_is_to_be_copied_again_and_not_deleted(
    finished: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("corpus: demo")  # a recipe of one's own makes no run of a folder
    places = [Path("model"), tmp_path / "kept" / "mine", finished / "model-of-monday"]
    for place in places:
        shutil.copytree(finished / "model", place)
        (place / name).unlink()
        with pytest.raises(RequestError) as caught:
            check_files(place)
        assert str(caught.value.fix).startswith(f"copy or download the folder {place} again")
        assert "delete" not in str(caught.value)
    (places[1] / STEP_FILE).unlink()  # as on the Hub
    if name == "usage.json":
        with pytest.raises(RequestError, match="fix: copy or download the folder"):
            check_files(places[1])


@pytest.mark.parametrize(
    ("name", "damage", "verb"),
    [
        (f"{FOLD}/predictions.jsonl", "one bit flipped", "run"),
        (f"{FOLD}/metrics.json", "cut in half", "run"),
        (f"{FOLD}/4-finetune/step.json", "one bit flipped", "run"),
        (f"{FOLD}/4-finetune/training.json", "emptied", "run"),
        (f"{FOLD}/2-pseudo-labels/labels.parquet", "one bit flipped", "run"),
        ("model/model.safetensors", "one bit flipped", "run"),
        ("model/usage.json", "removed", "run"),
        ("environment.json", "one bit flipped", "run"),
        ("hashes.json", "cut in half", "run"),
        (f"{FOLD}/predictions.jsonl", "one bit flipped", "compare"),
        ("report.json", "one bit flipped", "compare"),
        ("report.json", "one bit flipped", "push"),
        ("recipe.yaml", "one bit flipped", "push"),
        ("model/config.json", "one bit flipped", "push"),
        ("model/preprocessor_config.json", "removed", "push"),
    ],
)
def test_a_damaged_file_changes_no_number_in_silence(
    kept: Path, finished: Path, words: list[str], name: str, damage: str, verb: str
) -> None:
    DAMAGES[damage](finished / name)
    command = {
        "run": words,
        "compare": ["compare", str(finished), str(kept)],
        "push": ["push", str(finished), "ana/tones", "--dry-run"],
    }[verb]
    status, _, complained = perform(command)
    assert not fault_of(status, complained, finished / name, verb == "run" and numbers(finished) == numbers(kept))


@pytest.mark.parametrize("later", ["3-retrain", "4-finetune"])
def test_no_step_is_made_from_a_damaged_one(kept: Path, finished: Path, words: list[str], later: str) -> None:
    """Removing what was made from them, the pseudo-labels and the retrained model have to be read again."""
    shutil.rmtree(finished / FOLD / later)
    before = {"3-retrain": "2-pseudo-labels/labels.parquet", "4-finetune": "3-retrain/model.safetensors"}[later]
    DAMAGES["one bit flipped"](finished / FOLD / before)
    status, _, complained = perform(words)
    assert status == 2 and before in complained and "fix: delete the folder" in complained
    shutil.rmtree((finished / FOLD / before).parent)
    assert main(words) == 0
    assert numbers(finished) == numbers(kept)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_not_used(recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = changed_recipe(recipe, variants=["direct"], final=False, stages__finetune__num_train_epochs=3)
    run_until(recipe, tmp_path / "run", "after_step", stage="4-finetune", step=7)
    [checkpoints] = (tmp_path / "run").rglob("checkpoints")
    shutil.copytree(checkpoints, tmp_path / "checkpoints")

    def last_after(best_kept: bool = True, **damaged: str) -> str | None:
        shutil.rmtree(checkpoints)
        shutil.copytree(tmp_path / "checkpoints", checkpoints)
        for place, damage in damaged.items():
            number, name = place.split("__")
            DAMAGES[damage](checkpoints / f"checkpoint-{number}" / name)
        last = steps._last_checkpoint(checkpoints, best_kept)
        return None if last is None else Path(last).name

    assert read_json(checkpoints / "checkpoint-6/trainer_state.json")["best_global_step"] == 3
    assert last_after() == "checkpoint-6"
    for name in files_of(checkpoints / "checkpoint-6"):
        for damage in DAMAGES:
            assert last_after(**{f"6__{name}": damage}) == "checkpoint-3", f"{name} {damage}"
    # The later one is whole; but the training would end with it, for lack of the best.
    assert last_after(**{"3__model.safetensors": "one bit flipped"}) is None
    assert last_after(False, **{"3__model.safetensors": "one bit flipped"}) == "checkpoint-6"  # and was meant to
    assert last_after(**{"6__optimizer.pt": "removed"}) == "checkpoint-3"
    run(recipe, tmp_path / "run")
    run(recipe, tmp_path / "alone")
    assert results(tmp_path / "run") == results(tmp_path / "alone")


def test_steps_of_an_earlier_version_are_read_with_a_remark(
    kept: Path, finished: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for file in finished.rglob(STEP_FILE):
        note = {name: value for name, value in read_json(file).items() if name not in ("files", "sha256")}
        file.write_text(json.dumps(note))
    for file in finished.rglob("hashes.json"):
        file.unlink()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "5 finished steps are of an earlier version, which kept no hashes" in said
    assert "nothing was left to do" in said
    assert numbers(finished) == numbers(kept)


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "empty"), (b'{"a": 1', "no JSON"), (b"\xff\xfe", "no JSON"), (b"[" * 100_000, "no JSON")],
)  # fmt: skip
def test_a_damaged_file_is_named_with_what_was_found_and_the_fix(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "metrics.json").write_bytes(content)
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": 1}\n' + (content or b"1"))
    with pytest.raises(RequestError, match=rf"metrics\.json is {what}(.|\n)*fix: "):
        read_json(tmp_path / "metrics.json")
    with pytest.raises(RequestError, match=r"rows\.jsonl line 2 is no JSON(.|\n)*fix: "):
        read_jsonl(tmp_path / "rows.jsonl")


def test_a_file_killed_between_its_hash_and_its_content_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_known(tmp_path, {"report.json": "1"})
    with monkeypatch.context() as patch:
        patch.setattr("gmp_atl_hf.files.write_whole", lambda path, content: _only_hashes(patch, path, content))
        for content in ("2", "3"):
            with pytest.raises(InterruptedError):
                write_known(tmp_path, {"report.json": content})
            assert read_json(tmp_path / "report.json") == 1
    write_known(tmp_path, {"report.json": "3"})
    assert read_json(tmp_path / "report.json") == 3


def _only_hashes(patch: pytest.MonkeyPatch, path: Path, content: Any) -> None:
    if path.name != "hashes.json":
        raise InterruptedError
    path.write_text(content)


def test_what_a_killed_process_was_writing_is_never_sent_and_goes_with_the_next_run(
    finished: Path, words: list[str]
) -> None:
    left = [finished / "model/.README.md.1397-140.tmp", finished / f"{FOLD}/.metrics.json.1-2.tmp"]
    mine = finished / "model/.notes.tmp"
    for file in (*left, mine):
        file.write_text("half")
    sent = [file.path for file in files_of_run(finished, "ana/tones")]
    assert not [name for name in sent if name.endswith("tmp") and "README" in name]
    assert main(words) == 0
    assert [file.exists() for file in (*left, mine)] == [False, False, True]


def test_only_what_nobody_is_writing_goes_from_a_shared_folder(tmp_path: Path) -> None:
    alive, dead = tmp_path / f"cache/.a.npy.{os.getpid()}-1.tmp", tmp_path / "cache/.a.npy.99999999-1.tmp"
    for file in (alive, dead):
        file.parent.mkdir(exist_ok=True)
        file.write_text("half")
    remove_half_written(tmp_path, shared=tmp_path / "cache")
    assert (alive.exists(), dead.exists()) == (True, False)


# ---- disks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "runs/a"),
        RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0: file write failed"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_said_in_a_sentence(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("gmp_atl_hf.cli.verbs._perform", fail)
    assert main(["run", "demo"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("gmp-atl: error: ") and "Traceback" not in said
    assert "expected: room on the disk\n  fix: make room" in said


def test_a_step_that_finds_no_room_names_its_folder(tmp_path: Path) -> None:
    class OneProcess:
        is_main_process = True

        def wait_for_everyone(self) -> None:
            pass

    with pytest.raises(RuntimeError) as raised, StepFolder(tmp_path / "step", {}).work(OneProcess()):
        raise RuntimeError("No space left on device (os error 28)")
    said = explain_file_error(raised.value)
    assert said is not None and said.startswith(f"{tmp_path}/step.unfinished: No space left on device")


def test_a_finished_run_on_a_read_only_disk_is_shown(
    finished: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    (finished / "report.md").write_text("of an earlier version")
    monkeypatch.setattr("gmp_atl_hf.run_folder.lock._lock", read_only)
    monkeypatch.setattr("gmp_atl_hf.files.write_whole", read_only)
    before = stamps(finished)
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "nothing was left to do" in said and "Protocol:" in said
    assert "Note: the report is not written anew" in said
    assert stamps(finished) == before
    shutil.rmtree(finished / FOLD / "4-finetune")
    assert main(words) == 1
    assert "gmp-atl: error: " in (complained := capsys.readouterr().err) and "Read-only file system" in complained
    assert "Traceback" not in complained


# ---- recordings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "what"), [("replaced", "replaced"), ("removed", "removed"), ("touched", None)])
def test_a_recording_that_changes_while_a_run_goes_on_is_named(
    change: str, what: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = given_split(write_corpus(tmp_path / "corpus", split=SPLIT), variants=["direct"], final=False)
    recipe["stages"]["finetune"]["num_train_epochs"] = 1
    recording = tmp_path / "corpus/train/anger/f1_0.wav"
    before = recording.read_bytes()
    others = sorted(recording.parent.parent.rglob("*.wav"))
    original = steps.train

    def meanwhile(folder: Path, task: Any) -> None:
        original(folder, task)
        if change == "removed":
            recording.unlink()
        else:
            recording.write_bytes(others[-1].read_bytes() if change == "replaced" else before)

    monkeypatch.setattr("gmp_atl_hf.run.fold_plan.train", meanwhile)
    words = ["run", str(write_recipe(tmp_path / "recipe.yaml", recipe)), "--output-dir", str(tmp_path / "run")]
    status = main(words)
    if what is None:
        assert status == 0
        return
    assert status == 2
    complained = capsys.readouterr().err
    assert (
        f"anger/f1_0.wav ({recording}) was {what} while the run went on" in complained and "fix: put it" in complained
    )
    assert not list((tmp_path / "run").rglob("4-finetune*")), "nothing that was made of two recordings is continued"
    monkeypatch.undo()
    recording.write_bytes(before)
    assert main(words) == 0


def test_the_example_of_the_card_puts_no_recording_into_the_temporary_folder(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a killed process would leave it behind")

    usage = read_json(finished / "model/usage.json")
    for name in ("mkdtemp", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    recording = next(finished.parent.rglob("test/anger/*.wav"))
    row = {"file": usage["file"], "audio": {"path": str(recording), "bytes": None}}
    write_usage(finished / "model", row, usage["emotion"], usage["trained_on"])
    assert read_json(finished / "model/usage.json")["output"].count("\n") == 3


def test_a_folder_that_is_hashed_again_does_not_hash_its_earlier_list(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("weights")
    remember(tmp_path, tmp_path.iterdir())
    (tmp_path / "config.json").write_text("{}")
    remember(tmp_path, tmp_path.iterdir())
    write_known(tmp_path, {"training.json": "{}"})
    assert is_whole(tmp_path)
