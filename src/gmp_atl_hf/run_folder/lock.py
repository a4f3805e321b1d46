"""One run at a time in one folder."""

from __future__ import annotations

import errno
import json
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from ..errors import RequestError, is_read_only
from .step_folder import Processes

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"


@contextmanager
def only_run_in(folder: Path, processes: Processes) -> Iterator[IO[str] | None]:
    """Keep other runs out of a folder while the block lasts.

    The system lets go of the lock when the process ends, however it ends, so nothing has to be cleared by hand. Of
    several processes of one launch the main one locks; the others are told of a refusal and refuse as well. A folder
    that is not there is made, and taken away again if nothing else came into it.

    Yields:
        The locked file, None where nothing is locked. A process that inherits it keeps the folder locked until it ends.

    Raises:
        RequestError: Another run is working there, or it is a file.
    """
    refuse_file(folder)
    held: IO[str] | None = None
    made: list[Path] = []
    problem: RequestError | None = None
    if processes.is_main_process and fcntl is not None:
        missing = folder.absolute()
        while not missing.exists():
            made.append(missing)
            missing = missing.parent
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = _lock(folder / LOCK_FILE)
        except RequestError as error:
            problem = error
        except OSError as error:
            if made or not is_read_only(error):
                raise  # otherwise nobody can write there, and a finished run can still be shown
    if processes.num_processes > 1:
        from accelerate.utils import broadcast_object_list, wait_for_everyone

        told = [None if problem is None else (problem.found, problem.expected, problem.fix)]
        broadcast_object_list(told, from_process=0)
        problem = None if told[0] is None else RequestError(*told[0])
        if problem is not None:
            wait_for_everyone()  # who leaves while another one still listens makes it end with a signal
    if problem is not None:
        raise problem
    try:
        yield held
    finally:
        if held is not None:
            (folder / LOCK_FILE).unlink(missing_ok=True)
            held.close()
            with suppress(OSError):  # not empty: the run has begun
                for each in made:
                    each.rmdir()


def refuse_file(folder: Path) -> None:
    """Refuse, by a `RequestError`, a folder to write into that is a file."""
    if folder.is_file():
        raise RequestError(f"the output folder {folder} is a file", "a folder, or none yet", "--output-dir DIR")


def _lock(path: Path) -> IO[str]:
    """The lock file, locked by this process and saying so."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise RequestError(
                f"another run is working in {path.parent}{f' ({_describe(owner)})' if owner else ''}",
                "one run at a time in a folder",
                "wait for it, stop it, or choose another --output-dir",
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
            warnings.warn(f"{path.parent}: this file system locks no files; start one run at a time", stacklevel=4)
            return file
        # Whoever held it before takes the file away before letting go: then this is not the file any more.
        if _inode(path) == os.fstat(file.fileno()).st_ino:
            break
        file.close()
    file.seek(0)
    file.truncate()
    facts = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    file.write(json.dumps(facts) + "\n")
    file.flush()
    return file


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _describe(owner: str) -> str:
    try:
        facts = json.loads(owner)
        return f"process {facts['pid']} on {facts['host']} since {facts['since']}"
    except (ValueError, KeyError, TypeError):  # half written
        return "it has just begun"
