"""Make pseudo-labels of a folder's tables and model, in one process or several. Started by tests, not a test itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import datasets
import torch
from accelerate import PartialState

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gmp_atl_hf.batching import length_batches as batches
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATLMultiTask
from gmp_atl_hf.pseudo_labels import cluster as step
from gmp_atl_hf.pseudo_labels import feature_stream
from gmp_atl_hf.pseudo_labels import frame_sample as sample
from gmp_atl_hf.pseudo_labels import labelling as labels
from gmp_atl_hf.recipe.sections import PseudoLabelSpec
from gmp_atl_hf.run import steps

SPEC = PseudoLabelSpec(layers=(-1, -2), clusters=(3, 6), sample_frames=180, seed=4)
SLOW_SPEC = replace(SPEC, windows=(0.02, 0.1), normalize="speaker", per="gender", control="shuffled")


def make(given: Path, folder: Path, spec: PseudoLabelSpec = SPEC) -> None:
    """Step 2 cut into parts so small that everybody has some."""
    labels.WINDOW_ROWS, sample.SHORTEST_RUN = 5, 20
    cut = batches.length_batches
    feature_stream.length_batches = lambda samples, _: cut(samples, 1.0)
    train, dev = (datasets.Dataset.load_from_disk(str(given / part)) for part in ("train", "dev"))
    steps.make_pseudo_labels(folder, HubertForGMPATLMultiTask, given / "model", spec, train, dev, "test")


if __name__ == "__main__":
    torch.set_num_threads(1)
    state = PartialState(cpu=True, timeout=timedelta(seconds=100))
    (given, made), share = map(Path, sys.argv[1:3]), state.process_index
    windows: list[int] = []
    write = step.write_part

    def noted(folder: Path, window: range, *rest: object) -> None:
        windows.append(window.start)
        write(folder, window, *rest)  # type: ignore[arg-type]

    step.write_part = noted
    make(given, made, SLOW_SPEC if "slow" in sys.argv[3:] else SPEC)
    (made / f"share-{share}-of-{state.num_processes}").write_text(" ".join(map(str, windows)))
    state.destroy_process_group()
