"""Any audio classifier that transformers loads: refused before a corpus is read, or ready to score recordings."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    ASTFeatureExtractor,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    WhisperFeatureExtractor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES
from transformers.utils import cached_file

from ..checkpoints import explained, load_weights, locate
from ..data.audio import MINIMUM_SAMPLES, SAMPLING_RATE, FloatArray, read_audio
from ..data.spelling import spelling
from ..errors import DivergenceError, RequestError
from ..files import check_files
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.frames_gmp_atl import receptive_field
from ..numerics import no_tf32

HEADS: Mapping[str, str] = dict(MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES)
"""Model type → the class of its audio classifier in transformers."""

DIMENSIONS = frozenset({"arousal", "activation", "valence", "dominance"})
"""Labels by which a regressor is known whose configuration does not say that it is one."""

_EXPECTED = f"a model of this package, or an audio classifier of transformers: {', '.join(HEADS)}"
_FIX = "give the folder or Hub id of a model that was fine-tuned on emotions"


def is_ours(checkpoint: str) -> bool:
    """Whether a checkpoint is one for `load_emotion_model`: a model of this package, an adapter, or nothing at all.

    What cannot be read is left to it as well, since it says what is wrong.

    Raises:
        RequestError: The Hub cannot be reached, or has no such model.
    """
    place = Path(locate(checkpoint))
    if place.is_dir():
        file: str | Path | None = place / "config.json"
    elif place.exists() or checkpoint.count("/") > 1 or checkpoint.startswith((".", "/", "~")):
        return True
    else:
        with explained(f"the model {checkpoint} cannot be read", _EXPECTED, _FIX):
            file = cached_file(checkpoint, "config.json", _raise_exceptions_for_missing_entries=False)
    if file is None or not Path(file).is_file():
        return True
    try:
        config = json.loads(Path(file).read_bytes())
    except ValueError:
        return True
    return not isinstance(config, dict) or config.get("model_type") in (None, GMPATLConfig.model_type)


@dataclass(frozen=True)
class AudioClassifier:
    """A classifier, or regressor, of recordings that need not be of this package.

    Args:
        name: Folder or Hub id, as given.
        model: In float32 and eval mode.
        extractor: The checkpoint's own feature extractor.
        labels: What its outputs are called, in their order.
        dimensional: Whether they are values on scales such as arousal, rather than logits of classes.
        seen_speakers: Whom it was trained on, as far as its configuration says; rarely anybody.
    """

    name: str
    model: Any
    extractor: Any
    labels: list[str]
    dimensional: bool
    seen_speakers: tuple[str, ...] = ()

    @classmethod
    def load(cls, checkpoint: str, device: torch.device) -> AudioClassifier:
        """Load a checkpoint; nothing in it is newly initialised, and no code of its own is run.

        Raises:
            RequestError: There is none, it is no audio classifier, weights are missing or damaged, it gives several
                answers at once, or its feature extractor is missing or not for audio.
        """
        place = locate(checkpoint)
        check_files(Path(place))
        with explained(f"the model {checkpoint} cannot be read", _EXPECTED, _FIX):
            config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        _refuse_other_heads(checkpoint, config)
        labels = [str(label) for _, label in sorted(config.id2label.items())]
        if again := sorted({label for label in labels if labels.count(label) > 1}):
            raise RequestError(
                f"{checkpoint} has the label {again[0]!r} twice", "labels with different names", "correct its id2label"
            )
        extractor = _load_extractor(checkpoint)
        head: Any = AutoModelForAudioClassification  # picks the class that the configuration names
        model = load_weights(head, checkpoint, config, whole=True)
        scales = config.problem_type == "regression" or len(labels) == 1 or {*map(spelling, labels)} <= DIMENSIONS
        seen = getattr(config, "seen_speakers", None) or ()
        return cls(checkpoint, model.to(device).eval(), extractor, labels, scales, tuple(seen))

    @property
    def sampling_rate(self) -> int:
        """Samples per second that it wants."""
        return int(self.extractor.sampling_rate)

    @property
    def window(self) -> float | None:
        """Seconds of a recording that its extractor takes; the rest of a longer one goes unheard. None: all of it."""
        if isinstance(self.extractor, WhisperFeatureExtractor):
            return float(self.extractor.n_samples / self.sampling_rate)
        if isinstance(self.extractor, ASTFeatureExtractor):  # frames of 25 ms, one every 10
            return 0.025 + 0.010 * (self.extractor.max_length - 1)
        return None

    def prepare(self, source: Any) -> dict[str, Tensor]:
        """Read a recording and make the model's inputs of it alone, (1, …) float32 each, masks int64.

        Args:
            source: As for `read_audio`; what is shorter than a frame gets zeros at its end.
        """
        waveform = read_audio(source, self.sampling_rate)
        if (missing := self._shortest() - len(waveform)) > 0:
            waveform = np.pad(waveform, (0, missing))
        made = self.extractor(waveform, sampling_rate=self.sampling_rate, return_tensors="pt")
        accepted = inspect.signature(self.model.forward).parameters
        return {name: values for name, values in made.items() if name in accepted}

    def outputs(self, clips: Sequence[Mapping[str, Tensor]], names: Sequence[str]) -> FloatArray:
        """Compute recordings whose inputs have one shape, so that none is padded for another.

        Args:
            clips: What `prepare` gave for each.
            names: What they are called, for messages.

        Returns:
            (clips, labels) float32: logits, or values of a regressor.

        Raises:
            RequestError: The model fails at them.
            DivergenceError: It gives something that is no finite number.
        """
        device = self.model.device
        batch = {name: torch.cat([clip[name] for clip in clips]).to(device) for name in clips[0]}
        try:
            with torch.inference_mode(), no_tf32(device):
                outputs = self.model(**batch).logits.float().cpu().numpy()
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise RequestError(
                f"the model {self.name} fails at {names[0]}: {reason}",
                "a recording that it can score",
                "leave out what is too short for it, or take another model",
            ) from error
        found: FloatArray = outputs
        refuse_no_numbers(self.name, found, names)
        return found

    def _shortest(self) -> int:
        """Samples that it needs: 25 ms, or one frame of its convolutions and as many more as it joins into one."""
        samples = MINIMUM_SAMPLES * self.sampling_rate // SAMPLING_RATE
        config = self.model.config
        if (kernel := getattr(config, "conv_kernel", None)) and (stride := getattr(config, "conv_stride", None)):
            joined = int(getattr(config, "squeeze_factor", 1)) - 1
            samples = max(samples, receptive_field(kernel, stride) + joined * int(np.prod(stride)))
        return samples


def refuse_no_numbers(model: str, outputs: FloatArray, names: Sequence[str]) -> None:
    """Refuse, by a `DivergenceError`, outputs (clips, labels) that are no finite numbers; `names` are the clips'."""
    if not np.isfinite(outputs).all():
        first = names[int(np.flatnonzero(~np.isfinite(outputs).all(axis=1))[0])]
        raise DivergenceError(
            f"the model {model} gives no finite numbers for {first}",
            "finite outputs",
            "its training diverged, or the copy is damaged",
        )


def _refuse_other_heads(checkpoint: str, config: Any) -> None:
    """Refuse a model without the head of an audio classifier that transformers has, and one of several answers."""
    architectures = config.architectures or []
    head = HEADS.get(config.model_type)
    if head is None or (architectures and head not in architectures):
        what = f"a {config.model_type!r} model" + (f" ({', '.join(architectures)})" if architectures else "")
        expected = _EXPECTED if head is None else f"a {head}, the head that transformers has for it"
        raise RequestError(f"{checkpoint} is {what}, no fine-tuned emotion classifier", expected, _FIX)
    if config.problem_type == "multi_label_classification":
        raise RequestError(
            f"{checkpoint} gives several labels at once (problem_type multi_label_classification)",
            "one label for each recording (single_label_classification), or a regression",
            "take a model that was trained to tell emotions apart",
        )


def _load_extractor(checkpoint: str) -> Any:
    """Load a checkpoint's feature extractor, and refuse one that is not for audio: transformers would make one up."""
    what, place = f"the feature extractor of {checkpoint}", locate(checkpoint)
    expected = "preprocessor_config.json of a feature extractor for audio, with its sampling_rate"
    fix = "write that of the encoder it was trained from beside it, with AutoFeatureExtractor and save_pretrained"
    with explained(f"{what} cannot be read", expected, fix):
        raw = AutoFeatureExtractor.from_pretrained(place, trust_remote_code=False)
        stored = type(raw).get_feature_extractor_dict(place)[0]
    rate = stored.get("sampling_rate")
    if not isinstance(rate, int) or isinstance(rate, bool) or rate <= 0 or not hasattr(raw, "sampling_rate"):
        kind = stored.get("feature_extractor_type") or stored.get("image_processor_type") or type(raw).__name__
        raise RequestError(f"{what} is not for audio: {kind}, with sampling_rate {rate!r}", expected, fix)
    return raw
