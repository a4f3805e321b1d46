"""Folds side by side: `gmp-atl run --jobs 2` against `--jobs 1` with the same threads in all, and the same numbers.

    python benchmarks/jobs.py                       # minutes on two cores
    python benchmarks/jobs.py --takes 12            # three times as many recordings
    python benchmarks/jobs.py --recipe emodb-mini --set corpus.root=EMODB --set 'seeds=[0]'     # hours

Each run is the command itself, in a process and a folder of its own: one job with all threads (two of them on two
cores), and as many jobs as are asked for, with an equal share of the threads each. By default `direct` and `gmp-atl`
are trained on two folds, on `mini`, for an epoch of each stage; recordings are noise with the lengths of IEMOCAP's.
A corpus that a recipe makes for itself is made anew in each run: give it a `corpus.root`.

Two ratios are shown. `whole` is that of the whole command. In the minutes of a small run the loading of libraries is a
good part of it, which several jobs do twice and a run of hours does not notice: `from the first step` leaves out what
comes before the first step is begun.

One further run comes first, untimed, in one job with the threads of each of several. Weights, codebooks, frame labels
and predictions of the others' runs have to be equal to it bit by bit; the script ends with status 1 if they are not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from gmp_atl_hf.run_folder.layout import PREDICTIONS_FILE
from predict import hardware, write_clips
from runs import EMOTIONS, SPEAKER_PATTERN, SPEAKERS, results, write_recipe

STEPS = "*/seed-*/*/*"
"""Folders of steps below a run: variant, seed, fold, step."""


@dataclass(frozen=True)
class Turn:
    """One run: seconds of the whole command, of it from the first step on, and processor seconds of all processes."""

    whole: float
    from_the_first_step: float
    cpu: float


@dataclass(frozen=True)
class Command:
    """What is run in fresh folders.

    Args:
        recipe: A recipe's file or name.
        changes: As for `--set`.
        scratch: The folders are made here.
    """

    recipe: str
    changes: list[str]
    scratch: Path

    def perform(self, name: str, jobs: int, threads: int) -> tuple[Turn, dict[str, str]]:
        """Run it with so many threads in each job: the time that it took, and digests of what it has made."""
        folder = self.scratch / name
        words = [sys.executable, "-m", "gmp_atl_hf.cli", "run", self.recipe, "--output-dir", str(folder)]
        words += ["--jobs", str(jobs), *(word for change in self.changes for word in ("--set", change))]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with (self.scratch / f"{name}.txt").open("w+", encoding="utf-8") as log:
            cpu, begun = _cpu_seconds_of_children(), time.perf_counter()
            process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
            before = _seconds_until_a_step(process, folder, begun)
            status = process.wait()
            seconds = time.perf_counter() - begun
            if status:
                log.seek(0)
                raise SystemExit(f"{' '.join(words)} ended with status {status}\n{log.read()}")
        turn, found = Turn(seconds, seconds - before, _cpu_seconds_of_children() - cpu), digests_of(folder)
        shutil.rmtree(folder)
        return turn, found


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _seconds_until_a_step(process: subprocess.Popen[bytes], folder: Path, begun: float) -> float:
    """Wait until a step of a fold is begun, or everything has ended."""
    while process.poll() is None and not any(place.is_dir() for place in folder.glob(STEPS)):
        time.sleep(0.05)
    return time.perf_counter() - begun


def write_small_recipe(scratch: Path, takes: int) -> Path:
    """A recipe, and the recordings for it: `takes` of every speaker and emotion."""
    root = scratch / "corpus"
    names = [f"{emotion}/{speaker}_{take}.wav" for emotion in EMOTIONS for speaker in SPEAKERS for take in range(takes)]
    for emotion in EMOTIONS:
        (root / emotion).mkdir(parents=True)
    for path, name in zip(write_clips(root, len(names)), names, strict=True):
        path.rename(root / name)
    recipe = {
        "name": "side-by-side",
        "corpus": {"name": "folder", "root": str(root), "speaker": SPEAKER_PATTERN},
        "protocol": {"kind": "group-k-fold", "folds": 2, "dev_speakers": 1},
        "backbone": "mini",
        "pseudo_labels": {"layers": [-3], "clusters": [25, 50]},
        "stages": {stage: {"num_train_epochs": 1} for stage in ("multitask", "retrain", "finetune")},
        "variants": ["gmp-atl", "direct"],
        "final": False,
    }
    return write_recipe(scratch / "recipe.yaml", recipe)


def digests_of(folder: Path) -> dict[str, str]:
    """Digests of what a run has made; its metrics are left out, since they name the command."""
    return {name: digest for name, digest in results(folder).items() if Path(name).name != "metrics.json"}


def compare(command: Command, jobs: int, threads: int, repeats: int) -> dict[str, Any]:
    """The run that the others have to be equal to, then both in turn."""
    share = threads // jobs
    _, expected = command.perform("alone", 1, share)
    one: list[Turn] = []
    several: list[Turn] = []
    different: set[str] = set()
    for number in range(repeats):
        one.append(command.perform(f"one-{number}", 1, threads)[0])
        turn, found = command.perform(f"several-{number}", jobs, share)
        several.append(turn)
        different |= {name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)}
    sides = {f"1 job, {threads} threads": one, f"{jobs} jobs, {share} each": several}
    return {
        "sides": {name: [asdict(turn) for turn in turns] for name, turns in sides.items()},
        "times_one_job": {
            what: statistics.median(getattr(a, what) / getattr(b, what) for a, b in zip(one, several, strict=True))
            for what in asdict(one[0])
        },
        "files_compared": len(expected),
        "files_of_predictions": sum(Path(name).name == PREDICTIONS_FILE for name in expected),
        "different_files": sorted(different),
    }


def show(result: dict[str, Any]) -> None:
    print(f"{'':<22} {'whole':>10} {'from the first step':>20} {'processor':>10}   (median seconds)")
    for name, turns in result["sides"].items():
        whole, rest, cpu = (statistics.median(turn[what] for turn in turns) for what in Turn.__annotations__)
        print(f"{name:<22} {whole:10.1f} {rest:20.1f} {cpu:10.1f}")
    times = result["times_one_job"]
    print(f"{'times one job':<22} {times['whole']:10.2f} {times['from_the_first_step']:20.2f} {times['cpu']:10.2f}")
    counted = f"{result['files_compared']} files, {result['files_of_predictions']} of them predictions"
    if result["different_files"]:
        print(f"NOT EQUAL to those of one job with as many threads: {', '.join(result['different_files'])}")
    else:
        print(f"equal, bit for bit, to those of one job with as many threads: {counted}")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", help="a recipe's file or name in place of the small one")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change the recipe")
    parser.add_argument("--jobs", type=int, default=2, help="compared with one")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="in all (default: torch's)")
    parser.add_argument("--takes", type=int, default=4, help="recordings per speaker and emotion of the small recipe")
    parser.add_argument("--repeats", type=int, default=3, help="alternations; the medians are shown")
    arguments = parser.parse_args()
    if arguments.jobs < 2 or arguments.threads % arguments.jobs or arguments.threads < arguments.jobs:
        raise SystemExit(
            f"--jobs is {arguments.jobs} and --threads {arguments.threads}; expected: two jobs or more, and threads "
            "that can be shared among them equally; for instance --jobs 2 --threads 2"
        )
    return arguments


def main() -> None:
    arguments = read_arguments()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        recipe = arguments.recipe or str(write_small_recipe(scratch, arguments.takes))
        command = Command(recipe, arguments.set, scratch)
        result = compare(command, arguments.jobs, arguments.threads, arguments.repeats)
    show(result)
    settings = {name: getattr(arguments, name) for name in ("recipe", "set", "jobs", "threads", "takes", "repeats")}
    packages = {name: version(name) for name in ("torch", "transformers", "numpy")}
    common = {"benchmark": "jobs", **settings, "versions": {"python": platform.python_version(), **packages}}
    print("\n" + json.dumps({**common, "hardware": hardware("cpu"), **result}))
    sys.exit(1 if result["different_files"] else 0)


if __name__ == "__main__":
    main()
