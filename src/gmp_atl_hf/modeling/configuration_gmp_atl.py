"""Configuration of the GMP-ATL models: HuBERT's own fields plus the heads and losses of the method."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import HubertConfig, PreTrainedConfig

from .families_gmp_atl import FAMILIES, HUBERT, family_of
from .family_gmp_atl import Family

READOUTS = ("last", "sum")
"""What heads may read beside a single layer."""

POOLINGS = ("mean", "attention", "statistics")
EMOTION_LOSSES = ("am-softmax", "cross-entropy")
FRAME_HEADS = ("linear", "cosine")
FRAME_TARGETS = ("masked", "all")
SPEAKER_NORMALIZATIONS = ("none", "speaker")
UNKNOWN_SPEAKER = "unknown"
"""Stands in `seen_speakers` for unnamed speakers of any corpus."""

SPEC_AUGMENT: Mapping[str, Any] = {"mask_time_prob": 0.05, "mask_time_length": 10, "mask_time_min_masks": 0}
"""Time masks where emotions are learnt: light SpecAugment. Our choice (P-TAPT and FLEA have 0.05 to 0.08)."""

LATER_FIELDS: Mapping[str, Any] = {"frame_weight": 0.0, "speaker_normalization": "none"}
"""Fields that came after the first runs, and their defaults: with these they are in no key of a run."""

SHIPPED: dict[str, str] = {}
"""Name → folder of the encoders that come with the package, which fills this in; empty where only this code travels."""


def shipped_folder(name: str | os.PathLike[str]) -> str:
    """Folder of an encoder that comes with the package; any other name, and a folder with a model, stays as it is."""
    name = os.fspath(name)
    there = any(os.access(f"{name}/{file}", os.F_OK) for file in ("config.json", "adapter_config.json"))
    return name if there else SHIPPED.get(name, name)


def find_checkpoint(name: str | os.PathLike[str]) -> str:
    """Folder or Hub id of a checkpoint; the name of an encoder that comes with the package becomes its folder.

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


@strict
class GMPATLConfig(HubertConfig):
    r"""Configuration of `HubertForGMPATL` and its two training companions.

    Every field of [`~transformers.HubertConfig`] is there too. *Stated* and *our choice* refer to arXiv 2405.02151.

    Args:
        readout (`str` or `int`, defaults to `"last"`):
            Which states the heads read: `"last"` for the encoder's end; the number of a transformer layer, 1-based or
            from the top (-1), for its output, with no layer above it in the model; `"sum"` for a sum of all layers'
            states, each under a layer norm, with learned softmax weights. Our choice; the paper does not say.
        standardize (`bool`, defaults to `False`):
            Centre and scale what the frames are pooled to, by mean and deviation over the training clips, which
            [`GMPATLTrainer`] computes before it trains. Our choice.
        speaker_normalization (`str`, defaults to `"none"`):
            `"speaker"` standardises each clip, in training, by its own training speaker; it is scored by all training
            clips unless the speaker's statistics are given (`speaker_statistics`). Needs `standardize`. Our choice.
        pooling (`str`, defaults to `"mean"`):
            How frames become one vector: `"mean"` over the valid frames, `"attention"` (one learned query) or
            `"statistics"` (mean and standard deviation). Our choice; the paper does not say.
        emotion_loss (`str`, defaults to `"am-softmax"`):
            Loss and head of the fine-tuned classifier: `"am-softmax"` (stated) or `"cross-entropy"` (ablation).
        am_softmax_scale (`float`, defaults to 30.0):
            Scale s. Not stated; 30 is the usual value of public implementations.
        am_softmax_margin (`float`, defaults to 0.2):
            Margin m, subtracted from the target's cosine in training only. Not stated; our choice.
        logit_temperature (`float`, defaults to 1.0):
            T in `logits = s·cos θ / T`, fitted on development speakers; losses always use 1.
        emotion_weight (`float`, defaults to 0.9):
            α in `α·L_emotion + (1 - α)·L_gender`. That both are trained is stated, the weight is our choice.
        frame_scales (`dict[str, int]`, defaults to `{}`):
            Pseudo-label column → number of clusters, one frame head each, in the order of `frame_labels`. Kept by
            ascending number of clusters, then name, however given: JSON would not keep another order.
        frame_head (`str`, defaults to `"linear"`):
            `"linear"` or `"cosine"` (HuBERT's projection and cosine over 0.1). Cross-entropy is stated, the head not.
        frame_targets (`str`, defaults to `"masked"`):
            Frames that count in retraining: `"masked"` only, or `"all"` (ablation). Our choice.
        frame_weight (`float`, defaults to 0.0):
            Weight of the frame labels of each scale in a recipe's fine-tuning, beside 1 for the emotion; 0 is without
            them, as in the paper.
        seen_speakers (`list[str]`, *optional*):
            Speakers (`<corpus>/<speaker>`) that training, choice of the epoch, clustering or an earlier stage has
            used; `None` where that is not recorded. `<corpus>/unknown` stands for speakers without a name, `unknown`
            for those of any corpus, which other trainers than `GMPATLTrainer` leave behind.
        layerdrop (`float`, defaults to 0.0):
            Changed default: 0.1 in `HubertConfig`. LayerDrop shifts layers and breaks several processes.
            A checkpoint's own value is replaced too, unless given explicitly.
        id2label (`dict[int, str]`, *optional*):
            Number of a logit → emotion. Numbers may come as text and in any order, as JSON leaves them; they are kept
            as whole numbers in order. Either of `id2label` and `label2id` is enough.
        label2id (`dict[str, int]`, *optional*):
            The reverse.

    Attributes:
        encoder_type (`str`): The family of the encoder, `model_type` of its stock checkpoints, from which it is taken
            over; `"hubert"` unless the configuration says otherwise. Fields of other families have their own names
            where HuBERT has none like them.

    Raises:
        ValueError: A field outside its range, an `encoder_type` that there is not, labels that are not numbered 0, 1,
            2, …, `id2label` and `label2id` that disagree, or `conv_pos_batch_norm=True` (see below).

    Example:
        >>> GMPATLConfig(num_labels=4, am_softmax_margin=0.3).am_softmax_margin
        0.3
    """

    model_type = "gmp_atl"
    # No field: configurations of HuBERT models do not mention it, and stay what they were.
    encoder_type: ClassVar[str] = HUBERT
    # Evaluated by the stock trainer, a model gives its logits alone, as `np.argmax(predictions, axis=1)` expects.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "loss_sums",
        "loss_counts",
        "correct",
        "hidden_states",
        "attentions",
    ]

    layerdrop: float | int = 0.0
    readout: str | int = "last"
    standardize: bool = False
    speaker_normalization: str = "none"
    pooling: str = "mean"
    emotion_loss: str = "am-softmax"
    am_softmax_scale: float | int = 30.0
    am_softmax_margin: float | int = 0.2
    logit_temperature: float | int = 1.0
    emotion_weight: float | int = 0.9
    frame_scales: dict[str, int] | None = None
    frame_head: str = "linear"
    frame_targets: str = "masked"
    frame_weight: float | int = 0.0
    seen_speakers: list[str] | None = None
    # Declared again because text, numpy's numbers and mixtures are welcome; see `__setattr__`.
    id2label: dict[Any, Any] | None = None
    label2id: dict[Any, Any] | None = None

    def __setattr__(self, key: str, value: Any) -> None:
        """Every way to set labels ends here: they are put in the order of their numbers."""
        if key in ("id2label", "label2id") and value is not None and not isinstance(value, Mapping):
            kinds = "numbers to emotions" if key == "id2label" else "emotions to numbers"
            raise ValueError(f"{key} is the {type(value).__name__} {value!r:.80}; expected a mapping of {kinds}")
        if key == "id2label" and value is not None:
            value, before = _numbered(key, value.items()), self.__dict__.get("id2label")
            derived = before is not None and self.__dict__.get("label2id") == _reversed(before)
            super().__setattr__(key, value)  # type: ignore[no-untyped-call]
            if derived:
                self.label2id = _reversed(value)
            return
        if key == "label2id" and value is not None:
            value = _reversed(_numbered(key, ((number, name) for name, number in value.items())))
        super().__setattr__(key, value)  # type: ignore[no-untyped-call]

    def __post_init__(self, **kwargs: Any) -> None:
        for name, default in family_of(kwargs.get("encoder_type", HUBERT)).fields.items():
            kwargs.setdefault(name, default)
        if self.id2label is None and self.label2id is not None:
            self.id2label = {number: name for name, number in self.label2id.items()}
        scales = self.frame_scales or {}
        if not isinstance(scales, dict):
            raise ValueError(f"frame_scales is {scales!r}; expected columns with their clusters: {{'gmp_k50': 50}}")
        for name, clusters in scales.items():
            if not isinstance(clusters, int) or clusters < 1:
                raise ValueError(
                    f"frame_scales has {clusters!r} clusters for {name!r}; expected a whole number above 0"
                )
        self.frame_scales = dict(sorted(scales.items(), key=lambda scale: (scale[1], scale[0])))
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        if self.label2id is None and self.id2label is not None:
            self.label2id = _reversed(self.id2label)
        # The strict dataclass would call it too, but wraps the ValueError in a class that is none.
        self.validate_gmp_atl()

    def validate_gmp_atl(self) -> None:
        """Refuse what could only fail later: on construction, on loading with other fields, and on saving."""
        for name, value, known in (
            ("pooling", self.pooling, POOLINGS),
            ("emotion_loss", self.emotion_loss, EMOTION_LOSSES),
            ("frame_head", self.frame_head, FRAME_HEADS),
            ("frame_targets", self.frame_targets, FRAME_TARGETS),
            ("speaker_normalization", self.speaker_normalization, SPEAKER_NORMALIZATIONS),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, known))}")
        ranges: dict[str, tuple[Callable[[float], bool], str]] = {
            "am_softmax_scale": (lambda value: value > 0, "a number above 0"),
            "am_softmax_margin": (lambda value: 0 <= value < 1, "0 <= m < 1"),
            "logit_temperature": (lambda value: value > 0, "a number above 0"),
            "emotion_weight": (lambda value: 0 <= value <= 1, "0 to 1"),
            "frame_weight": (lambda value: value >= 0, "0 or more"),
        }
        for name, (fits, expected) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not fits(value):
                raise ValueError(f"{name} is {value!r}; expected {expected}")
        self._validate_readout()
        if self.speaker_normalization != "none" and not self.standardize:
            found = f"speaker_normalization is {self.speaker_normalization!r} and standardize is False"
            raise ValueError(f"{found}; it needs standardize=True")
        if self.label2id != _reversed(self.id2label or {}):
            raise ValueError(f"label2id is {self.label2id}, which disagrees with id2label {self.id2label}")
        if self.conv_pos_batch_norm:
            # Batch norm before the positional convolution turns padded zeros into something else, so that a clip's
            # scores would depend on the clips beside it.
            raise ValueError("conv_pos_batch_norm=True is not supported: padding would change a clip's scores")

    def _validate_readout(self) -> None:
        """A layer that exists, or one of the two words."""
        if self.readout == "sum" and self.layerdrop > 0:
            raise ValueError(f"readout is 'sum' and layerdrop is {self.layerdrop}: a dropped layer has no state to add")
        if self.readout in READOUTS:
            return
        if not isinstance(self.readout, int) or isinstance(self.readout, bool):
            raise ValueError(f"readout is {self.readout!r}; expected 'last', 'sum' or the number of a layer")
        try:
            layer_of(self.readout, self.num_hidden_layers)
        except ValueError as error:
            raise ValueError(f"readout: {error}") from error

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a configuration; a plain HuBERT one becomes a GMP-ATL one, with LayerDrop off (see the class).

        So does that of another family of encoders.

        Raises:
            ValueError: It is that of a model which is none of ours and of none of the families.
        """
        config_dict, kwargs = super().get_config_dict(find_checkpoint(pretrained_model_name_or_path), **kwargs)
        kind = config_dict.get("model_type")
        if kind is None or kind == cls.model_type:
            return config_dict, kwargs
        try:
            family = family_of(kind)
        except ValueError as error:
            raise ValueError(f"{pretrained_model_name_or_path} is a {kind!r} model: {error}") from error
        if kind != HUBERT:
            known = {each.name for each in fields(cls)}
            config_dict = {**family.translate(config_dict, known), "encoder_type": kind}
        config_dict = {**config_dict, "model_type": cls.model_type, "layerdrop": 0.0}
        config_dict.pop("architectures", None)
        # Nobody's test speakers are in the training data of a plain encoder, unless it says so, or nobody knows that.
        config_dict.setdefault("seen_speakers", [UNKNOWN_SPEAKER] if family.heard_anybody else [])
        return config_dict, kwargs

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a configuration; fields beside the dictionary pass the same checks (`ValueError` out of range)."""
        # transformers sets them on the finished object, where they have no effect any more.
        given = {name: kwargs.pop(name) for name in GMPATLConfig.__annotations__ if name in kwargs}
        for one, other in (("id2label", "label2id"), ("label2id", "id2label")):
            if one in given and other not in given:
                config_dict = {**config_dict, other: None}  # the checkpoint's names are no answer to new ones
        loaded = super().from_dict({**config_dict, **given}, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).validate_gmp_atl()
        return loaded

    @property
    def emotions(self) -> list[str]:
        """The emotion labels, in the order of the logits."""
        return list((self.id2label or {}).values())

    @property
    def num_emotions(self) -> int:
        """Number of emotion labels."""
        return len(self.emotions)

    @property
    def masks_time(self) -> bool:
        """Whether any frame is ever masked."""
        return self.apply_spec_augment and self.mask_time_prob > 0

    @property
    def masks_channels(self) -> bool:
        """Whether any channel is ever masked in training."""
        return self.apply_spec_augment and self.mask_feature_prob > 0

    def note_unknown_training(self) -> None:
        """Note a training by another trainer: it ends the calibration, and its speakers are unknown."""
        # Only where it changes something: a compiled forward pass would be compiled again.
        if self.logit_temperature != 1.0:
            self.logit_temperature = 1.0
        if self.seen_speakers is not None and UNKNOWN_SPEAKER not in self.seen_speakers:
            self.seen_speakers = [*self.seen_speakers, UNKNOWN_SPEAKER]

    @property
    def readout_layer(self) -> int | None:
        """1-based transformer layer whose output the heads read; None where they read the end, or a sum."""
        return None if isinstance(self.readout, str) else layer_of(self.readout, self.num_hidden_layers)

    @property
    def depth(self) -> int:
        """Number of transformer layers that the model has: those above a layer that is read are left out."""
        return self.readout_layer or self.num_hidden_layers

    def resolve_layer(self, layer: int) -> int:
        """1-based transformer layer of a possibly negative one (-3 of 12 is 10); a `ValueError` if there is none."""
        resolved = layer_of(layer, self.num_hidden_layers)
        if resolved > self.depth:
            raise ValueError(f"layer {layer} is above layer {self.depth}, which is read out: it is not in the model")
        return resolved


def layer_of(layer: int, layers: int) -> int:
    """1-based layer of a possibly negative one; a `ValueError` if there is none."""
    resolved = layer if layer > 0 else layers + 1 + layer
    if layer == 0 or not 1 <= resolved <= layers:
        raise ValueError(
            f"layer {layer} does not exist: the encoder has {layers} transformer layers, "
            f"named 1 to {layers} or -1 (last) to -{layers}"
        )
    return resolved


def _numbered(field: str, labels: Iterable[tuple[Any, Any]]) -> dict[int, str]:
    """Labels by their numbers, which have to be 0, 1, 2, …, in whatever type and order they come."""
    pairs = list(labels)
    try:
        named = dict(sorted((int(str(number)), str(name)) for number, name in pairs))
    except ValueError:
        named = {}
    if list(named) != list(range(len(pairs))) or len(set(named.values())) != len(pairs):
        raise ValueError(f"{field} is {dict(pairs)}; expected a different name for each of the numbers 0, 1, 2, …")
    return named


def _reversed(names: dict[int, str]) -> dict[str, int]:
    """`label2id` of `id2label`."""
    return {name: number for number, name in names.items()}


_WHERE = ("cache_dir", "force_download", "proxies", "token", "local_files_only", "revision", "subfolder")
"""Arguments of `from_pretrained` that say where a checkpoint lies."""


def stock_family(name: str | os.PathLike[str], **kwargs: Any) -> Family | None:
    """The family of a stock checkpoint, a folder or Hub id; None for HuBERT's, for our own models and for adapters."""
    where = {option: kwargs[option] for option in _WHERE if option in kwargs}
    kind = PreTrainedConfig.get_config_dict(name, **where)[0].get("model_type")
    return family_of(kind) if kind in FAMILIES and kind != HUBERT else None


class RenamesTensors:
    """`from_pretrained` of models that take over the encoders of other families, whose tensors have other names."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint as transformers does; one that comes with the package by its name, and in float32."""
        name = pretrained_model_name_or_path
        if name is not None:
            name = find_checkpoint(name)
            if name in SHIPPED.values() and not {"dtype", "torch_dtype"} & kwargs.keys():
                kwargs = {**kwargs, "dtype": "float32"}  # they are stored in half precision to be small
        config = kwargs.get("config")
        asked = name is not None and "key_mapping" not in kwargs
        asked = asked and getattr(config, "encoder_type", None) != HUBERT  # whose tensors have their names already
        if asked and (family := stock_family(name, **kwargs)) is not None:
            kwargs = {**kwargs, "key_mapping": family.renamings()}
        return super().from_pretrained(name, *model_args, **kwargs)  # type: ignore[misc]

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Save a model as transformers does, under our own names even if it was loaded from others."""
        if self.config.encoder_type != HUBERT:  # type: ignore[attr-defined]
            kwargs.setdefault("save_original_format", False)
        return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]


class BeginsAnywhere(RenamesTensors):
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
                    precision = {} if "torch_dtype" in kwargs else {"dtype": "float32"}
                    kwargs = {**precision, **cls.method_defaults, **kwargs}
        return super().from_pretrained(name, *model_args, config=config, **kwargs)


GMPATLConfig.register_for_auto_class()  # type: ignore[no-untyped-call]
