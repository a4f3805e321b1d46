"""Optimisers and schedules that would only fail once a training begins, for a recipe's last stage hours after it."""

from __future__ import annotations

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
    except (ValueError, TypeError, NotImplementedError) as error:
        # Some ask for the model first, which is not there yet.
        if arguments.optim_target_modules is None and "lomo" not in str(arguments.optim):
            raise _refused("optim", arguments.optim, error, "an optimiser that goes with optim_args") from error
    schedule, settings = arguments.lr_scheduler_type, dict(arguments.lr_scheduler_kwargs or {})  # type: ignore[arg-type]
    if any(isinstance(value, (list, tuple)) for value in settings.values()):
        return  # a value for each group of parameters, which are not there yet
    try:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=arguments.learning_rate)
        get_scheduler(schedule, optimizer, 1, _STEPS, scheduler_specific_kwargs=settings or None)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        expected = "a schedule that goes with learning_rate and lr_scheduler_kwargs"
        raise _refused("lr_scheduler_type", schedule, error, expected) from error


def _refused(name: str, value: object, error: Exception, expected: str) -> RequestError:
    default = GMPATLTrainingArguments.__dataclass_fields__[name].default
    word, usual = getattr(value, "value", value), getattr(default, "value", default)
    reason = str(error).partition("\n")[0].rstrip(".")
    return RequestError(f"{name} is {word!r}: {reason}", expected, f"{name}: {usual}, or correct what this speaks of")
