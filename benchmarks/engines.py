"""Other engines for `predict.py`: the exported model in ONNX Runtime and in OpenVINO, read and batched as ours.

An engine takes the place of the encoder alone. Files are decoded ahead by the same threads, in order of length,
normalised by the same feature extractor and scored through the same classifier; the engine is given as many threads as
torch, and float32. It runs what `gmp-atl export` writes, with the graph optimisations that it makes by default.
`onnxruntime-int8` runs the same file after ONNX Runtime's own dynamic quantisation: weights of matrix products in int8,
a scale for each column; what goes in is rounded to uint8 with one scale for a whole batch, so that the scores of a clip
depend on its neighbours where clips go together.

Which batches suit an engine depends on the model and on the processor, so each of these is tried on some of the clips,
and the quickest counts:

- one clip at a time, without padding, or clips of like length together (at most a tenth of padding, as many seconds
  as suit the model on a CPU, see `default_batch_seconds`);
- all threads in one batch, or several batches side by side with one thread each, as ours are.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gmp_atl_hf import HubertForGMPATL, SpeechEmotionClassifier
from gmp_atl_hf.data.audio import SAMPLING_RATE, FloatArray
from gmp_atl_hf.inference.devices import default_batch_seconds
from gmp_atl_hf.inference.predictions import Prediction

INSTALLING = {"onnxruntime": 'pip install -e ".[onnx]"', "openvino": "pip install openvino"}
"""Package of an engine → what installs it."""

INT8 = "-int8"
"""What stands behind the name of a package where its engine runs a quantised file."""

ENGINES = (*INSTALLING, f"onnxruntime{INT8}")

EXPORTING = ("onnx", "onnxscript", "onnxruntime")
"""Packages that `gmp-atl export` needs."""

TRIED_CLIPS = 24
"""Clips on which the ways are compared."""

ONE_CLIP_SECONDS = 1e-3
"""So small a batch holds one clip."""

Batch = dict[str, npt.NDArray[Any]]
"""The inputs of the exported file."""

Compute = Callable[[Batch], npt.NDArray[np.float32]]
"""From a batch to (clips, labels) logits."""


@dataclass(frozen=True)
class Way:
    """How an engine is given its work: clips alone or together, batches one after the other or side by side."""

    together: bool
    side_by_side: bool

    def __str__(self) -> str:
        clips = "clips of like length together" if self.together else "one clip at a time"
        return f"{clips}, {'one thread each' if self.side_by_side else 'all threads in one'}"


@dataclass(frozen=True)
class EngineSide:
    """An engine in the way that suits it.

    Args:
        classifier: Scores paths.
        way: The quickest way.
        tried: Way → seconds for the clips on which they were compared.
    """

    classifier: EngineClassifier
    way: str
    tried: dict[str, float]

    def __call__(self, paths: list[Path]) -> list[Prediction]:
        """Score recordings in their order."""
        return self.classifier.predict_paths(paths)


class EngineScorer:
    """A `Scorer` whose model is an exported file in some engine."""

    padded = True

    def __init__(self, compute: Compute, feature_extractor: Any, side_by_side: bool) -> None:
        self.compute, self.feature_extractor, self.side_by_side = compute, feature_extractor, side_by_side

    def prepare(self, waveforms: Sequence[FloatArray]) -> Batch:
        """See `Scorer`."""
        inputs = self.feature_extractor(
            list(waveforms),
            sampling_rate=SAMPLING_RATE,
            padding=True,
            return_attention_mask=True,
            return_tensors="np",
        )
        values, mask = inputs["input_values"], inputs["attention_mask"]
        return {"input_values": values.astype(np.float32), "attention_mask": mask.astype(np.int64)}

    def score(self, batch: Batch, speaker_statistics: Tensor | None = None) -> Tensor:
        """See `Scorer`."""
        assert speaker_statistics is None, "the file is exported without inputs for them"
        return torch.softmax(torch.from_numpy(self.compute(batch)), dim=-1)

    def pool(self, batch: Batch) -> Tensor:
        """See `Scorer`."""
        raise NotImplementedError("the exported file gives logits, not what the heads read")


class EngineClassifier(SpeechEmotionClassifier):
    """The classifier with another scorer."""

    def __init__(self, model: HubertForGMPATL, scorer: EngineScorer, batch_seconds: float) -> None:
        super().__init__(model, scorer.feature_extractor, "cpu", batch_seconds)
        self._ready = scorer

    def predict_paths(self, paths: list[Path]) -> list[Prediction]:
        """Score recordings in their order."""
        found = self(paths)
        assert isinstance(found, list)
        return found


def packages_of(engines: Sequence[str]) -> list[str]:
    """The packages that engines are in, each once."""
    return list(dict.fromkeys(name.removesuffix(INT8) for name in engines))


def require(engines: Sequence[str]) -> None:
    """End the script with a message where a package is missing, before anything is computed."""
    needed = [*EXPORTING, *packages_of(engines)] if engines else []
    missing = [name for name in dict.fromkeys(needed) if importlib.util.find_spec(name) is None]
    if missing:
        commands = dict.fromkeys(INSTALLING.get(name, INSTALLING["onnxruntime"]) for name in missing)
        raise SystemExit(f"--engines needs {', '.join(missing)}, not installed here: {' && '.join(commands)}")


def engine_side(
    engine: str, exported: Path, model: HubertForGMPATL, feature_extractor: Any, paths: Sequence[Path]
) -> EngineSide:
    """Try an engine in every way on some of the clips, evenly from all, and give the quickest one."""
    if engine.endswith(INT8):
        exported = quantise(exported)
    threads = torch.get_num_threads()
    some = [paths[place] for place in np.linspace(0, len(paths) - 1, min(TRIED_CLIPS, len(paths))).astype(int)]
    best: tuple[float, EngineClassifier, Way] | None = None
    tried = {}
    for together, side_by_side in product((False, True), (False, True) if threads > 1 else (False,)):
        way = Way(together, side_by_side)
        compute = _STARTS[engine](exported, threads, threads if side_by_side else 1)
        seconds = default_batch_seconds(model.config, torch.device("cpu")) if together else ONE_CLIP_SECONDS
        classifier = EngineClassifier(model, EngineScorer(compute, feature_extractor, side_by_side), seconds)
        took = min(_seconds(classifier, some) for _ in range(2))
        tried[str(way)] = took
        if best is None or took < best[0]:
            best = took, classifier, way
    assert best is not None
    return EngineSide(best[1], str(best[2]), tried)


def _seconds(classifier: EngineClassifier, paths: list[Path]) -> float:
    begun = time.perf_counter()
    classifier.predict_paths(paths)
    return time.perf_counter() - begun


def _start_onnxruntime(exported: Path, threads: int, at_once: int) -> Compute:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads // at_once
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(["logits"], batch)[0]


def quantise(exported: Path) -> Path:
    """Write the exported file anew with weights of matrix products in int8, as ONNX Runtime does it by itself."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    model = onnx.load(exported)
    del model.graph.value_info[:]  # shapes that the exporter noted; quantising works them out anew and compares
    quantised = exported.with_name("int8.onnx")
    quantize_dynamic(model, quantised, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True)
    return quantised


def _start_openvino(exported: Path, threads: int, at_once: int) -> Compute:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": at_once,
        "INFERENCE_PRECISION_HINT": "f32",  # by itself it takes bfloat16 on processors that have it
    }
    compiled = openvino.Core().compile_model(exported, "CPU", settings)
    # A request holds the memory of one batch, so that batches side by side need one each.
    requests: SimpleQueue[Any] = SimpleQueue()
    for _ in range(at_once):
        requests.put(compiled.create_infer_request())

    def compute(batch: Batch) -> npt.NDArray[np.float32]:
        request = requests.get()
        try:
            logits: npt.NDArray[np.float32] = request.infer(batch)["logits"]
            return logits
        finally:
            requests.put(request)

    return compute


_STARTS: dict[str, Callable[[Path, int, int], Compute]] = {
    "onnxruntime": _start_onnxruntime,
    f"onnxruntime{INT8}": _start_onnxruntime,
    "openvino": _start_openvino,
}
