"""The processes of one launch, found before anything asks who writes."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

PATIENCE = timedelta(hours=24)
"""How long processes wait for each other, which is longer than usual: the main one alone reads a corpus the first time,
joins the frame labels and ships the model. A process that ends takes the others with it, whatever they wait for."""


def join_processes() -> PartialState:
    """Join the processes that `accelerate launch` or `torchrun` has started.

    Without a GPU, Accelerate joins processes only if it is told that they are to use the processor, and otherwise
    leaves each to believe that it is the only one.
    """
    if not torch.accelerator.is_available() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)


def leave_processes() -> None:
    """Leave the other processes once all work is done.

    An interpreter that ends while its process group still stands may end with a signal, whatever it has achieved.
    After a failure nobody leaves: the launcher ends those who wait.
    """
    PartialState().destroy_process_group()
