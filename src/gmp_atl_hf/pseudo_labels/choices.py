"""What may be chosen of frame labels, by name. Nothing of weight is imported, so that recipes are read quickly."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Normalize: TypeAlias = Literal["none", "speaker", "gender"]
NORMALIZATIONS: tuple[Normalize, ...] = get_args(Normalize)
"""By whose statistics frames are centred and scaled before they are clustered."""

Per: TypeAlias = Literal["none", "emotion", "gender"]
PER: tuple[Per, ...] = get_args(Per)
"""Whose frames are clustered by themselves."""

Positions: TypeAlias = Literal["auto", "keep", "remove"]
POSITIONS: tuple[Positions, ...] = get_args(Positions)
"""What becomes of the mean state of each place in a clip before frames are clustered."""
