"""What goes wrong while a checkpoint is read, in one sentence; and transformers' own reports, kept quiet."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging

from ..errors import RequestError


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide the loading report: heads that a step adds on purpose are no news. Errors are still shown."""
    before = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def explained(what: str, expected: str, fix: str) -> Iterator[None]:
    """Turn whatever goes wrong while a checkpoint is read into one sentence that begins with `what`."""
    try:
        with quiet_transformers():
            yield
    except RequestError:
        raise
    except Exception as error:  # of transformers, torch, safetensors, huggingface_hub: one class for each fault
        if _is_of_pickle(error):
            # Without its cause, which advises to switch the protection off.
            raise RequestError(
                f"{what}: it is damaged, or holds more than weights, and reading it would run code", expected, fix
            ) from None
        reason = next(iter(str(error).strip().splitlines()), "")[:300]
        named = reason if " " in reason else f"{type(error).__name__} {reason}".rstrip()
        raise RequestError(f"{what}: {named}", expected, fix) from error


def _is_of_pickle(error: BaseException | None) -> bool:
    """Whether an error is, or comes from, that of a pickle that torch does not read."""
    while error is not None and not isinstance(error, pickle.UnpicklingError):
        error = error.__cause__ or error.__context__
    return error is not None
