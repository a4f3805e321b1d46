"""Files that are whole or not there, and read as they were written: what is made is hashed, what is read is checked.

A file is written under a temporary name, then renamed. The hashes of what a finished step has made stand in its
`step.json`; those of everything else that is read again stand in a `hashes.json` beside it.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import RequestError

STEP_FILE = "step.json"
HASHES_FILE = "hashes.json"

_HALF_WRITTEN = re.compile(r"\..+\.(?P<process>\d+)-\d+\.tmp")
_STEP_PLACE = re.compile(
    r"(model|backbone(/[^/]+)?(/seed-\d+)?|[^/]+/seed-\d+/[^/]+/\d-[^/]+|iteration-\d+/\d-[^/]+)(\.unfinished)?(/.+)?"
)
"""Where runs and pre-trainings have the folders of their steps."""

_LARGE = 1 << 20
# Large files that this process has hashed: device, inode, size, time of last change of any kind.
_known_hashes: dict[tuple[int, int, int, int], str] = {}


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_whole(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Write a file, text in UTF-8, so that nobody ever sees a part of it; see `whole_file`."""
    with whole_file(path, durable) as temporary:
        temporary.write_bytes(_encoded(content))


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a path to write to; the file gets its name when the block ends, and nothing stays if the block fails.

    Unless `durable`, the content may reach the disk after the name, so that a power failure leaves an empty file. What
    a checksum of its own protects, and is made again in no time, can do without the waiting.
    """
    # Process and thread keep two that write the same file from renaming each other's half.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if durable:
                sync(temporary)
            temporary.replace(path)
            if durable:
                sync(path.parent)
                for other in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
                    _remove_if_dead(other)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        # A full disk does not say which file it has no room for, and nobody knows the temporary name.
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


def sync(place: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name != "posix" and place.is_dir():
        return  # Windows opens no folders
    opened = os.open(place, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, whole or not at all."""
    write_whole(path, jsonl_of(rows))


def jsonl_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """One JSON object per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    write_whole(path, json_of(content))


def json_of(content: Any) -> str:
    """JSON as people read it."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def is_half_written(file: Path, name: str | None = None) -> bool:
    """Whether a file is what a killed process left of one that was to be called `name`, or anything."""
    return _HALF_WRITTEN.fullmatch(file.name) is not None and (name is None or file.name.startswith(f".{name}."))


def remove_half_written(folder: Path, shared: Path | None = None) -> None:
    """Remove what killed processes have left of files that they were writing, in a folder in which nobody else works.

    In `shared`, a folder in it where others may be writing now, what belongs to a living process stays for an hour.
    """
    for file in folder.rglob(".*.tmp"):
        if shared in file.parents:
            _remove_if_dead(file)
        elif is_half_written(file):
            file.unlink(missing_ok=True)


def _remove_if_dead(file: Path) -> None:
    """Take away what a process was writing, unless it is alive and began within the last hour."""
    parts = _HALF_WRITTEN.fullmatch(file.name)
    with suppress(FileNotFoundError):
        if parts and (time.time() - file.stat().st_mtime > 3600 or not _is_alive(int(parts["process"]))):
            file.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


# ---- hashes ----------------------------------------------------------------------------------------------------------


def write_known(folder: Path, contents: Mapping[str, str | bytes], outdated: Collection[str] = ()) -> None:
    """Write files (relative path → content) whole, with their hashes in `hashes.json`, and remove the `outdated` ones.

    What else is there stays. Between the two, a killed process leaves hashes of both the old file and the new one:
    neither counts as damaged.
    """
    encoded = {name: _encoded(content) for name, content in contents.items()}
    try:
        known = _hashes_in(folder / HASHES_FILE)
    except RequestError:  # damaged; this writes it anew
        known = {}
    before, missing = dict(known), []
    for name, content in encoded.items():
        file, digest = folder / name, hashlib.sha256(content).hexdigest()
        there = hash_file(file) if file.is_file() else None
        if there != digest:
            missing.append(name)
        # A damaged file is not in the list, and does not get into it here.
        accepted = there is not None and there in known.get(name, [there])
        known[name] = list(dict.fromkeys([digest, there])) if accepted and there is not None else [digest]
    for name in outdated:  # first, or a killed process leaves files that seem to be missing
        known.pop(name, None)
    if known != before:
        write_json(folder / HASHES_FILE, {"files": known})
    for name in outdated:
        (folder / name).unlink(missing_ok=True)
    for name in missing:
        write_whole(folder / name, encoded[name])


def remember(folder: Path, files: Iterable[Path]) -> None:
    """Write the hashes of files into the `hashes.json` of their folder: it says from now on that they are finished."""
    others = (file for file in files if file != folder / HASHES_FILE)  # an earlier list is no part of the new one
    write_json(folder / HASHES_FILE, {"files": {name: [digest] for name, digest in hashes_of(folder, others).items()}})


def hashes_of(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Relative path → SHA-256 in hexadecimal of files below a folder, once they are on the disk."""
    found = {}
    for file in sorted(files):
        sync(file)
        found[file.relative_to(folder).as_posix()] = hash_file(file)
    for place in {folder, *((folder / name).parent for name in found)}:
        sync(place)
    return found


def hash_file(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; a large one is read once in a process, unless it changes."""
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        identity = (state.st_dev, state.st_ino, state.st_size, state.st_ctime_ns)
        if identity not in _known_hashes or state.st_size < _LARGE:
            _known_hashes[identity] = hashlib.file_digest(file, "sha256").hexdigest()
    return _known_hashes[identity]


def check_files(folder: Path, *names: str) -> None:
    """Refuse, by a `RequestError`, files that are not as they were written; all whose hashes are known by default."""
    known = _known_in(folder)
    for name in names or known:
        if name in known:
            file = folder / name
            if not file.is_file():
                raise damaged(file, "is not there any more")
            if hash_file(file) not in known[name]:
                raise _changed(file)


def is_whole(folder: Path) -> bool:
    """Whether `remember` has hashed files of a folder, and they still are as they were."""
    if not (folder / HASHES_FILE).is_file():
        return False
    try:
        check_files(folder)
    except RequestError:
        return False
    return True


def seal(note: Mapping[str, Any]) -> dict[str, Any]:
    """A note with the hash of all that it says."""
    note = json.loads(json.dumps(note))  # as it will be read
    return {**note, "sha256": _seal_of(note)}


def _seal_of(note: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in note.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _known_in(folder: Path) -> dict[str, list[str]]:
    """Path relative to a folder → the hashes that the file may have."""
    return {**_hashes_in(folder / HASHES_FILE), **_hashes_in(folder / STEP_FILE)}


def _hashes_in(note: Path) -> dict[str, list[str]]:
    if not note.is_file():
        return {}
    content = read_json(note)
    try:
        found = {
            name: [each] if isinstance(each, str) else list(each) for name, each in content.get("files", {}).items()
        }
    except (AttributeError, TypeError) as error:
        raise damaged(note, "holds no hashes") from error
    return found


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_checked(path: Path) -> bytes:
    """Read a file, and refuse one that is not as it was written, by a `RequestError`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise damaged(path, "is not there") from error
    # The notes themselves are in no list.
    known = {} if path.name in (STEP_FILE, HASHES_FILE) else _known_in(path.parent)
    if path.name in known and hashlib.sha256(content).hexdigest() not in known[path.name]:
        raise _changed(path)
    return content


def read_json(path: Path) -> Any:
    """Read a JSON file; one that is not as it was written, or no JSON, is a `RequestError`."""
    content = _parsed(path, read_checked(path))
    if path.name == STEP_FILE:
        if not isinstance(content, dict):
            raise damaged(path, "holds no step")
        if "sha256" in content and content["sha256"] != _seal_of(content):  # steps of earlier versions have no seal
            raise _changed(path)
    return content


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line; a file that is not as it was written, or another line, is a `RequestError`."""
    # Lines end with a newline only; `splitlines` knows more ends.
    lines = read_checked(path).removesuffix(b"\n").split(b"\n")
    rows = [_parsed(path, line, f"line {number} ") for number, line in enumerate(lines, start=1)] if any(lines) else []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise damaged(path, f"line {number} is no JSON object")
    return rows


def _parsed(path: Path, content: bytes, where: str = "") -> Any:
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        what = f"{where}is no JSON ({error})" if content else f"{where}is empty"
        raise damaged(path, what) from error


def damaged(path: Path, what: str) -> RequestError:
    """Say that a file that a run has written cannot be used, and what to do; `what` ends a sentence."""
    again = "run the same command as before again (gmp-atl run …): what is missing is made again"
    # A step may have made folders of its own, such as an adapter's.
    steps = (each for each in path.parents[:2] if each.name.endswith(".unfinished") or (each / STEP_FILE).is_file())
    step = next(steps, None)
    folder = step or path.parent
    is_model = path.name == "config.json" or (folder / "config.json").is_file()
    if (step is not None or is_model) and not _is_in_its_run(folder):  # no command makes it again
        fix = f"copy or download the folder {folder} again from where it was made"
    elif step is not None:
        fix = f"delete the folder {step} and {again}"
    else:
        lists = (each / HASHES_FILE for each in path.parents[:2])  # of a picture, in the folder above
        known_in = next((each for each in lists if each.is_file()), path.parent / HASHES_FILE)
        what_to_delete = path if path.is_file() else known_in
        fix = f"delete {what_to_delete} and {again}; or, if the folder is a copy, copy it again"
    return RequestError(f"{path} {what}", "the file as it was written", fix)


def _is_in_its_run(folder: Path) -> bool:
    """Whether a step's folder, or one in it, lies where the run or pre-training that made it would make it again."""
    place = folder.absolute()
    return any(
        _STEP_PLACE.fullmatch(place.relative_to(run).as_posix()) is not None and _is_run(run)
        for run in place.parents[:6]
    )


def _is_run(folder: Path) -> bool:
    """Whether a folder is that of a run or of a pre-training; a recipe alone may lie anywhere."""
    recipe, *others = ((folder / name).is_file() for name in ("recipe.yaml", "environment.json", HASHES_FILE))
    return (recipe and any(others)) or (folder / "iteration-1").is_dir()


def _changed(path: Path) -> RequestError:
    empty = path.stat().st_size == 0
    what = "is empty" if empty else "is damaged or was changed: its hash is not that of what was written"
    return damaged(path, what)


def _encoded(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content
