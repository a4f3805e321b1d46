"""Loading a fine-tuned emotion model, or saying what it is instead."""

from __future__ import annotations

from ..checkpoints import load_weights, read_config
from ..errors import RequestError
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.modeling_gmp_atl import HubertForGMPATL


def load_emotion_model(checkpoint: str) -> HubertForGMPATL:
    """Load a fine-tuned emotion model in float32.

    Args:
        checkpoint: Folder or Hub id.

    Returns:
        The model; nothing in it is newly initialised.

    Raises:
        RequestError: There is no such model, it is of another kind, or its files are damaged or incomplete.
    """
    expected = "a fine-tuned GMP-ATL model: its folder or its id on the Hub (which needs a network once)"
    fix = "a run leaves one in runs/<name>/model"
    config = read_config(checkpoint, "the model", expected, fix)
    architectures = config.architectures or []
    if not isinstance(config, GMPATLConfig) or HubertForGMPATL.__name__ not in architectures:
        what = f"a {config.model_type!r} model" + (f" ({', '.join(architectures)})" if architectures else "")
        raise RequestError(f"{checkpoint} is {what}, no fine-tuned emotion classifier", expected, fix)
    return load_weights(HubertForGMPATL, checkpoint, config, whole=True)
