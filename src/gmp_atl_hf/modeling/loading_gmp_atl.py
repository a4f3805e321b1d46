"""Which checkpoint a name means, and what a training that begins from it is set to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

SHIPPED: dict[str, str] = {}
"""Name → folder of the encoders that come with the package, which fills this in; empty where only this code travels."""


def shipped_folder(name: str | os.PathLike[str]) -> str:
    """Folder of an encoder that comes with the package; any other name, and a folder that is there, stays as it is."""
    name = os.fspath(name)
    return name if os.access(f"{name}/config.json", os.F_OK) else SHIPPED.get(name, name)


def find_checkpoint(name: str | os.PathLike[str]) -> str:
    """Folder or Hub id of a checkpoint.

    Args:
        name: A folder, a Hub id, or an encoder that comes with the package; a folder goes before an encoder.

    Returns:
        The folder, or the Hub id.

    Raises:
        OSError: A name without an owner that is neither a folder nor an encoder that comes with the package.
    """
    found = shipped_folder(name)
    if SHIPPED and not (os.access(found, os.F_OK) or "/" in found or os.sep in found):
        raise OSError(
            f"{found!r} is neither a folder nor an encoder that comes with the package ({', '.join(sorted(SHIPPED))}); "
            f"an id on the Hub has an owner, as in owner/{found}"
        )
    return found


SPEC_AUGMENT: Mapping[str, Any] = {"mask_time_prob": 0.05, "mask_time_length": 10, "mask_time_min_masks": 0}
"""Time masks where emotions are learnt: light SpecAugment. Our choice (P-TAPT and FLEA have 0.05 to 0.08)."""


class BeginsAnywhere:
    """`from_pretrained` of models that begin their training from any HuBERT and from one another."""

    method_defaults: Mapping[str, Any] = SPEC_AUGMENT
    """Configuration fields that the method sets where a training of this class begins."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *model_args: Any, config: Any = None, **kwargs: Any
    ) -> Any:
        """Load a checkpoint, or begin a training of this class from a plain HuBERT or another of our models.

        A training that begins has float32 parameters and the masks of the method, `method_defaults`, whatever the
        checkpoint was trained with; a checkpoint of this class keeps its own. What is given goes before both.

        Args:
            pretrained_model_name_or_path: Folder, Hub id, or an encoder that comes with the package (`"mini"`).
            model_args: As transformers has them.
            config: A configuration that is taken as it is.
            kwargs: Configuration fields, and transformers' own arguments.

        Returns:
            The model.

        Raises:
            OSError: There is no such checkpoint.

        Example:
            >>> student = HubertForGMPATLFrameClassification.from_pretrained(  # doctest: +SKIP
            ...     "mini", frame_scales=kmeans.frame_scales
            ... )
        """
        name = pretrained_model_name_or_path
        if name is not None:
            name = find_checkpoint(name)
            if config is None:
                stored, _ = cls.config_class.get_config_dict(name, **kwargs)  # type: ignore[attr-defined]
                if cls.__name__ not in (stored.get("architectures") or ()):
                    kwargs = {"dtype": torch.float32, **cls.method_defaults, **kwargs}
        return super().from_pretrained(name, *model_args, config=config, **kwargs)  # type: ignore[misc]
