"""From waveforms to probabilities: padded batches on any device, or clips side by side on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..data.audio import SAMPLING_RATE, FloatArray
from ..errors import RequestError
from ..modeling.families_gmp_atl import family_of
from ..modeling.modeling_gmp_atl import HubertForGMPATL
from ..numerics import no_tf32
from .cpu.model import PackedModel
from .eval_mode import in_eval_mode

_INT8 = "a model in float32 on the CPU, with HuBERT's own layers, for int8; float32 or bfloat16 for any other"


class Scorer(Protocol):
    """Scores batches of waveforms, with the model in eval mode."""

    padded: bool
    """Whether clips of a batch are filled up to the longest."""
    side_by_side: bool
    """Whether several batches are best computed at once, each by one thread of the CPU."""

    def prepare(self, waveforms: Sequence[FloatArray]) -> Any:
        """Make a batch of (samples,) float32 waveforms at 16 kHz; runs in another thread than `score`."""
        ...

    def score(self, batch: Any, speaker_statistics: Tensor | None = None) -> Tensor:
        """(batch, labels) float32 probabilities, on the device; (2, size) statistics as for `forward` of the model."""
        ...

    def pool(self, batch: Any) -> Tensor:
        """(batch, size) float32, what the heads read of each clip, on the device."""
        ...


class PaddedScorer:
    """The model itself on padded batches, with `half` under autocast to bfloat16 (cosines stay float32)."""

    padded = True
    side_by_side = False

    def __init__(self, model: HubertForGMPATL, feature_extractor: Any, half: bool = False) -> None:
        self.model, self.feature_extractor, self.half = model, feature_extractor, half

    def prepare(self, waveforms: Sequence[FloatArray]) -> dict[str, Tensor]:
        """See `Scorer`."""
        inputs = self.feature_extractor(
            list(waveforms),
            sampling_rate=SAMPLING_RATE,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        batch = {"input_values": inputs["input_values"].float()}
        if len(set(map(len, waveforms))) > 1:
            batch["attention_mask"] = inputs["attention_mask"].long()
        return batch

    def score(self, batch: dict[str, Tensor], speaker_statistics: Tensor | None = None) -> Tensor:
        """See `Scorer`."""
        with self._computing():
            logits = self.model(**self._on_device(batch), speaker_statistics=speaker_statistics).logits
        return torch.softmax(logits.float(), dim=-1)

    def pool(self, batch: dict[str, Tensor]) -> Tensor:
        """See `Scorer`."""
        with self._computing():
            encoded = self.model.hubert(**self._on_device(batch))
            pooled: Tensor = self.model.pooling(encoded.last_hidden_state, encoded.frame_mask)
        return pooled.float()

    def _on_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: values.to(self.model.device, non_blocking=True) for name, values in batch.items()}

    @contextmanager
    def _computing(self) -> Iterator[None]:
        device = self.model.device
        half = torch.autocast(device.type, torch.bfloat16, self.half)
        with torch.inference_mode(), half, no_tf32(device), in_eval_mode(self.model):
            yield


class PackedScorer:
    """Clips side by side on a CPU, without padding, see `PackedModel`."""

    padded = False
    side_by_side = True

    def __init__(self, model: HubertForGMPATL, feature_extractor: Any, int8: bool = False) -> None:
        self.model, self.feature_extractor = PackedModel(model, int8), feature_extractor

    def prepare(self, waveforms: Sequence[FloatArray]) -> list[Tensor]:
        """See `Scorer`."""
        inputs = self.feature_extractor(list(waveforms), sampling_rate=SAMPLING_RATE, padding=False)
        return [torch.from_numpy(np.asarray(each, dtype=np.float32)) for each in inputs["input_values"]]

    def score(self, batch: list[Tensor], speaker_statistics: Tensor | None = None) -> Tensor:
        """See `Scorer`."""
        with in_eval_mode(self.model.model):
            return torch.softmax(self.model(batch, speaker_statistics), dim=-1)

    def pool(self, batch: list[Tensor]) -> Tensor:
        """See `Scorer`."""
        with in_eval_mode(self.model.model):
            return self.model.pool(batch)


def make_scorer(model: HubertForGMPATL, feature_extractor: Any, precision: str) -> Scorer:
    """The quickest way to compute a model where it is, in a precision that `resolve_precision` gave.

    Raises:
        RequestError: int8 is not made for this model.
    """
    packed = model.device.type == "cpu" and model.dtype == torch.float32 and PackedModel.fits(model)
    if packed and precision != "bfloat16":
        return PackedScorer(model, feature_extractor, precision == "int8")
    if precision == "int8":
        family = family_of(model.config.encoder_type)
        if PackedModel.fits(model):
            kind = f"in {str(model.dtype).removeprefix('torch.')} on {model.device}"
            fix = "load it in float32 (dtype=torch.float32 of from_pretrained) on the CPU, or leave the precision out"
        else:
            kind, fix = "with adapters" if family.packed else f"with {family.model_type} encoders", "leave it out"
        raise RequestError(f"precision is 'int8', which is not made for models {kind}", _INT8, fix)
    return PaddedScorer(model, feature_extractor, precision == "bfloat16")
