from __future__ import annotations

import argparse
import errno
import io
import json
import os
import re
import shlex
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

import gmp_atl_hf.errors
from gmp_atl_hf import __version__
from gmp_atl_hf.cli import verbs as cli
from gmp_atl_hf.cli.console import is_first_process, own_warnings_as_notes
from gmp_atl_hf.cli.run import parse_folds
from gmp_atl_hf.cli.verbs import VERBS, Verb, main
from gmp_atl_hf.environment import describe_environment, format_environment, package_version, with_earlier
from gmp_atl_hf.errors import RequestError


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What `run_recipe` was called with; nothing is trained."""
    calls: list[dict[str, Any]] = []
    module = types.ModuleType("gmp_atl_hf.run.run")
    module.run_recipe = lambda recipe, **options: calls.append({"recipe": recipe, **options})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gmp_atl_hf.run.run", module)
    yield calls


def give_verb(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Verb:
    def perform(arguments: argparse.Namespace) -> int:
        raise error

    verb = Verb("breaks", lambda parser: None, perform)
    monkeypatch.setitem(VERBS, "break", verb)
    return verb


# run


def test_run_passes_on_what_was_asked_for(runs: list[dict[str, Any]]) -> None:
    words = ["run", "demo", "--output-dir", "my runs/x", "--folds", "2,1", "--set", "seeds=[3]", "--set", "final=false"]
    assert main([*words, "--jobs", "2"]) == 0
    [call] = runs
    assert call["recipe"].seeds == (3,)
    assert not call["recipe"].final
    assert call["output_dir"] == "my runs/x"
    assert call["folds"] == (2, 1)
    assert call["jobs"] == 2
    assert call["command"] == (
        "gmp-atl run demo --output-dir 'my runs/x' --folds 2,1 --set 'seeds=[3]' --set final=false --jobs 2"
    )


def test_run_without_options_leaves_them_to_the_run(runs: list[dict[str, Any]]) -> None:
    assert main(["run", "demo"]) == 0
    assert runs[0]["output_dir"] is None
    assert runs[0]["folds"] is None
    assert runs[0]["jobs"] == 1


def test_a_wrong_recipe_is_answered_before_the_run_is_even_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gmp_atl_hf.run.run", None)  # importing it would fail with status 1
    assert main(["run", "demo", "--set", "pseudo_labels.clustres=[5]"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("gmp-atl: error: unknown key `clustres` in `pseudo_labels`\n  expected: ")
    assert said.err.endswith("  fix: did you mean `clusters`?\n")
    assert "Traceback" not in said.err


def test_a_recipe_that_is_not_there_is_a_wrong_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "dmo"]) == 2
    assert "did you mean `demo`?" in capsys.readouterr().err


@pytest.mark.parametrize("folds", ["", ",", "0", "a", "1-3", "-1", "1.5", "²"])
def test_folds_that_are_no_numbers_from_1_are_refused(
    folds: str, runs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "demo", f"--folds={folds}"]) == 2
    assert "whole numbers from 1" in capsys.readouterr().err
    assert not runs


@pytest.mark.parametrize("jobs", ["", "0", "-1", "1.5", "two", "²"])
def test_jobs_that_are_no_number_from_1_are_refused(
    jobs: str, runs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "demo", f"--jobs={jobs}"]) == 2
    assert f"--jobs is {jobs!r}\n  expected: a whole number from 1" in capsys.readouterr().err
    assert not runs


def test_folds_are_read_in_their_order_each_once() -> None:
    assert parse_folds("3, 1,3") == (3, 1)


# Status and messages


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepar"], "did you mean `prepare`?"),
        (["rn", "demo"], "did you mean `run`?"),
        (["run"], "RECIPE"),
        (["run", "demo", "--fold", "1"], "gmp-atl run has no argument --fold 1"),
        (["run", "demo", "--fold", "1"], "fix: did you mean `--folds`? See gmp-atl run --help"),
        (["prepare", "csv", "x.csv", "--option", "a=1"], "did you mean `--options`?"),
        (["push", "demo", "me/x", "--variant", "a"], "fix: see gmp-atl push --help"),
        (["predict", "model"], "fix: gmp-atl predict MODEL PATH; see gmp-atl predict --help"),
        (["embed", "mini", "call.wav"], "fix: gmp-atl embed MODEL --output FILE; see gmp-atl embed --help"),
        (["prepare", "folder", "x", "--options", "speaker"], "for example speaker=parent"),
        (
            ["run", "demo", "--set", "a=1", "b.c=[2]", "d=3"],
            "fix: put --set before the others too, as in --set 'b.c=[2]'",
        ),
        (["run", "--set=a=1", "b=2", "demo"], "b=2 without a --set of its own"),
        (["run", "demo", "--set", "a=1", "more"], "gmp-atl run has no argument more"),
        (["--versio"], "did you mean `--version`?"),
        ([], "usage: gmp-atl"),
        (["predict", "x", "y", "--format", "xml"], "invalid choice"),
    ],
)
def test_a_wrong_command_line_has_status_2_and_says_why(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


@pytest.mark.parametrize("verb", [[], *([verb] for verb in VERBS)])
def test_every_verb_has_help(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb, "--help"]) == 0
    assert "usage: gmp-atl" in capsys.readouterr().out


def test_a_wrong_request_found_while_working_has_status_2_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_verb(monkeypatch, RequestError("found this", "expected that", "do so"))
    assert main(["break"]) == 2
    assert capsys.readouterr().err == "gmp-atl: error: found this\n  expected: expected that\n  fix: do so\n"


def test_anything_else_that_goes_wrong_has_status_1_and_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_verb(monkeypatch, ValueError("a bug"))
    assert main(["break"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "ValueError: a bug" in said


@pytest.mark.parametrize(("verb", "goes_on"), [("run", True), ("pretrain", True), ("break", False)])
def test_an_interruption_has_status_130_and_says_how_to_go_on_where_one_can(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str, goes_on: bool
) -> None:
    give_verb(monkeypatch, KeyboardInterrupt())
    monkeypatch.setitem(VERBS, verb, VERBS["break"])
    assert main([verb]) == 130
    said = capsys.readouterr().err
    assert said.startswith("gmp-atl: interrupted")
    assert ("running the same command again continues" in said) == goes_on
    assert "Traceback" not in said


def test_the_status_of_a_verb_is_that_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VERBS, "half", Verb("half done", lambda parser: None, lambda arguments: 1))
    assert main(["half"]) == 1


# Several processes


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK"])
def test_only_the_first_of_several_processes_speaks(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(variable, "1")
    assert main(["recipes"]) == 0
    assert main(["--version"]) == 0
    assert main(["run", "dmo"]) == 2
    assert main(["--help"]) == 0
    assert main(["run", "--help"]) == 0
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv(variable, "0")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out


def test_the_rank_on_the_whole_decides_not_the_one_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("RANK", "8")
    assert not is_first_process()


def test_every_process_tells_of_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setitem(VERBS, "break", give_verb(monkeypatch, ValueError("a bug"))._replace(together=True))
    assert main(["break"]) == 1
    assert "ValueError: a bug" in capsys.readouterr().err


def works_once(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A verb that notes whenever it works."""
    worked: list[str] = []
    monkeypatch.setitem(VERBS, "work", Verb("works", lambda parser: None, lambda arguments: worked.append("once") or 0))
    return worked


@pytest.mark.parametrize("world", [None, "", "1", "x", "-1"])
@pytest.mark.parametrize("rank", ["", "-1", "-7", "1", "8", "x", "1.0", "²", " "])
@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK"])
def test_a_number_that_no_launcher_has_given_keeps_no_verb_from_its_work(
    variable: str, rank: str, world: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, rank)
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    worked = works_once(monkeypatch)
    assert main(["work"]) == 0
    assert worked
    assert variable not in os.environ


@pytest.mark.parametrize(("rank", "works"), [("0", 1), ("00", 1), ("1", 0), ("2", 0), ("3", 1)])
def test_of_three_processes_the_first_works(rank: str, works: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": rank, "LOCAL_RANK": "0", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    worked = works_once(monkeypatch)
    assert main(["work"]) == 0
    assert len(worked) == works


# Screens and disks that take nothing


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/x.json"), ["runs/x.json: No space", "make room"]),
        (OSError(errno.ENOSPC, "No space left on device"), ["error: No space left on device", "make room"]),
        (OSError(errno.EROFS, "Read-only file system", "a", None, "b"), ["a and b: Read-only", "another place"]),
        (PermissionError(errno.EACCES, "Permission denied", "secret"), ["secret: Permission denied", "allowed"]),
        (ConnectionError("the network is away"), ["the network is away"]),
        (OSError(), ["error: OSError"]),
        (SafetensorError("I/O error: No space left on device (os error 28)"), ["No space left", "make room"]),
    ],
)
def test_files_that_cannot_be_read_or_written_are_named_in_a_sentence(
    error: Exception, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_verb(monkeypatch, error)
    assert main(["break"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("gmp-atl: error: ") and "Traceback" not in said
    for word in words:
        assert word in said


def test_an_interruption_before_there_is_a_verb_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build_parser", interrupt)
    assert main([]) == 130
    assert capsys.readouterr().err == "gmp-atl: interrupted\n"


def test_an_interruption_while_libraries_are_loaded_is_one_line() -> None:
    code = "import sys; sys.argv = ['/bin/{}']; import gmp_atl_hf.interrupt; raise {}"
    for program, error, said in (
        ("gmp-atl", "KeyboardInterrupt", r"gmp-atl: interrupted\n"),
        ("gmp-atl", "ValueError('other')", r"Traceback (.|\n)*ValueError: other\n"),
        ("python", "KeyboardInterrupt", r"Traceback (.|\n)*KeyboardInterrupt\n"),
    ):
        done = subprocess.run([sys.executable, "-c", code.format(program, error)], capture_output=True, text=True)
        assert re.fullmatch(said, done.stderr), done.stderr
        assert done.returncode != 0


@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        (">/dev/full", "gmp-atl: error: the output cannot be written: [Errno 28] No space left on device\n"),
        (">&-", "gmp-atl: error: the output cannot be written: not writable\n"),
    ],
)
def test_a_screen_that_takes_nothing_is_a_failure_and_no_traceback(redirection: str, said: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    line = f"unset PYTHONUNBUFFERED; {shlex.quote(sys.executable)} -m gmp_atl_hf.cli --version {redirection}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


class Full(io.TextIOBase):
    """A screen, or a file, on which there is no room; buffered or not."""

    def __init__(self, error: OSError, at_once: bool) -> None:
        self.error, self.at_once, self.held = error, at_once, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.held += text
        if self.at_once:
            self.flush()
        return len(text)

    def flush(self) -> None:
        if self.held:
            self.held = "" if self.at_once else self.held
            raise self.error


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), BrokenPipeError(errno.EPIPE, "")])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("words", ["--help", "predict --help", "recipes", "corpora", "corpora emodb", "env"])
def test_what_cannot_be_shown_is_a_failure(
    words: str, at_once: bool, error: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Full(error, at_once))
    assert main(words.split()) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert ("No space left" in said) == (error.errno == errno.ENOSPC)
    assert bool(said) == (error.errno == errno.ENOSPC)


# recipes, env, --version


def test_recipes_lists_the_packaged_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"demo +See the method work", said)
    assert "emodb" in said


def test_export_without_its_packages_names_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "gmp_atl_hf.inference.onnx_export", raising=False)
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["export", str(tmp_path), str(tmp_path / "model.onnx")]) == 2
    assert "onnx, onnxscript, onnxruntime not installed" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"gmp-atl {package_version('gmp-atl-hf')}\n"


def test_the_environment_can_be_kept_and_read(capsys: pytest.CaptureFixture[str]) -> None:
    environment = describe_environment()
    assert json.loads(json.dumps(environment)) == environment
    assert environment["packages"]["torch"] == package_version("torch")
    assert environment["cpus"] >= 1
    assert main(["env"]) == 0
    said = capsys.readouterr().out
    assert said == format_environment(environment) + "\n"
    assert f"transformers     {package_version('transformers')}" in said


def test_a_package_that_is_not_there_has_no_version() -> None:
    assert package_version("surely-not-installed-anywhere") is None
    assert package_version("gmp-atl-hf") == __version__


def test_machines_of_earlier_parts_are_kept_once_each() -> None:
    one, two, three = ({"cpu": name} for name in ("A", "B", "C"))
    assert with_earlier(one, None) == one
    assert with_earlier(one, one) == one
    both = with_earlier(two, one)
    assert both == {**two, "earlier": [one]}
    assert with_earlier(two, both) == both
    assert with_earlier(one, both) == {**one, "earlier": [two]}
    assert with_earlier(three, both) == {**three, "earlier": [one, two]}


def test_an_environment_without_torch_and_with_gpus_can_be_shown() -> None:
    environment = {**describe_environment(), "cpu": None, "memory_gib": None, "torch": None}
    environment["packages"] = {"torch": None}
    said = format_environment(environment)
    assert "torch build  not installed" in said
    assert "memory       unknown" in said
    environment |= {"torch": {"cuda": "12.8"}, "gpus": [{"name": "A", "memory_gib": 80.0}] * 2}
    said = format_environment(environment)
    assert "A (80.0 GiB), A (80.0 GiB)" in said
    assert "CUDA 12.8" in said


def test_the_module_is_the_command_too() -> None:
    words = [sys.executable, "-m", "gmp_atl_hf.cli", "run", "demo", "--set", "final=no"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == ("gmp-atl: error: `final` is 'no', text\n  expected: true or false\n  fix: final: false\n")


def test_warnings_of_the_package_are_shown_as_notes_and_others_as_ever() -> None:
    with own_warnings_as_notes():
        own = warnings.formatwarning("the layers are few", UserWarning, gmp_atl_hf.errors.__file__, 3)
        other = warnings.formatwarning("old", UserWarning, "/elsewhere/code.py", 3)
    assert own == "Note: the layers are few\n"
    assert other.startswith("/elsewhere/code.py:3: UserWarning: old\n")
    assert "UserWarning" in warnings.formatwarning("few", UserWarning, gmp_atl_hf.errors.__file__, 3)
