"""Heads on top of the encoder: pooling over frames, cosine classifiers, frame predictors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .configuration_gmp_atl import GMPATLConfig
from .losses_gmp_atl import IGNORED, PartSums, frame_cross_entropy_sums

PRIOR_CLIPS = 4
"""Clips of a speaker that the training clips' statistics weigh as much as. Our choice."""


def _exact(hidden: Tensor) -> Tensor:
    """States in float32, or in float64 as they are: bfloat16 counts 257 frames as 256, under CPU autocast too."""
    return hidden if hidden.dtype in (torch.float32, torch.float64) else hidden.float()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the valid frames: (batch, frames, channels) and (batch, frames) bool → (batch, channels), float32."""
    values = _exact(values)
    weights = mask[:, :, None].to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1).clamp(min=1)


class MeanPooling(nn.Module):
    """Mean over the valid frames; the default."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.output_size = hidden_size

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(batch, frames, hidden) and (batch, frames) bool → (batch, hidden), float32."""
        return masked_mean(hidden, mask)


class AttentionPooling(nn.Module):
    """Weighted mean with softmax weights from one learned query over tanh of the frames, valid frames only."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.output_size = hidden_size
        self.query = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(batch, frames, hidden) and (batch, frames) bool → (batch, hidden), float32."""
        scores = self.query(torch.tanh(hidden)).squeeze(-1).float().masked_fill(~mask, float("-inf"))
        hidden = _exact(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.einsum("bt,btc->bc", functional.softmax(scores, dim=-1).to(hidden.dtype), hidden)


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over the valid frames."""

    EPSILON = 1e-6  # keeps the root's gradient finite on clips of one frame

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.output_size = 2 * hidden_size

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(batch, frames, hidden) and (batch, frames) bool → (batch, 2·hidden), float32."""
        hidden = _exact(hidden)
        mean = masked_mean(hidden, mask)
        variance = masked_mean((hidden - mean[:, None, :]).square(), mask)
        return torch.cat([mean, (variance + self.EPSILON).sqrt()], dim=-1)


POOLING_CLASSES: dict[str, type[MeanPooling] | type[AttentionPooling] | type[StatisticsPooling]] = {
    "mean": MeanPooling,
    "attention": AttentionPooling,
    "statistics": StatisticsPooling,
}


class Standardization(nn.Module):
    """Centres and scales vectors by mean and deviation over the training clips: buffers, which no gradient changes.

    The statistics of one speaker may take their place. Who has said nothing but angry sentences has another mean than
    who has said everything, and the same voice: so what clips of each emotion look like is kept too, and what a
    speaker's clips seem to say is taken out of their statistics, see `of_speakers`.
    """

    LEAST_SHARE = 1e-4  # of the mean deviation: what changes less is rounding, which scaling would make large
    LEAST = 1e-6  # float16 still holds it
    LEAST_SPREAD = 0.1  # nothing is divided by less

    def __init__(self, size: int, num_emotions: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.emotion_means: Tensor
        self.spread: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        # Of standardised vectors. As they stand here they say that all emotions look the same.
        self.register_buffer("emotion_means", torch.zeros(num_emotions, size))
        self.register_buffer("spread", torch.ones(size))

    @torch.no_grad()
    def fit(self, vectors: Tensor) -> None:
        """Take mean and deviation of (clips, size) float vectors; a channel that hardly changes is left unscaled."""
        values = vectors.double()
        spread = values.std(0, correction=0)
        self.mean.copy_(values.mean(0))
        least = (self.LEAST_SHARE * spread.mean()).clamp(min=self.LEAST)
        self.deviation.copy_(torch.where(spread > least, spread, 1.0))

    @torch.no_grad()
    def fit_emotions(self, vectors: Tensor, labels: Tensor) -> None:
        """Take the mean of each emotion, and the deviation within emotions, of the training clips as they are now.

        Args:
            vectors: (clips, size) float.
            labels: (clips,) int64; clips below 0 have none. An emotion without clips has the mean of all.
        """
        known = labels >= 0
        values = (vectors[known].double() - self.mean) / self.deviation
        each = functional.one_hot(labels[known], len(self.emotion_means)).to(values.dtype)
        means = each.T @ values / each.sum(0).clamp(min=1)[:, None]
        self.emotion_means.copy_(means)
        self.spread.copy_((values - each @ means).square().mean(0).sqrt().clamp(min=self.LEAST_SPREAD))

    @torch.no_grad()
    def forget_emotions(self) -> None:
        """Say that all emotions look the same, as before any training."""
        self.emotion_means.zero_()
        self.spread.fill_(1.0)

    def of_speakers(self, clips: Tensor, mean: Tensor, variance: Tensor, scores: Tensor | None = None) -> Tensor:
        """Mean and deviation to standardise the clips of a speaker by, from some clips of theirs, without labels.

        With n clips they are (n·own + 4·usual) / (n + 4), mean and variance alike, the usual ones being those of the
        training clips. With `scores`, own is what remains when that is taken out by which clips of such emotions
        differ from the usual anyway: a shift is counted from the mean that training clips of these emotions have, and
        a variance in terms of theirs.

        Args:
            clips: (...) how many clips each speaker has given; 0 gives the usual statistics.
            mean: (..., size) of the clips.
            variance: (..., size) of the clips, a sum divided by n.
            scores: (..., emotions) mean over the clips of what the model says of each, probabilities; None to take
                everything for the voice.

        Returns:
            (..., 2, size) float32, for `speaker_statistics` of the models.
        """
        usual, deviation = self.mean.double(), self.deviation.double()
        shift, scale = (mean.double() - usual) / deviation, variance.double() / deviation.square()
        if scores is not None:
            shares, emotions = scores.double(), self.emotion_means.double()
            expected = shares @ emotions
            # Of a mixture: within the emotions, and between their means.
            between = shares @ emotions.square() - expected.square()
            shift, scale = shift - expected, scale / (between + self.spread.double().square())
        own = (clips.double() / (clips + PRIOR_CLIPS))[..., None]
        deviations = deviation * (own * scale + 1 - own).sqrt()
        return torch.stack([usual + own * shift * deviation, deviations], dim=-2).float()

    def forward(self, vectors: Tensor, statistics: Tensor | None = None) -> Tensor:
        """(..., size) → (..., size) in the dtype of `vectors`; by (2, size) or (..., 2, size) statistics if given."""
        mean, deviation = (self.mean, self.deviation) if statistics is None else statistics.unbind(-2)
        standardized: Tensor = (vectors.float() - mean) / deviation
        return standardized.to(vectors.dtype)


class NoStandardization(nn.Module):
    """Leaves vectors as they are; a `ValueError` where statistics are given, which would change nothing."""

    def __init__(self, size: int, num_emotions: int) -> None:
        super().__init__()

    def forward(self, vectors: Tensor, statistics: Tensor | None = None) -> Tensor:
        """The vectors."""
        if statistics is not None:
            raise ValueError("speaker_statistics are given, and the model has standardize=False: it would not use them")
        return vectors


class CosineClassifier(nn.Module):
    """Cosine between a vector and one learned direction per class, the head that AM-Softmax trains.

    Computed in float32 even under autocast: a scale of 30 makes bfloat16 rounding of a cosine visible.
    """

    def __init__(self, input_size: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, input_size))

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., input) → (..., classes) cosines in -1 to 1, float32."""
        with torch.autocast(vectors.device.type, enabled=False):
            return functional.linear(
                functional.normalize(vectors.float(), dim=-1), functional.normalize(self.weight.float(), dim=-1)
            )


class CosineFrameHead(nn.Module):
    """HuBERT's frame predictor: project to 256, cosine to one embedding per cluster, divide by 0.1.

    Source: Hsu et al. 2021, "HuBERT" (arXiv 2106.07447), section 2.2.
    """

    PROJECTION_SIZE = 256
    TEMPERATURE = 0.1

    def __init__(self, hidden_size: int, num_clusters: int) -> None:
        super().__init__()
        self.projection = nn.Linear(hidden_size, self.PROJECTION_SIZE)
        self.embeddings = CosineClassifier(self.PROJECTION_SIZE, num_clusters)

    def forward(self, frames: Tensor) -> Tensor:
        """(..., hidden) → (..., clusters) logits, float32."""
        return self.embeddings(self.projection(frames)) / self.TEMPERATURE


FRAME_HEAD_CLASSES: dict[str, type[nn.Linear] | type[CosineFrameHead]] = {
    "linear": nn.Linear,
    "cosine": CosineFrameHead,
}


class FrameHeads(nn.ModuleDict):
    """A head for each scale of frame labels, by the name of its column, and what they count and lose.

    Args:
        config: Scales, kind of head, and whether `masked` frames count or all.
    """

    def __init__(self, config: GMPATLConfig) -> None:
        head, scales = FRAME_HEAD_CLASSES[config.frame_head], config.frame_scales or {}
        super().__init__({name: head(config.hidden_size, clusters) for name, clusters in scales.items()})
        self.config = config

    def count(self, frame_labels: Tensor, mask_time_indices: Tensor | None) -> Tensor:
        """(batch, frames, scales) int64 labels and (batch, frames) bool masks → (scales,) float32 frames that count."""
        return self._counted(frame_labels, mask_time_indices).sum((0, 1)).float()

    def sums(
        self, hidden: Tensor, frame_mask: Tensor, frame_labels: Tensor, mask_time_indices: Tensor | None
    ) -> list[PartSums]:
        """One part of the loss for each scale.

        Args:
            hidden: (batch, frames, hidden) states.
            frame_mask: (batch, frames) bool, True on valid frames.
            frame_labels: (batch, frames, scales) int64 clusters, -100 where unknown or padding.
            mask_time_indices: (batch, frames) bool, True on masked frames; without it none is masked.

        Raises:
            ValueError: Labels and model disagree about scales or frames.
        """
        expected = (*frame_mask.shape, len(self))
        if tuple(frame_labels.shape) != expected:
            raise ValueError(
                f"frame_labels have shape {tuple(frame_labels.shape)}, but the model makes {expected} "
                f"(batch, frames, scales) of these clips; scales are {list(self)}"
            )
        counted = self._counted(frame_labels, mask_time_indices) & frame_mask[:, :, None]
        parts = []
        for scale, head in enumerate(self.values()):
            chosen = counted[:, :, scale]
            targets, clips = frame_labels[:, :, scale][chosen], chosen.nonzero()[:, 0]
            parts.append(frame_cross_entropy_sums(head(hidden[chosen]), targets, clips, len(chosen)))
        return parts

    def _counted(self, frame_labels: Tensor, mask_time_indices: Tensor | None) -> Tensor:
        known = frame_labels != IGNORED
        if self.config.frame_targets == "all":
            return known
        return known & mask_time_indices[:, :, None] if mask_time_indices is not None else torch.zeros_like(known)
