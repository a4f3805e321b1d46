"""The processes that share the pseudo-label step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from ..errors import RequestError

Item = TypeVar("Item")


@dataclass(frozen=True)
class ProcessGroup:
    """This process (`index`, from 0) of `count` that work together."""

    index: int = 0
    count: int = 1

    @classmethod
    def of_launch(cls) -> ProcessGroup:
        """The processes that `accelerate launch` or `torchrun` has started, on one machine or several."""
        from accelerate import PartialState

        state = PartialState()
        return cls(state.process_index, state.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this is the first process."""
        return self.index == 0

    def shard(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's share: every `count`-th item, from its own."""
        return items[self.index :: self.count]

    def wait(self) -> None:
        """Waits until all processes are here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def sum(self, values: Tensor) -> Tensor:
        """The sum of the tensors that the processes give, in each of them."""
        if self.count == 1:
            return values
        from accelerate import PartialState
        from accelerate.utils import reduce

        total: Tensor = reduce(values.to(PartialState().device), "sum")  # NCCL knows tensors on a GPU only
        return total.to(values.device)

    def on_main(self, work: Callable[[], None]) -> None:
        """Does the work in the main process while the others wait; what fails there fails in all of them."""
        trouble: Exception | None = None
        if self.is_main:
            try:
                work()
            except Exception as error:
                trouble = error
        if self.count > 1:
            from accelerate.utils import broadcast_object_list

            refused = trouble if isinstance(trouble, RequestError) else None
            words = () if refused is None else (refused.found, refused.expected, refused.fix)
            message: list[Any] = [trouble is None, words]
            broadcast_object_list(message, from_process=0)
            fine, words = message
            if not fine:
                self.wait()  # a process that leaves while another one still listens ends it with a signal
            if not fine and trouble is None:
                failed = RuntimeError("the main process could not go on; its own message says why")
                trouble = RequestError(*words) if words else failed
        if trouble is not None:
            raise trouble


SINGLE_PROCESS = ProcessGroup()
