"""From features of any kind to codebooks and frame labels on the disk, in any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
from accelerate import PartialState

from ..files import is_whole, remember
from .codebook import PROVENANCE_FILE, TENSORS_FILE, FeatureSource
from .feature_stream import Extract
from .frame_sample import FrameDraw, take_sample
from .kmeans import MultiScaleKMeans
from .label_file import join_parts, read_part, write_part
from .labelling import label_windows, windows_of
from .process_group import Team


def cluster_and_label(
    folder: Path,
    extract: Extract,
    source: FeatureSource,
    channels: int,
    frame_counts: Sequence[int],
    train: datasets.Dataset,
    dev: datasets.Dataset | None,
    *,
    clusters: Sequence[int],
    sample_frames: int,
    seed: int,
    batch_seconds: float,
    description: str,
) -> None:
    """Cluster a sample of the training frames and label every frame of training and development rows.

    The processes share the clips to extract, the frames to fit and the rows to label; what is written is the same,
    bit for bit, as long as each has as many threads. Memory does not depend on the size of the corpus. A step that was
    cut off keeps its codebooks and the windows that are labelled.

    Written: `codebooks.safetensors`, `codebooks.json` and `labels.parquet` (id and one column per scale).

    Args:
        folder: The step's folder, unfinished; all processes see it.
        extract: Where features come from.
        source: What they are; it names the layers.
        channels: Their width.
        frame_counts: Frames of each training row.
        train: Training rows; clusters see nothing else.
        dev: Development rows, labelled for logging only.
        clusters: Numbers of clusters.
        sample_frames: Most frames that are clustered.
        seed: Seed of the draw and of k-means.
        batch_seconds: Seconds of audio per batch, padding included.
        description: What the progress bars say.
    """
    state, team = PartialState(), Team.of_launch()
    share = f", process 1 of {team.count}" if team.count > 1 else ""

    def bar(what: str) -> str | None:
        return f"{description}: {what}{share}" if state.is_main_process else None

    # Whoever is here first cannot have written them: fitting needs all processes.
    if is_whole(folder):
        kmeans = MultiScaleKMeans.load(folder)
    else:
        kmeans = MultiScaleKMeans(clusters, seed)
        draw = FrameDraw(frame_counts, sample_frames, seed)
        sample = take_sample(
            extract, train, draw, source.layers, channels, batch_seconds, team, bar("frames to cluster")
        )
        kmeans.fit_sample(sample, source, sorted(set(train["speaker"])), state.device)
        del sample
        if state.is_main_process:
            kmeans.save(folder)
            remember(folder, [folder / TENSORS_FILE, folder / PROVENANCE_FILE])
    rows = train if dev is None else datasets.concatenate_datasets([train, dev])
    rows = rows.select_columns(["id", "audio", "num_samples"])
    windows = windows_of(len(rows))
    left = [window for window in team.mine(windows) if read_part(folder, window) is None]
    for window, labels in label_windows(extract, kmeans, source, rows, left, batch_seconds, bar("frame labels")):
        write_part(folder, window, rows["id"][window.start : window.stop], labels)
    state.wait_for_everyone()
    if state.is_main_process:
        join_parts(folder, windows)
    state.wait_for_everyone()
