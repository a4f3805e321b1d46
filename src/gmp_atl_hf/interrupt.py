"""Ctrl-C while the command still loads its libraries, before it can handle it itself."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

COMMAND, MODULE = "gmp-atl", "gmp_atl_hf.cli"


def quiet_interrupt_of_command() -> None:
    """Show one line in place of a traceback, if this process is the command; other programs keep what they have."""
    program = Path(sys.argv[0]).stem if getattr(sys, "argv", None) else ""
    if program != COMMAND and MODULE not in getattr(sys, "orig_argv", ()):
        return
    before = sys.excepthook

    def one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            before(kind, error, trace)
        elif sys.stderr is not None:
            print(f"{COMMAND}: interrupted", file=sys.stderr)

    sys.excepthook = one_line
