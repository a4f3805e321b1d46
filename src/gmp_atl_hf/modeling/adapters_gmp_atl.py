"""What an adapter says of the model that it was trained in, and what a model takes over from it."""

from __future__ import annotations

from transformers.utils import cached_file

from .configuration_gmp_atl import GMPATLConfig

ADAPTER_MODEL_CONFIG = "gmp_atl_config.json"
"""Beside an adapter, the configuration of the model that it was trained in. Not `config.json`: transformers would look
for a whole model beside it."""

_OF_THE_HEADS = ("id2label", "pooling", "standardize", "speaker_normalization", "readout", "emotion_loss")
"""What decides which head there is, and so whether an adapter's fits."""

_OF_THE_SCORES = ("am_softmax_scale", "am_softmax_margin", "logit_temperature", "seen_speakers")


def note_adapter(config: GMPATLConfig, place: str | None) -> None:
    """Take over calibration and speakers of an adapter; where it does not say them, its training is unknown.

    Args:
        config: That of the model that loads the adapter, changed in place.
        place: The adapter's folder or Hub id.

    Raises:
        ValueError: It was trained in a model whose head is another one, which would be left untrained.
    """
    file = None
    if place is not None:
        missing = ("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors")
        file = cached_file(place, ADAPTER_MODEL_CONFIG, **dict.fromkeys(missing, False))
    if file is None:
        config.note_unknown_training()
        return
    theirs = type(config).from_json_file(file)
    for name in _OF_THE_HEADS:
        if getattr(theirs, name) != getattr(config, name):
            raise ValueError(
                f"{place} was trained in a model with {name} {getattr(theirs, name)!r}, and this one has "
                f"{getattr(config, name)!r}; load it with gmp_atl_hf.SpeechEmotionClassifier, or merge it into its "
                "model once: gmp-atl merge ADAPTER FOLDER"
            )
    for name in _OF_THE_SCORES:
        setattr(config, name, getattr(theirs, name))
