"""Loading a fine-tuned emotion model, or saying what it is instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig

from ..checkpoints import quiet_transformers
from ..errors import RequestError
from ..modeling.configuration_gmp_atl import GMPATLConfig, find_checkpoint
from ..modeling.modeling_gmp_atl import HubertForGMPATL


def load_emotion_model(checkpoint: str) -> HubertForGMPATL:
    """Load a fine-tuned emotion model in float32.

    Args:
        checkpoint: Folder or Hub id.

    Returns:
        The model; nothing in it is newly initialised.

    Raises:
        RequestError: There is no such model, it is of another kind, or weights are missing.
    """
    expected = "a fine-tuned GMP-ATL model: its folder or its id on the Hub (which needs a network once)"
    fix = "a run leaves one in runs/<name>/model"
    if not Path(checkpoint).is_dir() and (checkpoint.count("/") > 1 or checkpoint.startswith((".", "/", "~"))):
        raise RequestError(f"there is no folder {checkpoint}", expected, fix)
    try:
        with quiet_transformers():
            checkpoint = find_checkpoint(checkpoint)
            raw = PreTrainedConfig.get_config_dict(checkpoint)[0]
            if not raw:
                raise RequestError(f"{checkpoint} is no model: it has no config.json", expected, fix)
            kind, architectures = raw.get("model_type"), raw.get("architectures") or []
            if kind != GMPATLConfig.model_type or HubertForGMPATL.__name__ not in architectures:
                what = f"a {kind!r} model" + (f" ({', '.join(architectures)})" if architectures else "")
                raise RequestError(f"{checkpoint} is {what}, without emotions to predict", expected, fix)
            loaded: Any = HubertForGMPATL.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
            model: HubertForGMPATL = loaded[0]
            missing_keys = sorted(loaded[1]["missing_keys"])
    except RequestError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RequestError(f"the model {checkpoint} cannot be loaded: {reason}", expected, fix) from error
    if missing_keys:
        raise RequestError(
            f"the model {checkpoint} lacks weights: {', '.join(missing_keys[:5])}", "a complete model", "copy it again"
        )
    return model
