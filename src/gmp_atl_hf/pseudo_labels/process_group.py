"""The processes that share the pseudo-label step, and the one thing they exchange: sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")

Reduce = Callable[[Tensor], Tensor]
"""Turns a tensor of this process into the sum over all processes, the same on each of them."""


def one_process(gathered: Tensor) -> Tensor:
    """The reduction of a single process: what was gathered is already all there is."""
    return gathered


@dataclass(frozen=True)
class Team:
    """The processes that work together; on its own a process is a team of one.

    Args:
        index: This process, from 0.
        count: How many there are.
        reduce: Sum over them.
    """

    index: int = 0
    count: int = 1
    reduce: Reduce = one_process

    @classmethod
    def of_launch(cls) -> Team:
        """The processes that `accelerate launch` or `torchrun` has started, on one machine or several."""
        from accelerate import PartialState
        from accelerate.utils import reduce

        state = PartialState()

        def over_processes(gathered: Tensor) -> Tensor:
            # NCCL knows tensors on a GPU only.
            total: Tensor = reduce(gathered.to(state.device), "sum")
            return total.to(gathered.device)

        return cls(state.process_index, state.num_processes, over_processes) if state.num_processes > 1 else cls()

    def mine(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's share of some items: every `count`-th, from its own."""
        return items[self.index :: self.count]

    def highest(self, value: float) -> float:
        """The largest of the values that the processes give."""
        values = torch.zeros(self.count, dtype=torch.float64)
        values[self.index] = value
        return float(self.reduce(values).max())


ALONE = Team()
