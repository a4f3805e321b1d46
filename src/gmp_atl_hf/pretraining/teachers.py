"""Speech encoders as teachers: checked before anything is trained, and their hidden states."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ..checkpoints import (
    default_feature_extractor,
    explained,
    identify_weights,
    locate,
    quiet_transformers,
    refuse_missing_folder,
    speakers_seen_by,
)
from ..data.audio import SAMPLING_RATE
from ..errors import RequestError, errors_of
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.encoding_gmp_atl import GMPATLModel
from ..modeling.family_whisper_gmp_atl import SILENCE_SECONDS
from ..modeling.frames_gmp_atl import hop_length, receptive_field
from ..numerics import no_tf32
from .teacher_frames import CONVOLUTIONAL, FAMILIES, FrameGrid, teacher_grid

FORMAT_VERSION = 1
"""Part of every key; raised when the same tensors and the same recording would give other states."""

CHUNK_SECONDS = 15
"""Longer clips are encoded in equal chunks of at most this. Our choice: attention over a minute is of no use, and
Whisper's positions end at 30 s."""

_EXPECTED = f"a speech encoder of 16 kHz waveforms: {', '.join(FAMILIES)}"
TEACHER = "teacher"
_FIX = "openai/whisper-base, facebook/hubert-base-ls960, or a folder"


@dataclass(frozen=True)
class TeacherFacts:
    """What a teacher is, without its weights.

    Args:
        name: Hub id or folder, as given.
        config: Its configuration.
        extractor: Its feature extractor.
        grid: Its frames.
        identity: What its weights are identified by, JSON types.
        called: What messages call it: it need not teach anybody.
    """

    name: str
    config: Any
    extractor: Any
    grid: FrameGrid
    identity: dict[str, Any]
    called: str = TEACHER

    @property
    def is_whisper(self) -> bool:
        """Whether its inputs are spectra rather than samples."""
        return self.config.model_type not in CONVOLUTIONAL

    @property
    def knows_places(self) -> bool:
        """Whether absolute positions are part of its states, and not only what lies around a frame."""
        return self.is_whisper or getattr(self.config, "encoder_type", None) == "whisper"

    @property
    def layers(self) -> int:
        """Number of transformer layers."""
        if isinstance(self.config, GMPATLConfig):
            return self.config.depth  # nothing is above a layer that is read
        return int(self.config.encoder_layers if self.is_whisper else self.config.num_hidden_layers)

    @property
    def width(self) -> int:
        """Width of its hidden states."""
        return int(self.config.d_model if self.is_whisper else self.config.hidden_size)

    @property
    def seen_speakers(self) -> tuple[str, ...]:
        """The speakers that it was trained on by its own account; `unknown` where it does not say."""
        said = {"model_type": GMPATLConfig.model_type, "seen_speakers": getattr(self.config, "seen_speakers", None)}
        return tuple(speakers_seen_by({"config": said}))

    def resolve_layer(self, layer: int) -> int:
        """1-based layer of a possibly negative one, 0 of the first one's input; a `RequestError` if there is none."""
        resolved = layer if layer >= 0 else self.layers + 1 + layer
        if resolved > self.layers or (layer < 0 and resolved < 1):
            raise RequestError(
                f"layer {layer} of the {self.called} {self.name}, which has {self.layers}",
                f"1 to {self.layers}, -1 to -{self.layers} from the top, or 0 for what enters the first",
                f"layers: [{self.layers}]" if self.called == TEACHER else "-1 for its last layer",
            )
        return resolved

    def refuse_other_frames(self, student: GMPATLConfig) -> None:
        """Refuse, by a `RequestError`, a teacher whose frames do not line up with the student's."""
        ours = hop_length(student.conv_stride), receptive_field(student.conv_kernel, student.conv_stride)
        if self.grid.hop != ours[0] or abs(self.grid.field - ours[1]) > self.grid.hop:
            raise RequestError(
                f"the frames of the teacher {self.name} do not line up with the student's: one every {self.grid.hop} "
                f"samples that stands for {self.grid.field}",
                f"one every {ours[0]} samples that stands for about {ours[1]}",
                "choose another teacher, or conv_stride and conv_kernel of the student to fit",
            )


def teacher_facts(name: str, called: str = TEACHER) -> TeacherFacts:
    """Look at a teacher, a Hub id or folder, before anything is trained; `called` is for messages.

    Raises:
        RequestError: There is none, it is no speech encoder that can teach, or it needs another sampling rate.
    """
    place, fix = locate(name), f"{TEACHER}: {_FIX}" if called == TEACHER else _FIX
    with errors_of(f"the {called} {name} cannot be read"):
        refuse_missing_folder(name, Path(place), _EXPECTED, fix)
        if Path(place).is_dir() and not Path(place, "config.json").is_file():
            raise RequestError("it has no config.json", _EXPECTED, fix)
    with explained(f"the {called} {name} cannot be read", _EXPECTED, fix):
        config: Any = AutoConfig.from_pretrained(place)
    if config.model_type not in FAMILIES:
        raise RequestError(f"the {called} {name} is a {config.model_type!r} model", _EXPECTED, fix)
    whisper = config.model_type == "whisper"
    folder = Path(place)
    if folder.is_dir() and not (folder / "preprocessor_config.json").is_file():
        extractor: Any = (
            WhisperFeatureExtractor(feature_size=config.num_mel_bins) if whisper else default_feature_extractor(config)
        )
    else:
        what = f"the feature extractor of the {called} {name} cannot be read"
        with explained(what, "preprocessor_config.json", fix):
            extractor = AutoFeatureExtractor.from_pretrained(place)
    if extractor.sampling_rate != SAMPLING_RATE:
        raise RequestError(f"the {called} {name} takes {extractor.sampling_rate} samples a second", _EXPECTED, fix)
    inputs = config.num_mel_bins if whisper else 1
    if getattr(extractor, "feature_size", inputs) != inputs or whisper != hasattr(extractor, "n_fft"):
        raise RequestError(
            f"the {called} {name} takes {inputs} numbers at a time, its feature extractor "
            f"({type(extractor).__name__}) makes {extractor.feature_size}",
            "a model and a feature extractor that belong together",
            "copy preprocessor_config.json from where the model comes from",
        )
    grid = teacher_grid(config, extractor.hop_length if whisper else None)
    return TeacherFacts(name, config, extractor, grid, identify_weights(name, config), called)


class Teacher:
    """A speech encoder up to one of its layers, in eval mode; several threads may use it at once.

    Args:
        facts: Which one.
        layers: Layers whose states are wanted, from 1; 0 is the input of the first one. Later ones are not kept.
        device: Where it runs.
        bf16: Whether its products are taken in bfloat16, twice as quick where the processor has them.

    Raises:
        RequestError: Its weights are not all there.
    """

    def __init__(self, facts: TeacherFacts, layers: Sequence[int], device: torch.device, bf16: bool = False) -> None:
        self.facts, self.layers, self.device, self.bf16 = facts, tuple(layers), device, bf16
        self.encoder: Any = _load_encoder(facts)
        parent: Any = self.encoder if facts.is_whisper else self.encoder.encoder
        # At least one: what enters it is seen there.
        self.blocks = parent.layers = parent.layers[: max(1, *self.layers)]
        self.encoder.requires_grad_(False).eval().to(device)
        self._seen = threading.local()
        self._places: tuple[str, dict[int, Tensor]] | None = None
        for index, block in enumerate(self.blocks):
            if index + 1 in self.layers:
                block.register_forward_hook(lambda _, __, output, layer=index + 1: self._keep(layer, output))
        if 0 in self.layers:
            self.blocks[0].register_forward_pre_hook(lambda _, inputs: self._keep(0, inputs[0]))

    def take_away(self, key: str, means: Mapping[int, Tensor]) -> None:
        """Give states from now on less what belongs to their place in the chunk, see `positions`.

        Args:
            key: What the means depend on, as SHA-256 in hexadecimal.
            means: Layer → (places, width) float32, as many places as a chunk has.
        """
        # Their mean stays: what the teacher's next layer expects of its input, at no place in particular.
        self._places = key, {layer: (mean - mean.mean(0)).to(self.device) for layer, mean in means.items()}

    def key(self, layer: int) -> str:
        """SHA-256, in hexadecimal, of all that a layer's states depend on, besides the recording."""
        settings = {
            "format_version": FORMAT_VERSION,
            "family": self.facts.config.model_type,
            "config": json.loads(self.facts.config.to_json_string(use_diff=True)),
            "extractor": json.loads(self.facts.extractor.to_json_string()),
            "layer": layer,
            "piece_seconds": CHUNK_SECONDS,
            "bf16": self.bf16,
        }
        for changing in ("_name_or_path", "transformers_version"):
            settings["config"].pop(changing, None)
        if self._places is not None:
            settings["positions"] = self._places[0]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        prefix = "layers." if self.facts.is_whisper else "encoder.layers."
        for name, tensor in self.encoder.state_dict().items():
            if name.startswith(prefix) and int(name.removeprefix(prefix).split(".")[0]) >= layer:
                continue
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def states(self, waveform: npt.NDArray[np.float32]) -> dict[int, Tensor]:
        """(samples,) float32 at 16 kHz → layer → (frames, width) float32 on the teacher's device."""
        grid = self.facts.grid
        parts = []
        for start, stop in grid.chunks(len(waveform), CHUNK_SECONDS * SAMPLING_RATE // grid.hop):
            inputs = self._inputs(waveform[start:stop]).to(self.device)
            autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)
            with autocast, no_tf32(self.device):
                states = self._run(inputs)
            frames = {layer: each[0, : grid.count(stop - start)].float() for layer, each in states.items()}
            for layer, places in ({} if self._places is None else self._places[1]).items():
                frames[layer] = frames[layer] - places[: len(frames[layer])]
            parts.append(frames)
        return {layer: torch.cat([part[layer] for part in parts]) for layer in self.layers}

    def _inputs(self, waveform: npt.NDArray[np.float32]) -> Tensor:
        """Samples, or spectra, outside autocast, which would reach into the extractor."""
        extractor = self.facts.extractor
        if not self.facts.is_whisper:
            samples: Tensor = extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt").input_values
            return samples
        # Its own forward pass insists on 30 s. The clip's own length and a second of silence give the same layers
        # nearly the same states at a fraction of the cost.
        padded = np.pad(waveform, (0, SILENCE_SECONDS * SAMPLING_RATE))
        spectra: Tensor = extractor(
            padded, sampling_rate=SAMPLING_RATE, padding="do_not_pad", return_tensors="pt"
        ).input_features
        return spectra

    def _run(self, inputs: Tensor) -> dict[int, Tensor]:
        states = self._seen.states = {}
        if self.facts.is_whisper:
            self._run_whisper(inputs)
        else:
            self.encoder(inputs)
        return states

    def _keep(self, layer: int, output: Any) -> None:
        """Note what a layer gives, for the thread that runs the encoder."""
        self._seen.states[layer] = output[0] if isinstance(output, tuple) else output

    def _run_whisper(self, spectra: Tensor) -> None:
        """Run convolutions, positions and layers; hooks keep the states."""
        encoder, gelu = self.encoder, nn.functional.gelu
        hidden = gelu(encoder.conv2(gelu(encoder.conv1(spectra)))).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
        for block in self.blocks:
            output = block(hidden, None)
            hidden = output[0] if isinstance(output, tuple) else output


def mean_and_deviation(states: Tensor) -> Tensor:
    """(frames, width) → (2 · width,) mean and standard deviation over the frames."""
    return torch.cat([states.mean(0), states.std(0, correction=0)])


def _load_encoder(facts: TeacherFacts) -> nn.Module:
    """Load the encoder in float32, without the layers on top of it."""
    place, config = locate(facts.name), facts.config
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
    with quiet_transformers():
        if facts.is_whisper:
            # Of a whole Whisper, of its speech-to-text model, or the encoder alone: the names differ.
            options["key_mapping"] = {r"^(model\.)?encoder\.": ""}
            loaded: Any = WhisperEncoder.from_pretrained(place, **options)
        elif config.model_type == GMPATLConfig.model_type:
            loaded = GMPATLModel.from_pretrained(place, config=GMPATLConfig.from_pretrained(place), **options)
        else:
            loaded = AutoModel.from_pretrained(place, **options)
    encoder, info = loaded
    missing = sorted(key for key in info["missing_keys"] if "masked_spec_embed" not in key)
    missing += sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise RequestError(
            f"the {facts.called} {facts.name} lacks or has in another shape: {', '.join(missing[:5])}",
            f"a whole encoder ({len(missing)} tensors do not fit)",
            "check that the checkpoint belongs to its config.json",
        )
    module: nn.Module = encoder
    return module
