"""What a model is adapted to a speaker by: statistics of some of their recordings, without a label, in a small file."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from ..errors import RequestError
from ..files import write_whole
from ..modeling.families_gmp_atl import family_of
from ..modeling.heads_gmp_atl import Standardization
from ..modeling.modeling_gmp_atl import HubertForGMPATL
from .eval_mode import in_eval_mode

SOFTENED = 5.0
"""What a model's logits, before calibration, are divided by where its scores stand for the emotions of unlabelled
clips. A fine-tuned model is too sure of itself: a clip that it takes for another emotion would be explained away by
that emotion, and what is special in the voice with it. Our choice, made on EMO-DB: below 3 most of the gain was lost
with one encoder, from 8 on clips of a single emotion did harm with both."""

_KIND = "gmp_atl speaker statistics"


@dataclass(frozen=True, eq=False)
class SpeakerStatistics:
    """Mean and deviation of one speaker, in place of those of the training clips.

    They are drawn to those of the training clips as if those were four clips more, see `Standardization.of_speakers`:
    one recording changes little.

    Args:
        clips: How many recordings, or windows of some, they were made of.
        mean: (size,) float32.
        deviation: (size,) float32.
        model: Fingerprint of the model whose they are, see `fingerprint`.

    Example:
        >>> classifier.adapt(["call1.wav", "call2.wav"]).save("caller.safetensors")  # doctest: +SKIP
        >>> classifier("call3.wav", speaker=SpeakerStatistics.load("caller.safetensors"))  # doctest: +SKIP
    """

    clips: int
    mean: np.ndarray
    deviation: np.ndarray
    model: str

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write them as safetensors: `mean` and `deviation`, which the ONNX file takes too, the rest as metadata.

        Raises:
            RequestError: `file` is a folder.
        """
        if Path(file).is_dir():
            raise RequestError(
                f"{os.fspath(file)} is a folder",
                "a file to write to",
                f"give a name in it: {Path(file) / 'speaker.safetensors'}",
            )
        about = {"kind": _KIND, "clips": str(self.clips), "model": self.model}
        write_whole(Path(file), save({"mean": self.mean, "deviation": self.deviation}, about))

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> SpeakerStatistics:
        """Read what `save` has written.

        Raises:
            RequestError: There is no such file, or it is another one.
        """
        try:
            with safe_open(os.fspath(file), "np") as content:
                about = content.metadata() or {}
                if about.get("kind") != _KIND:
                    raise ValueError(f"it is of another kind: {about.get('kind') or 'tensors that say nothing of it'}")
                mean, deviation = content.get_tensor("mean"), content.get_tensor("deviation")
                return cls(int(about["clips"]), mean, deviation, about["model"])
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise RequestError(
                f"{os.fspath(file)} holds no statistics of a speaker ({error})",
                "a file that SpeakerStatistics.save has written",
                "classifier.adapt(recordings).save(file) makes one",
            ) from error

    def tensor(self) -> Tensor:
        """(2, size) float32, for `speaker_statistics` of the model."""
        return torch.from_numpy(np.stack([self.mean, self.deviation]))

    def refuse_other_model(self, fingerprint: str, *earlier: str) -> None:
        """Refuse, by a `RequestError`, a model that is not the one that these statistics are of.

        Args:
            fingerprint: That of the model.
            earlier: Those that earlier versions gave it.
        """
        if self.model not in (fingerprint, *earlier):
            raise RequestError(
                f"the speaker's statistics are of another model ({self.model[:12]}, not {fingerprint[:12]})",
                "statistics of this very model, with the configuration and the preprocessor_config.json that it had "
                "when they were made: those of another one mean nothing to it",
                "classifier.adapt(recordings) of this model makes them",
            )


COMPUTING_FIELDS = (
    *("encoder_type", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps"),
    *("feat_extract_norm", "feat_extract_activation", "conv_kernel", "conv_stride", "feat_proj_layer_norm"),
    *("num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "do_stable_layer_norm"),
    *("readout", "pooling", "standardize", "emotion_loss", "am_softmax_scale"),
)
"""Configuration fields by which models with the same weights give other scores, beside emotions and temperature. By
name, since those that transformers adds one day are no change of a model."""


def fingerprint(model: HubertForGMPATL, feature_extractor: Any, of_weights: str | None = None) -> str:
    """SHA-256 in hexadecimal of all that a model's scores depend on: its weights, its configuration, its normalisation.

    Args:
        model: The model.
        feature_extractor: What prepares its waveforms.
        of_weights: `weights_fingerprint` of it, where that is known.
    """
    config = model.config
    names = (*COMPUTING_FIELDS, *family_of(config.encoder_type).fields)
    fields = {name: getattr(config, name, None) for name in names}
    about = [of_weights or weights_fingerprint(model), fields, bool(feature_extractor.do_normalize)]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def weights_fingerprint(model: HubertForGMPATL) -> str:
    """SHA-256 in hexadecimal of weights, buffers, emotions and temperature: the fingerprint of earlier versions."""
    digest = hashlib.sha256(json.dumps([model.config.emotions, model.config.logit_temperature]).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def refuse_no_statistics(given: object) -> None:
    """Refuse, by a `RequestError`, anything but `SpeakerStatistics`, such as the file that they are in."""
    if not isinstance(given, SpeakerStatistics):
        raise RequestError(
            f"speaker is a {type(given).__name__}: {str(given)[:80]}",
            "the statistics of one speaker",
            "SpeakerStatistics.load(file), or what classify.adapt(recordings) gives",
        )


def refuse_without_statistics(model: HubertForGMPATL) -> None:
    """Refuse, by a `RequestError`, a model whose standardisation cannot be replaced since it has none."""
    if not model.config.standardize:
        raise RequestError(
            "the model has standardize: false, so there is nothing to adapt to a speaker",
            "a model that standardises what frames are pooled to",
            "train it with `model: {standardize: true}` in the recipe, or standardize=True by hand",
        )


@torch.inference_mode()
def statistics_of(model: HubertForGMPATL, pooled: Tensor, chosen: Tensor) -> Tensor:
    """Statistics of some clips of a speaker, without labels: what the model says of them stands for what they express.

    Args:
        model: The model.
        pooled: (clips, size) float32, as its `pooling` gives them, on its device.
        chosen: (choices, clips) bool: the clips of one speaker that each is made of, or none.

    Returns:
        (choices, 2, size) float32 on the model's device.
    """
    standardization = cast(Standardization, model.standardization)
    with in_eval_mode(model):
        logits = model.score(pooled)[0]["logits"].double() * model.config.logit_temperature
    scores = torch.softmax(logits / SOFTENED, dim=-1)
    shares = chosen.to(pooled.device, torch.float64)
    clips = shares.sum(1)
    shares = shares / clips.clamp(min=1)[:, None]
    # From the mean of the training clips: what is left of large numbers would be rounding.
    values = pooled.double() - standardization.mean
    mean = shares @ values
    variance = (shares @ values.square() - mean.square()).clamp(min=0)
    return standardization.of_speakers(clips, standardization.mean + mean, variance, shares @ scores)


def warn_without_emotions(model: HubertForGMPATL) -> None:
    """Say of a model that does not know how its emotions differ what that means for an adaptation."""
    if not bool(cast(Standardization, model.standardization).emotion_means.any()):
        warnings.warn(
            "this model was trained by a version that did not note what clips of each emotion look like: give it "
            "recordings of several emotions, since what they have in common is taken for the voice",
            stacklevel=3,
        )
