"""Trackers in recipes (`report_to`): every training has its own log and name, and no key depends on them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.run import stages
from gmp_atl_hf.run.tracking import Tracking
from runs import recipe_dict, results, run, stamps, write_corpus

NAMES = [
    f"{variant}/seed-{seed}/fold-{fold:02d}/4-finetune"
    for variant in ("direct", "other")
    for seed in (0, 1)
    for fold in (1, 2)
]


def one(root: Path, report_to: Any = "tensorboard", **changes: Any) -> dict[str, Any]:
    """One variant and seed."""
    return tracked(root, report_to, **changes) | {"variants": ["direct"], "seeds": [0]}


def tracked(root: Path, report_to: Any = "tensorboard", **changes: Any) -> dict[str, Any]:
    """Two variants, seeds and folds, of one epoch each."""
    stage = {"freeze_feature_encoder": False, "num_train_epochs": 1, "use_cpu": True}
    if report_to is not None:
        stage["report_to"] = report_to
    other = {"name": "other", "base": "direct", "set": {"model.emotion_loss": "cross-entropy"}}
    given = {"stages": {"finetune": stage}, "variants": ["direct", other], "seeds": [0, 1], "final": False, **changes}
    return recipe_dict(root, **given)


class LineWriter:
    """In place of TensorBoard's writer: a line for each thing said, in a file of its own for each writer."""

    def __init__(self, log_dir: str, purge_step: int | None = None) -> None:
        folder = Path(log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"events-{len(list(folder.iterdir()))}.jsonl"
        self.say("purge", purge_step, None)

    def say(self, name: str, value: Any, step: int | None) -> None:
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps([name, value, step]) + "\n")

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.say(name, value, step)

    def add_text(self, *_: Any) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' own callback, with a stand-in for the writer."""
    module = ModuleType("torch.utils.tensorboard")
    module.__dict__["SummaryWriter"] = LineWriter
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    monkeypatch.setitem(stages.TRACKERS, "tensorboard", lambda: True)  # type: ignore[arg-type]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "stand-in", StandIn)
    StandIn.seen, StandIn.stop_in_epoch = [], None
    return StandIn


class StandIn(TrainerCallback):
    """A tracker that notes the names of the runs it is told of, and may cut one off."""

    seen: list[str | None] = []
    stop_in_epoch: int | None = None

    def on_train_begin(self, args: Any, *_: Any, **__: Any) -> None:
        self.seen.append(args.run_name)

    def on_epoch_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if self.stop_in_epoch is not None and round(state.epoch) == self.stop_in_epoch:
            raise KeyboardInterrupt


def lines_of(folder: Path) -> list[list[Any]]:
    return [json.loads(line) for file in sorted(folder.iterdir()) for line in file.read_text().splitlines()]


def test_every_training_has_a_log_and_a_name_of_its_own(
    tensorboard: None, stand_in: type[StandIn], tmp_path: Path
) -> None:
    run(tracked(write_corpus(tmp_path / "corpus", takes=1), ["tensorboard", "stand-in"]), tmp_path / "mine")
    logs = tmp_path / "mine" / "_tensorboard"
    assert sorted(file.parent.relative_to(logs).as_posix() for file in logs.rglob("events*")) == sorted(NAMES)
    assert sorted(map(str, stand_in.seen)) == sorted(f"mine/{name}" for name in NAMES)
    for name in NAMES:
        assert {"eval/uar", "train/loss"} <= {line[0] for line in lines_of(logs / name)}
        assert not (tmp_path / "mine" / name / "checkpoints").exists()


def test_a_tracker_changes_no_key_and_no_result(stand_in: type[StandIn], tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", takes=1)
    named = one(root, ["stand-in"], stages__finetune__run_name="x")
    run(one(root, None), tmp_path / "mine", folds=[1])
    before, found = stamps(tmp_path / "mine"), results(tmp_path / "mine")
    run(named, tmp_path / "mine", folds=[1])
    assert stand_in.seen == [] and results(tmp_path / "mine") == found
    assert all(stamps(tmp_path / "mine")[name] == when for name, when in before.items() if "/4-finetune/" in name)
    run(named, tmp_path / "again", folds=[1])
    assert results(tmp_path / "again") == found
    assert stand_in.seen == ["x/direct/seed-0/fold-01/4-finetune"]


def test_a_training_that_was_cut_off_goes_on_in_its_log(
    tensorboard: None, stand_in: type[StandIn], tmp_path: Path
) -> None:
    root = write_corpus(tmp_path / "corpus", takes=1)
    recipe = one(root, ["tensorboard", "stand-in"], stages__finetune__num_train_epochs=3)
    stand_in.stop_in_epoch = 1
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "mine", folds=[1])
    log = tmp_path / "mine" / "_tensorboard" / "direct" / "seed-0" / "fold-01" / "4-finetune"
    [before] = log.iterdir()
    logged = [step for name, _, step in lines_of(log) if name == "eval/uar"]
    stand_in.stop_in_epoch = None
    run(recipe, tmp_path / "mine", folds=[1])
    after = [json.loads(line) for line in max(log.iterdir()).read_text().splitlines()]
    assert before.is_file() and len(list(log.iterdir())) == 2
    assert after[0] == ["purge", logged[-1] + 1, None]  # what had been logged since the checkpoint counts no more
    again = [step for name, _, step in after if name == "eval/uar"]
    assert len(logged + again) == 3 and sorted({*logged, *again}) == logged + again


def test_a_training_that_begins_anew_hides_what_was_in_its_log(tensorboard: None, tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", takes=1)
    run(one(root), tmp_path / "mine", folds=[1])
    log = tmp_path / "mine" / "_tensorboard" / "direct" / "seed-0" / "fold-01" / "4-finetune"
    assert lines_of(log)[0] == ["purge", 0, None]


def test_each_training_ends_its_run_of_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Wandb(ModuleType):
        run: Any = None

        def finish(self) -> None:
            self.run = None

    class Trainer:
        callback_handler: Any = type("Handler", (), {"callbacks": []})

    wandb = Wandb("wandb")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with Tracking.of(tmp_path / "4-finetune").follow(Trainer(), 0):  # type: ignore[arg-type]
        wandb.run = "begun by the callback"
    assert wandb.run is None
    wandb.run = "somebody's own"
    with Tracking.of(tmp_path / "4-finetune").follow(Trainer(), 0):  # type: ignore[arg-type]
        pass
    assert wandb.run == "somebody's own"


def test_tensorboards_own_variable_moves_the_logs_and_keeps_them_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.yaml").touch()
    found = Tracking.of(tmp_path / "mine" / "direct" / "seed-0" / "fold-01" / "4-finetune.unfinished")
    assert found.folder == tmp_path / "logs" / "mine" / "direct" / "seed-0" / "fold-01" / "4-finetune"


def test_trackers_that_are_not_there_are_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = write_corpus(tmp_path / "corpus", takes=1)
    monkeypatch.setitem(stages.TRACKERS, "tensorboard", lambda: False)  # type: ignore[arg-type]
    for name, said in (("tensorbord", "tensorbord"), ("tensorboard", "pip install tensorboard")):
        with pytest.raises(RequestError, match=said):
            run(tracked(root, name), tmp_path / "mine")
    assert not list((tmp_path / "mine").glob("direct"))


def test_tensorboard_itself_reads_the_logs(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra tensorboard is not installed"
    )
    run(one(write_corpus(tmp_path / "corpus", takes=1)), tmp_path / "mine", folds=[1])
    log = tmp_path / "mine" / "_tensorboard" / "direct" / "seed-0" / "fold-01" / "4-finetune"
    events = accumulator.EventAccumulator(str(log))
    events.Reload()
    assert {"eval/uar", "train/loss"} <= set(events.Tags()["scalars"])
