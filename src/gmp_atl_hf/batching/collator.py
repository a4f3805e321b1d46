"""From rows of the table to a batch of model inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.audio import SAMPLING_RATE, read_clip
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.frames_gmp_atl import frame_count, hop_length
from ..modeling.losses_gmp_atl import IGNORED
from .feature_store import FeatureStore
from .masks import draw_mask, draw_span
from .sampler import ClipKey

KEPT = ("conv_features", "layer_states")
"""What rows may have in place of their waveform: frames that were computed before."""


@dataclass
class GMPATLDataCollator:
    """Pad clips to a batch and draw what training draws at random: time masks and crops.

    Everything random about a clip comes from (seed, epoch, row), so that it does not matter which batch or process the
    clip is in. Crops are given in frames, see `frame_spans` of the models.

    Args:
        feature_extractor: The checkpoint's `Wav2Vec2FeatureExtractor`; normalises each clip as the pipeline will.
        config: The model's configuration: frame arithmetic and mask settings.
        targets: Which of `labels`, `gender_labels`, `frame_labels` and `frame_states` to give.
        training: Draw masks and crops. In evaluation whole clips are used and only frame targets are masked, the
            same frames every time, and no channels; where emotions are targets as well, frame labels are left out.
        max_seconds: Longest stretch of a clip in training, seconds; None never cuts.
        seed: Seed of masks and crops.

    Example:
        >>> collator = GMPATLDataCollator(feature_extractor, model.config)  # doctest: +SKIP
        >>> batch = collator([table[0], table[1]])  # doctest: +SKIP
    """

    feature_extractor: Any
    config: GMPATLConfig
    targets: tuple[str, ...] = ("labels",)
    training: bool = True
    max_seconds: float | None = None
    seed: int = 0

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Make one batch.

        Args:
            rows: Rows of the table; `key`, and `waveform` (samples,) float32, `conv_features` (frames, channels) or
                `layer_states` (frames, hidden) with their `layer_of_states` are used where they are there.

        Returns:
            Model inputs, see the `forward` of the models for names, shapes and dtypes.

        Raises:
            ValueError: A row's frame labels do not fit its length.
        """
        keys = [row.get("key", ClipKey(index)) for index, row in enumerate(rows)]
        kept = next((name for name in KEPT if name in rows[0]), None)
        clips = [_waveform(row) if kept is None else row[kept] for row in rows]
        frames = [self._frame_count(len(clip)) if kept is None else len(clip) for clip in clips]
        generators = [np.random.default_rng([self.seed, key.epoch, key.row]) for key in keys]
        spans = [draw_span(count, self._max_frames, rng) for count, rng in zip(frames, generators, strict=True)]
        batch = self._input_values(clips, frames, spans) if kept is None else _kept_frames(kept, clips, spans)
        longest = max(stop - start for start, stop in spans)
        # Emotions are scored by whole clips without masks: an evaluation of both leaves the frame labels out.
        frame_labels = "frame_labels" in self.targets and (self.training or "labels" not in self.targets)
        if kept == "layer_states":  # what is below them has no masks, see `why_not_kept`
            batch["layer_of_states"] = rows[0]["layer_of_states"]
        elif self.training or frame_labels or "frame_states" in self.targets:
            batch["mask_time_indices"] = self._masks(spans, longest, generators)
        if self.training and self.config.masks_channels:
            batch["mask_feature_indices"] = self._channel_masks(generators)
        if "labels" in self.targets and "emotion" in rows[0]:
            batch["labels"] = self._labels(rows, keys, "emotion")
        if "gender_labels" in self.targets and "gender" in rows[0]:
            batch["gender_labels"] = self._labels(rows, keys, "gender")
        if frame_labels:
            batch["frame_labels"] = self._frame_labels(rows, keys, frames, spans, longest)
        if "frame_states" in self.targets:
            batch |= self._frame_states(rows, keys, spans, longest)
        return batch

    def _input_values(
        self, waveforms: list[np.ndarray], frames: Sequence[int], spans: Sequence[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """Whole waveforms; the model crops behind the front end."""
        extracted = self.feature_extractor(
            waveforms, sampling_rate=SAMPLING_RATE, padding=True, return_attention_mask=True, return_tensors="pt"
        )
        batch = {"input_values": extracted["input_values"], "attention_mask": extracted["attention_mask"].long()}
        if any(stop - start < count for (start, stop), count in zip(spans, frames, strict=True)):
            batch["frame_spans"] = torch.tensor(spans)
        return batch

    def _frame_count(self, samples: int) -> int:
        return frame_count(samples, self.config.conv_kernel, self.config.conv_stride)

    @property
    def _max_frames(self) -> int | None:
        if self.max_seconds is None or not self.training:
            return None
        return max(1, int(self.max_seconds * SAMPLING_RATE / hop_length(self.config.conv_stride)))

    def _masks(
        self, spans: Sequence[tuple[int, int]], longest: int, generators: Sequence[np.random.Generator]
    ) -> Tensor:
        config = self.config
        probability = config.mask_time_prob if config.apply_spec_augment else 0.0
        masks = np.zeros((len(spans), longest), dtype=bool)
        for mask, (start, stop), rng in zip(masks, spans, generators, strict=True):
            mask[: stop - start] = draw_mask(
                stop - start, probability, config.mask_time_length, config.mask_time_min_masks, rng
            )
        return torch.from_numpy(masks)

    def _channel_masks(self, generators: Sequence[np.random.Generator]) -> Tensor:
        config = self.config
        # Drawn after the frames, whose masks shall not depend on these settings.
        masks = [
            draw_mask(
                config.hidden_size,
                config.mask_feature_prob,
                config.mask_feature_length,
                config.mask_feature_min_masks,
                rng,
            )
            for rng in generators
        ]
        return torch.from_numpy(np.stack(masks))

    def _labels(self, rows: Sequence[Mapping[str, Any]], keys: Sequence[ClipKey], column: str) -> Tensor:
        values = [
            IGNORED if key.filler or row[column] is None else row[column] for row, key in zip(rows, keys, strict=True)
        ]
        return torch.tensor(values, dtype=torch.long)

    def _frame_labels(
        self,
        rows: Sequence[Mapping[str, Any]],
        keys: Sequence[ClipKey],
        frames: Sequence[int],
        spans: Sequence[tuple[int, int]],
        longest: int,
    ) -> Tensor:
        columns = list(self.config.frame_scales or {})
        labels = torch.full((len(rows), longest, len(columns)), IGNORED, dtype=torch.long)
        for index, (row, key, count, (start, stop)) in enumerate(zip(rows, keys, frames, spans, strict=True)):
            for scale, column in enumerate(columns):
                if len(row[column]) != count:
                    raise ValueError(
                        f"{row.get('id', index)} has {len(row[column])} labels in {column}, but the model makes "
                        f"{count} frames of it; attach the pseudo-labels again for this audio and this front end"
                    )
                if not key.filler:
                    labels[index, : stop - start, scale] = torch.as_tensor(row[column][start:stop])
        return labels

    def _frame_states(
        self, rows: Sequence[Mapping[str, Any]], keys: Sequence[ClipKey], spans: Sequence[tuple[int, int]], longest: int
    ) -> dict[str, Tensor]:
        """Crops of what a teacher's layers say, read from the files that the columns name."""
        scales = self.config.frame_scales or {}
        found = [[_stored(row[column], width) for column, width in scales.items()] for row in rows]
        shape = len(rows), longest, sum(scales.values())
        states = np.zeros(shape, dtype=np.result_type(*(each.dtype for layers in found for each in layers)))
        known = np.zeros(shape[:2], dtype=bool)
        for index, (layers, key, (start, stop)) in enumerate(zip(found, keys, spans, strict=True)):
            # The teacher may have a frame fewer than the model, or one more.
            count = max(min(stop, *map(len, layers)) - start, 0)
            states[index, :count] = np.concatenate([each[start : start + count] for each in layers], axis=1)
            known[index, :count] = not key.filler
        return {"frame_states": torch.from_numpy(states), "known_frames": torch.from_numpy(known)}


def _stored(path: str, width: int) -> np.ndarray:
    """(frames, width) of a file of the store, mapped into memory."""
    file = Path(path)
    states = FeatureStore(file.parents[1], width).read(file.stem)
    if states is None:
        raise RuntimeError(f"{path} is gone; start the same command again, which makes it anew")
    return states


class WithRows:
    """A collator whose batches say in `rows` (batch,) int64 which rows of the table they hold."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Make one batch."""
        return {**self.collator(rows), "rows": torch.tensor([row["key"].row for row in rows])}


def _waveform(row: Mapping[str, Any]) -> np.ndarray:
    return row["waveform"] if "waveform" in row else read_clip(row["audio"])


def _kept_frames(name: str, clips: Sequence[np.ndarray], spans: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
    """Crops of (frames, channels) arrays as they are stored, right-padded: only what is used is read."""
    lengths = np.array([stop - start for start, stop in spans])
    shape = (len(clips), int(lengths.max()), clips[0].shape[1])
    features = np.zeros(shape, dtype=np.result_type(*clips))
    for row, clip, (start, stop) in zip(features, clips, spans, strict=True):
        row[: stop - start] = clip[start:stop]
    mask = np.arange(shape[1]) < lengths[:, None]
    return {name: torch.from_numpy(features), "frame_mask": torch.from_numpy(mask)}
