"""One run at a time in one folder, and no lock that somebody has to clear."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gmp_atl_hf
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.run_folder.lock import LOCK_FILE, only_run_in
from runs import SPLIT, given_split, run, write_corpus, write_recipe

_CONTEXT = multiprocessing.get_context("forkserver")


@dataclass
class Processes:
    is_main_process: bool = True
    num_processes: int = 1


def _hold(folder: Path, pipe: Any) -> None:
    with only_run_in(folder, Processes()):
        pipe.send("locked")
        pipe.recv()


def hold(folder: Path) -> tuple[Any, Any]:
    """Another process that has locked a folder, and a pipe to tell it to stop."""
    ours, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_hold, args=(folder, theirs))
    process.start()
    assert ours.recv() == "locked"
    return process, ours


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    process, pipe = hold(tmp_path)
    for _ in range(2):
        refusal = rf"another run is working in .* \(process {process.pid} on .* since 2.*--output-dir"
        with pytest.raises(RequestError, match=f"(?s){refusal}"), only_run_in(tmp_path, Processes()):
            pytest.fail("two runs in one folder")
    pipe.send("stop")
    process.join(20)
    assert list(tmp_path.iterdir()) == []
    with only_run_in(tmp_path, Processes()):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_a_run_that_was_killed_locks_nobody_out(tmp_path: Path) -> None:
    process, _ = hold(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.join(20)
    assert (tmp_path / LOCK_FILE).is_file()
    with only_run_in(tmp_path, Processes()):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_made_for_the_lock_alone_goes_again(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="wrong"), only_run_in(tmp_path / "runs" / "one", Processes()):
        raise RequestError("wrong")
    assert list(tmp_path.iterdir()) == []
    with only_run_in(tmp_path / "runs" / "one", Processes()):
        (tmp_path / "runs" / "one" / "report.md").write_text("done")
    assert [file.name for file in (tmp_path / "runs" / "one").iterdir()] == ["report.md"]


def test_a_lock_file_that_was_taken_away_meanwhile_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run before deletes the file and lets go just after this one has opened it."""
    (tmp_path / LOCK_FILE).write_text("")
    opened: list[Path] = []
    real = Path.open

    def open_and_lose(self: Path, *words: Any, **named: Any) -> Any:
        file = real(self, *words, **named)
        if self.name == LOCK_FILE and not opened:
            opened.append(self)
            self.unlink()
        return file

    monkeypatch.setattr(Path, "open", open_and_lose)
    with only_run_in(tmp_path, Processes()):
        assert opened
        assert hold_fails(tmp_path)


def hold_fails(folder: Path) -> bool:
    """Whether another process is kept out."""
    code = "import sys, pathlib; from gmp_atl_hf.run_folder.lock import _lock; _lock(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(Path(gmp_atl_hf.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / LOCK_FILE)], env=environment, capture_output=True, text=True
    )
    return done.returncode != 0 and "another run is working" in done.stderr


def test_processes_that_do_not_lock_touch_nothing(tmp_path: Path) -> None:
    with only_run_in(tmp_path / "run", Processes(is_main_process=False)):
        assert list(tmp_path.iterdir()) == []


def test_a_run_refuses_a_folder_in_which_another_one_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = given_split(write_corpus(tmp_path / "corpus", split=SPLIT))
    file = write_recipe(tmp_path / "recipe.yaml", recipe)
    process, pipe = hold(tmp_path / "run")
    try:
        assert main(["run", str(file), "--output-dir", str(tmp_path / "run")]) == 2
        assert "another run is working" in capsys.readouterr().err
        with pytest.raises(RequestError, match="another run"):
            run(recipe, tmp_path / "run")
    finally:
        pipe.send("stop")
        process.join(20)
    assert not (tmp_path / "run").exists()
