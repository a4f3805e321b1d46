"""What a fold's model says of its test clips once it knows some others of the same speaker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..evaluation.adaptation import CLIPS, DRAWS, KINDS, draw_clips, name_of
from ..inference.speakers import statistics_of
from ..modeling.modeling_gmp_atl import HubertForGMPATL
from ..protocols.speakers import is_unknown


def adapted_rows(
    model: HubertForGMPATL, pooled: Tensor, rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Score each test clip with statistics of clips drawn from the others of its speaker, see `evaluation.adaptation`.

    Nothing passes the encoder again. A clip of nobody who is known, or of a speaker who has said nothing else, is
    scored by the usual statistics.

    Args:
        model: The model, in eval mode.
        pooled: (clips, size) float32, what its heads read of the clips, on its device.
        rows: `id`, `speaker` and `emotion` of each clip.
        names: The emotions, in the order of the logits.

    Returns:
        In the order of `rows`, `id` and for each kind of draw and number of clips the emotion said in each draw.
    """
    said = {kind: {name_of(n): np.zeros((DRAWS, len(rows)), np.int64) for n in CLIPS} for kind in KINDS}
    of_speaker: dict[str, list[int]] = defaultdict(list)
    for place in sorted(range(len(rows)), key=lambda place: str(rows[place]["id"])):
        of_speaker[rows[place]["speaker"]].append(place)
    for speaker, places in of_speaker.items():
        vectors = pooled[places]
        if is_unknown(speaker):  # a corpus without names may have thousands of them, so nothing is drawn
            plain = _say(model, vectors, None)
            for every in (every for by_clips in said.values() for every in by_clips.values()):
                every[:, places] = plain
            continue
        emotions = [rows[place]["emotion"] for place in places]
        for kind in KINDS:
            for draw in range(DRAWS):
                for some, others, draws in draw_clips(speaker, emotions, kind, draw):
                    for clips, chosen in draws.items():
                        statistics = statistics_of(model, vectors[others], torch.from_numpy(chosen))
                        guesses = _say(model, vectors[some], statistics)
                        said[kind][clips][draw, np.asarray(places)[some]] = guesses
    return [
        {
            "id": row["id"],
            **{
                kind: {clips: [names[index] for index in every[:, place]] for clips, every in by_clips.items()}
                for kind, by_clips in said.items()
            },
        }
        for place, row in enumerate(rows)
    ]


@torch.inference_mode()
def _say(model: HubertForGMPATL, vectors: Tensor, statistics: Tensor | None) -> np.ndarray:
    logits: Tensor = model.score(vectors, speaker_statistics=statistics)[0]["logits"]
    return logits.argmax(-1).cpu().numpy()
