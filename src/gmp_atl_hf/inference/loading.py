"""Loading a fine-tuned emotion model, or saying what it is instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers.utils import is_peft_available

from ..checkpoints import Adapter, explained, load_weights, read_config
from ..errors import RequestError
from ..files import check_files
from ..modeling.configuration_gmp_atl import GMPATLConfig, shipped_folder
from ..modeling.modeling_gmp_atl import HubertForGMPATL


def load_emotion_model(checkpoint: str) -> HubertForGMPATL:
    """Load a fine-tuned emotion model in float32; a PEFT adapter is merged into the model that it belongs to.

    Raises:
        RequestError: There is no such model, it is of another kind, its files are damaged, or weights are missing.
    """
    expected = "a fine-tuned GMP-ATL model: its folder or its id on the Hub (which needs a network once)"
    fix = "a run leaves one in runs/<name>/model"
    checkpoint = shipped_folder(checkpoint)
    check_files(Path(checkpoint))
    config = read_config(checkpoint, "the model", expected, fix)
    architectures = config.architectures or []
    if not isinstance(config, GMPATLConfig) or HubertForGMPATL.__name__ not in architectures:
        what = f"a {config.model_type!r} model" + (f" ({', '.join(architectures)})" if architectures else "")
        raise RequestError(f"{checkpoint} is {what}, no fine-tuned emotion classifier", expected, fix)
    adapter = Adapter.find(checkpoint)
    if adapter is None:
        return load_weights(HubertForGMPATL, checkpoint, config, whole=True)
    with explained(f"the adapter {checkpoint} cannot be loaded", expected, fix):
        return _merge(checkpoint, adapter)


def _merge(checkpoint: str, adapter: Adapter) -> HubertForGMPATL:
    """Merge an adapter into the model that it belongs to; its weights may bring the head."""
    if not is_peft_available():
        raise RequestError(
            f"{checkpoint} is an adapter, and peft is not installed", "peft", 'pip install "gmp-atl-hf[peft]"'
        )
    from peft import PeftModel, load_peft_weights

    fitting = {} if adapter.config is None else {"config": adapter.config, "ignore_mismatched_sizes": True}
    loaded: Any = HubertForGMPATL.from_pretrained(
        adapter.base, dtype=torch.float32, output_loading_info=True, **fitting
    )
    brought = {name.removeprefix("base_model.model.") for name in load_peft_weights(checkpoint, device="cpu")}
    if missing := sorted({*loaded[1]["missing_keys"]} - brought):
        raise RequestError(
            f"the model {checkpoint} lacks weights: {', '.join(missing[:5])}", "a complete model", "copy it again"
        )
    merged: HubertForGMPATL = PeftModel.from_pretrained(loaded[0], checkpoint).merge_and_unload()
    return merged
