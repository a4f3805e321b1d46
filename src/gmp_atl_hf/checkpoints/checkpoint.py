"""Loading and saving the checkpoints that pass from step to step."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import nn
from transformers import (
    HubertConfig,
    HubertModel,
    PreTrainedConfig,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
    set_seed,
)
from transformers.utils import cached_file

from ..data.audio import SAMPLING_RATE
from ..errors import RequestError
from ..files import check_files, hash_file, read_json
from ..modeling.configuration_gmp_atl import LATER_FIELDS, GMPATLConfig, find_checkpoint, shipped_folder
from ..modeling.encoding_gmp_atl import GMPATLModel
from ..modeling.families_gmp_atl import FAMILIES, HUBERT, family_of
from ..modeling.heads_gmp_atl import Standardization
from ..modeling.modeling_gmp_atl import GMPATLEmotionModel, GMPATLPreTrainedModel, HubertForGMPATL
from ..protocols.speakers import UNKNOWN
from ..ranges import refuse_absurd_numbers
from .adapters import Adapter, merge_adapter, note_other_trainer, put_back
from .loading_errors import explained, quiet_transformers
from .surplus import WEIGHT_FILES, refuse_surplus

Model = TypeVar("Model", bound=GMPATLPreTrainedModel)

CONFIG_CLASSES: Mapping[str, type[PreTrainedConfig]] = {
    **dict.fromkeys(FAMILIES, GMPATLConfig),
    HUBERT: HubertConfig,
    GMPATLConfig.model_type: GMPATLConfig,
}
"""`model_type` → the class that reads it; encoders that are not HuBERT's become ours as they are read."""

_BACKBONE = (
    f"a speech encoder ({', '.join(FAMILIES)}): a folder with config.json and weights, or its id on the Hub (which "
    "needs a network once)"
)
_BACKBONE_FIX = (
    "backbone: facebook/hubert-base-ls960, a folder, or a mapping of HubertConfig fields to start from scratch"
)
_COPY = "copy the checkpoint again, or write it anew with save_pretrained()"


def locate(checkpoint: str | Path) -> str:
    """Give the folder of an encoder that comes with the package; any other name stays as it is."""
    return shipped_folder(checkpoint)


def describe_backbone(backbone: str | Mapping[str, Any]) -> dict[str, Any]:
    """Say what a backbone is, for keys and reports, and refuse one that does not exist.

    Args:
        backbone: Hub id, local folder, or `HubertConfig` fields to start from scratch.

    Returns:
        JSON types: `config` or `scratch`, the configuration, and what the weights are identified by.

    Raises:
        RequestError: There is no such checkpoint, its family is not supported, or the fields make no HuBERT.
    """
    if not isinstance(backbone, str):
        return {"scratch": _plain(scratch_config(backbone))}
    config = read_config(backbone)
    folder = Path(locate(backbone))
    if folder.is_dir():
        check_files(folder)
        # Tried before a corpus is read, not after; the heads are thrown away.
        load_weights(HubertForGMPATL, backbone, GMPATLConfig.from_pretrained(folder))
    extractor = load_feature_extractor(backbone)
    preparation = {"sampling_rate": extractor.sampling_rate, "do_normalize": extractor.do_normalize}
    return {**identify_weights(backbone, config), "config": _plain(config), "feature_extractor": preparation}


def identify_weights(checkpoint: str, config: Any) -> dict[str, Any]:
    """What a checkpoint's weights are known by, JSON types: their hash in a folder, whose name means nothing."""
    place = Path(locate(checkpoint))
    if place.is_dir():
        return {"weights": hash_weights(_weight_file(place))}
    return {"hub_id": checkpoint, "revision": getattr(config, "_commit_hash", None)}


def _weight_file(folder: Path) -> Path:
    """The weights of a folder, or the list of the files that hold them; a `RequestError` where there are none."""
    found = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if found is None:
        raise RequestError(f"the folder {folder} holds no weights", " or ".join(WEIGHT_FILES), _COPY)
    return found


def refuse_missing_folder(checkpoint: str, place: Path, expected: str, fix: str) -> None:
    """Refuse, by a `RequestError`, what can only be a folder and is none: no id of the Hub looks so."""
    if not place.is_dir() and (checkpoint.count("/") > 1 or checkpoint.startswith((".", "/", "~"))):
        raise RequestError(f"there is no folder {checkpoint}", expected, fix)


def read_config(
    checkpoint: str, called: str = "the backbone", expected: str = _BACKBONE, fix: str = _BACKBONE_FIX
) -> PreTrainedConfig:
    """Read a checkpoint's configuration, HuBERT's own or ours; `called`, `expected` and `fix` are for its messages.

    Raises:
        RequestError: There is no such checkpoint, it is of another kind, or its configuration makes no encoder.
    """
    with explained(f"{called} {checkpoint} cannot be read", expected, fix):
        place = Path(find_checkpoint(checkpoint))
        if place.is_file():
            raise RequestError(f"{called} {checkpoint} is a file", expected, f"give its folder, {place.parent}")
        refuse_missing_folder(checkpoint, place, expected, fix)
        if (adapter := Adapter.find(str(place) if place.is_dir() else checkpoint)) is not None:
            if adapter.config is not None:
                return adapter.config
            base = adapter.find_base(checkpoint)
            return note_other_trainer(read_config(base, called, expected, put_back(checkpoint, base)))
        if place.is_dir() and not (place / "config.json").is_file():
            inside = place / "model"
            fix = f"give its model, {inside}" if (inside / "config.json").is_file() else fix
            raise RequestError(f"{called} {checkpoint} is no model: it has no config.json", expected, fix)
    named = f"config.json of {called} {checkpoint}" if place.is_dir() else f"{called} {checkpoint}"
    with explained(f"{named} cannot be read", expected, fix):
        check_files(place, "config.json")
        raw = PreTrainedConfig.get_config_dict(locate(checkpoint))[0]
        config_class = CONFIG_CLASSES.get(str(raw.get("model_type")))
        if config_class is None:
            raise RequestError(f"{called} {checkpoint} is a {raw.get('model_type')!r} model", expected, fix)
        if raw.get("quantization_config") is not None:
            raise RequestError(f"{called} {checkpoint} is quantized", "weights as trained", "give the model itself")
        config = config_class.from_pretrained(locate(checkpoint))
        _refuse_no_encoder(config, named)
        return config


def seen_speakers(checkpoint: str | Path) -> list[str]:
    """Say whose recordings a checkpoint has seen, by what its configuration says.

    Returns:
        Speakers (`<corpus>/<speaker>`), sorted; none for a plain encoder that does not say, whose training corpora are
        nobody's test here. A model of ours that does not say gives `["unknown"]`, and so does a Whisper: nobody knows
        whom it was trained on.

    Raises:
        RequestError: There is no such checkpoint.
    """
    config = read_config(str(checkpoint))
    # A plain HuBERT says it too, where `gmp-atl pretrain` has made it.
    said = {"model_type": config.model_type, "seen_speakers": getattr(config, "seen_speakers", None)}
    return speakers_seen_by({"config": said})


def speakers_seen_by(backbone: Mapping[str, Any]) -> list[str]:
    """The same as `seen_speakers`, from what `describe_backbone` gave."""
    config = backbone.get("config", {})
    if config.get("seen_speakers") is not None:
        return sorted(config["seen_speakers"])
    kind = config.get("model_type")
    unknown = kind == GMPATLConfig.model_type or (kind in FAMILIES and family_of(kind).heard_anybody)
    return [UNKNOWN] if unknown else []


def scratch_config(fields: Mapping[str, Any]) -> HubertConfig:
    """Make the configuration of a backbone that starts from scratch.

    Raises:
        RequestError: The fields make no HuBERT.
    """
    fix = "see the recipe `demo`"
    with explained("backbone: the fields make no HuBERT", "HubertConfig fields that fit together", fix):
        if (kind := fields.get("model_type", HUBERT)) != HUBERT:
            raise RequestError(f"`backbone` has `model_type` {kind!r}", "HubertConfig fields, or a checkpoint", fix)
        config = HubertConfig(**fields)
        _refuse_no_encoder(config, "`backbone`")
        return config


def _refuse_no_encoder(config: Any, what: str) -> None:
    """Refuse a configuration that makes no encoder which we can train or use."""
    fields = _plain(config)
    refuse_absurd_numbers(fields, what)
    ours = GMPATLConfig(
        **{name: value for name, value in fields.items() if name not in ("model_type", "architectures")}
    )
    with torch.device("meta"):  # shapes only, no memory and no time
        GMPATLModel(ours)


def save_scratch_backbone(fields: Mapping[str, Any], seed: int, folder: Path) -> None:
    """Write a randomly initialised backbone, from which every step starts."""
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
    whole: bool = False,
) -> Model:
    """Load a checkpoint into a model class; what the checkpoint lacks is initialised from the seed.

    Args:
        model_class: One of the three model classes.
        checkpoint: Folder or Hub id of a HuBERT or of any of our models.
        seed: Seed of new heads.
        fields: `GMPATLConfig` fields to set.
        config_from: Folder or Hub id whose configuration is the base; the checkpoint's own by default. A step starts
            from the backbone's, so that no stage inherits the masks or dropout of the one before.
        whole: Whether heads, too, must be the checkpoint's own, as for a test.

    Returns:
        The model in float32, whatever precision the checkpoint is stored in.

    Raises:
        RequestError: A field does not fit the model, or the checkpoint lacks a part of the encoder.
    """
    for place in {locate(checkpoint), locate(config_from or checkpoint)}:
        check_files(Path(place))
    set_seed(seed)
    named = f"model fields {json.dumps(dict(fields), default=str)}" if fields else "config.json"
    expected = "GMPATLConfig fields that fit together"
    with explained(f"{named} do not fit {checkpoint}", expected, "look at `model` in the recipe and in its stages"):
        config = GMPATLConfig.from_pretrained(locate(config_from or checkpoint), **dict(fields or {}))
    return load_weights(model_class, checkpoint, config, whole)


def load_weights(model_class: type[Model], checkpoint: str | Path, config: GMPATLConfig, whole: bool = False) -> Model:
    """Load a checkpoint's weights into a model of a configuration, in float32.

    Args:
        model_class: One of the three model classes.
        checkpoint: Folder or Hub id.
        config: The configuration.
        whole: Whether heads, too, must be the checkpoint's own, and of a model of ours all of it must have a place;
            otherwise heads that it lacks are begun anew, and so is one for other emotions, or for the same in another
            order.

    Raises:
        RequestError: The weights cannot be read, are no numbers, or do not fit the configuration.
    """
    place = Path(locate(checkpoint))
    what = str(_weight_file(place)) if place.is_dir() else f"the weights of {checkpoint}"
    with explained(f"{what} cannot be loaded", "weights that belong to config.json", _COPY):
        loaded: Any = model_class.from_pretrained(
            place if place.is_dir() else checkpoint,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    model: Model = loaded[0]
    loading: Mapping[str, Any] = loaded[1]
    # A head for other emotions is begun anew; an encoder that only half fits would be a silent catastrophe.
    mismatched = (key if isinstance(key, str) else key[0] for key in loading["mismatched_keys"])
    new = {*mismatched, *loading["missing_keys"]}
    unfit = sorted(
        key
        for key in new
        if (whole or ("hubert." in key and not key.endswith("layer_weights"))) and "masked_spec_embed" not in key
    )
    if unfit:
        raise RequestError(
            f"{what} lacks or has in another shape: {', '.join(unfit[:5])}",
            f"a complete {'model' if whole else f'{config.encoder_type} encoder'} ({len(unfit)} tensors do not fit)",
            "check that the weights belong to config.json, and that the copy is complete",
        )
    if whole and isinstance(model, GMPATLEmotionModel):
        refuse_surplus(model, what, place if place.is_dir() else checkpoint, loading["unexpected_keys"])
    elif isinstance(model, GMPATLEmotionModel):
        _forget_other_emotions(model, str(checkpoint), new)
    no_numbers = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if no_numbers:
        raise RequestError(
            f"{what} holds weights that are no finite numbers: {', '.join(no_numbers[:5])}",
            "finite weights",
            "its training diverged, or the copy is damaged: train again with a lower learning_rate, or copy it again",
        )
    return model


def _forget_other_emotions(model: GMPATLEmotionModel, checkpoint: str, new: Collection[str]) -> None:
    """Begin anew what a checkpoint knows of emotions that are not the model's: its head may have the same shapes.

    Args:
        model: The model as loaded.
        checkpoint: Folder or Hub id that it was loaded from.
        new: Names of the tensors that were not loaded.
    """
    config = read_config(checkpoint)
    if not isinstance(config, GMPATLConfig) or config.emotions == model.config.emotions:
        return  # an encoder alone, or the same emotions
    head = model.get_submodule(model.emotion_head)
    if not all(f"{model.emotion_head}.{name}" in new for name, _ in head.named_parameters()):
        for name, parameter in list(head.named_parameters(recurse=False)):
            setattr(head, name, nn.Parameter(torch.empty_like(parameter)))  # transformers leaves what was loaded
        model._init_weights(head)
    model.config.logit_temperature = 1.0
    if isinstance(model.standardization, Standardization):
        model.standardization.forget_emotions()


def load_emotion_model(checkpoint: str) -> HubertForGMPATL:
    """Load a fine-tuned emotion model in float32; a PEFT adapter is merged into the model that it belongs to.

    Nothing in it is newly initialised.

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
        kind = config.model_type if architectures else getattr(config, "encoder_type", config.model_type)
        what = f"a {kind!r} model" + (f" ({', '.join(architectures)})" if architectures else "")
        raise RequestError(f"{checkpoint} is {what}, no fine-tuned emotion classifier", expected, fix)
    adapter = Adapter.find(checkpoint)
    if adapter is None:
        return load_weights(HubertForGMPATL, checkpoint, config, whole=True)
    return merge_adapter(checkpoint, adapter)


def load_feature_extractor(checkpoint: str | Path) -> Wav2Vec2FeatureExtractor:
    """Load a checkpoint's feature extractor, with `return_attention_mask` on.

    Base checkpoints ship it off because the stock models cannot use the mask; ours need it for exact batches.

    Args:
        checkpoint: Folder, Hub id, or an encoder that comes with the package (`"mini"`).

    Returns:
        The feature extractor; HuBERT's usual one for a folder without any, with a warning if it holds a model of ours.

    Raises:
        RequestError: There is no such checkpoint, or its feature extractor cannot be read.

    Example:
        >>> load_feature_extractor("mini").sampling_rate
        16000
    """
    name = "preprocessor_config.json"
    check_files(Path(locate(checkpoint)), name)
    what = f"{name} of {checkpoint}"
    expected = "the settings of a Wav2Vec2FeatureExtractor, Whisper's own, or no such file at all"
    fix = "write it anew with Wav2Vec2FeatureExtractor.save_pretrained()"
    with explained(f"{what} cannot be used", expected, fix):
        place = find_checkpoint(checkpoint)
        if cached_file(place, name, _raise_exceptions_for_missing_entries=False) is None:
            if (adapter := Adapter.find(place)) is not None:
                return load_feature_extractor(adapter.find_base(place))
            # A checkpoint without one: HuBERT's convention is to normalise for layer-norm models only.
            config = read_config(place)
            extractor = default_feature_extractor(config)
            if isinstance(config, GMPATLConfig) and config.architectures:
                _warn_of_a_guess(str(checkpoint), extractor)
            return extractor
        raw = Wav2Vec2FeatureExtractor.get_feature_extractor_dict(place)[0]
        if raw.get("feature_extractor_type") == WhisperFeatureExtractor.__name__:
            return _waveforms_for_whisper(raw, read_config(place), what)
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(place)
    right: Mapping[str, bool] = {
        "sampling_rate": extractor.sampling_rate == SAMPLING_RATE,
        "feature_size": extractor.feature_size == 1,
        "do_normalize": isinstance(extractor.do_normalize, bool),
        "padding_value": type(extractor.padding_value) in (int, float) and math.isfinite(extractor.padding_value),
        "padding_side": extractor.padding_side == "right",
    }
    for name in (name for name, fits in right.items() if not fits):
        found = f"{what} has {name} {getattr(extractor, name)!r}"
        raise RequestError(found, f"one channel of {SAMPLING_RATE} Hz, padded on its right", fix)
    extractor.return_attention_mask = True
    return extractor


def _warn_of_a_guess(checkpoint: str, extractor: Wav2Vec2FeatureExtractor) -> None:
    """Say of a trained model without preprocessor_config.json how its recordings are prepared."""
    how = "are normalised" if extractor.do_normalize else "are not normalised"
    warnings.warn(
        f"{checkpoint} has no preprocessor_config.json: recordings {how}, as is usual for its encoder. If it was "
        "trained otherwise, its scores mean nothing: put the file of its training there, or write this one with "
        f"gmp_atl_hf.load_feature_extractor({checkpoint!r}).save_pretrained({checkpoint!r})",
        stacklevel=3,
    )


def _waveforms_for_whisper(raw: Mapping[str, Any], config: PreTrainedConfig, what: str) -> Wav2Vec2FeatureExtractor:
    """The extractor of a Whisper encoder of ours, which takes waveforms; its spectra must be the checkpoint's."""
    from ..modeling.family_whisper_gmp_atl import EXTRACTOR  # of no use to other encoders

    needed = {**EXTRACTOR, "feature_size": getattr(config, "conv_dim", (None,))[0]}
    own = WhisperFeatureExtractor(**raw)
    for name, value in needed.items():
        if getattr(own, name) != value:
            raise RequestError(
                f"{what} has {name} {getattr(own, name)!r}", f"{name} {value!r}, as Whisper has it", _COPY
            )
    return default_feature_extractor(config)


def default_feature_extractor(config: PreTrainedConfig) -> Wav2Vec2FeatureExtractor:
    """The feature extractor that goes with an encoder's configuration."""
    normalise = getattr(config, "feat_extract_norm", "layer") == "layer"  # data2vec has nothing else, and does not say
    return Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLING_RATE, do_normalize=normalise, return_attention_mask=True, padding_value=0.0
    )


def hash_weights(path: Path) -> str:
    """Hash of a checkpoint's weights; of those in several files, that of all of them."""
    if path.suffix != ".json":
        return hash_file(path)
    with explained(f"{path} cannot be used", "the list of the files that hold the weights", _COPY):
        names = sorted(set(read_json(path)["weight_map"].values()))
    if missing := [name for name in names if not (path.parent / name).is_file()]:
        raise RequestError(
            f"the backbone folder {path.parent} lacks {', '.join(missing)}",
            f"every file that {path.name} names",
            "copy the whole checkpoint",
        )
    return hashlib.sha256("".join(hash_file(path.parent / name) for name in names).encode()).hexdigest()


def _plain(config: PreTrainedConfig) -> dict[str, Any]:
    """Configuration fields without what changes with the copy or the release that reads it."""
    fields: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    left_out = ("_name_or_path", "transformers_version")
    return {n: value for n, value in fields.items() if n not in left_out and LATER_FIELDS.get(n, ...) != value}
