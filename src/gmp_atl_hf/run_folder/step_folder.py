"""A step's folder: what it depended on, whether it is finished, and how it appears whole or not at all.

A step works in `<folder>.unfinished` and is renamed when it is done, so a folder under its proper name is always
complete. Its `step.json` holds everything that the step depends on and a hash of that, the key.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ..errors import RequestError
from ..files import (
    HASHES_FILE,
    STEP_FILE,
    check_files,
    hashes_of,
    is_half_written,
    read_json,
    remove_half_written,
    seal,
    sync,
    write_json,
)

FORMAT_VERSION = 1
"""Part of every key; raised when what a step writes changes its meaning."""

STARTED_FILE = "started.json"

UNFINISHED = ".unfinished"
"""Ends the name of the folder in which a step works until it is done."""

_ABSENT = "nothing"


class Processes(Protocol):
    """What a run's folder needs to know of `accelerate.PartialState`; the main process writes."""

    is_main_process: bool
    num_processes: int

    def wait_for_everyone(self) -> None:
        """Wait until all processes are here."""


def key_of(inputs: Mapping[str, Any]) -> str:
    """Hash of all that a step depends on: SHA-256 of its JSON with sorted keys, and of the format version."""
    text = json.dumps([FORMAT_VERSION, inputs], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Name the fields in which two nested settings differ, as `path: before → after`."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        found = []
        for key in sorted({*before, *after}):
            where = f"{path}.{key}" if path else str(key)
            found += differences(before.get(key, _ABSENT), after.get(key, _ABSENT), where)
        return found
    # As the key is made: 15 and 15.0 are equal, but not the same text.
    same = json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)
    return [] if same else [f"{path}: {_short(before)} → {_short(after)}"]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True)
class StepFolder:
    """Where a step keeps its results, and what they depend on.

    Args:
        path: The folder, relative or absolute.
        inputs: All that the step depends on, JSON types only.
        launch: How it is launched, where another launch would do as well but cannot continue half a step: the number of
            processes of a training. A finished step stays finished, however it was launched.
    """

    path: Path
    inputs: Mapping[str, Any]
    launch: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hash of the inputs."""
        return key_of(self.inputs)

    @property
    def working(self) -> Path:
        """The folder in which an unfinished step works."""
        return self.path.with_name(self.path.name + UNFINISHED)

    @property
    def finished(self) -> bool:
        """Whether the step's results are there, from whatever inputs (see `refuse_contradiction`)."""
        if not (self.path / STEP_FILE).is_file():
            return False
        target = self.resolve()
        if target == self.path:
            return True
        # What a step points to may have been deleted since, or made again from other settings.
        key = read_json(self.path / STEP_FILE).get("key")
        return (target / STEP_FILE).is_file() and read_json(target / STEP_FILE).get("key") == key

    @property
    def begun(self) -> bool:
        """Whether there is half a step that would be continued."""
        return self._begun().get("key") == self.key

    @property
    def has_hashes(self) -> bool:
        """Whether damage to what the finished step has made would be noticed; steps of version 0.1 kept no hashes."""
        return "files" in read_json(self.resolve() / STEP_FILE)

    def refuse_contradiction(self, behind: Callable[[Sequence[str]], Sequence[str]] | None = None) -> None:
        """Refuse a finished step that was made from other inputs, and half a one that was launched otherwise.

        Args:
            behind: Gives for the inputs that differ, `path: before → after`, what is known to have been changed by hand
                and may be behind them: it is named before the inputs, most of which only follow from it.

        Raises:
            RequestError: Names the first changed fields, or the folder if somebody else's files are in it.
        """
        if not self.finished:
            self._refuse_other_launch()
            if self.path.exists() and not self._only_points:
                raise RequestError(
                    f"{self.path} is in the way: it was not made by a run",
                    "nothing there, or a finished step",
                    "choose another --output-dir, or move it away",
                )
            return
        found = read_json(self.path / STEP_FILE)
        if found.get("key") == self.key:
            return
        if found.get("format_version") != FORMAT_VERSION:
            named = f"format version: {found.get('format_version')} → {FORMAT_VERSION}"
        else:
            # A step before this one differs too then; its own refusal comes first and names the cause.
            differ = differences(found.get("inputs", {}), json.loads(json.dumps(self.inputs)))
            named = "; ".join(differ[:5])
            if behind is not None and (changed := behind(differ)):
                named = f"{'; '.join(changed[:5])} (in the step: {named})"
        raise RequestError(
            f"{self.path} is finished, but was made from other settings: {named}",
            "the settings it was made from, or a folder of its own",
            "choose another --output-dir, change the setting back, or delete that folder to repeat the step",
        )

    def _refuse_other_launch(self) -> None:
        begun = self._begun()
        if begun.get("key") == self.key and begun.get("manner", {}) != dict(self.launch):
            raise RequestError(
                f"{self.working} was begun otherwise: " + "; ".join(differences(begun.get("manner", {}), self.launch)),
                "a half-finished step is continued as it was begun: each process has a batch of its own",
                "start as many processes as before, or delete that folder to begin the step anew",
            )

    def _begun(self) -> Mapping[str, Any]:
        """How the unfinished step was begun; of one that does not say so any more nothing is used."""
        started = self.working / STARTED_FILE
        try:
            begun = read_json(started) if started.is_file() else {}
        except RequestError:
            begun = {}
        return begun if isinstance(begun, Mapping) and isinstance(begun.get("started"), str) else {}

    @property
    def _only_points(self) -> bool:
        """Whether the folder holds nothing but the pointer to another variant's step, or what was to become one."""
        if not self.path.is_dir():
            return False
        return all(file.name == STEP_FILE or is_half_written(file, STEP_FILE) for file in self.path.iterdir())

    @contextmanager
    def work(self, processes: Processes) -> Iterator[Path]:
        """Work in the unfinished folder; on success it becomes the finished one.

        An unfinished folder made from the same inputs is continued, any other is begun anew.

        Args:
            processes: The processes that work on the step together; the main one keeps the folder.

        Yields:
            The folder to write into.
        """
        working = self.working
        if processes.is_main_process:
            if working.is_dir() and self._begun().get("key") != self.key:
                shutil.rmtree(working)
            (working / STEP_FILE).unlink(missing_ok=True)  # cut off while it got its name
            if not working.is_dir():
                write_json(working / STARTED_FILE, {"key": self.key, "manner": self.launch, "started": _now()})
        processes.wait_for_everyone()
        begun = time.perf_counter()
        try:
            yield working
        except Exception as error:
            error.add_note(str(working))  # not all who write say where
            raise
        processes.wait_for_everyone()
        if processes.is_main_process:
            self._finish(begun)
        processes.wait_for_everyone()

    def _finish(self, begun: float) -> None:
        started = self._begun().get("started") or _now()
        check_files(self.working)  # what was hashed on the way
        remove_half_written(self.working)
        scaffold = [self.working / name for name in (HASHES_FILE, STARTED_FILE)]
        files = [file for file in self.working.rglob("*") if file.is_file() and file not in scaffold]
        note = {
            "format_version": FORMAT_VERSION,
            "key": self.key,
            "inputs": self.inputs,
            "manner": self.launch,
            "started": started,
            "finished": _now(),
            "seconds_since_last_start": round(time.perf_counter() - begun, 3),
            "files": hashes_of(self.working, files),
        }
        write_json(self.working / STEP_FILE, seal(note))
        for file in scaffold:
            file.unlink(missing_ok=True)
        if self._only_points:
            shutil.rmtree(self.path)  # it pointed to another variant's step that is no longer there
        self.working.replace(self.path)
        sync(self.path.parent)

    def point_to(self, other: Path) -> None:
        """Say that this step is the same as another variant's; nothing is copied."""
        relative = os.path.relpath(other, self.path)
        note = {"format_version": FORMAT_VERSION, "key": self.key, "inputs": self.inputs, "same_as": relative}
        shutil.rmtree(self.working, ignore_errors=True)  # begun here, finished there
        write_json(self.path / STEP_FILE, seal(note))

    def resolve(self) -> Path:
        """Folder that holds the results: this one, or the one it points to."""
        step = self.path / STEP_FILE
        same_as = read_json(step).get("same_as") if step.is_file() else None
        return self.path if not isinstance(same_as, str) else Path(os.path.normpath(self.path / same_as))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
