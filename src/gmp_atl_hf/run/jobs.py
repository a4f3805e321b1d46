"""Jobs: processes beside this one, each of which does one piece of a run's work at a time."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from typing import IO, Any, Protocol

import torch

from ..batching.feature_cache import fill_in_own_order
from ..errors import RequestError
from .perform import Worker
from .plan import RunPlan

THREADS = "OMP_NUM_THREADS"
_CARDS = "CUDA_VISIBLE_DEVICES"
_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
"""What a launcher has told this process of itself is not true of the jobs."""
_PATIENCE = 10.0
"""Seconds that a job has to end when it is told to."""


class Piece(Protocol):
    """A piece of work, which is sent to a job."""

    @property
    def name(self) -> str:
        """What it is, for a message."""

    def perform(self, worker: Worker) -> Any:
        """Do it, with the run as the job has planned it; what it returns is sent back."""


def check_jobs(jobs: int, processes: int) -> None:
    """Refuse, by a `RequestError`, a number of jobs that is none, or jobs in several processes of one launch."""
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise RequestError(f"--jobs is {jobs!r}", "a whole number from 1", "--jobs 2, or leave it out")
    if jobs > 1 and processes > 1:
        raise RequestError(
            f"--jobs {jobs} in a launch of {processes} processes",
            "either several processes that share each training, or jobs that each do a training of their own",
            "gmp-atl run without accelerate launch, or leave --jobs out",
        )
    if jobs > 1 and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RequestError(
            "this script starts its run again in each of the jobs, which read it when they begin",
            "a script that does nothing when it is imported",
            "put its work behind `if __name__ == '__main__':`",
        )


def threads_of_job(jobs: int) -> int:
    """How many threads torch uses in each of several jobs: what `OMP_NUM_THREADS` says, or an equal share.

    It follows from the number that was asked for, not from how many are needed: sums depend on it in their last digits.
    """
    told = os.environ.get(THREADS, "").split(",")[0].strip()
    if told.isascii() and told.isdigit() and int(told) > 0:
        return int(told)
    return max(1, torch.get_num_threads() // jobs)


@dataclass
class _Job:
    """A process, the pipe to it, and what it is doing."""

    process: BaseProcess
    pipe: connection.Connection
    piece: Piece | None = None


class Jobs:
    """The jobs of one run. They are started when the first piece is given away, and stopped when the block ends.

    Each has its share of the cores, and of several GPUs one. However this process ends, they end as well, and what they
    leave half done is continued like that of any run that was interrupted. Until the last of them has ended the run's
    folder stays locked.

    Args:
        plan: The run's plan.
        number: The most processes that are started.
        lock: The locked file of the run's folder, None where nothing is locked.
    """

    def __init__(self, plan: RunPlan, number: int, lock: IO[str] | None) -> None:
        self.number, self._lock, self._threads = number, lock, threads_of_job(number)
        self._plan = replace(plan, planner=replace(plan.planner, shows_bars=False))
        self._jobs: list[_Job] = []
        self._threads_before = torch.get_num_threads()

    def __enter__(self) -> Jobs:
        # What little is computed here comes out as it would in a job.
        torch.set_num_threads(self._threads)
        return self

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self._threads_before)
        for job in self._jobs:
            job.process.terminate()
        for job in self._jobs:
            job.process.join(_PATIENCE)
            if job.process.is_alive():
                job.process.kill()
                job.process.join()
            job.pipe.close()

    @property
    def has_free(self) -> bool:
        """Whether a piece can be given away now."""
        return not self._jobs or any(job.piece is None for job in self._jobs)

    @property
    def are_busy(self) -> bool:
        """Whether there is something to wait for."""
        return any(job.piece is not None for job in self._jobs)

    def give(self, piece: Piece, pieces: int = 1) -> None:
        """Give a piece to a job that is free; with the first one, as many are started as can be of use for `pieces`."""
        if not self._jobs:
            self._start(max(1, min(self.number, pieces)))
        job = next(job for job in self._jobs if job.piece is None)
        job.piece = piece
        with self._explained(job):
            job.pipe.send(piece)

    def wait_for(self, seconds: float) -> bool:
        """Wait for a piece to be done, so long at most; whether one is."""
        return bool(connection.wait([job.pipe for job in self._jobs if job.piece is not None], seconds))

    def wait(self) -> tuple[Any, Any]:
        """Wait for a piece that is done; give it and what its `perform` has returned.

        Raises:
            Exception: That of the piece, as if it had been performed here.
            ChildProcessError: A job has ended by itself.
        """
        busy: dict[Any, _Job] = {job.pipe: job for job in self._jobs if job.piece is not None}
        job = busy[connection.wait(busy)[0]]
        with self._explained(job):
            answer = job.pipe.recv()
        if isinstance(answer, _Failure):
            raise answer.error()
        piece, job.piece = job.piece, None
        return piece, answer

    def _start(self, number: int) -> None:
        context, method = multiprocessing.get_context("spawn"), multiprocessing.get_start_method(allow_none=True)
        lock = None if self._lock is None else _Inherited(self._lock)
        resource_tracker.ensure_running()  # which would let interrupts through again
        with _interrupts_held_back():
            for place in range(number):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(place, theirs, method, lock))
                with _environment(self._environment(place)):
                    process.start()
                self._jobs.append(_Job(process, ours))
                theirs.close()  # it then ends with the job
        # All are loading their libraries by now, and read it when they are done.
        plan = pickle.dumps(self._plan)
        for job in self._jobs:
            with self._explained(job):
                job.pipe.send_bytes(plan)

    def _environment(self, place: int) -> dict[str, str | None]:
        changes: dict[str, str | None] = {**dict.fromkeys(_LAUNCHED), THREADS: str(self._threads)}
        if (count := torch.cuda.device_count()) > 1:
            named = os.environ.get(_CARDS)
            cards = named.split(",")[:count] if named else [str(card) for card in range(count)]
            changes[_CARDS] = cards[place % len(cards)]
        return changes

    @contextmanager
    def _explained(self, job: _Job) -> Iterator[None]:
        """Say of a job that is not there any more how it ended and what it was doing."""
        try:
            yield
        except (EOFError, ConnectionError) as error:
            job.process.join(_PATIENCE)
            code = job.process.exitcode or 0
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            doing = "while it started" if job.piece is None else f"in the middle of {job.piece.name}"
            why = "where memory ran out, fewer --jobs need less" if code < 0 else "its own message says why"
            raise ChildProcessError(
                f"a job (process {job.process.pid}) {how} {doing}; {why}. The same command again continues."
            ) from error


# ---- in the job ------------------------------------------------------------------------------------------------------


def _work(number: int, pipe: connection.Connection, method: str | None, lock: int | None) -> None:
    """Do what comes through the pipe until it is closed."""
    # Otherwise workers that load data would be started as this process was, which is slow and not what one job does.
    multiprocessing.set_start_method(method, force=True)
    threading.Thread(target=_end_with_the_first_process, daemon=True).start()
    fill_in_own_order(number)
    with suppress(EOFError, ConnectionError):
        worker = Worker(pickle.loads(pipe.recv_bytes()), helps=True)
        while True:
            piece: Piece = pipe.recv()
            try:
                answer = piece.perform(worker)
            except Exception as error:
                answer = _Failure.of(error)
            pipe.send(answer)


def _end_with_the_first_process() -> None:
    """End this process at once when the one that has started it is gone, whatever it is doing."""
    first = multiprocessing.parent_process()
    assert first is not None
    first.join()
    os._exit(1)


class _Inherited:
    """A file that a job keeps open until it ends; there it is the number of its descriptor."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        from multiprocessing.reduction import DupFd  # not on Windows, where nothing is locked

        return _keep_open, (DupFd(self.file.fileno()),)


def _keep_open(descriptor: Any) -> int:
    return int(descriptor.detach())


@dataclass(frozen=True)
class _Failure:
    """An exception on its way to the first process, with all that it came from."""

    chain: list[BaseException]
    traceback: str

    @staticmethod
    def of(error: BaseException) -> _Failure:
        """The exception as it can be sent; one that cannot, by its name and text."""
        text, chain = traceback.format_exc(), []
        one: BaseException | None = error
        while one is not None:
            chain.append(_sendable(one))
            one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        return _Failure(chain, text)

    def error(self) -> BaseException:
        """The exception as it was raised, its causes behind it, and last of all where that was."""
        for error, cause in pairwise([*self.chain, RuntimeError(f"in a job:\n{self.traceback}")]):
            error.__cause__ = cause
        return self.chain[0]


def _sendable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever the error's own class makes of it
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


# ---- while jobs are started ------------------------------------------------------------------------------------------


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Change variables for a process that is started in the block; None takes one away."""
    before = {name: os.environ.get(name) for name in changes}
    try:
        _set_variables(changes)
        yield
    finally:
        _set_variables(before)


def _set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let processes that are started in the block never see Ctrl-C: the first one does, and stops them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
