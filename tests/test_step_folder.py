"""A step's folder is whole or not there, and knows what it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.files import STEP_FILE, read_json, write_json, write_whole
from gmp_atl_hf.run_folder.step_folder import FORMAT_VERSION, StepFolder, differences, key_of

INPUTS: dict[str, Any] = {"step": "1-multitask", "arguments": {"learning_rate": 0.1}, "layers": [1, 2]}


class OneProcess:
    is_main_process = True

    def wait_for_everyone(self) -> None:
        pass


class OtherProcess(OneProcess):
    is_main_process = False


def make(path: Path, inputs: dict[str, Any] | None = None, content: str = "done") -> StepFolder:
    step = StepFolder(path, INPUTS if inputs is None else inputs)
    with step.work(OneProcess()) as folder:
        write_whole(folder / "result.txt", content)
    return step


def test_a_file_that_cannot_be_written_is_known_by_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250)  # the temporary name is longer than names may be
    with pytest.raises(OSError) as caught:
        write_whole(path, "text")
    assert caught.value.filename == str(path)


def test_a_finished_step_has_its_results_its_inputs_and_its_times(tmp_path: Path) -> None:
    step = make(tmp_path / "run" / "1-multitask")
    assert step.finished
    assert {file.name for file in step.path.iterdir()} == {"result.txt", STEP_FILE}
    assert not step.working.exists()
    note = read_json(step.path / STEP_FILE)
    assert set(note) == {
        *("format_version", "key", "inputs", "manner", "started", "finished", "seconds_since_last_start"),
        *("files", "sha256"),
    }
    assert (note["format_version"], note["key"], note["inputs"]) == (FORMAT_VERSION, step.key, INPUTS)
    assert note["started"] <= note["finished"]


def test_a_step_that_fails_is_not_finished_and_leaves_what_it_had(tmp_path: Path) -> None:
    step = StepFolder(tmp_path / "step", INPUTS)
    with pytest.raises(ZeroDivisionError), step.work(OneProcess()) as folder:
        write_whole(folder / "half.txt", "half")
        raise ZeroDivisionError
    assert not step.finished
    assert not step.path.exists()
    with step.work(OneProcess()) as folder:
        assert (folder / "half.txt").read_text() == "half"


def test_the_time_of_the_first_start_is_kept_when_a_step_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    times = iter(["monday", "tuesday"])
    monkeypatch.setattr("gmp_atl_hf.run_folder.step_folder._now", lambda: next(times))
    step = StepFolder(tmp_path / "step", INPUTS)
    with pytest.raises(ZeroDivisionError), step.work(OneProcess()):
        raise ZeroDivisionError
    with step.work(OneProcess()):
        pass
    note = read_json(step.path / STEP_FILE)
    assert (note["started"], note["finished"]) == ("monday", "tuesday")


def test_half_a_step_made_from_other_inputs_is_begun_anew(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), StepFolder(tmp_path / "step", INPUTS).work(OneProcess()) as folder:
        write_whole(folder / "half.txt", "half")
        raise ZeroDivisionError
    with StepFolder(tmp_path / "step", {**INPUTS, "layers": [3]}).work(OneProcess()) as folder:
        assert not (folder / "half.txt").exists()


def test_half_a_step_is_not_continued_in_another_manner_and_a_finished_one_stays_finished(tmp_path: Path) -> None:
    two, one = (StepFolder(tmp_path / "step", INPUTS, {"processes": number}) for number in (2, 1))
    assert one.key == two.key
    with pytest.raises(ZeroDivisionError), two.work(OneProcess()):
        raise ZeroDivisionError
    with pytest.raises(RequestError, match=r"(?s)step\.unfinished was begun otherwise: processes: 2 → 1.*delete"):
        one.refuse_contradiction()
    # Half a step from other inputs is begun anew in any case.
    StepFolder(tmp_path / "step", {**INPUTS, "layers": [3]}, {"processes": 1}).refuse_contradiction()
    two.refuse_contradiction()
    with two.work(OneProcess()):
        pass
    one.refuse_contradiction()
    assert one.finished
    assert read_json(one.path / STEP_FILE)["manner"] == {"processes": 2}


def test_only_the_main_process_keeps_the_folder(tmp_path: Path) -> None:
    step = StepFolder(tmp_path / "step", INPUTS)
    with step.work(OtherProcess()) as folder:
        assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_the_key_does_not_depend_on_the_order_of_settings_but_on_every_value() -> None:
    assert key_of({"a": 1, "b": [1, 2]}) == key_of({"b": [1, 2], "a": 1})
    others = [{"a": 2, "b": [1, 2]}, {"a": 1, "b": [2, 1]}, {"a": 1}, {"a": 1, "b": [1, 2], "c": None}]
    assert len({key_of(one) for one in [{"a": 1, "b": [1, 2]}, *others]}) == 5


def test_another_format_version_makes_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(INPUTS)
    monkeypatch.setattr("gmp_atl_hf.run_folder.step_folder.FORMAT_VERSION", FORMAT_VERSION + 1)
    assert key_of(INPUTS) != before


def test_a_finished_step_from_other_settings_is_refused_with_the_changed_fields(tmp_path: Path) -> None:
    step = make(tmp_path / "step")
    step.refuse_contradiction()
    changed = StepFolder(step.path, {**INPUTS, "arguments": {"learning_rate": 0.2}, "new": True})
    with pytest.raises(RequestError, match=r"step is finished.*arguments\.learning_rate: 0\.1 → 0\.2; new: nothing"):
        changed.refuse_contradiction()


def test_a_step_of_another_format_is_refused_as_such(tmp_path: Path) -> None:
    step = make(tmp_path / "step")
    write_json(step.path / STEP_FILE, {"format_version": 0, "key": "old", "inputs": {}})
    with pytest.raises(RequestError, match=f"format version: 0 → {FORMAT_VERSION}"):
        step.refuse_contradiction()


def test_a_step_that_is_not_there_contradicts_nothing(tmp_path: Path) -> None:
    StepFolder(tmp_path / "step", INPUTS).refuse_contradiction()


def test_differences_are_named_by_their_path() -> None:
    before = {"a": {"b": 1, "c": [1]}, "d": "x", "gone": 0}
    after = {"a": {"b": 1, "c": [1, 2]}, "d": "y", "new": None}
    assert differences(before, after) == ["a.c: [1] → [1, 2]", "d: x → y", "gone: 0 → nothing", "new: nothing → null"]


def test_numbers_that_are_equal_but_written_otherwise_differ_as_their_keys_do() -> None:
    assert key_of({"epochs": 15}) != key_of({"epochs": 15.0})
    assert differences({"epochs": 15}, {"epochs": 15.0}) == ["epochs: 15 → 15.0"]


def test_long_values_are_cut_in_messages() -> None:
    [message] = differences({"a": "x" * 500}, {"a": "y"})
    assert len(message) < 100


def test_a_shared_step_points_to_the_other_and_copies_nothing(tmp_path: Path) -> None:
    one = make(tmp_path / "gmp-atl" / "1-multitask")
    other = StepFolder(tmp_path / "multitask-only" / "1-multitask", INPUTS)
    other.point_to(one.path)
    assert other.finished
    assert [file.name for file in other.path.iterdir()] == [STEP_FILE]
    assert read_json(other.path / STEP_FILE)["same_as"] == "../../gmp-atl/1-multitask"
    assert other.resolve() == one.path
    other.refuse_contradiction()


def test_a_pointer_survives_that_the_run_is_moved(tmp_path: Path) -> None:
    one = make(tmp_path / "run" / "a" / "step")
    StepFolder(tmp_path / "run" / "b" / "step", INPUTS).point_to(one.path)
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = StepFolder(tmp_path / "moved" / "b" / "step", INPUTS)
    assert moved.finished
    assert (moved.resolve() / "result.txt").read_text() == "done"


def test_a_pointer_to_a_step_that_was_deleted_is_done_again(tmp_path: Path) -> None:
    one = make(tmp_path / "a" / "step")
    other = StepFolder(tmp_path / "b" / "step", INPUTS)
    other.point_to(one.path)
    one.path.rename(tmp_path / "away")
    assert not other.finished
    make(other.path)
    assert other.resolve() == other.path
    assert (other.path / "result.txt").is_file()


@pytest.mark.parametrize("left", [[], [f".{STEP_FILE}.17-4.tmp"]])
def test_a_pointer_that_was_cut_off_while_it_was_written_is_in_nobodys_way(left: list[str], tmp_path: Path) -> None:
    step = StepFolder(tmp_path / "b" / "step", INPUTS)
    step.path.mkdir(parents=True)
    for name in left:
        (step.path / name).write_text("{")
    step.refuse_contradiction()
    make(step.path)
    assert step.finished and {file.name for file in step.path.iterdir()} == {"result.txt", STEP_FILE}


def test_a_pointer_to_a_step_that_was_made_again_from_other_settings_is_not_followed(tmp_path: Path) -> None:
    one = make(tmp_path / "a" / "step")
    other = StepFolder(tmp_path / "b" / "step", INPUTS)
    other.point_to(one.path)
    one.path.rename(tmp_path / "away")
    make(one.path, {**INPUTS, "layers": [7]}, content="something else")
    assert not other.finished


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "file", "old")

    def full_disk(self: Path, target: Path) -> Path:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_that_no_run_has_made_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("mine")
    with pytest.raises(RequestError, match="in the way"):
        StepFolder(tmp_path / "model", {"step": "model"}).refuse_contradiction()
    assert (tmp_path / "model" / "thesis.txt").read_text() == "mine"
