"""Promise 1: a clip's scores and its share of the gradient never depend on the clips beside it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from gmp_atl_hf import HubertForGMPATL, HubertForGMPATLFrameClassification, HubertForGMPATLMultiTask
from gmp_atl_hf.modeling.encoding_gmp_atl import convolve
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLOutput, GMPATLPreTrainedModel
from models import EMOTIONS, MODELS, POOLINGS, SCALES, build, gradients, make_clips, pad, pad_rows

LENGTHS = (4_000, 12_000, 7_001, 400, 11_999, 9_600, 719, 12_345)
TOLERANCE = 1e-4


def scores(output: GMPATLOutput, row: int, frames: int) -> list[Tensor]:
    """Everything that the model says of one clip, without its padding."""
    found = [logits[row] for logits in (output.logits, output.gender_logits) if logits is not None]
    return found + [logits[row, :frames] for logits in output.frame_logits or ()]


def furthest(first: list[Tensor], second: list[Tensor]) -> float:
    assert first and len(first) == len(second)
    return max(float((one - other).abs().max()) for one, other in zip(first, second, strict=True))


def count_frames(model: GMPATLPreTrainedModel, samples: int) -> int:
    return frame_count(samples, model.config.conv_kernel, model.config.conv_stride)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("shape", ["base", "large"])
@pytest.mark.parametrize("model_class", MODELS)
@torch.no_grad()
def test_one_clip_alone_scores_as_in_a_batch_of_eight(
    model_class: type[GMPATLPreTrainedModel], shape: str, pooling: str
) -> None:
    model = build(model_class, shape, pooling=pooling)
    clips = make_clips(LENGTHS)
    # Padding that is not silent: nobody may look at it.
    batch = model(**pad(clips, filling=3.0))
    for row, clip in enumerate(clips):
        alone = model(clip[None])
        frames = count_frames(model, len(clip))
        assert furthest(scores(alone, 0, frames), scores(batch, row, frames)) < TOLERANCE


@pytest.mark.parametrize("shape", ["base", "large"])
@pytest.mark.parametrize("model_class", MODELS)
@torch.no_grad()
def test_convolution_features_score_as_the_waveforms_do(model_class: type[GMPATLPreTrainedModel], shape: str) -> None:
    model = build(model_class, shape, pooling="statistics")
    clips = make_clips(LENGTHS)
    features = [convolve(model.hubert, clip[None], None)[0] for clip in clips]
    frame_mask = pad_rows([torch.ones(len(rows), dtype=torch.long) for rows in features], 0)
    batch = model(conv_features=pad_rows(features, 3.0), frame_mask=frame_mask)
    for row, clip in enumerate(clips):
        frames = count_frames(model, len(clip))
        wanted = scores(model(clip[None]), 0, frames)
        assert furthest(wanted, scores(batch, row, frames)) < TOLERANCE
        assert furthest(wanted, scores(model(conv_features=features[row][None]), 0, frames)) < TOLERANCE


@pytest.mark.parametrize("shape", ["base", "large"])
@torch.no_grad()
def test_a_crop_does_not_depend_on_the_clips_beside_it(shape: str) -> None:
    model = build(HubertForGMPATL, shape)
    clips = make_clips((4_000, 12_000, 7_001))
    spans = torch.tensor([[0, 12], [10, 37], [3, 21]])
    batch = model(**pad(clips, filling=3.0), frame_spans=spans)
    whole = model(**pad(clips)).logits
    for row, clip in enumerate(clips):
        alone = model(clip[None], frame_spans=spans[row : row + 1])
        assert float((alone.logits[0] - batch.logits[row]).abs().max()) < TOLERANCE
        is_whole = float((whole[row] - batch.logits[row]).abs().max()) < TOLERANCE
        assert is_whole == (row == 0)


def make_targets(model: GMPATLPreTrainedModel, lengths: tuple[int, ...]) -> list[dict[str, Tensor]]:
    """Labels and masks of each clip, all different; the third clip has no gender and the fourth nothing masked."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for row, samples in enumerate(lengths):
        frames = count_frames(model, samples)
        clip: dict[str, Tensor] = {"mask_time_indices": torch.rand(frames, generator=generator) < 0.4}
        if row == 3:
            clip["mask_time_indices"][:] = False
        if isinstance(model, HubertForGMPATLFrameClassification):
            columns = [torch.randint(k, (frames,), generator=generator) for k in SCALES.values()]
            clip["frame_labels"] = torch.stack(columns, -1)
        else:
            clip["labels"] = torch.tensor(row % len(EMOTIONS))
        if isinstance(model, HubertForGMPATLMultiTask):
            clip["gender_labels"] = torch.tensor(-100 if row == 2 else row % 2)
        found.append(clip)
    return found


def batch_targets(clips: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The clips' targets as a batch; padding is masked, which must not matter."""
    filling = {"mask_time_indices": True, "frame_labels": -100}
    return {
        name: pad_rows([clip[name] for clip in clips], filling[name])
        if name in filling
        else torch.stack([clip[name] for clip in clips])
        for name in clips[0]
    }


@pytest.mark.parametrize("shape", ["base", "large"])
@pytest.mark.parametrize(
    ("model_class", "pooling"),
    [
        (HubertForGMPATLFrameClassification, "mean"),  # pools nothing
        *itertools.product((HubertForGMPATLMultiTask, HubertForGMPATL), POOLINGS),
    ],
)
def test_the_gradient_of_a_batch_is_the_sum_over_its_clips(
    model_class: type[GMPATLPreTrainedModel], pooling: str, shape: str
) -> None:
    model = build(model_class, shape, pooling=pooling).train()
    lengths = (4_000, 12_000, 7_001, 1_200)
    clips, wanted = make_clips(lengths), make_targets(model, lengths)
    labels = batch_targets(wanted)
    weights = {} if "labels" not in labels else {"class_weights": torch.tensor([0.5, 1.0, 2.0, 0.7])}
    denominators = model.count_parts(labels, **weights)
    output = model(**pad(clips, filling=3.0), **labels, **weights, loss_denominators=denominators)
    output.loss.backward()
    together = gradients(model)
    total = 0.0
    for clip, label in zip(clips, wanted, strict=True):
        single = {name: value[None] for name, value in label.items()}
        alone = model(clip[None], **single, **weights, loss_denominators=denominators)
        alone.loss.backward()
        total += alone.loss.item()
    assert total == pytest.approx(output.loss.item(), rel=1e-5)
    summed = gradients(model)
    scale = max(float(value.norm()) for value in together.values())
    for name, value in together.items():
        assert float((value - summed[name]).norm()) < 1e-4 * scale, name
