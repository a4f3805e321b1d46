"""Frame labels of the first iteration: clusters of MFCCs, written as step 2 of the method writes its own."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import torch
from accelerate import PartialState

from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.frames_gmp_atl import frame_count
from ..pseudo_labels.features import draw_frames
from ..pseudo_labels.kmeans import MultiScaleKMeans
from ..recipe import PseudoLabelSpec
from ..steps import LABELS_FILE
from .mfcc import DIMENSIONS, LAYER, mfcc_source, stream_mfccs


def make_mfcc_labels(
    folder: Path,
    config: GMPATLConfig,
    spec: PseudoLabelSpec,
    train: datasets.Dataset,
    dev: datasets.Dataset,
    description: str,
) -> None:
    """Cluster the MFCCs of the training rows and label every frame of training and development rows.

    Written: `codebooks.safetensors`, `codebooks.json` and `labels.parquet` (id and one column per scale).

    Args:
        folder: The step's folder, unfinished.
        config: The model's configuration, for the geometry of its frames.
        spec: Numbers of clusters and the sample; its layers and source are not used.
        train: Training rows; clusters see nothing else.
        dev: Development rows.
        description: What the progress bars say.
    """
    state = PartialState()
    if state.is_main_process:
        counts = [frame_count(n, config.conv_kernel, config.conv_stride) for n in train["num_samples"]]
        drawn = draw_frames(counts, spec.sample_frames, spec.seed)
        sample = torch.empty(sum(map(len, drawn)), DIMENSIONS)
        filled = 0
        for row, frames in stream_mfccs(train, config, f"{description}: MFCCs"):
            chosen = frames[LAYER][torch.from_numpy(drawn[row])]
            sample[filled : filled + len(chosen)] = chosen
            filled += len(chosen)
        kmeans = MultiScaleKMeans(clusters=spec.clusters, seed=spec.seed)
        source = mfcc_source()
        kmeans.fit({LAYER: sample}, source, sorted(set(train["speaker"])))
        kmeans.save(folder)
        rows = datasets.concatenate_datasets([train, dev])
        labels: dict[str, list[object]] = {column: [] for column in kmeans.columns}
        for _, frames in stream_mfccs(rows, config, f"{description}: frame labels"):
            for column, values in kmeans.predict(frames, source).items():
                labels[column].append(values.numpy())
        columns = {name: pyarrow.array(values, pyarrow.list_(pyarrow.int32())) for name, values in labels.items()}
        pyarrow.parquet.write_table(pyarrow.table({"id": rows["id"][:], **columns}), folder / LABELS_FILE)
    state.wait_for_everyone()
