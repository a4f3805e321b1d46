"""The command line, one file per verb."""

from .verbs import main

__all__ = ["main"]
