"""A batch of different lengths as microbatches of similar length, so that little is computed for padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.frames_gmp_atl import frame_count

MICROBATCH_COST = 40
"""What a further forward and backward pass costs, in frames of one clip: the passes themselves and one more addition to
every gradient. With `mini` on one core a pass took about 15 ms, a frame 0.45 ms; wider encoders were not measured."""


def group_by_length(lengths: Sequence[int], microbatch_cost: int = MICROBATCH_COST) -> list[list[int]]:
    """Divide clips, by their frames, into the microbatches that cost least when each is padded to its longest clip.

    Example:
        >>> group_by_length([300, 10, 290, 12], microbatch_cost=40)  # indices of clips, the shortest first
        [[1, 3], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    # least[n]: cost of the n shortest clips, and where their last microbatch starts.
    least: list[tuple[float, int]] = [(0.0, 0)]
    for stop in range(1, len(order) + 1):
        longest = lengths[order[stop - 1]]
        least.append(
            min((least[start][0] + (stop - start) * longest + microbatch_cost, start) for start in range(stop))
        )
    microbatches: list[list[int]] = []
    stop = len(order)
    while stop:
        start = least[stop][1]
        microbatches.insert(0, order[start:stop])
        stop = start
    return microbatches


def split_by_length(batch: Mapping[str, Tensor], config: GMPATLConfig) -> list[dict[str, Tensor]]:
    """Split a batch of the collator into microbatches of similar length, each padded to its own longest clip.

    Losses are sums over clips divided by counts of the whole optimiser step, so the gradients of the microbatches add
    up to that of the batch.
    """
    if "attention_mask" in batch:
        samples = batch["attention_mask"].sum(-1)
        frames = frame_count(samples, config.conv_kernel, config.conv_stride)
        ends = {"input_values": samples, "attention_mask": samples}
    else:
        frames = batch["frame_mask"].sum(-1)
        ends = {"conv_features": frames, "layer_states": frames, "frame_mask": frames}
    spans = batch.get("frame_spans")
    kept = frames if spans is None else spans[:, 1] - spans[:, 0]
    ends |= dict.fromkeys(("mask_time_indices", "frame_labels", "frame_states", "known_frames"), kept)
    microbatches = []
    # By whole lengths: the front end, which is most of the work, sees what is cropped after it.
    for rows in group_by_length(frames.tolist()):
        microbatch = {name: values[rows] if isinstance(values, Tensor) else values for name, values in batch.items()}
        for name in ends.keys() & microbatch.keys():
            microbatch[name] = microbatch[name][:, : int(ends[name][rows].max())]
        microbatches.append(microbatch)
    return microbatches
