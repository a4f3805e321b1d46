"""The command `gmp-atl`: one verb, one function. Also `python -m gmp_atl_hf.cli`, also under `accelerate launch`."""

from __future__ import annotations

import argparse
import errno
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from ..environment import package_version
from ..errors import DivergenceError, RequestError, did_you_mean, known_names, said_of_the_disk
from .compare import add_compare_arguments, compare
from .corpora import add_corpora_arguments, corpora
from .evaluate import add_evaluate_arguments, evaluate
from .export import add_export_arguments, export
from .predict import add_predict_arguments, predict
from .prepare import add_prepare_arguments, prepare
from .pretrain import add_pretrain_arguments, pretrain
from .probe import add_probe_arguments, probe
from .push import add_card_arguments, add_push_arguments, card, push
from .ui import add_ui_arguments, ui

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
"""Variables by which `torchrun` and `accelerate launch` tell a process which one it is."""

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
PROGRAM = "gmp-atl"


class Verb(NamedTuple):
    """One verb of the command.

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


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that all wrong requests look alike."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(message, self.format_usage().removeprefix("usage: ").strip(), f"see {self.prog} --help")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if is_first_process():  # the help, too, once is enough
            (file or sys.stderr).write(message)  # argparse itself passes over what cannot be written


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` takes."""
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a packaged recipe such as demo")
    parser.add_argument("--output-dir", metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument("--folds", metavar="1,2", help="these folds only (default: all)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change one setting, such as pseudo_labels.clusters=[50]; may be repeated",
    )


def perform_run(arguments: argparse.Namespace) -> int:
    """Train and test as a recipe says."""
    from ..recipe.recipe import Recipe

    # Before the import below, which takes seconds: a typo is answered at once.
    recipe = Recipe.from_yaml(arguments.recipe, arguments.set)
    folds = None if arguments.folds is None else parse_folds(arguments.folds)
    from ..run.processes import leave_processes
    from ..run.run import run_recipe

    run_recipe(recipe, output_dir=arguments.output_dir, folds=folds, command=arguments.command)
    leave_processes()
    return DONE


def perform_prepare(arguments: argparse.Namespace) -> int:
    """Read a corpus and say what is in it."""
    say(prepare(arguments))
    return DONE


def perform_corpora(arguments: argparse.Namespace) -> int:
    """List the corpora that can be read by name."""
    say(corpora(arguments))
    return DONE


def add_no_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: the verb takes no arguments."""


def perform_recipes(arguments: argparse.Namespace) -> int:
    """List the packaged recipes, with what their first line says."""
    from ..recipe.packaged import packaged_recipes

    found = packaged_recipes()
    width = max(map(len, found), default=0)
    for name, file in found.items():
        first = file.read_text(encoding="utf-8").partition("\n")[0]
        say(f"{name:{width}}  {first.removeprefix('#').strip()}\n{'':{width}}  {file}")
    return DONE


def perform_env(arguments: argparse.Namespace) -> int:
    """Print versions and hardware, for a bug report."""
    from ..environment import describe_environment, format_environment

    say(format_environment(describe_environment()))
    return DONE


VERBS: dict[str, Verb] = {
    "run": Verb(
        "train and test as a recipe says; the same command again continues",
        add_run_arguments,
        perform_run,
        together=True,
    ),
    "corpora": Verb("list the corpora that can be read by name", add_corpora_arguments, perform_corpora),
    "prepare": Verb("read a corpus and say what is in it", add_prepare_arguments, perform_prepare),
    "evaluate": Verb("test a model on a corpus that it has not heard", add_evaluate_arguments, evaluate, together=True),
    "compare": Verb("two runs or variants, paired over speakers", add_compare_arguments, compare),
    "predict": Verb("emotions of recordings, by a trained model", add_predict_arguments, predict),
    "pretrain": Verb("train a HuBERT of one's own on plain speech", add_pretrain_arguments, pretrain, together=True),
    "probe": Verb("judge the layers of a frozen speech encoder on a corpus", add_probe_arguments, probe),
    "export": Verb("write a model as ONNX, for use without torch", add_export_arguments, export),
    "ui": Verb("a page to listen to: microphone or upload, scores, emotion over time", add_ui_arguments, ui),
    "push": Verb("send a run's model with card, figures and report to the Hub", add_push_arguments, push),
    "card": Verb("write the model's card anew from the run's folder", add_card_arguments, card),
    "recipes": Verb("list the packaged recipes", add_no_arguments, perform_recipes),
    "env": Verb("versions and hardware, for a bug report", add_no_arguments, perform_env),
}
"""Every verb of the command, in the order of `--help`."""

CONTINUE = frozenset({"run", "pretrain"})
"""Verbs that go on where they stopped when they are called again; the others begin anew."""


def parse_folds(text: str) -> tuple[int, ...]:
    """Read fold numbers.

    Args:
        text: Such as `1,2`.

    Returns:
        The numbers in their order, each once.

    Raises:
        RequestError: Something else than whole numbers from 1.

    Example:
        >>> parse_folds("1,3")
        (1, 3)
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise RequestError(f"--folds is {text!r}", "whole numbers from 1, with commas between them", "--folds 1,2")
    return tuple(dict.fromkeys(map(int, parts)))


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SPACE = ("room on the disk", "make room there, or choose another place; what is finished stays")
_ALLOWED = ("a place that may be read and written", "choose another place, or change what is allowed there")
_HELP: Mapping[int, tuple[str, str]] = {
    **dict.fromkeys(_NO_ROOM, _SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _ALLOWED),
    errno.EMFILE: ("fewer open files", "ulimit -n 4096"),
}


def say(text: str) -> None:
    """Print a line, in the first of several processes only."""
    if is_first_process():
        print(text, flush=True)


def complain(text: str) -> None:
    """Print a line on stderr, in the first of several processes only."""
    if is_first_process():
        with suppress(OSError):  # then there is nowhere to say it; the status still does
            print(text, file=sys.stderr, flush=True)


def is_first_process() -> bool:
    """Whether this is the only process or the first of several, as the launcher's variables tell."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def forget_stray_ranks() -> None:
    """Take away what says that this is one of several processes where no launcher has said how many there are.

    Some shells and schedulers leave such variables behind; this process would wait for others, or leave them the work.
    """
    found = {name: os.environ.get(name, "") for name in _LAUNCHED}
    known = {name: int(text) for name, text in found.items() if text.isascii() and text.isdigit() and len(text) < 10}
    ranks = [known.get(name, -1) for name in ("RANK", "LOCAL_RANK") if found[name]]
    launched = ranks and all(0 <= rank < known.get("WORLD_SIZE", 0) for rank in ranks)
    for name in _LAUNCHED:
        os.environ.pop(name, None)
    if launched:
        os.environ.update({name: str(number) for name, number in known.items()})


def build_parser() -> argparse.ArgumentParser:
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
        verb.add_arguments(
            verbs.add_parser(name, help=verb.summary, description=verb.summary + ".", allow_abbrev=False)
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The words after `gmp-atl`; None for those of this process.

    Returns:
        The exit status: 0 done, 1 failed, 2 the request was wrong, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _replace_closed_streams()
    forget_stray_ranks()
    try:
        status = _perform(words)
        sys.stdout.flush()  # what cannot be written is found out here, and not once there is nobody to say it
        return status
    except RequestError as error:
        complain(f"{PROGRAM}: error: {error}")
        return WRONG_REQUEST
    except DivergenceError as error:
        complain(f"{PROGRAM}: error: {error}")
        return FAILED
    except KeyboardInterrupt:
        again = "; running the same command again continues where it stopped" if CONTINUE & set(words[:1]) else ""
        complain(f"{PROGRAM}: interrupted{again}")
        return INTERRUPTED
    except Exception as error:
        # Every process tells: the one that failed first may not be the first one.
        with suppress(OSError):
            if (reason := _reason(error)) is None:
                traceback.print_exc()
            elif reason:
                print(f"{PROGRAM}: error: {reason}", file=sys.stderr, flush=True)
        return FAILED


def _reason(error: Exception) -> str | None:
    """Say in a sentence why files or the screen could not be read or written; nothing of a reader that has gone.

    None for errors of any other kind, which only their traceback explains.
    """
    lost = _is_stdout_lost(isinstance(error, OSError) and error.filename is None and error.errno in _NO_ROOM)
    if isinstance(error, BrokenPipeError):  # as with `gmp-atl … | head`
        return ""
    if lost:
        return f"the output cannot be written: {error}"
    if isinstance(error, OSError):
        number, files = error.errno, [str(name) for name in (error.filename, error.filename2) if name is not None]
        files = files or list(getattr(error, "__notes__", ()))[:1]
        problem = error.strerror or str(error)
    elif code := re.search(r"\(os error (\d+)\)", str(error)):  # of safetensors and others that are written in Rust
        number, files, problem = int(code[1]), [], str(error)
    else:
        return said_of_the_disk(error)
    found = ": ".join([" and ".join(files), problem] if files else [problem or type(error).__name__])
    return str(RequestError(found, *_HELP.get(number or 0, (None, None))))


def _is_stdout_lost(doubtful: bool) -> bool:
    """Whether standard output takes nothing any more; what it still holds is then thrown away.

    A long text leaves nothing in it to try again with: where it is in doubt, the end of a line is tried.
    """
    try:
        sys.stdout.flush()
        if doubtful and sys.stdout is sys.__stdout__ and sys.stdout is not None:
            os.write(sys.stdout.fileno(), b"\n")
        return not sys.stdout.writable()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True


def _replace_closed_streams() -> None:
    """Put something in the place of streams that were closed before we began, and keep files off their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "r"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Standard output fails when something is written to it, as a full one does; the other two are silent.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def _perform(words: list[str]) -> int:
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        raise RequestError(f"there is no verb {words[0]!r}", known_names(VERBS), did_you_mean(words[0], VERBS))
    parser = build_parser()
    try:
        arguments = parser.parse_args(words)
    except SystemExit:  # after --help
        return DONE
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
    return verb.perform(arguments)
