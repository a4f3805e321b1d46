"""Adapters of peft: read, and merged into the models that they belong to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import cached_file, find_adapter_config_file, is_peft_available

from ..errors import RequestError
from ..files import HASHES_FILE, check_files
from ..modeling.adapters_gmp_atl import ADAPTER_MODEL_CONFIG, changed_weights
from ..modeling.configuration_gmp_atl import UNKNOWN_SPEAKER, GMPATLConfig, shipped_folder
from ..modeling.modeling_gmp_atl import HubertForGMPATL
from .loading_errors import explained

_WHOLE = "a whole adapter: adapter_config.json and adapter_model.safetensors"
_COPY = "copy the adapter again, or write it anew with save_pretrained()"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Adapter:
    """What is known of a PEFT adapter."""

    base: str
    """Folder or Hub id of the model that it belongs to."""

    config: GMPATLConfig | None
    """That of the model it was trained in; None where another trainer than ours has saved it."""

    @classmethod
    def find(cls, checkpoint: str) -> Adapter | None:
        """Read the adapter of a folder or Hub id; None for a whole model, or none at all.

        Raises:
            RequestError: It does not say which model it belongs to, or its files are damaged.
        """
        folder = Path(checkpoint)
        if (folder / "config.json").is_file():
            return None
        described = find_adapter_config_file(checkpoint)
        if described is None:
            return None
        check_files(folder, Path(described).name, ADAPTER_MODEL_CONFIG)
        with explained(f"{described} cannot be read", _WHOLE, _COPY):
            settings = json.loads(Path(described).read_text("utf-8"))
            if not isinstance(settings, dict):
                raise ValueError("it holds no settings")
            base = settings.get("base_model_name_or_path")
        with explained(f"{ADAPTER_MODEL_CONFIG} of the adapter {checkpoint} cannot be read", _WHOLE, _COPY):
            kept = cached_file(checkpoint, ADAPTER_MODEL_CONFIG, _raise_exceptions_for_missing_entries=False)
            config = None if kept is None else GMPATLConfig.from_dict(json.loads(Path(kept).read_text("utf-8")))
        if not base or str(base) == checkpoint:
            raise RequestError(
                f"the adapter {checkpoint} does not say which model it belongs to (it says {base!r})",
                "base_model_name_or_path in adapter_config.json",
                "write the folder or Hub id of that model there, or merge_and_unload() before saving",
            )
        return cls(str(base), config)

    def find_base(self, checkpoint: str) -> str:
        """Give the model that the adapter belongs to, refused in the adapter's words where it is there no more.

        Args:
            checkpoint: The adapter's folder or Hub id.

        Returns:
            Folder or Hub id.

        Raises:
            RequestError: It was a folder, which is not there or holds no model.
        """
        base = shipped_folder(self.base)
        if Path(base).is_dir():
            missing = None if (Path(base) / "config.json").is_file() else "holds no model: it has no config.json"
        else:
            missing = None if _is_hub_id(base) else "is not there"
        if missing is not None:
            raise RequestError(
                f"the adapter {checkpoint} belongs to the model in {base}, which {missing}",
                "the model that the adapter was trained on, where its adapter_config.json says",
                put_back(checkpoint, base),
            )
        return base


def put_back(checkpoint: str, base: str) -> str:
    """Say what to do where the model that an adapter belongs to is not there, or cannot be fetched."""
    hashes = Path(checkpoint) / HASHES_FILE
    also = f", and delete {hashes}, which knows the old one" if hashes.is_file() else ""
    if _is_hub_id(base) and not Path(base).is_dir():
        there = "connect to the Hub, from which it is fetched once and then kept; or write the folder of a copy"
    else:
        there = "put the model back there, or a link to it; or write its new place"
    return (
        f"{there} as base_model_name_or_path in adapter_config.json{also}; "
        f"gmp-atl merge {checkpoint} FOLDER then makes a model that needs no other"
    )


def _is_hub_id(base: str) -> bool:
    """Whether what is no folder here has the form of a Hub id."""
    return base.count("/") == 1 and not base.startswith((".", "/", "~"))


def merge_adapter(checkpoint: str, adapter: Adapter) -> HubertForGMPATL:
    """Merge an adapter into the model that it belongs to; its weights may bring the head.

    Raises:
        RequestError: peft is not installed, weights are missing, or the model is not the one of the training.
    """
    if not is_peft_available():
        raise RequestError(
            f"{checkpoint} is an adapter, and peft is not installed", "peft", 'pip install "gmp-atl-hf[peft]"'
        )
    from peft import PeftModel, load_peft_weights

    base = adapter.find_base(checkpoint)
    if Path(checkpoint).is_dir() and not any((Path(checkpoint) / name).is_file() for name in _WEIGHTS):
        raise RequestError(f"the adapter {checkpoint} has no weights", " or ".join(_WEIGHTS), _COPY)
    with explained(f"the weights of the adapter {checkpoint} cannot be read", _WHOLE, _COPY):
        brought = {name.removeprefix("base_model.model.") for name in load_peft_weights(checkpoint, device="cpu")}
    fitting = {} if adapter.config is None else {"config": adapter.config, "ignore_mismatched_sizes": True}
    model_of = f"the model {base}, to which the adapter {checkpoint} belongs,"
    with explained(f"{model_of} cannot be loaded", "the model that it was trained on", put_back(checkpoint, base)):
        loaded: Any = HubertForGMPATL.from_pretrained(base, dtype=torch.float32, output_loading_info=True, **fitting)
    unfit = {*loaded[1]["missing_keys"], *(key for key, *_ in loaded[1]["mismatched_keys"])} - brought
    # What stands for masked frames is for training only, and not every checkpoint has it.
    if missing := sorted(name for name in unfit if not name.endswith("masked_spec_embed")):
        raise RequestError(
            f"the model {checkpoint} lacks weights, or {base} has others: {', '.join(missing[:5])}",
            "a complete adapter and the model that it was trained on",
            "copy it again, or give it the base model of that time",
        )
    if changed := changed_weights(loaded[0], checkpoint):
        raise RequestError(
            f"the adapter {checkpoint} was trained on other weights than {base} has now: "
            f"{len(changed)} tensors, {', '.join(changed[:3])}",
            "the model that it was trained on, whose weights it has noted",
            "bring that model back, or train the adapter again",
        )
    with explained(f"the adapter {checkpoint} does not fit {base}", f"{_WHOLE}, and the model of its training", _COPY):
        merged: HubertForGMPATL = PeftModel.from_pretrained(loaded[0], checkpoint).merge_and_unload()
    if adapter.config is None:
        note_other_trainer(merged.config)
    return merged


def note_other_trainer(config: PreTrainedConfig) -> PreTrainedConfig:
    """Note in a base's configuration that an adapter of another trainer is on it: nobody knows whom that has seen."""
    if isinstance(config, GMPATLConfig):
        config.note_unknown_training()
    else:  # a plain encoder's says nothing of speakers, unless it was pre-trained here
        config.seen_speakers = [*(getattr(config, "seen_speakers", None) or ()), UNKNOWN_SPEAKER]
    return config
