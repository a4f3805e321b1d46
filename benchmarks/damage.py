"""Damage every file of small runs, one at a time, and see that no number changes in silence.

    python benchmarks/damage.py              # all four parts: about twenty minutes on two cores
    python benchmarks/damage.py --parts finished half --every 5

Each file has one bit flipped, is cut in half, emptied and removed. Then the commands that read it are given again, in
this process. Each must end with the numbers of the run that nobody has damaged, or with a status other than 0 and a
sentence that names the file and the fix. Four kinds of runs:

- `finished`: the whole method, finished; `run` again, and of what they read `compare`, `push --dry-run`, `evaluate`.
- `early`: the same with everything after the damaged step deleted, so that the step must be read again.
- `half`: killed in the middle of a training with two checkpoints, and between codebooks and frame labels.
- `search`: killed in the second of two candidates.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from damages import DAMAGES, fault_of, numbers, perform
from gmp_atl_hf import files
from gmp_atl_hf.report import build as report
from kills import run_until
from runs import SPLIT, changed_recipe, given_split, write_corpus, write_recipe

FOLD = "gmp-atl/seed-0/fold-01"
STEPS = ("1-multitask", "2-pseudo-labels", "3-retrain", "4-finetune")


class Sweep:
    """Runs below a folder, and what became of each damage."""

    def __init__(self, scratch: Path, every: int) -> None:
        self.scratch, self.every = scratch, every
        self.corpus = write_corpus(scratch / "corpus", split=SPLIT)
        self.strangers = write_corpus(scratch / "strangers", speakers=["f8", "m9"])
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.faults: list[str] = []
        self.number = 0
        self.known: dict[str, str] = {}
        self.recipe = given_split(self.corpus, **{f"stages__{name}__num_train_epochs": 2 for name in STAGES})

    def words(self, recipe: dict[str, Any]) -> list[str]:
        """The command that runs a recipe."""
        file = write_recipe(self.scratch / "recipe.yaml", recipe)
        return ["run", str(file), "--output-dir", str(self.scratch / "run")]

    def undamaged(self, recipe: dict[str, Any]) -> tuple[Path, dict[str, str]]:
        """A finished run, kept aside, and its numbers."""
        run = self.scratch / "run"
        shutil.rmtree(run, ignore_errors=True)
        status, _, complained = perform(self.words(recipe))
        assert status == 0, complained
        kept = self.scratch / f"kept-{len(list(self.scratch.glob('kept-*')))}"
        shutil.copytree(run, kept)
        return kept, numbers(kept)

    def damage_all(self, part: str, kept: Path, files: list[str], commands: Any, wanted: dict[str, str]) -> None:
        """Damage some files of a run in every way, and give the commands that go with each."""
        run = self.scratch / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(kept, run)
        status, _, complained = perform(next(iter(commands(files[0]))))
        assert status == 0 and numbers(run) == wanted, f"{part}, undamaged: {complained[-2000:]}"
        for name in files:
            for damage, do in DAMAGES.items():
                self.number += 1
                if self.number % self.every:
                    continue
                for command in commands(name):
                    shutil.rmtree(run, ignore_errors=True)
                    shutil.copytree(kept, run)
                    do(run / name)
                    status, said, complained = perform(command)
                    same = said == self.answer(kept, command) if command[0] != "run" else numbers(run) == wanted
                    fault = fault_of(status, complained, run / name, same)
                    outcome = fault or ("refused" if status else "same numbers")
                    self.counts[part, command[0], outcome] += 1
                    if fault:
                        self.faults.append(f"{part}: {name} {damage}, {command[0]}: {fault}\n{complained[-600:]}")

    def answer(self, kept: Path, command: list[str]) -> str:
        """What a command prints of the undamaged run."""
        key, known = " ".join(command), self.known
        if key not in known:
            run, aside = self.scratch / "run", self.scratch / "aside"
            run.rename(aside)
            shutil.copytree(kept, run)
            known[key] = perform(command)[1]
            shutil.rmtree(run)
            aside.rename(run)
        return known[key]

    # ---- the parts -----------------------------------------------------------------------------------------------

    def finished(self) -> None:
        """Nothing is left to do."""
        kept, wanted = self.undamaged(self.recipe)
        run = str(self.scratch / "run")

        def commands(name: str) -> Iterator[list[str]]:
            yield self.words(self.recipe)
            top, model = "/" not in name, name.startswith("model/")
            if top or name.startswith(f"{FOLD}/") and name.count("/") == 3:
                yield ["compare", run, str(self.scratch / "kept-0")]
            if top or model or name.endswith(("metrics.json", "step.json")) or name.startswith("figures/"):
                yield ["push", run, "ana/tones", "--dry-run"]
            if model:
                corpus = ["--corpus", "folder", "--root", str(self.strangers), "--options"]
                yield ["evaluate", f"{run}/model", *corpus, r"speaker=(?P<speaker>[fm]\d)_\d+\.wav$", "--json"]

        self.damage_all("finished", kept, list_files(kept), commands, wanted)

    def early(self) -> None:
        """What comes after a step has to be made again from it."""
        finished, wanted = self.undamaged(self.recipe)
        for number, step in enumerate(("backbone", *STEPS)):
            kept = self.scratch / f"kept-early-{number}"
            shutil.copytree(finished, kept)
            for later in STEPS[number:]:
                shutil.rmtree(kept / FOLD / later)
            for name in ("metrics.json", "predictions.jsonl"):
                (kept / FOLD / name).unlink()
            shutil.rmtree(kept / "model")
            named = [name for name in list_files(kept) if f"{step}/" in name]
            self.damage_all("early", kept, named, lambda _: [self.words(self.recipe)], wanted)

    def half(self) -> None:
        """Killed in a training, and between codebooks and labels."""
        longer = {"stages__finetune__num_train_epochs": 4, "stages__finetune__save_total_limit": 3}
        recipe = changed_recipe(self.recipe, **longer)
        _, wanted = self.undamaged(recipe)
        run = self.scratch / "run"
        for point, where in (("after_step", {"stage": "4-finetune", "step": 10}), ("after_the_clusters", {})):
            shutil.rmtree(run)
            run_until(recipe, run, point, **where)
            kept = self.scratch / f"kept-half-{point}"
            shutil.copytree(run, kept)
            named = [name for name in list_files(kept) if ".unfinished/" in name]
            self.damage_all("half", kept, named, lambda _: [self.words(recipe)], wanted)

    def search(self) -> None:
        """Killed in the second of two candidates, the first being trained."""
        rates = {"stages.finetune.learning_rate": [1e-3, 1e-2]}
        recipe = changed_recipe(self.recipe, variants=["direct"], search=rates)
        _, wanted = self.undamaged(recipe)
        run = self.scratch / "run"
        shutil.rmtree(run)
        run_until(recipe, run, "after_step", stage="2 of 2", step=4)
        kept = self.scratch / "kept-search"
        shutil.copytree(run, kept)
        named = [name for name in list_files(kept) if ".unfinished/" in name]
        self.damage_all("search", kept, named, lambda _: [self.words(recipe)], wanted)


STAGES = ("multitask", "retrain", "finetune")
PARTS = ("finished", "early", "half", "search")


def list_files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th damage only")
    arguments = parser.parse_args()
    report.can_draw = lambda: False
    files.sync = lambda place: None  # nobody pulls the plug
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        sweep = Sweep(Path(scratch), arguments.every)
        for part in arguments.parts:
            with contextlib.redirect_stderr(io.StringIO()):
                getattr(sweep, part)()
    for fault in sweep.faults:
        print(fault, end="\n\n")
    print(f"{'run':10} {'command':10} {'outcome':28} commands")
    for (part, command, outcome), count in sorted(sweep.counts.items()):
        print(f"{part:10} {command:10} {outcome:28} {count:8}")
    total = sum(sweep.counts.values())
    print(f"{total} commands, {len(sweep.faults)} faults, {time.perf_counter() - begun:.0f} s")
    print(json.dumps({" ".join(key): count for key, count in sorted(sweep.counts.items())}))
    return 1 if sweep.faults else 0


if __name__ == "__main__":
    sys.exit(main())
