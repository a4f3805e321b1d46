"""`gmp-atl env`: versions and hardware, for a bug report."""

from __future__ import annotations

import argparse

from .console import DONE, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: the verb takes no arguments."""


def perform(arguments: argparse.Namespace) -> int:
    """Print versions and hardware."""
    from ..environment import describe_environment, format_environment

    say(format_environment(describe_environment()))
    return DONE
