"""A model in eval mode for as long as it scores, and as it was afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn

_lock = threading.Lock()
# Model → how many threads score with it now, and the modules that were in training mode before the first of them.
_scoring: WeakKeyDictionary[nn.Module, tuple[int, list[nn.Module]]] = WeakKeyDictionary()


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch a model to eval mode; the last thread that ends gives every module the mode back that it had.

    A `model.eval()` of another thread meanwhile is undone at the end.
    """
    with _lock:
        threads, training = _scoring.get(model, (0, []))
        # Also where others score already: somebody may have called model.train() meanwhile.
        more = [module for module in model.modules() if module.training]
        for module in more:
            module.training = False
        _scoring[model] = (threads + 1, [*training, *more])
    try:
        yield
    finally:
        with _lock:
            threads, training = _scoring.pop(model)
            if threads > 1:
                _scoring[model] = (threads - 1, training)
            else:
                for module in training:
                    module.training = True
