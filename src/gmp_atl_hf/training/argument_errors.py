"""What is wrong with the values of training arguments, in the words of whoever wrote them and with a way out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, get_args, get_type_hints

from transformers.trainer_utils import SaveStrategy

from ..errors import RequestError, did_you_mean, known_names
from .arguments import GMPATLTrainingArguments


def refuse_unknown_words(settings: Mapping[str, Any]) -> None:
    """Refuse a word that is none of those that an argument may be, and strategies that choose nothing.

    Raises:
        RequestError: Names the argument, what it may be, and the nearest right word.
    """
    for name, words in _words().items():
        value = settings.get(name)
        if value is not None and getattr(value, "value", value) not in words:
            fix = did_you_mean(value, words, f"leave {name} out for its default")
            raise RequestError(f"{name} is {value!r}", known_names(words), fix)
    evaluated, saved = (_strategy(settings, name) for name in ("eval_strategy", "save_strategy"))
    chooses = settings.get("load_best_model_at_end", True) and not settings.get("average_epochs")
    if chooses and evaluated != saved and saved != SaveStrategy.BEST.value:
        same = "the same strategy for both: the best of the checkpoints is kept, so each is evaluated"
        away = "load_best_model_at_end: false keeps the last step instead of the best one"
        both = "" if "no" in (evaluated, saved) else f"; or eval_strategy: {evaluated} and save_strategy: {evaluated}"
        raise RequestError(f"eval_strategy is {evaluated!r}, and save_strategy is {saved!r}", same, away + both)


def explained(error: Exception, settings: Mapping[str, Any]) -> RequestError:
    """Say which of the settings are those that an error of transformers, or of our own arguments, speaks of."""
    found, _, expected = str(error).partition("; expected ")
    named = [name for name in settings if re.search(rf"\b{name}\b", found)]
    if not named:
        found = f"training arguments {json.dumps(dict(settings))}: {found}"
    names = " or ".join(named) or "the one that this speaks of"
    fix = f"leave {names} out for the default, or correct it"
    if expected and len(named) == 1 and isinstance(word := settings[named[0]], str):
        fix = did_you_mean(word, re.findall(r"\w+", expected), fix) or fix
    return RequestError(found, expected or "training arguments that fit together", fix)


@cache
def _words() -> dict[str, list[str]]:
    """Argument → the words that it may be, of those that are one of a few words."""
    hints = get_type_hints(GMPATLTrainingArguments)
    kinds = {name: [kind for kind in get_args(hint) if _is_enum(kind)] for name, hint in hints.items()}
    return {name: [each.value for each in kind[0]] for name, kind in kinds.items() if kind}


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _strategy(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name, GMPATLTrainingArguments.__dataclass_fields__[name].default)
    return str(getattr(value, "value", value))
