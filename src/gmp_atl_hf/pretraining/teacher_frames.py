"""Frame arithmetic of teachers: which samples a frame stands for in each family of speech encoders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.families_gmp_atl import FAMILIES as TRAINED
from ..modeling.frames_gmp_atl import hop_length, receptive_field

CONVOLUTIONAL = (*(family for family in TRAINED if family != "whisper"), GMPATLConfig.model_type)
"""Those that take waveforms and have the frames of their `conv_kernel` and `conv_stride`."""

FAMILIES = ("whisper", *CONVOLUTIONAL)
"""`model_type` of the speech encoders that can teach."""


@dataclass(frozen=True)
class FrameGrid:
    """Where an encoder's frames lie: frame `i` stands for samples `i · hop` to `i · hop + field`, all present.

    Example:
        >>> FrameGrid(320, 400).count(16_000)  # HuBERT
        49
        >>> FrameGrid(320, 320).count(16_000)  # Whisper
        50
    """

    hop: int
    field: int

    def count(self, num_samples: int) -> int:
        """Frames of a clip of `num_samples` samples."""
        return max((num_samples - self.field) // self.hop + 1, 0)

    def chunks(self, num_samples: int, most_frames: int) -> Iterator[tuple[int, int]]:
        """Cut a clip so that the frames of its chunks, one after the other, are those of the clip.

        Gives first sample and sample after the last of each chunk; chunks are about equally long.
        """
        frames = self.count(num_samples)
        number = max(-(-frames // most_frames), 1)
        ends = [frames * index // number for index in range(number + 1)]
        for start, stop in zip(ends, ends[1:], strict=False):
            # The last chunk includes what is left after its last whole frame.
            last = num_samples if stop == frames else (stop - 1) * self.hop + self.field
            yield start * self.hop, last


def teacher_grid(config: Any, mel_hop: int | None = None) -> FrameGrid:
    """The frames of a speech encoder of one of `FAMILIES`; Whisper's `mel_hop` are samples between two spectra."""
    if config.model_type in CONVOLUTIONAL:
        return FrameGrid(hop_length(config.conv_stride), receptive_field(config.conv_kernel, config.conv_stride))
    assert mel_hop is not None
    # Spectra are centred and padded by reflection, and the second convolution keeps every other one: each whole hop
    # of a clip has its frame.
    return FrameGrid(2 * mel_hop, 2 * mel_hop)
