"""The families of speech encoders that can be trained, by the `model_type` of their checkpoints.

To add one, write a file like `family_wavlm_gmp_atl.py` and name it here: nothing else knows the families.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from .family_gmp_atl import Family

HUBERT = "hubert"
"""The default, which configurations do not mention."""


def _data2vec() -> Family:
    from .family_data2vec_gmp_atl import Data2VecAudio

    return Data2VecAudio("data2vec-audio", "data2vec_audio", "data2vec-audio")


def _wavlm() -> Family:
    from .family_wavlm_gmp_atl import WavLM

    return WavLM("wavlm", "wavlm", "WavLM")


def _whisper() -> Family:
    from .family_whisper_gmp_atl import Whisper

    return Whisper("whisper", "model", "Whisper")


FAMILIES: Mapping[str, Callable[[], Family]] = {
    HUBERT: lambda: Family(HUBERT, "hubert", "HuBERT"),
    "wav2vec2": lambda: Family("wav2vec2", "wav2vec2", "wav2vec 2.0"),
    "unispeech-sat": lambda: Family("unispeech-sat", "unispeech_sat", "UniSpeech-SAT"),
    "data2vec-audio": _data2vec,
    "wavlm": _wavlm,
    "whisper": _whisper,
}
"""`model_type` → the family; imported when it is asked for, since most programs need one of them."""


@cache
def family_of(encoder_type: str) -> Family:
    """The family of an `encoder_type`, which is the `model_type` of its stock checkpoints.

    Raises:
        ValueError: There is no such family; the message names those that there are.
    """
    if encoder_type not in FAMILIES:
        raise ValueError(f"{encoder_type!r} encoders are not supported; those that are: {', '.join(FAMILIES)}")
    return FAMILIES[encoder_type]()


def longest_samples(config: Any) -> int | None:
    """Samples of the longest clip that a model of a configuration can encode at once; None where there is no limit."""
    return family_of(getattr(config, "encoder_type", HUBERT)).longest_samples(config)
