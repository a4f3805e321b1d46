"""The losses of the method as per-clip sums, so that any grouping of clips adds up to the same number.

Each function returns, for each clip, the *sum* of its losses and the *count* that the sum is to be divided by. Who
knows all clips of an optimiser step (the trainer) divides the total by the total count; that is why neither gradient
accumulation nor the number of processes changes a loss. All arithmetic is in float32, whatever the model runs in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""Label of whatever does not count: padding, a missing gender, a frame without label."""


class PartSums(NamedTuple):
    """One part of a loss, clip by clip; each field is (batch,) float32.

    Attributes:
        sums: Sum of the clip's losses.
        counts: What the sum is to be divided by, once added up over the clips that belong together.
        correct: Items (the clip, or its frames) whose largest logit is the label.
    """

    sums: Tensor
    counts: Tensor
    correct: Tensor


def cross_entropy_sums(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> PartSums:
    """Cross-entropy of each clip, weighted by class; a clip's count is its class weight, 0 when ignored.

    Ignored clips stay in the graph with weight zero: several processes must agree on which parameters have gradients.

    Args:
        logits: (batch, classes), any float dtype.
        labels: (batch,) int64, -100 where missing.
        class_weights: (classes,) float32, or None for equal weights.
    """
    valid = labels != IGNORED
    # Only -100 is ignored: any other label out of range, such as the -1 of unlabelled `datasets` rows, must fail.
    targets = labels.masked_fill(~valid, 0)
    losses = functional.cross_entropy(logits.float(), targets, reduction="none")
    weights = valid.float() if class_weights is None else class_weights.float()[targets] * valid
    return PartSums(losses * weights, weights, (logits.argmax(-1) == labels).float())


def count_labels(labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Sum of the class weights of labels that count: (batch,) int64 → scalar float32."""
    valid = labels != IGNORED
    return (
        valid.float().sum()
        if class_weights is None
        else (class_weights.float()[labels.masked_fill(~valid, 0)] * valid).sum()
    )


def am_softmax_sums(
    cosines: Tensor, labels: Tensor, scale: float, margin: float, class_weights: Tensor | None = None
) -> PartSums:
    """Additive-margin softmax of each clip: cross-entropy over `s·(cos θ - m·[class is the target])`.

    Source: Wang et al. 2018, "Additive Margin Softmax for Face Verification" (arXiv 1801.05599). That GMP-ATL
    fine-tunes with it is stated by the paper, s and m are not. With m = 0 this is a scaled cosine softmax. Correct
    clips are counted without the margin.

    Args:
        cosines: (batch, classes) in -1 to 1.
        labels: (batch,) int64, -100 where missing.
        scale: s, above 0.
        margin: m, 0 to 1.
        class_weights: (classes,) float32, or None for equal weights.
    """
    targets = functional.one_hot(labels.masked_fill(labels == IGNORED, 0), cosines.shape[-1])
    part = cross_entropy_sums(scale * (cosines.float() - margin * targets), labels, class_weights)
    return part._replace(correct=(cosines.argmax(-1) == labels).float())


def frame_cross_entropy_sums(logits: Tensor, labels: Tensor, clips: Tensor, num_clips: int) -> PartSums:
    """Cross-entropy of the chosen frames, added up for each clip, whose count is its number of chosen frames.

    Args:
        logits: (chosen frames, clusters), any float dtype.
        labels: (chosen frames,) int64 cluster of each frame, none ignored.
        clips: (chosen frames,) int64 row that each frame belongs to.
        num_clips: Rows in the batch.
    """
    logits = logits.float()
    losses = functional.cross_entropy(logits, labels, reduction="none")
    correct = (logits.argmax(-1) == labels).float()
    empty = torch.zeros(num_clips, dtype=torch.float32, device=logits.device)
    return PartSums(
        empty.index_add(0, clips, losses),
        empty.index_add(0, clips, torch.ones_like(losses)),
        empty.index_add(0, clips, correct),
    )


def stack_parts(parts: Sequence[PartSums]) -> PartSums:
    """Parts side by side: each field is (batch, parts) float32."""
    return PartSums(*(torch.stack(values, dim=1) for values in zip(*parts, strict=True)))


def combine_parts(sums: Tensor, counts: Tensor, weights: Tensor, denominators: Tensor | None = None) -> Tensor:
    """One loss from the parts: Σ over parts of weight · (sum of the clips / denominator); scalar float32.

    A part that nothing counts for is 0, not 0/0.

    Args:
        sums: (batch, parts) float32.
        counts: (batch, parts) float32, this batch's own counts.
        weights: (parts,) float32.
        denominators: (parts,) float32 counts of the whole optimiser step; None takes this batch's own.
    """
    totals = counts.sum(0) if denominators is None else denominators
    scale = torch.where(totals > 0, weights / totals.clamp(min=torch.finfo(torch.float32).tiny), 0.0)
    return (sums.sum(0) * scale).sum()
