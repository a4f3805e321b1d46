"""Whisper's encoder: log-mel spectra, two convolutions, absolute positions; its layers are HuBERT's pre-norm layers.

Waveforms go in, as everywhere: the spectra are taken here, so that collators, caches, pipelines and exports need not
know. Clips are not filled up to 30 s. Each is followed by `SILENCE_SECONDS` of silence, which is encoded and dropped:
without any, upper layers differ a lot from those of a clip in 30 s. Frames stand at the places of a clip that begins
at 0. Clips of more than 30 s are refused, since there are no positions for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CONFIG_MAPPING
from transformers import initialization as init
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import sinusoids

from .family_gmp_atl import Family
from .frames_gmp_atl import length_mask

SAMPLING_RATE = 16_000
FOURIER = 400
"""Samples of a spectrum."""

HOP = 160
"""Samples from one spectrum to the next; the second convolution keeps every other one."""

SILENCE_SECONDS = 1
_SILENCE = SILENCE_SECONDS * SAMPLING_RATE // (2 * HOP)

EXTRACTOR: Mapping[str, Any] = {"n_fft": FOURIER, "hop_length": HOP, "sampling_rate": SAMPLING_RATE, "dither": 0.0}
"""Settings that a checkpoint's `WhisperFeatureExtractor` must have, for its spectra to be those that are taken here."""

_QUIETEST, _RANGE = 1e-10, 8.0  # power, and powers of ten below a clip's loudest
_SHIFT = _SCALE = 4.0


class LogMel(nn.Module):
    """`WhisperFeatureExtractor` on right-padded batches, two spectra to a frame; it has no parameters."""

    def __init__(self, mel_bins: int) -> None:
        super().__init__()
        angles = 2 * np.pi * np.outer(np.arange(FOURIER // 2 + 1), np.arange(FOURIER)) / FOURIER
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FOURIER) / FOURIER)
        waves = np.concatenate([np.cos(angles), np.sin(angles)]) * window
        filters = mel_filter_bank(
            num_frequency_bins=FOURIER // 2 + 1,
            num_mel_filters=mel_bins,
            min_frequency=0.0,
            max_frequency=SAMPLING_RATE / 2,
            sampling_rate=SAMPLING_RATE,
            norm="slaney",
            mel_scale="slaney",
        )
        # No buffers: a model in half precision would round them, and spectra of quiet speech would drown in it.
        self._tables = tuple(torch.from_numpy(each.T.astype(np.float32).copy()) for each in (waves, filters.T))

    def forward(self, input_values: Tensor, sample_counts: Tensor | None = None) -> Tensor:
        """(batch, samples) and (batch,) int64 valid samples, None for all → (batch, 2 · bins, frames) float32."""
        waves, filters = (table.to(input_values.device) for table in self._tables)
        batch, samples = input_values.shape
        frames = samples // (2 * HOP)
        with torch.autocast(input_values.device.type, enabled=False):
            values = input_values.float()
            if sample_counts is not None:
                values = values.masked_fill(~length_mask(sample_counts, samples), 0.0)
            # Reflected before the clip, as the extractor does; silence behind it.
            before = values[:, 1 : FOURIER // 2 + 1].flip(1)
            padded = functional.pad(torch.cat([before, values], 1), (0, FOURIER // 2 - HOP))
            spectra = (padded.unfold(1, FOURIER, HOP)[:, : 2 * frames] @ waves).square()
            power = spectra[..., : FOURIER // 2 + 1] + spectra[..., FOURIER // 2 + 1 :]
            levels = (power @ filters).clamp(min=_QUIETEST).log10()
            loudest = levels
            if sample_counts is not None:
                valid = length_mask(2 * (sample_counts // (2 * HOP)), levels.shape[1])
                loudest = levels.masked_fill(~valid[:, :, None], -torch.inf)
            levels = torch.maximum(levels, loudest.amax((1, 2), keepdim=True) - _RANGE)
            return ((levels + _SHIFT) / _SCALE).reshape(batch, frames, -1).transpose(1, 2)


class Convolutions(nn.Module):
    """Whisper's two convolutions over the spectra of clips and of the silence behind them."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(config.conv_dim[0], config.hidden_size, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(config.hidden_size, config.hidden_size, kernel_size=3, stride=2, padding=1)

    def forward(self, features: Tensor, counts: Tensor, counts_with_silence: Tensor) -> Tensor:
        """Two spectra to a frame in, one hidden vector out.

        Args:
            features: (batch, frames, 2 · bins) of `LogMel`.
            counts: (batch,) int64 frames of each clip.
            counts_with_silence: (batch,) int64, the same with those of the silence.

        Returns:
            (batch, frames and silence, hidden).
        """
        spectra = functional.pad(features, (0, 0, 0, _SILENCE)).unflatten(2, (2, -1)).flatten(1, 2)
        valid = length_mask(2 * counts, spectra.shape[1])[:, :, None]
        silent = length_mask(2 * counts_with_silence, spectra.shape[1])[:, :, None]
        # Silence lies as far below the loudest part of a clip as spectra reach.
        loudest = spectra.masked_fill(~valid, -torch.inf).amax((1, 2), keepdim=True)
        silence = (loudest - _RANGE / _SCALE).clamp(min=(np.log10(_QUIETEST) + _SHIFT) / _SCALE)
        spectra = torch.where(valid, spectra, torch.where(silent, silence, 0.0)).to(spectra.dtype)
        hidden = functional.gelu(self.conv1(spectra.transpose(1, 2)))
        return functional.gelu(self.conv2(hidden)).transpose(1, 2)


class Positions(nn.Module):
    """Sinusoids, as the checkpoint has them; they are not trained."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", sinusoids(config.max_source_positions, config.hidden_size))

    def begin_weights(self) -> None:
        """Initialise what a checkpoint lacks."""
        init.copy_(self.weight, sinusoids(*self.weight.shape))

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, frames, hidden) → (1, frames, hidden); behind the last place, where nothing is valid, zeros."""
        places = functional.pad(self.weight, (0, 0, 0, _SILENCE))[None, : hidden.shape[1]]
        return places.to(hidden.dtype)


class Whisper(Family):
    """Whisper's encoder."""

    fields: ClassVar[Mapping[str, Any]] = {"max_source_positions": 1500}
    above: ClassVar[frozenset[str]] = frozenset({r"^(model\.)?decoder\.", r"^(proj_out|projector)\."})
    has_mask = False
    packed = False
    encodes_more = True
    absolute_positions = True
    heard_anybody = True

    def translate(self, stock: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
        """See the base class; strides and kernels are those of the spectra, two to a frame, so that frames count."""
        config: Any = CONFIG_MAPPING[self.model_type].from_dict(dict(stock))
        names = {
            "hidden_size": "d_model",
            "num_hidden_layers": "encoder_layers",
            "num_attention_heads": "encoder_attention_heads",
            "intermediate_size": "encoder_ffn_dim",
            "hidden_act": "activation_function",
            "hidden_dropout": "dropout",
            "activation_dropout": "activation_dropout",
            "attention_dropout": "attention_dropout",
            "initializer_range": "init_std",
            "max_source_positions": "max_source_positions",
            **{name: name for name in ("id2label", "label2id", "seen_speakers") if name in stock},
        }
        return {
            **{ours: getattr(config, theirs) for ours, theirs in names.items()},
            "conv_dim": [config.num_mel_bins, 2 * config.num_mel_bins],
            "conv_kernel": [HOP, 2],
            "conv_stride": [HOP, 2],
            "do_stable_layer_norm": True,
            # What is replaced is kept small.
            "num_conv_pos_embeddings": 1,
            "num_conv_pos_embedding_groups": 1,
        }

    def renamings(self) -> dict[str, str]:
        """See the base class: of a whole Whisper, of its speech-to-text model, or of the encoder alone."""
        layer = r"^(?:model\.)?(?:encoder\.)?layers\.(\d+)\."
        parts = {
            r"self_attn_layer_norm\.": "layer_norm.",
            r"self_attn\.": "attention.",
            r"final_layer_norm\.": "final_layer_norm.",
            r"fc1\.": "feed_forward.intermediate_dense.",
            r"fc2\.": "feed_forward.output_dense.",
        }
        return {
            **{layer + theirs: rf"hubert.encoder.layers.\1.{ours}" for theirs, ours in parts.items()},
            r"^(?:model\.)?(?:encoder\.)?(conv1|conv2)\.": r"hubert.feature_projection.\1.",
            r"^(?:model\.)?(?:encoder\.)?embed_positions\.": "hubert.encoder.pos_conv_embed.",
            r"^(?:model\.)?(?:encoder\.)?layer_norm\.": "hubert.encoder.layer_norm.",
        }

    def furnish(self, hubert: Any) -> None:
        """See the base class."""
        config = hubert.config
        hubert.feature_extractor = LogMel(config.conv_dim[0])
        hubert.feature_projection = Convolutions(config)
        hubert.encoder.pos_conv_embed = Positions(config)
        for layer in hubert.encoder.layers:
            layer.attention.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def first_convolution(self, hubert: Any) -> nn.Conv1d:
        """See the base class."""
        convolution: nn.Conv1d = hubert.feature_projection.conv1
        return convolution

    def front_end_parameters(self, hubert: Any) -> list[nn.Parameter]:
        """See the base class: the convolutions, although they come behind what the front-end cache keeps."""
        return list(hubert.feature_projection.parameters())

    def project(self, hubert: Any, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class."""
        counts, places = mask.sum(-1), hubert.config.max_source_positions
        if not torch.compiler.is_compiling() and int(counts.max()) > places:
            seconds = int(counts.max()) * 2 * HOP / SAMPLING_RATE
            raise ValueError(
                f"a clip of {seconds:g} s is too long: Whisper has positions for {places * 2 * HOP / SAMPLING_RATE:g} "
                "s; cut it, or score it by windows"
            )
        with_silence = (counts + _SILENCE).clamp(max=places)
        hidden = hubert.feature_projection(features, counts, with_silence)
        return hidden, length_mask(with_silence, hidden.shape[1])

    def longest_samples(self, config: Any) -> int:
        """See the base class."""
        return int(config.max_source_positions) * 2 * HOP
