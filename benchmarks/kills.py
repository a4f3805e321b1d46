"""Kill small runs at random moments, start them again, and see that nothing differs and nothing is left behind.

    python benchmarks/kills.py               # 200 kills: some ten minutes on two cores
    python benchmarks/kills.py --kills 50 --seed 7

Two runs in turn: the whole method on a given split, and two folds with the final model on all speakers. Each is
followed by a push to a stand-in for the Hub on this machine and, every few times, an export to ONNX. A process that
does all of this is killed (SIGKILL) after a random time, or as it opens, renames or removes a random file; the next
one goes on, until one has come to the end. Then weights, codebooks, frame labels, predictions, metrics, what was sent
and what was exported are compared with those of a run that nobody has killed, byte by byte, and the run's folder and
the temporary folder are searched for what the killed ones have left.

Processes are forked from a server that has imported everything and computed nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import socketserver
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from hub_server import TOKEN, Hub, serve_hub
from runs import SPLIT, files_of, given_split, recipe_dict, results, write_corpus, write_recipe

REPOSITORY = "ana/tones"
VERBS = ("run", "push", "export")
MOST_IN_A_ROW = 15
"""Kills before a run is left to end: some of them come before it has got any further."""

_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = ["gmp_atl_hf.run.run", "gmp_atl_hf.training.trainer", "gmp_atl_hf.cli.push", "gmp_atl_hf.card.repository"]


class Scenario:
    """A run with all that follows it, in a folder of its own.

    Args:
        scratch: Folder for it.
        recipe: The recipe.
        hub: The stand-in.
    """

    def __init__(self, scratch: Path, recipe: dict[str, Any], hub: Hub) -> None:
        self.scratch, self.hub = scratch, hub
        self.run, self.temporary, self.log = scratch / "run", scratch / "tmp", scratch / "log.txt"
        self.exported = scratch / "exported"
        self.recipe = write_recipe(scratch / "recipe.yaml", recipe)
        self.doing = _CONTEXT.Value("i", 0)

    def begin(self) -> None:
        """Take away what there was."""
        for place in (self.run, self.temporary, self.exported):
            shutil.rmtree(place, ignore_errors=True)
        self.temporary.mkdir()
        self.exported.mkdir()
        self.log.unlink(missing_ok=True)
        self.hub.repositories.clear()

    def commands(self, export: bool) -> list[list[str]]:
        """The words of each verb."""
        words = [
            ["run", str(self.recipe), "--output-dir", str(self.run)],
            ["push", str(self.run), REPOSITORY],
            ["export", str(self.run / "model"), str(self.exported / "tones.onnx")],
        ]
        return words if export else words[:2]

    def perform(self, export: bool, seconds: float | None = None, event: int | None = None) -> int:
        """Start it, or go on; kill it after some seconds, or at the n-th event.

        Returns:
            Its exit code, negative for a signal.
        """
        self.doing.value = 0
        arguments = (self.commands(export), self.doing, self.log, self.temporary, self.hub.url, self.scratch, event)
        process = _CONTEXT.Process(target=_work, args=arguments)
        process.start()
        process.join(600 if seconds is None else seconds)
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        assert process.exitcode is not None
        return process.exitcode

    def where(self) -> str:
        """What it was doing when it was killed."""
        verb = VERBS[self.doing.value]
        unfinished = sorted(self.run.rglob("*.unfinished"), key=lambda one: one.stat().st_mtime)
        if verb != "run" or not unfinished:
            return verb if verb != "run" else "run: between steps"
        return f"run: {unfinished[-1].name.removesuffix('.unfinished')}"

    def found(self) -> dict[str, str]:
        """Digests of all that it was for."""
        sent = self.hub.files(REPOSITORY) if REPOSITORY in self.hub.repositories else {}
        # Its card says how many seconds the run took.
        pushed = {f"hub/{name}": hashlib.sha256(content).hexdigest() for name, content in sent.items()}
        pushed.pop("hub/README.md", None)
        exported = {
            f"exported/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest()
            for file in self.exported.glob("*.onnx")
        }
        return {**results(self.run), **pushed, **exported}

    def left(self) -> list[str]:
        """What should not be there any more."""
        names = [f"run/{name}" for name in files_of(self.run)]
        names += [f"exported/{name}" for name in files_of(self.exported)]
        traces = (".tmp", ".lock", "started.json", ".arrow")
        left = [name for name in names if name.endswith(traces) or ".unfinished/" in name or "checkpoint-" in name]
        return left + [f"tmp/{name.name}" for name in self.temporary.iterdir() if not _is_cache(name)]


def _is_cache(place: Path) -> bool:
    """Whether a folder is one that torch keeps for later processes."""
    return place.name.startswith("torchinductor_")


def _work(
    commands: Sequence[list[str]],
    doing: Any,
    log: Path,
    temporary: Path,
    hub_url: str,
    scratch: Path,
    event: int | None,
) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    tempfile.tempdir = str(temporary)
    os.environ |= {"TMPDIR": str(temporary), "HF_TOKEN": TOKEN, "HF_HOME": str(scratch / "home")}
    from huggingface_hub import constants

    from gmp_atl_hf import files
    from gmp_atl_hf.cli.verbs import main
    from gmp_atl_hf.report import build as report

    constants.ENDPOINT, constants.HF_HUB_DISABLE_XET = hub_url, True
    report.can_draw = lambda: False
    files.sync = lambda place: None  # a killed process loses nothing that it has written
    if event is not None:
        left = event

        def count(name: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if name in _EVENTS and str(scratch) in str(arguments[0]):
                if name == "open" and not set(str(arguments[1] or "")) & set("wax+"):
                    return
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
    for number, words in enumerate(commands):
        doing.value = number
        if status := main(words):
            os._exit(status)
    os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="begin no new run after so long")
    parser.add_argument("--export-every", type=int, default=4, metavar="N", help="0 for never")
    arguments = parser.parse_args()
    rng, begun = random.Random(arguments.seed), time.perf_counter()
    exports = arguments.export_every > 0
    _CONTEXT.set_forkserver_preload([*_PRELOADED, *(["gmp_atl_hf.inference.onnx_export"] if exports else [])])
    killed: Counter[str] = Counter()
    faults: list[str] = []
    ended = 0
    # Of a client that is killed in the middle of a request the server hears a part: no fault of anybody's.
    socketserver.BaseServer.handle_error = lambda *_: None  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder, serve_hub() as hub:
        scenarios = [Scenario(Path(folder, name), recipe, hub) for name, recipe in _recipes(Path(folder))]
        wanted, durations = [], []
        for one in scenarios:
            one.begin()
            start = time.perf_counter()
            assert one.perform(export=False) == 0, one.log.read_text()
            durations.append(time.perf_counter() - start)
            assert not exports or one.perform(export=True) == 0, one.log.read_text()
            wanted.append(one.found())
        while sum(killed.values()) < arguments.kills:
            if arguments.seconds is not None and time.perf_counter() - begun > arguments.seconds:
                break
            which = ended % len(scenarios)
            export = exports and ended % arguments.export_every == 0
            one, row = scenarios[which], 0
            one.begin()
            while True:
                how: dict[str, Any] = {}
                if row < MOST_IN_A_ROW and sum(killed.values()) < arguments.kills:
                    # Most events come from planning and between the steps: the root makes the later ones as likely.
                    by_time = {"seconds": rng.uniform(0.3, durations[which] * (2 if export else 0.7))}
                    how = by_time if rng.random() < 0.5 else {"event": rng.randint(1, 80)}
                code = one.perform(export, **how)
                if code == -signal.SIGKILL and how:
                    killed[one.where()] += 1
                    row += 1
                    continue
                break
            ended += 1
            expected = {name: value for name, value in wanted[which].items() if export or "exported/" not in name}
            found = one.found()
            differing = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
            log = one.log.read_text(encoding="utf-8", errors="replace")
            if code != 0:
                faults.append(f"{one.scratch.name}: ended with {code}: {log[-2000:]}")
            elif differing or one.left():
                faults.append(f"{one.scratch.name}: differ: {differing}, left: {one.left()}")
            elif "Traceback" in log:
                faults.append(f"{one.scratch.name}: a traceback: {log[log.index('Traceback') :][:2000]}")
    for fault in faults:
        print(fault, end="\n\n")
    print(f"{'killed while':32} {'kills':>6}")
    for place, count in sorted(killed.items()):
        print(f"{place:32} {count:6}")
    print(f"{'all':32} {sum(killed.values()):6}")
    print(f"{ended} runs came to their end, {len(faults)} faults, {time.perf_counter() - begun:.0f} s")
    return 1 if faults else 0


def _recipes(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    split = write_corpus(folder / "split-corpus", split=SPLIT)
    whole = write_corpus(folder / "corpus")
    epochs: dict[str, Any] = {f"stages__{name}__num_train_epochs": 3 for name in ("multitask", "retrain", "finetune")}
    return [
        ("method", given_split(split, **epochs)),
        ("final-model", recipe_dict(whole, variants=["direct"], **epochs)),
    ]


if __name__ == "__main__":
    sys.exit(main())
