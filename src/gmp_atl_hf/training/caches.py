"""What a trainer reads in place of waveforms: what the frozen parts of its model made of them before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from transformers import Trainer

from ..batching.feature_cache import FrontEndCache
from ..errors import RequestError
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from .arguments import GMPATLTrainingArguments
from .checks import is_sharded
from .top_layers import states_below, warn_not_kept

FRONT_END_FOLDER = "_front-end"
"""Folder of the front-end cache inside an output folder; the underscore keeps it off the Hub."""


def find_cache(
    trainer: Trainer,
    model: GMPATLPreTrainedModel,
    wanted: bool | str | os.PathLike[str],
    own_collator: bool,
    keeps_states: bool,
) -> FrontEndCache | None:
    """The cache of what is frozen as it is now; None where the front end is trained, or the waveform is needed.

    Args:
        trainer: Has the settings, the processes and the feature extractor.
        model: What it trains, taken out of wrappers.
        wanted: Its `front_end_cache`.
        own_collator: Whether batches are made by somebody else's collator, which may want the waveform.
        keeps_states: Whether a training goes on, below whose trained layers nothing changes.
    """
    args, feature_extractor = cast(GMPATLTrainingArguments, trainer.args), trainer.processing_class
    reasons = {
        "the front end is trained": any(each.requires_grad for each in model.hubert.feature_extractor.parameters()),
        "a collator of your own may want the waveform": own_collator,
        "tensors are cut up among processes": is_sharded(trainer),
        "augment makes another waveform every time": args.augment != "none",
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if reason is not None and keeps_states:
        warn_not_kept(args, reason)
    if wanted is False or reason is not None:
        return None
    if keeps_states and (states := states_below(model, args, feature_extractor)) is not None:
        return states
    folder = Path(args.output_dir or ".", FRONT_END_FOLDER) if wanted is True else Path(wanted)
    if os.path.lexists(folder) and not folder.is_dir():
        raise RequestError(
            f"front_end_cache is {os.fspath(folder)!r}, which is no folder",
            "a folder, or the name of one that can be made",
            "front_end_cache=True keeps it in output_dir, False does without",
        )
    return FrontEndCache(folder, model, feature_extractor)
