from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gmp_atl_hf import __version__, cli
from gmp_atl_hf.cli import VERBS, Verb, main, parse_folds
from gmp_atl_hf.environment import describe_environment, format_environment, package_version, with_earlier
from gmp_atl_hf.errors import RequestError


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What `run_recipe` was called with; nothing is trained."""
    calls: list[dict[str, Any]] = []
    module = types.ModuleType("gmp_atl_hf.run")
    module.run_recipe = lambda recipe, **options: calls.append({"recipe": recipe, **options})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gmp_atl_hf.run", module)
    yield calls


def give_verb(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def perform(arguments: argparse.Namespace) -> int:
        raise error

    monkeypatch.setitem(VERBS, "break", Verb("breaks", lambda parser: None, perform))


# run


def test_run_passes_on_what_was_asked_for(runs: list[dict[str, Any]]) -> None:
    words = ["run", "demo", "--output-dir", "my runs/x", "--folds", "2,1", "--set", "seeds=[3]", "--set", "final=false"]
    assert main(words) == 0
    [call] = runs
    assert call["recipe"].seeds == (3,)
    assert not call["recipe"].final
    assert call["output_dir"] == "my runs/x"
    assert call["folds"] == (2, 1)
    assert call["command"] == (
        "gmp-atl run demo --output-dir 'my runs/x' --folds 2,1 --set 'seeds=[3]' --set final=false"
    )


def test_run_without_options_leaves_them_to_the_run(runs: list[dict[str, Any]]) -> None:
    assert main(["run", "demo"]) == 0
    assert runs[0]["output_dir"] is None
    assert runs[0]["folds"] is None


def test_a_wrong_recipe_is_answered_before_the_run_is_even_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gmp_atl_hf.run", None)  # importing it would fail with status 1
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


def test_folds_are_read_in_their_order_each_once() -> None:
    assert parse_folds("3, 1,3") == (3, 1)


# Status and messages


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepar"], "did you mean `prepare`?"),
        (["rn", "demo"], "did you mean `run`?"),
        (["run"], "RECIPE"),
        (["run", "demo", "--fold", "1"], "unrecognized arguments: --fold"),
        (["--versio"], "unrecognized arguments"),
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
    assert not cli.is_first_process()


def test_every_process_tells_of_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "3")
    give_verb(monkeypatch, ValueError("a bug"))
    assert main(["break"]) == 1
    assert "ValueError: a bug" in capsys.readouterr().err


# recipes, env, --version


def test_recipes_lists_the_packaged_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"demo +See the method work", said)
    assert "emodb" in said


def test_export_without_its_packages_names_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "gmp_atl_hf.inference.export", raising=False)
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
