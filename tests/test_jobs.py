"""Folds, seeds and variants in several processes: one folder, the same bits, and nobody left behind."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gmp_atl_hf.cli.console import explain_file_error
from gmp_atl_hf.errors import DivergenceError, RequestError
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run.jobs import Jobs, check_jobs, threads_of_job
from gmp_atl_hf.run.perform import Worker
from gmp_atl_hf.run.plan import plan_run
from gmp_atl_hf.run.progress import Progress
from gmp_atl_hf.run.tasks import make_tasks
from gmp_atl_hf.run_folder.layout import ALL_SPEAKERS, MODEL
from runs import changed_recipe, files_of, read_json, recipe_dict, results, run, stamps, write_corpus, write_recipe

SHORT = {f"stages__{stage}__num_train_epochs": 1 for stage in ("multitask", "retrain", "finetune")}
COMMAND = "the command"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two folds, the whole method beside one that shares its first step and one that shares none; a cache to fill."""
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"))
    frozen = {f"stages__{stage}__freeze_feature_encoder": True for stage in ("multitask", "retrain", "finetune")}
    return recipe_dict(corpus, variants=["gmp-atl", "multitask-only", "direct"], **SHORT, **frozen)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """One thread here, and in every process that is started from here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    run(recipe, folder, command=COMMAND)
    return folder


def command_line(recipe: dict[str, Any], folder: Path, jobs: int = 2) -> list[str]:
    file = write_recipe(folder.with_name(f"{folder.name}.yaml"), recipe)
    words = ["run", str(file), "--output-dir", str(folder), "--jobs", str(jobs)]
    return [sys.executable, "-m", "gmp_atl_hf.cli", *words]


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "environment"}


@pytest.mark.slow
def test_two_jobs_make_what_one_makes_bit_for_bit(
    recipe: dict[str, Any], alone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    run(recipe, folder, command=COMMAND, jobs=2)
    assert results(folder) == results(alone)
    assert without_times(read_json(folder / "report.json")) == without_times(read_json(alone / "report.json"))
    assert files_of(folder) == files_of(alone), "the same steps computed, the same ones pointed to"
    said = capfd.readouterr()
    assert len(re.findall(r"^\S+ · seed 0 · fold-0\d: tested \(\d of 6\)$", said.out, re.MULTILINE)) == 6
    assert "it/s" not in said.err and "\r" not in said.err, (
        "no job draws a bar of its own, and none is drawn into a log"
    )
    steps = {file.parent for file in folder.rglob("step.json") if not {MODEL, ALL_SPEAKERS} & {*file.parts}}
    told = re.findall(r"2 jobs, steps and tests of the folds: (\d+) of (\d+) done; running: ", said.err)
    assert {int(total) for _, total in told} == {len(steps) + 6}, "what folds share is one step"
    assert [int(done) for done, _ in told] == sorted(int(done) for done, _ in told)
    assert "after the folds; running: the final model (00:00)" in said.err
    run(recipe, folder, command=COMMAND, jobs=2)
    assert "nothing was left to do" in capfd.readouterr().out


@pytest.mark.slow
def test_an_error_in_a_job_is_that_of_the_run_and_what_is_finished_stays(
    recipe: dict[str, Any], alone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    broken = {"name": "broken", "base": "multitask-only", "set": {"stages.finetune.learning_rate": 1e38}}
    bad = {**recipe, "variants": ["gmp-atl", broken], "final": False}
    with pytest.raises(DivergenceError, match=r"diverged at step \d(?s:.*)a learning_rate below 1e\+38") as caught:
        run(bad, folder, command=COMMAND, jobs=2)
    assert any("broken/seed-0/fold-0" in note for note in caught.value.__notes__), "as where there is one job"
    assert not running_in(folder)
    assert not list(folder.rglob(".lock"))
    shared = folder / "gmp-atl/seed-0/fold-01/1-multitask"
    before = stamps(shared)
    assert "step.json" in before
    run({**recipe, "variants": ["gmp-atl"], "final": False}, folder, command=COMMAND)
    assert stamps(shared) == before
    ours = {name: digest for name, digest in results(folder).items() if name.startswith("gmp-atl/seed-0/fold")}
    assert ours == {name: digest for name, digest in results(alone).items() if name.startswith("gmp-atl/seed-0/fold")}


def wait_for(process: subprocess.Popen[bytes], place: Path) -> None:
    """Wait until the process has made a file or folder."""
    deadline = time.monotonic() + 300
    while not place.exists():
        assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
        assert time.monotonic() < deadline, f"{place} is not made"
        time.sleep(0.02)


def wait_for_lock(folder: Path) -> None:
    """Wait until the lock is free: the system lets go of it a moment after a process has closed its files."""
    import fcntl

    deadline = time.monotonic() + 20
    with (folder / ".lock").open() as file:
        while time.monotonic() < deadline:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(0.05)


def running_in(folder: Path) -> list[int]:
    """Processes that have a file below a folder open, its lock among them."""
    found = []
    for place in Path("/proc").glob("[0-9]*/fd"):
        if place.parent.name == str(os.getpid()):
            continue
        try:
            if any(str(folder) in str(link.readlink()) for link in place.iterdir()):
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at the processes in /proc")
def test_jobs_end_with_the_first_process_and_the_next_run_goes_on(
    recipe: dict[str, Any], alone: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(command_line(recipe, folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(process, folder / "gmp-atl/seed-0/fold-01/3-retrain.unfinished")
    assert len(running_in(folder)) == 3, "the first process and its two jobs hold the lock"
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while running_in(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running_in(folder)
    wait_for_lock(folder)
    run(recipe, folder, command=COMMAND, jobs=2)
    ours, theirs = results(folder), results(alone)
    same = {name for name in theirs if not name.endswith("metrics.json")}  # those name the command that made them
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at the processes in /proc")
@pytest.mark.parametrize("killed", [False, True])
def test_an_interrupt_stops_all_and_a_job_that_is_killed_is_named(
    killed: bool, recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    long = changed_recipe(recipe, stages__finetune__num_train_epochs=500)  # it must not be done before it is stopped
    line = command_line(long, folder)
    process = subprocess.Popen(
        line,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # What a shell starts in the background, these tests for one, ignores interrupts, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(process, folder / "gmp-atl/seed-0/fold-01/1-multitask.unfinished")
    if killed:
        os.kill(next(job for job in running_in(folder) if job != process.pid), signal.SIGKILL)
    else:
        for job in running_in(folder):
            if job != process.pid:
                os.kill(job, signal.SIGINT)  # which only the first process minds
        wait_for(process, folder / "gmp-atl/seed-0/fold-01/2-pseudo-labels")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, complained = process.communicate(timeout=60)
    said = complained.decode().splitlines()[-1]
    if killed:
        assert process.returncode == 1
        assert re.match(r"gmp-atl: error: a job \(process \d+\) was ended by SIGKILL in the middle of .* · ", said)
    else:
        assert process.returncode == 130
        assert said == "gmp-atl: interrupted; running the same command again continues where it stopped"
    assert b"Traceback" not in complained
    assert not running_in(folder)


@dataclass(frozen=True)
class Look:
    name: str = "a look"

    def perform(self, worker: Worker) -> tuple[str, bool, int, str | None]:
        method = multiprocessing.get_start_method(allow_none=True)
        return os.environ["OMP_NUM_THREADS"], "RANK" in os.environ, len(worker.plan.planned), method


class OddError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one}{two}")


@dataclass(frozen=True)
class Fail:
    name: str = "a failure"

    def perform(self, worker: Worker) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "some/file")
        except OSError as error:
            raise OddError("it ", "broke") from error


@pytest.mark.slow
def test_a_job_has_its_share_of_the_cores_and_its_errors_arrive_with_what_they_came_from(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(6)
    plan = plan_run(Recipe.from_dict(recipe), tmp_path / "run")
    monkeypatch.setenv("RANK", "0")
    with Jobs(plan, 2, None) as jobs:
        assert torch.get_num_threads() == 3
        jobs.give(Look())
        assert jobs.wait() == (Look(), ("3", False, 6, multiprocessing.get_start_method(allow_none=True)))
        jobs.give(Fail())
        with pytest.raises(RuntimeError, match="^OddError: it broke$") as caught:
            jobs.wait()
    assert torch.get_num_threads() == 6
    torch.set_num_threads(1)
    assert os.environ["RANK"] == "0"
    assert "OMP_NUM_THREADS" not in os.environ
    assert str(explain_file_error(caught.value)).startswith("some/file: No space left on device")
    assert 'raise OddError("it ", "broke")' in "".join(traceback.format_exception(caught.value))


def test_jobs_in_a_launch_of_several_processes_are_refused() -> None:
    with pytest.raises(RequestError, match="--jobs 2 in a launch of 4 processes"):
        check_jobs(2, processes=4)
    check_jobs(1, processes=4)


def test_a_shared_step_is_waited_for_and_done_by_the_variant_that_comes_first(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    plan = plan_run(Recipe.from_dict({**recipe, "seeds": [0, 1]}), tmp_path / "run", folds=[2])
    tasks = make_tasks(plan)
    needs = {task.name: {tasks[place].name for place in task.needs} for task in tasks}
    assert len(tasks) == 2 * (6 + 4 + 3)
    fold = "seed 0 · fold-02"
    assert needs[f"gmp-atl · {fold} · 1-multitask"] == {f"gmp-atl · {fold} · backbone"}
    assert needs[f"multitask-only · {fold} · 1-multitask"] == {
        f"multitask-only · {fold} · backbone",
        f"gmp-atl · {fold} · 1-multitask",
    }
    assert needs[f"direct · {fold} · test"] == {f"direct · {fold} · 4-finetune"}
    assert needs["gmp-atl · seed 1 · fold-02 · backbone"] == set()


def test_within_a_long_step_a_log_is_told_what_runs_and_since_when(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 3.0, 4.0, 304.0, 604.0])
    monkeypatch.setattr("gmp_atl_hf.run.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    asked: list[float] = []
    jobs: Any = SimpleNamespace(wait_for=lambda seconds: asked.append(seconds) or len(asked) > 1)
    with Progress("2 jobs", 3) as progress:
        progress.done.add("a")
        progress.begin("b")
        progress.begin("c")
        progress.end("b")
        progress.wait(jobs)
    assert asked == [300, 300]
    assert capsys.readouterr().err.splitlines() == [
        "2 jobs: 1 of 3 done; running: c (00:01)",
        "2 jobs: 1 of 3 done; running: c (05:01)",
    ]


@pytest.mark.parametrize("jobs", [0, -1, True, 1.5])
def test_a_number_of_jobs_that_is_none_is_refused(jobs: Any, recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="(?s)--jobs is .*a whole number from 1"):
        run(recipe, tmp_path / "run", jobs=jobs)
    assert not (tmp_path / "run").exists()


def test_the_threads_are_shared_unless_the_number_of_threads_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_of_job(2) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert [threads_of_job(jobs) for jobs in (2, 3, 16)] == [4, 2, 1]
