"""Loading and saving the checkpoints that pass from step to step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from transformers import HubertConfig, HubertModel, PreTrainedConfig, Wav2Vec2FeatureExtractor, set_seed
from transformers.utils import logging

from .data.audio import SAMPLING_RATE
from .errors import RequestError
from .modeling.configuration_gmp_atl import GMPATLConfig, find_checkpoint, shipped_folder
from .modeling.modeling_gmp_atl import GMPATLPreTrainedModel

Model = TypeVar("Model", bound=GMPATLPreTrainedModel)

CONFIG_CLASSES: Mapping[str, type[PreTrainedConfig]] = {each.model_type: each for each in (HubertConfig, GMPATLConfig)}
SHIPPED_BACKBONES = Path(__file__).resolve().parent / "backbones"
"""Encoders that come with the package, by the names of their folders."""

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide the loading report: heads that a step adds on purpose are no news. Errors are still shown."""
    before = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def locate(checkpoint: str | Path) -> str:
    """Give the folder of an encoder that comes with the package; any other name is a folder or Hub id already.

    A checkpoint in a folder of the same name goes before it.
    """
    return shipped_folder(checkpoint)


def describe_backbone(backbone: str | Mapping[str, Any]) -> dict[str, Any]:
    """Say what a backbone is, for keys and reports, and refuse one that does not exist.

    Args:
        backbone: Hub id, local folder, or `HubertConfig` fields to start from scratch.

    Returns:
        JSON types: `config` or `scratch`, the configuration, and what the weights are identified by.

    Raises:
        RequestError: There is no such checkpoint, it is not a HuBERT, or the fields make no configuration.
    """
    if not isinstance(backbone, str):
        return {"scratch": _plain(scratch_config(backbone))}
    config = read_config(backbone)
    folder = Path(locate(backbone))
    if folder.is_dir():
        weights = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
        if weights is None:
            raise RequestError(
                f"the backbone folder {backbone} holds no weights",
                " or ".join(WEIGHT_FILES),
                "save_pretrained() writes them",
            )
        # The name of a folder means nothing: its weights do.
        identity: dict[str, Any] = {"weights": hash_weights(weights)}
    else:
        identity = {"hub_id": backbone, "revision": getattr(config, "_commit_hash", None)}
    extractor = load_feature_extractor(backbone)
    heard = {"sampling_rate": extractor.sampling_rate, "do_normalize": extractor.do_normalize}
    return {**identity, "config": _plain(config), "feature_extractor": heard}


def read_config(backbone: str) -> PreTrainedConfig:
    """Read a checkpoint's configuration as HuBERT's or ours.

    Raises:
        RequestError: There is no such checkpoint, or it is of another kind.
    """
    try:
        with quiet_transformers():
            folder = find_checkpoint(backbone)
            kind = PreTrainedConfig.get_config_dict(folder)[0].get("model_type")
            config_class = CONFIG_CLASSES.get(str(kind))
            if config_class is None:
                raise RequestError(
                    f"the backbone {backbone} is a {kind!r} model", "a HuBERT", "backbone: facebook/hubert-base-ls960"
                )
            return config_class.from_pretrained(folder)
    except RequestError:
        raise
    except Exception as error:  # of transformers, huggingface_hub and its strict dataclass: one class for each fault
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RequestError(
            f"the backbone {backbone} cannot be read: {reason}",
            "a folder with config.json and weights, or the id of a HuBERT on the Hub (which needs a network once)",
            "backbone: facebook/hubert-base-ls960, a folder, or a mapping of HubertConfig fields to start from scratch",
        ) from error


def scratch_config(fields: Mapping[str, Any]) -> HubertConfig:
    """Make the configuration of a backbone that starts from scratch.

    Raises:
        RequestError: The fields make no HuBERT.
    """
    try:
        config = HubertConfig(**fields)
        with torch.device("meta"):  # shapes only, no memory and no time
            HubertModel(config)
        return config
    except Exception as error:  # the strict dataclass raises classes of its own for each kind of fault
        raise RequestError(
            f"backbone: the fields make no HuBERT: {error}",
            "HubertConfig fields that fit together",
            "see the recipe `demo`",
        ) from error


def save_scratch_backbone(fields: Mapping[str, Any], seed: int, folder: Path) -> None:
    """Write a randomly initialised backbone, so that every step starts from the same weights."""
    if not PartialState().is_main_process:
        return
    config = scratch_config(fields)
    set_seed(seed)
    with quiet_transformers():
        HubertModel(config).save_pretrained(folder)
    default_feature_extractor(config).save_pretrained(folder)


def load_model(
    model_class: type[Model],
    checkpoint: str | Path,
    seed: int,
    fields: Mapping[str, Any] | None = None,
    config_from: str | Path | None = None,
) -> Model:
    """Load a checkpoint into a model class; what the checkpoint lacks is initialised from the seed.

    Args:
        model_class: One of the three model classes.
        checkpoint: Folder or Hub id of a HuBERT or of any of our models.
        seed: Seed of new heads.
        fields: `GMPATLConfig` fields to set.
        config_from: Folder or Hub id whose configuration is the base; the checkpoint's own by default. A step starts
            from the backbone's, so that no stage inherits the masks or dropout of the one before.

    Returns:
        The model in float32, whatever precision the checkpoint is stored in.

    Raises:
        RequestError: A field does not fit the model, or the checkpoint lacks a part of the encoder.
    """
    set_seed(seed)
    try:
        with quiet_transformers():
            config = GMPATLConfig.from_pretrained(locate(config_from or checkpoint), **_with_int_ids(fields or {}))
            loaded: Any = model_class.from_pretrained(
                locate(checkpoint),
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (ValueError, TypeError) as error:
        raise RequestError(
            f"model fields {json.dumps(dict(fields or {}), default=str)} do not fit {checkpoint}: {error}",
            "GMPATLConfig fields that fit together",
            "look at `model` in the recipe and in its stages",
        ) from error
    model: Model = loaded[0]
    loading: Mapping[str, Any] = loaded[1]
    # A head for other emotions is begun anew; an encoder that only half fits would be a silent catastrophe.
    mismatched = (key if isinstance(key, str) else key[0] for key in loading["mismatched_keys"])
    unfit = sorted(
        key for key in {*mismatched, *loading["missing_keys"]} if "hubert." in key and "masked_spec_embed" not in key
    )
    if unfit:
        raise RequestError(
            f"{checkpoint} lacks or has in another shape: {', '.join(unfit[:5])}",
            f"a whole HuBERT encoder ({len(unfit)} tensors do not fit)",
            "check that the checkpoint belongs to its config.json",
        )
    return model


def load_feature_extractor(checkpoint: str | Path) -> Wav2Vec2FeatureExtractor:
    """Load a checkpoint's feature extractor, with `return_attention_mask` on.

    Base checkpoints ship it off because the stock models cannot use the mask; ours need it for exact batches.

    Args:
        checkpoint: Folder, Hub id, or an encoder that comes with the package (`"mini"`).

    Returns:
        The feature extractor; HuBERT's usual one for a folder without any.

    Raises:
        RequestError: There is no such checkpoint, or its feature extractor cannot be read.

    Example:
        >>> load_feature_extractor("mini").sampling_rate
        16000
    """
    folder = Path(locate(checkpoint))
    if folder.is_dir() and not (folder / "preprocessor_config.json").is_file():
        # A checkpoint without one: HuBERT's convention is to normalise for layer-norm models only.
        return default_feature_extractor(read_config(str(checkpoint)))
    try:
        with quiet_transformers():
            extractor = Wav2Vec2FeatureExtractor.from_pretrained(find_checkpoint(checkpoint))
    except (OSError, ValueError) as error:
        raise RequestError(
            f"the feature extractor of {checkpoint} cannot be read: {str(error).splitlines()[0]}",
            "preprocessor_config.json, whole, or none at all",
            "save it again with Wav2Vec2FeatureExtractor.save_pretrained",
        ) from error
    extractor.return_attention_mask = True
    return extractor


def default_feature_extractor(config: PreTrainedConfig) -> Wav2Vec2FeatureExtractor:
    """The feature extractor that goes with a HuBERT configuration."""
    normalise = getattr(config, "feat_extract_norm", "group") == "layer"
    return Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLING_RATE, do_normalize=normalise, return_attention_mask=True, padding_value=0.0
    )


def hash_weights(path: Path) -> str:
    """Hash of a checkpoint's weights; of those in several files, that of all of them."""
    if path.suffix != ".json":
        return hash_file(path)
    names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    if missing := [name for name in names if not (path.parent / name).is_file()]:
        raise RequestError(
            f"the backbone folder {path.parent} lacks {', '.join(missing)}",
            f"every file that {path.name} names",
            "copy the whole checkpoint",
        )
    return hashlib.sha256("".join(hash_file(path.parent / name) for name in names).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _with_int_ids(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has made text of the numbers in `id2label`; the configuration wants them back."""
    names = fields.get("id2label")
    return dict(fields) if names is None else {**fields, "id2label": {int(i): name for i, name in names.items()}}


def _plain(config: PreTrainedConfig) -> dict[str, Any]:
    """Configuration fields without what changes with the copy or the release that reads it."""
    fields: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    return {name: value for name, value in fields.items() if name not in ("_name_or_path", "transformers_version")}
