"""How far several jobs are, and since when they are at what: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm.auto import tqdm

from .jobs import Jobs

ON_A_TERMINAL = 1.0
"""Seconds after which the bar is renewed."""

ELSEWHERE = 300.0
"""Seconds after which a log file gets a line although nothing was begun or done."""


class Progress:
    """The progress of jobs, on standard error.

    Args:
        what: What they do together.
        total: How many pieces that is; None where they are not counted.

    Attributes:
        done: The pieces that are done.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total = what, total
        self.done: set[object] = set()
        self._since: dict[str, float] = {}
        self._renewed = sys.stderr.isatty()
        form = "{desc}{postfix}" if total is None else None
        self._bar = tqdm(total=total, desc=what, bar_format=form, dynamic_ncols=True, disable=not self._renewed)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        self._bar.n = len(self.done)
        self._bar.set_postfix_str("", refresh=False)
        self._bar.close()

    def __str__(self) -> str:
        done = self.what if self.total is None else f"{self.what}: {len(self.done)} of {self.total} done"
        return f"{done}; running: {self._running()}" if self._since else done

    def begin(self, name: str) -> None:
        """Note that a job begins with something."""
        self._since[name] = time.monotonic()

    def end(self, name: str) -> None:
        """Note that a job is done with it."""
        del self._since[name]

    def wait(self, jobs: Jobs) -> None:
        """Wait until a job is done with something, and give signs of life until then."""
        self._show()
        while not jobs.wait_for(ON_A_TERMINAL if self._renewed else ELSEWHERE):
            self._show()

    def _show(self) -> None:
        if not self._renewed:
            tqdm.write(str(self), file=sys.stderr)
            return
        self._bar.n = len(self.done)
        self._bar.set_postfix_str(self._running())

    def _running(self) -> str:
        now = time.monotonic()
        return ", ".join(f"{name} ({tqdm.format_interval(now - since)})" for name, since in self._since.items())
