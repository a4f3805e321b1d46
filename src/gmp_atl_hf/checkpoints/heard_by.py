"""Why nobody knows whom an encoder has heard: a shipped one's report names the encoder that has taught it."""

from __future__ import annotations

from pathlib import Path

from ..files import read_json
from ..protocols.leakage import MAYBE_SEEN_STAMP
from .checkpoint import locate

PRETRAINING_FILE = "pretraining.json"
"""Beside an encoder that comes with the package: the report of its pre-training."""


def maybe_seen_stamp(checkpoint: str) -> str:
    """What must stand beside numbers where a test speaker may be among those whom an encoder has seen.

    Args:
        checkpoint: Folder, Hub id or name of the encoder; only one that comes with the package has a report beside it.
    """
    folder = locate(checkpoint)
    if folder == checkpoint:
        return MAYBE_SEEN_STAMP
    iterations = read_json(Path(folder) / PRETRAINING_FILE)["iterations"]
    teachers = dict.fromkeys(each["teacher"]["name"] for each in iterations)
    return (
        f"The encoder {checkpoint} was taught by {' and '.join(teachers)}, and nobody knows whom that has heard: test "
        "speakers may be among them."
    )
