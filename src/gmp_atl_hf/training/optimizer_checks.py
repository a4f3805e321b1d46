"""Optimisers and schedules that would only fail once a training begins, for a recipe's last stage hours after it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer
from transformers.optimization import get_scheduler
from transformers.training_args import trainer_log_levels

from ..errors import RequestError, did_you_mean, known_names
from .arguments import GMPATLTrainingArguments

_STEPS = 100
"""Of a schedule that is made to see whether it can be."""


def refuse_unusable_optimizer(arguments: GMPATLTrainingArguments) -> None:
    """Refuse what the stock trainer looks at when it makes its optimiser and its schedule.

    Raises:
        RequestError: Names the argument and what is wrong with it.
    """
    for name in ("log_level", "log_level_replica"):
        if (level := getattr(arguments, name)) not in trainer_log_levels:
            fix = did_you_mean(level, trainer_log_levels, f"leave {name} out")
            raise RequestError(f"{name} is {level!r}", known_names(trainer_log_levels), fix)
    if any(pair.count("=") != 1 for pair in (arguments.optim_args or "a=b").split(",")):
        raise RequestError(
            f"optim_args is {arguments.optim_args!r}", "name=value, several with commas", "optim_args: momentum=0.9"
        )
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments)
    except ImportError as error:
        raise _refused("optim", arguments.optim, error, "an optimiser whose package is installed") from error
    except ValueError as error:
        # With target modules it asks for the model, which is not there yet: the trainer itself will see.
        if arguments.optim_target_modules is None:
            raise _refused("optim", arguments.optim, error, "an optimiser that goes with optim_args") from error
    schedule = arguments.lr_scheduler_type
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=arguments.learning_rate or 1e-8)
    settings: Any = arguments.lr_scheduler_kwargs or None
    try:
        get_scheduler(schedule, optimizer, 1, _STEPS, scheduler_specific_kwargs=settings)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise _refused("lr_scheduler_type", schedule, error, "a schedule that goes with lr_scheduler_kwargs") from error


def _refused(name: str, value: object, error: Exception, expected: str) -> RequestError:
    default = GMPATLTrainingArguments.__dataclass_fields__[name].default
    word, usual = getattr(value, "value", value), getattr(default, "value", default)
    reason = str(error).partition("\n")[0].rstrip(".")
    return RequestError(f"{name} is {word!r}: {reason}", expected, f"{name}: {usual}, or correct what this speaks of")
