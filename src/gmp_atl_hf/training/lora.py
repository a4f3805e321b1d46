"""LoRA by peft: the encoder stays as it is but for two small matrices beside some layers; the heads train in full."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.utils import is_peft_available

from ..errors import RequestError, did_you_mean, known_names
from ..modeling.adapters_gmp_atl import ADAPTER_MODEL_CONFIG, note_base
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from .lora_settings import LoraSettings

_ADAPTER = "lora_"
"""Begins the names of an adapter's own modules."""

_FRONT_END = r"feature_extractor\."
_SAVED = ".modules_to_save."
_PREFIX = "base_model.model."
"""What peft puts before the names of the model's own tensors."""


@dataclass(frozen=True)
class TrainedParameters:
    """How many parameters a training changes.

    Args:
        adapters: Those of adapters.
        heads: Those of heads, to which the weights of a sum over layers belong, and of the vector for masked frames.
        all: All of the model, adapters included.
    """

    adapters: int
    heads: int
    all: int

    @property
    def share(self) -> float:
        """Of all parameters, those that are trained."""
        return (self.adapters + self.heads) / self.all

    @classmethod
    def from_json(cls, counts: Mapping[str, Any]) -> TrainedParameters:
        """The same from what `to_json` gave."""
        return cls(counts["adapters"], counts["heads"], counts["all"])

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {**asdict(self), "share": round(self.share, 6)}

    def __str__(self) -> str:
        return (
            f"LoRA trains {100 * self.share:.2f} % of {self.all:,} parameters: {self.adapters:,} of adapters and "
            f"{self.heads:,} of heads"
        )


def refuse_missing_peft() -> None:
    """Refuse, by a `RequestError`, adapters where peft is not installed."""
    if not is_peft_available():
        raise RequestError("lora is set, and peft is not installed", "peft", 'pip install "gmp-atl-hf[peft]"')


def target_layers(encoder: nn.Module, wanted: tuple[str, ...]) -> list[str]:
    """Names of the encoder's linear layers that end as is wanted, which are those that get an adapter.

    Raises:
        RequestError: No layer ends so; those that there are are named. The front end, which stays as it is, has none.
    """
    known = [
        name
        for name, layer in encoder.named_modules()
        if isinstance(layer, nn.Linear) and not re.match(_FRONT_END, name)
    ]
    chosen = []
    for ending in wanted:
        if not (found := [name for name in known if f".{name}".endswith(f".{ending}")]):
            endings = list(dict.fromkeys(name.rpartition(".")[2] for name in known))
            raise RequestError(
                f"target_modules has {ending!r}, and no linear layer of the encoder is called so",
                known_names(endings),
                did_you_mean(ending, endings),
            )
        chosen += found
    return list(dict.fromkeys(chosen))


def add_lora(model: GMPATLPreTrainedModel, settings: LoraSettings | None = None) -> Any:
    """Freeze a model's encoder and put adapters beside its layers; the heads train in full and belong to the adapter.

    The encoder gives the same states as before until an adapter is trained. Their first weights come from torch's
    random numbers.

    Args:
        model: The model to train, changed in place.
        settings: Rank, layers and so on; None for `LoraSettings()`.

    Returns:
        The `peft.PeftModel` to give to `GMPATLTrainer`; `save_model` of the trainer saves the adapter, and
        `merge_and_unload()` of this model gives a plain one.

    Raises:
        RequestError: The settings are something else, peft is not installed, or a layer to adapt does not exist.

    Example:
        >>> trainer = GMPATLTrainer(add_lora(model), args, table, processing_class=extractor)  # doctest: +SKIP
    """
    settings = LoraSettings() if settings is None else settings
    if not isinstance(settings, LoraSettings):
        raise RequestError(
            f"the settings of the adapters are a {type(settings).__name__}",
            "LoraSettings, or None for the usual ones",
            "LoraSettings(r=4), or LoraSettings(**settings) of a mapping",
        )
    refuse_missing_peft()
    from peft import LoraConfig, get_peft_model

    target_layers(model.hubert, settings.target_modules)
    endings = "|".join(map(re.escape, settings.target_modules))
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=rf"hubert\.(?!{_FRONT_END})(.*\.)?({endings})",  # a head's layer may have such a name, too
        modules_to_save=list(_heads(model)),
    )
    with warnings.catch_warnings():
        # peft asks a model under a name that transformers will give up.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        adapted = get_peft_model(model, config)
    # These are no modules, so peft cannot train them, see `complete_adapter`: the weights of a sum, and what stands in
    # place of masked frames, which not every checkpoint has.
    for parameter in (model.hubert.layer_weights, getattr(model.hubert, "masked_spec_embed", None)):
        if parameter is not None:
            parameter.requires_grad_(True)
    return adapted


def _heads(model: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of the modules outside the encoder that hold anything, parameters or statistics."""
    for name, module in model.named_children():
        if isinstance(module, nn.ModuleDict | nn.ModuleList):
            yield from _heads(module, f"{prefix}{name}.")  # peft saves none of these as a whole
        elif name != "hubert" and module.state_dict():
            yield prefix + name


def count_trained(adapted: nn.Module) -> TrainedParameters:
    """Count the parameters of a model in an adapter; the heads that peft has put aside are no part of it."""
    # The original of a head lies beside the one that is trained.
    own = {name: each for name, each in adapted.named_parameters() if ".original_module." not in name}
    trained = {name: each.numel() for name, each in own.items() if each.requires_grad}
    adapters = sum(count for name, count in trained.items() if _ADAPTER in name)
    return TrainedParameters(adapters, sum(trained.values()) - adapters, sum(each.numel() for each in own.values()))


def complete_adapter(adapted: nn.Module, model: GMPATLPreTrainedModel, folder: Path, sharded: bool = False) -> None:
    """Put beside a saved adapter what peft leaves out.

    That is the model's configuration, what is trained outside modules, and what the weights were that it belongs to.

    Args:
        adapted: The model in its adapter.
        model: The same, taken out of it.
        folder: Where the adapter was saved.
        sharded: Whether no process has the whole weights, so that none can say what they were.
    """
    # An adapter has no configuration of the model, so no labels and no speakers.
    model.config.architectures = [type(model).__name__]
    model.config.to_json_file(folder / ADAPTER_MODEL_CONFIG)
    loose = {name: each.detach().cpu().contiguous() for name, each in _loose_parameters(adapted)}
    weights = folder / "adapter_model.safetensors"
    if loose and weights.is_file():
        save_file({**load_file(weights), **loose}, weights, metadata={"format": "pt"})  # peft's loading takes them
    if not sharded:
        parts = (_SAVED, ".original_module.", getattr(adapted.base_model, "prefix", _ADAPTER))
        note_base(model, folder, lambda name: any(part in name for part in parts))


def _loose_parameters(adapted: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and _ADAPTER not in name and _SAVED not in name and name.startswith(_PREFIX):
            yield name, parameter


def save_adapter(adapted: Any, model: GMPATLPreTrainedModel, folder: Path, base: str) -> None:
    """Save an adapter for others to load.

    Args:
        adapted: The model in its adapter.
        model: The same, taken out of it.
        folder: Where to.
        base: Folder or Hub id of the weights that the training began with, without which the adapter says nothing.
    """
    adapted.active_peft_config.base_model_name_or_path = base
    # There are no embeddings of words: peft would look on the Hub whether they have been resized.
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a card with places to fill in
    complete_adapter(adapted, model, folder)


class RefuseIdleAdapters(TrainerCallback):
    """Stop a training before its first update if an adapter has no part in the loss.

    An encoder may use the weights of a layer without calling it, as WavLM's attention does, and then passes the
    adapter by; nothing but the heads would be trained.
    """

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Look whether all adapters have a gradient.

        Raises:
            RequestError: Names the layers whose adapters have none.
        """
        if state.global_step:
            return
        called: dict[str, list[bool]] = {}
        for name, each in model.named_parameters():
            if "lora_B" in name and each.requires_grad:
                ending = name.partition(f".{_ADAPTER}")[0].rpartition(".")[2]
                called.setdefault(ending, []).append(each.grad is not None)
        # Of layers that are dropped at random, not all have a part in every update.
        enough = any if getattr(model.config, "layerdrop", 0) else all
        if endings := [ending for ending, layers in called.items() if not enough(layers)]:
            raise RequestError(
                f"target_modules has {', '.join(endings)}, and this encoder passes their adapters by: no gradient",
                "layers that the encoder calls",
                "target_modules: [intermediate_dense, output_dense]",
            )
