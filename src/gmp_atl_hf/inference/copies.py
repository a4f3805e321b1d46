"""Copies of what holds a model: in the same process as usual, in another one as far as PyTorch can pickle the model."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Self

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ..errors import RequestError


class Copies:
    """Copying and pickling of a class with a `model`."""

    model: nn.Module

    def __copy__(self) -> Self:
        """Another one around the same model."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """One of its own, with a model of its own."""
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        vars(twin).update(deepcopy(vars(self), memo))
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be pickled around a model with weight norm, as HuBERT's positions have: PyTorch pickles none."""
        if not any(map(is_parametrized, self.model.modules())):
            return super().__reduce_ex__(protocol)
        name = type(self).__name__
        raise RequestError(
            f"a {name} around this model cannot be pickled, nor given to processes that are spawned",
            "threads, forked processes, or a classifier that each process loads for itself",
            f"call {name}.from_pretrained(FOLDER) in the process; model.save_pretrained(FOLDER) and "
            "feature_extractor.save_pretrained(FOLDER) make the folder",
        )
