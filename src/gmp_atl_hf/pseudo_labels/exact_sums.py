"""Sums of states that are the same, bit for bit, in any order and number of processes."""

from __future__ import annotations

from typing import Any

import datasets
import torch
from torch import Tensor

from ..errors import RequestError
from .process_group import ProcessGroup

STEPS_PER_UNIT = 2**16
"""Sums are added up as whole numbers of this fraction: exact, and so the same in any order."""

LARGEST_SUM = 2.0**42
"""Largest sum of a process, such as the squares of 10⁹ frames of 4400 each: with more, whole numbers of 64 bits might
not do."""


class ExactSums:
    """Sums over the frames of one layer, added up clip by clip.

    Args:
        layer: For messages.
        shape: Of the sums.
    """

    def __init__(self, layer: int, *shape: int) -> None:
        self.layer = layer
        self._steps = torch.zeros(shape, dtype=torch.int64)
        self._largest = 0.0

    def add(self, where: Any, values: Tensor, table: datasets.Dataset, row: int) -> None:
        """Add (…) float64 values on the CPU to the sums at an index.

        Args:
            where: Index of the sums.
            values: Of that shape.
            table: Whose row they are of, for messages.
            row: Of the table.

        Raises:
            RequestError: Values that are not finite, or too large to be added up exactly.
        """
        self._largest += float(values.abs().max())
        if not self._largest <= LARGEST_SUM:  # nor where it is no number
            raise RequestError(
                f"frames of layer {self.layer} with values that are not finite, or far too large, in "
                f"{table['id'][row] if 'id' in table.column_names else f'row {row}'}",
                "finite features",
                "look for broken recordings, and for a model that diverged in training",
            )
        self._steps[where] += (values * STEPS_PER_UNIT).round().long()

    def over(self, group: ProcessGroup) -> Tensor:
        """The sums of all processes, int64, in steps of `STEPS_PER_UNIT`."""
        return group.sum(self._steps)
