"""Ways in which a file gets damaged, and what a command makes of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gmp_atl_hf.cli.verbs import main
from runs import digests


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes()) or bytearray(1)  # an empty file gets a byte
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES: Mapping[str, Callable[[Path], None]] = {
    "one bit flipped": _flip,
    "cut in half": _halve,
    "emptied": lambda file: file.write_bytes(b"") and None,
    "removed": Path.unlink,
}


def numbers(folder: Path) -> dict[str, str]:
    """Digests of all that somebody takes away from a run; its card says how many seconds it took, too."""
    patterns = ("report.json", "**/predictions.jsonl", "**/metrics.json", "model/*.safetensors", "model/config.json")
    return digests(folder, *patterns, "model/usage.json")


def perform(words: Sequence[str]) -> tuple[int, str, str]:
    """Exit status, and what was printed on stdout and on stderr."""
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        status = main(words)
    return status, said.getvalue(), complained.getvalue()


def fault_of(status: int, complained: str, file: Path, same: bool) -> str | None:
    """What is wrong with a command's answer to a damaged file; None if it refused in a sentence or changed no number.

    Args:
        status: How the command ended.
        complained: What it printed on stderr.
        file: The damaged file.
        same: Whether the numbers are those of the run that nobody has damaged.
    """
    if "Traceback" in complained:
        return "a traceback"
    if status == 0:
        return None if same else "other numbers, status 0"
    _, found, sentence = complained.rpartition("gmp-atl: error:")
    if not found or "fix:" not in sentence:
        return "no sentence with a fix"
    # The folder is enough where the file is what made it one of ours.
    return None if file.name in sentence or str(file.parent) in sentence else "the file is not named"
