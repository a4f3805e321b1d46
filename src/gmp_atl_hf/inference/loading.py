"""Loading a fine-tuned emotion model, or saying what it is instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig
from transformers.utils import is_peft_available

from ..checkpoints import Adapter, quiet_transformers
from ..errors import RequestError
from ..files import check_files
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.modeling_gmp_atl import HubertForGMPATL


def load_emotion_model(checkpoint: str) -> HubertForGMPATL:
    """Load a fine-tuned emotion model in float32; a PEFT adapter is merged into the model that it belongs to.

    Args:
        checkpoint: Folder or Hub id, of a model or an adapter.

    Returns:
        The model; nothing in it is newly initialised.

    Raises:
        RequestError: There is no such model, it is of another kind, or weights are missing.
    """
    expected = "a fine-tuned GMP-ATL model: its folder or its id on the Hub (which needs a network once)"
    fix = "a run leaves one in runs/<name>/model"
    if not Path(checkpoint).is_dir() and (checkpoint.count("/") > 1 or checkpoint.startswith((".", "/", "~"))):
        raise RequestError(f"there is no folder {checkpoint}", expected, fix)
    check_files(Path(checkpoint))
    try:
        with quiet_transformers():
            adapter = Adapter.find(checkpoint)
            if adapter is not None and adapter.config is not None:
                raw = adapter.config.to_dict()
            else:
                raw = PreTrainedConfig.get_config_dict(checkpoint if adapter is None else adapter.base)[0]
            if not raw:
                raise RequestError(f"{checkpoint} is no model: it has no config.json", expected, fix)
            kind, architectures = raw.get("model_type"), raw.get("architectures") or []
            if kind != GMPATLConfig.model_type or HubertForGMPATL.__name__ not in architectures:
                what = f"a {kind!r} model" + (f" ({', '.join(architectures)})" if architectures else "")
                raise RequestError(f"{checkpoint} is {what}, without emotions to predict", expected, fix)
            model, missing_keys = _load(checkpoint) if adapter is None else _merge(checkpoint, adapter)
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


def _load(checkpoint: str, **how: Any) -> tuple[HubertForGMPATL, list[str]]:
    """The model, and the names of the weights that it lacks."""
    loaded: Any = HubertForGMPATL.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True, **how)
    return loaded[0], sorted(loaded[1]["missing_keys"])


def _merge(checkpoint: str, adapter: Adapter) -> tuple[HubertForGMPATL, list[str]]:
    """The model that an adapter belongs to, with the adapter merged into its weights."""
    if not is_peft_available():
        raise RequestError(
            f"{checkpoint} is an adapter, and peft is not installed", "peft", 'pip install "gmp-atl-hf[peft]"'
        )
    from peft import PeftModel, load_peft_weights

    # A head for other labels comes with the adapter.
    fitting = {} if adapter.config is None else {"config": adapter.config, "ignore_mismatched_sizes": True}
    model, missing_keys = _load(adapter.base, **fitting)
    brought = {name.removeprefix("base_model.model.") for name in load_peft_weights(checkpoint, device="cpu")}
    merged: Any = PeftModel.from_pretrained(model, checkpoint).merge_and_unload()
    return merged, [name for name in missing_keys if name not in brought]
