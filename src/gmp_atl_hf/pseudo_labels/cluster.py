"""From features of any kind to codebooks and frame labels on the disk, in any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
from accelerate import PartialState

from ..files import is_whole, remember
from .classes import FrameClasses, class_of_rows
from .codebook import PROVENANCE_FILE, TENSORS_FILE
from .feature_stream import FeatureExtraction
from .frame_sample import take_sample
from .kmeans import MultiScaleKMeans
from .label_file import join_parts, read_part, write_part
from .labelling import label_windows, windows_of
from .normalization import refuse_without_groups
from .preparation import Preparation
from .process_group import SINGLE_PROCESS, ProcessGroup


def cluster_and_label(
    folder: Path,
    extraction: FeatureExtraction,
    kmeans: MultiScaleKMeans,
    sample_frames: int,
    train: datasets.Dataset,
    dev: datasets.Dataset | None,
    description: str | None,
    further: datasets.Dataset | None = None,
) -> None:
    """Clusters a sample of the training frames and labels every frame of training, development and further rows.

    The processes share the clips to extract and the rows to label; the first one clusters. What is written is the same,
    bit for bit, as long as each has as many threads. Memory does not depend on the size of the corpus. A step that was
    cut off keeps its codebooks and the windows that are labelled.

    Written: `codebooks.safetensors`, `codebooks.json` and `labels.parquet` (id and one column per scale).

    Args:
        folder: The step's folder, unfinished; all processes see it.
        extraction: Of the features.
        kmeans: To fit; its seed is that of the sample, too.
        sample_frames: Most frames that are clustered.
        train: Training rows; clusters see nothing else.
        dev: Development rows, labelled for logging only.
        description: What the progress bars say; None for no bars.
        further: Rows that are labelled and not clustered, with the same columns.
    """
    group = ProcessGroup.of_launch()
    share = f", process 1 of {group.count}" if group.count > 1 else ""

    def bar(what: str) -> str | None:
        return f"{description}: {what}{share}" if group.is_main and description is not None else None

    # No process finds codebooks that another one has just written: the sample needs all processes.
    if not is_whole(folder):
        _fit(folder, extraction, kmeans, sample_frames, train, bar, group)
    rows = datasets.concatenate_datasets([part for part in (train, dev, further) if part is not None])
    # All other clips have nobody's centres but the nearest: emotions of development clips are not looked at.
    classes = None if kmeans.per == "none" else [*class_of_rows(train, kmeans.per), *[None] * (len(rows) - len(train))]
    label_table(folder, extraction, MultiScaleKMeans.load(folder), rows, bar("frame labels"), group, classes)


def _fit(
    folder: Path,
    extraction: FeatureExtraction,
    kmeans: MultiScaleKMeans,
    sample_frames: int,
    train: datasets.Dataset,
    bar: Callable[[str], str | None],
    group: ProcessGroup,
) -> None:
    preparation = Preparation.measure(extraction, train, kmeans.positions, kmeans.normalize, bar, group)
    clustered = preparation.applied(extraction, kmeans.windows)
    sample = take_sample(clustered, train, sample_frames, kmeans.seed, bar("frames to cluster"), group)

    def fit() -> None:
        speakers = sorted(set(train["speaker"]))
        classes = FrameClasses.of(sample, train, kmeans.per)
        kmeans.fit_sample(sample, extraction.source, speakers, PartialState().device, preparation, classes)
        kmeans.save(folder)
        remember(folder, [folder / TENSORS_FILE, folder / PROVENANCE_FILE])

    group.on_main(fit)


def label_table(
    folder: Path,
    extraction: FeatureExtraction,
    kmeans: MultiScaleKMeans,
    table: datasets.Dataset,
    description: str | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    classes: Sequence[str | None] | None = None,
) -> None:
    """Labels every frame of a table and writes `labels.parquet`; windows that are labelled already are kept.

    Args:
        folder: Where to write; all processes see it.
        extraction: Of the states that were clustered, as the model makes them.
        kmeans: Fitted clusters.
        table: With `id`, `audio` and `num_samples`, and what clusters are normalised by; at least one row.
        description: What the progress bar says; None for no bar.
        group: The processes that share the rows.
        classes: For each row the class whose centres alone are looked at; None, there or here, for all centres.
    """
    rows, windows = table.select_columns(["id", "audio", "num_samples"]), windows_of(len(table))
    preparation = kmeans.preparation
    if preparation.groups is not None:
        refuse_without_groups(table, preparation.groups.by)
        rows = table.select_columns(["id", "audio", "num_samples", preparation.groups.by])
        further = None if description is None else f"{description}, what to normalize by"
        preparation = preparation.completed(extraction, rows, further, group)
    extraction = preparation.applied(extraction, kmeans.windows)
    left = [window for window in group.shard(windows) if read_part(folder, window) is None]
    for window, labels in label_windows(extraction, kmeans, rows, left, description, classes):
        write_part(folder, window, rows["id"][window.start : window.stop], labels)
    group.wait()
    if group.is_main:
        join_parts(folder, windows)
    group.wait()
