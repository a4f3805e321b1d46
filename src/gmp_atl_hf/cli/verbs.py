"""The command `gmp-atl`: its verbs, and what becomes of their errors."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from ..environment import package_version
from ..errors import DivergenceError, RequestError, did_you_mean, known_names, nearest
from . import (
    card,
    compare,
    corpora,
    embed,
    env,
    evaluate,
    export,
    merge,
    predict,
    prepare,
    pretrain,
    probe,
    push,
    recipes,
    run,
    stress,
    ui,
)
from .console import (
    DONE,
    FAILED,
    INTERRUPTED,
    PROGRAM,
    WRONG_REQUEST,
    complain,
    explain_failure,
    forget_stray_ranks,
    is_first_process,
    own_warnings_as_notes,
    replace_closed_streams,
    say,
)

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class Verb(NamedTuple):
    """One verb of the command; its file has `add_arguments` and `perform`.

    Args:
        summary: One line for `--help`.
        add_arguments: Declares the verb's arguments.
        perform: Does the work and gives the exit status; a `RequestError` means that the request was wrong.
        together: Whether the processes of a launch do the work together; otherwise the first one does all of it.
    """

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    perform: Callable[[argparse.Namespace], int]
    together: bool = False


VERBS: dict[str, Verb] = {
    "run": Verb(
        "train and test as a recipe says; the same command again continues",
        run.add_arguments,
        run.perform,
        together=True,
    ),
    "corpora": Verb("list the corpora that can be read by name", corpora.add_arguments, corpora.perform),
    "prepare": Verb("read a corpus and say what is in it", prepare.add_arguments, prepare.perform),
    "evaluate": Verb(
        "test a model on a corpus that it was not trained on", evaluate.add_arguments, evaluate.perform, together=True
    ),
    "stress": Verb(
        "test a model on a corpus whose recordings are made worse", stress.add_arguments, stress.perform, together=True
    ),
    "compare": Verb("two variants of one run or more, paired over speakers", compare.add_arguments, compare.perform),
    "predict": Verb("emotions of recordings, by a trained model", predict.add_arguments, predict.perform),
    "pretrain": Verb("train a new HuBERT on plain speech", pretrain.add_arguments, pretrain.perform, together=True),
    "probe": Verb("judge the layers of a frozen speech encoder on a corpus", probe.add_arguments, probe.perform),
    "embed": Verb("embeddings of a corpus or recordings, by a speech encoder", embed.add_arguments, embed.perform),
    "export": Verb("write a model as ONNX, for use without torch", export.add_arguments, export.perform),
    "merge": Verb("write a LoRA adapter and its model as one plain model", merge.add_arguments, merge.perform),
    "ui": Verb(
        "a web page that records or takes an upload, and shows scores and emotion over time",
        ui.add_arguments,
        ui.perform,
    ),
    "push": Verb("send a run's model with card, figures and report to the Hub", push.add_arguments, push.perform),
    "card": Verb("write the model's card anew from the run's folder", card.add_arguments, card.perform),
    "recipes": Verb("list the packaged recipes", recipes.add_arguments, recipes.perform),
    "env": Verb("versions and hardware, for a bug report", env.add_arguments, env.perform),
}
"""Every verb of the command, in the order of `--help`."""

CONTINUE = frozenset({"run", "pretrain"})
"""Verbs that go on where they stopped when they are called again; the others begin anew."""


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that all wrong requests look alike."""

    def error(self, message: str) -> NoReturn:
        fix = f"see {self.prog} --help"
        if "are required" in message:
            fix = f"{' '.join([self.prog, *self._required()])}; {fix}"
        raise RequestError(message, self.format_usage().removeprefix("usage: ").strip(), fix)

    def _required(self) -> list[str]:
        """What has to be given, in the order in which arguments without a name are told apart."""
        order = [str(each.metavar) for each in self._get_positional_actions() if each.nargs not in ("?", "*")]
        for each in self._get_optional_actions():
            order += [each.option_strings[-1], str(each.metavar)] if each.required else []
        return order

    def refuse_unknown(self, words: list[str]) -> NoReturn:
        """Refuse words that are no arguments of this verb, with the option that is meant where one is like it."""
        names = [name for each in self._get_optional_actions() for name in each.option_strings]
        wrong = next((word for word in words if word.startswith("--")), words[0])
        near = nearest(wrong.partition("=")[0][2:], [name.lstrip("-") for name in names])
        near = f"--{near}" if near is not None and wrong.startswith("--") else None
        usage = self.format_usage().removeprefix("usage: ").strip()
        fix = f"did you mean `{near}`? See {self.prog} --help" if near else f"see {self.prog} --help"
        raise RequestError(f"{self.prog} has no argument {' '.join(words)}", usage, fix)

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if is_first_process():  # the help, too, once is enough
            (file or sys.stderr).write(message)  # argparse itself passes over what cannot be written


def build_parser() -> _Parser:
    """Build the parser of all verbs."""
    parser = _Parser(
        prog=PROGRAM,
        description="GMP-ATL speech emotion recognition: train, test and use.",
        epilog="Exit status: 0 done, 1 failed, 2 the request was wrong.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, verb in VERBS.items():
        of_verb = verbs.add_parser(name, help=verb.summary, description=verb.summary + ".", allow_abbrev=False)
        of_verb.set_defaults(parser=of_verb)
        verb.add_arguments(of_verb)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The words after `gmp-atl`; None for those of this process.

    Returns:
        The exit status: 0 done, 1 failed, 2 the request was wrong, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    replace_closed_streams()
    forget_stray_ranks()
    try:
        with own_warnings_as_notes():
            status = _perform(words)
        sys.stdout.flush()  # what cannot be written is found out here, and not once there is nobody to say it
        return status
    except (RequestError, DivergenceError) as error:
        complain(f"{PROGRAM}: error: {error}")
        return WRONG_REQUEST if isinstance(error, RequestError) else FAILED
    except KeyboardInterrupt:
        again = "; running the same command again continues where it stopped" if CONTINUE & set(words[:1]) else ""
        complain(f"{PROGRAM}: interrupted{again}")
        return INTERRUPTED
    except Exception as error:
        # Every process tells: the one that failed first may not be the first one.
        with suppress(OSError):
            if (reason := explain_failure(error)) is None:
                traceback.print_exc()
            elif reason:
                print(f"{PROGRAM}: error: {reason}", file=sys.stderr, flush=True)
        return FAILED


def _with_values_below_zero(words: list[str]) -> list[str]:
    """Join an option with a list of numbers that begins below 0: argparse would take the list for an option.

    Example:
        >>> _with_values_below_zero(["probe", "mini", "--layers", "-1,-2"])
        ['probe', 'mini', '--layers=-1,-2']
    """
    joined: list[str] = []
    for word in words:
        if joined and re.fullmatch(r"--\w[\w-]*", joined[-1]) and re.match(r"-\d+,", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _refuse_words(parser: _Parser, left: list[str], words: list[str]) -> NoReturn:
    """Refuse words that are no arguments, or that made others be none: a second setting after one `--set`."""
    settings = [
        word
        for place, word in enumerate(words)
        if re.match(r"[\w.]+=", word)
        and ("--set" in words[max(0, place - 2) : place - 1] or words[place - 1].startswith("--set="))
    ]
    if settings:
        # `--set` takes one, so that a recipe may follow it.
        fix = f"put --set before the others too, as in --set {shlex.quote(settings[0])}"
        raise RequestError(f"{settings[0]} without a --set of its own", "--set before every KEY=VALUE", fix)
    parser.refuse_unknown(left)


def _perform(words: list[str]) -> int:
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        raise RequestError(f"there is no verb {words[0]!r}", known_names(VERBS), did_you_mean(words[0], VERBS))
    parser = build_parser()
    try:
        arguments, left = parser.parse_known_args(_with_values_below_zero(words))
    except SystemExit:  # after --help
        return DONE
    if left:
        _refuse_words(arguments.parser if arguments.verb else parser, left, words)
    if arguments.version:
        say(f"{PROGRAM} {package_version('gmp-atl-hf')}")
        return DONE
    if arguments.verb is None:
        complain(parser.format_help())
        return WRONG_REQUEST
    verb = VERBS[arguments.verb]
    if not verb.together and not is_first_process():
        return DONE
    arguments.command = shlex.join([PROGRAM, *words])
    status = verb.perform(arguments)
    if verb.together:
        from ..run.processes import leave_processes  # now that the verb has loaded what this loads

        leave_processes()
    return status
