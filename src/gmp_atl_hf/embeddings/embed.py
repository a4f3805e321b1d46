"""From recordings to a file of embeddings, in memory that does not grow with their number."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data.audio import MINIMUM_SAMPLES, SAMPLING_RATE, read_audio
from ..data.columns import row_in_words
from ..data.corpora import LeftOut
from ..data.labels import LabelMap
from ..data.spelling import printable
from ..data.table import read_corpora
from ..errors import RequestError
from ..files import whole_file
from ..inference.devices import resolve_device
from ..inference.reader import READING_ERRORS, describe_problem
from ..inference.sources import Inputs, Item, expand_inputs
from ..pretraining.teachers import Teacher, TeacherFacts, mean_and_deviation, teacher_facts
from ..threads import prefetch
from ..version import __version__
from .writers import NpzRows, ParquetRows, Row, Writer

POOLINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda states: states.mean(0),
    "statistics": mean_and_deviation,
    "max": lambda states: states.amax(0),
    "none": lambda states: states,
}
"""How the frames of a recording, (frames, width), become its embedding."""

ENDINGS = (".parquet", ".npz")


@dataclass(frozen=True)
class EmbeddingReport:
    """What became of the recordings.

    Args:
        output: The file.
        recordings: Rows in it, those without an embedding included.
        problems: Why recordings have a row without an embedding, each naming its recording.
        left_out: Recordings of a corpus that have no row, with the reason.
        width: Numbers in an embedding; of each frame with pooling `none`.
    """

    output: Path
    recordings: int
    problems: list[str]
    left_out: list[LeftOut]
    width: int


def embed_files(
    model: str | os.PathLike[str],
    files: Inputs,
    output: str | os.PathLike[str],
    *,
    layer: int = -1,
    pooling: str = "mean",
    device: str | torch.device | None = None,
    progress: bool = False,
) -> EmbeddingReport:
    """Write embeddings of recordings to a parquet or npz file.

    Columns are `id`, `file`, `speaker`, `gender`, `emotion` (None, in npz empty, where not known), `num_samples` at
    16 kHz, `embedding` float32 and `error`. A recording that cannot be read has a row as well: `error` says why, and
    its embedding is None, in npz not a number throughout. Model, layer, pooling and version are in the schema's
    metadata under `gmp_atl_hf`, in npz in the member `metadata`, as JSON. The file appears when all of it is written.

    Args:
        model: Speech encoder: folder, Hub id or the name of a shipped one. HuBERT, wav2vec 2.0, WavLM, data2vec,
            Whisper's encoder, or a model of this package.
        files: Recordings in any form that the classifier takes, or folders.
        output: File ending in .parquet or .npz; one that is there is replaced.
        layer: From 1, 0 for what enters the first layer, negative ones from the top.
        pooling: Over the frames: `mean`; `statistics` (mean, then standard deviation, twice as wide); `max`; `none`:
            (frames, width), one frame every 20 ms for the usual encoders, in parquet only.
        device: Where to compute; None for the accelerator if there is one.
        progress: Show a bar.

    Returns:
        How many recordings, and what could not be read.

    Raises:
        RequestError: Encoder, layer, pooling, ending or device is not there, or `files` is an array without a rate.

    Example:
        >>> report = embed_files("mini", "recordings/", "recordings.parquet", layer=4)  # doctest: +SKIP
    """
    job = _Job.make(model, output, layer, pooling, device, progress)
    items, _ = expand_inputs(files)
    return job.write([(Row(id=printable(item.name), file=printable(item.name)), item) for item in items], [])


def embed_corpus(
    model: str | os.PathLike[str],
    corpus: Mapping[str, Any],
    output: str | os.PathLike[str],
    *,
    labels: LabelMap | None = None,
    layer: int = -1,
    pooling: str = "mean",
    device: str | torch.device | None = None,
    progress: bool = False,
) -> EmbeddingReport:
    """Write embeddings of a corpus, with speakers, genders and emotions, to a parquet or npz file.

    Args:
        model: As for `embed_files`; whom the encoder was trained on is not looked at.
        corpus: As in a recipe: `name`, `root` and the reader's options. Recordings that cannot be read are refused, or
            with `unreadable: drop` left out and listed; with `check_audio: false` they have a row with their error.
        output: As for `embed_files`, and so what is in it.
        labels: Emotion in the corpus → emotion, or None to leave its recordings out.
        layer: As for `embed_files`.
        pooling: As for `embed_files`.
        device: As for `embed_files`.
        progress: Show a bar.

    Returns:
        How many recordings, and what was left out and why.

    Raises:
        RequestError: As for `embed_files`, and where the corpus cannot be read as asked.

    Example:
        >>> report = embed_corpus(  # doctest: +SKIP
        ...     "mini", {"name": "emodb", "root": "data/emodb"}, "emodb.npz", pooling="statistics"
        ... )
    """
    job = _Job.make(model, output, layer, pooling, device, progress)
    found = read_corpora([dict(corpus)], labels=labels)
    return job.write(_TableRows(found.table), found.left_out)


class _TableRows(Sequence[tuple[Row, Item]]):
    """Rows of a corpus' table, each looked up when it is its turn."""

    def __init__(self, table: Any) -> None:
        self.table, self.names = table, table.features["emotion"].names

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self):
            raise IndexError(index)
        found = self.table[index]
        return Row(**row_in_words(found, self.names)), Item(found["id"], found["audio"])


@dataclass(frozen=True)
class _Job:
    """What is asked for, once it is known to be possible."""

    facts: TeacherFacts
    output: Path
    layer: int
    pooling: str
    device: torch.device
    progress: bool

    @staticmethod
    def make(
        model: str | os.PathLike[str],
        output: str | os.PathLike[str],
        layer: int,
        pooling: str,
        device: str | torch.device | None,
        progress: bool,
    ) -> _Job:
        path = Path(output)
        check_request(path, pooling)
        chosen, facts = resolve_device(device), teacher_facts(os.fspath(model), "encoder")
        return _Job(facts, path, facts.resolve_layer(layer), pooling, chosen, progress)

    @property
    def width(self) -> int:
        """Numbers in an embedding, or in each of its frames."""
        return self.facts.width * (2 if self.pooling == "statistics" else 1)

    def write(self, rows: Sequence[tuple[Row, Item]], left_out: list[LeftOut]) -> EmbeddingReport:
        encoder, problems = Teacher(self.facts, [self.layer], self.device), []
        with (
            whole_file(self.output) as temporary,
            closing(self._writer(temporary, len(rows))) as writer,
            closing(self._embedded(encoder, rows)) as done,
        ):
            for row in tqdm(done, total=len(rows), desc="embed", unit="clip", disable=not self.progress):
                if row.error is not None:
                    problems.append(row.error)
                writer.write(row)
        return EmbeddingReport(self.output, len(rows), problems, left_out, self.width)

    def _embedded(self, encoder: Teacher, rows: Iterable[tuple[Row, Item]]) -> Generator[Row, None, None]:
        shortest = max(MINIMUM_SAMPLES, self.facts.grid.field)  # of one frame

        def work(pair: tuple[Row, Item]) -> Row:
            row, item = pair
            if item.problem is not None:
                return replace(row, error=printable(item.problem))
            try:
                waveform = read_audio(item.source)
            except READING_ERRORS as error:
                return replace(row, error=printable(describe_problem(item.name, error)))
            padded = np.pad(waveform, (0, max(0, shortest - len(waveform))))
            pooled = POOLINGS[self.pooling](encoder.states(padded)[self.layer])
            return replace(row, num_samples=len(waveform), embedding=pooled.cpu().numpy())

        with closing(prefetch(work, rows, one_torch_thread=True)) as done:
            yield from done

    def _writer(self, path: Path, recordings: int) -> Writer:
        metadata = {
            "model": self.facts.name,
            "weights": self.facts.identity,
            "layer": self.layer,
            "layers": self.facts.layers,
            "pooling": self.pooling,
            "width": self.width,
            "sampling_rate": SAMPLING_RATE,
            "samples_per_frame": self.facts.grid.hop,
            "gmp_atl_hf": __version__,
        }
        if self.output.suffix.lower() == ".npz":
            return NpzRows(path, metadata, (recordings, self.width))
        return ParquetRows(path, metadata, frames=self.pooling == "none")


def check_request(output: Path, pooling: str) -> None:
    """Refuse, by a `RequestError`, an ending or a pooling that there is not, before anything is loaded."""
    if pooling not in POOLINGS:
        raise RequestError(f"pooling is {pooling!r}", ", ".join(POOLINGS), "--pooling mean")
    ending = output.suffix.lower()
    if ending not in ENDINGS:
        raise RequestError(f"{output} ends in {ending!r}", " or ".join(ENDINGS), f"{output.stem}.parquet")
    if pooling == "none" and ending == ".npz":
        raise RequestError(
            f"frames of each recording (pooling none) in {output}: an array has rows of one length",
            "a .parquet file, whose rows may have any number of frames",
            f"--output {output.with_suffix('.parquet')}",
        )
