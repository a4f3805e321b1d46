"""Frame arithmetic: the label count equals the model's frame count for every length."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gmp_atl_hf import HubertForGMPATL
from gmp_atl_hf.modeling.frames_gmp_atl import crop_frames, frame_count, hop_length, length_mask, receptive_field
from models import build, make_clips

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)


def test_the_count_is_that_of_the_convolutions_for_every_length() -> None:
    # On the meta device a convolution computes shapes only, with torch's own arithmetic.
    stack = nn.Sequential(*(nn.Conv1d(1, 1, k, s, device="meta") for k, s in zip(KERNELS, STRIDES, strict=True)))
    lengths = range(400, 40_001)
    counted = [frame_count(length, KERNELS, STRIDES) for length in lengths]
    # Frames cannot decrease with the length, so equal counts at both ends of a stretch settle all between.
    assert counted == sorted(counted)
    edges = [0, *(i for i in range(1, len(counted)) if counted[i] != counted[i - 1]), len(counted)]
    checked = sorted({i for edge in edges for i in (edge - 1, edge) if 0 <= i < len(counted)})
    for i in checked:
        assert stack(torch.empty(1, 1, lengths[i], device="meta")).shape[-1] == counted[i], lengths[i]


def test_ints_and_tensors_count_alike() -> None:
    lengths = torch.arange(0, 40_001)
    counted = frame_count(lengths, KERNELS, STRIDES)
    assert counted.dtype == torch.int64
    assert counted.tolist() == [frame_count(int(length), KERNELS, STRIDES) for length in lengths]


@pytest.mark.parametrize("length", [0, 1, 9, 10, 399])
def test_less_than_a_receptive_field_gives_no_frame(length: int) -> None:
    assert frame_count(length, KERNELS, STRIDES) == 0
    assert frame_count(torch.tensor([length]), KERNELS, STRIDES).tolist() == [0]


@torch.no_grad()
@pytest.mark.parametrize("length", [400, 719, 720, 1_039, 1_040, 7_777, 16_000, 39_919, 39_920, 40_000])
def test_the_model_makes_as_many_frames_as_counted(length: int) -> None:
    model = build(HubertForGMPATL)
    encoded = model.encode(make_clips([length])[0][None])
    assert encoded.last_hidden_state.shape[1] == encoded.frame_mask.shape[1] == frame_count(length, KERNELS, STRIDES)
    assert tuple(model.config.conv_kernel) == KERNELS and tuple(model.config.conv_stride) == STRIDES


def test_a_frame_sees_400_samples_and_the_next_one_starts_320_later() -> None:
    assert receptive_field(KERNELS, STRIDES) == 400
    assert hop_length(STRIDES) == 320
    assert receptive_field(KERNELS[:1], STRIDES[:1]) == 10
    # The shortest clip with n frames is one receptive field and n - 1 hops long.
    for frames in (1, 2, 50):
        shortest = 400 + 320 * (frames - 1)
        assert frame_count(shortest, KERNELS, STRIDES) == frames
        assert frame_count(shortest - 1, KERNELS, STRIDES) == frames - 1


def test_a_frame_really_sees_its_400_samples_and_no_others() -> None:
    torch.manual_seed(0)
    stack = nn.Sequential(*(nn.Conv1d(1, 1, k, s) for k, s in zip(KERNELS, STRIDES, strict=True)))
    clip = torch.randn(1, 1, 2_000, requires_grad=True)
    stack(clip)[0, 0, 2].backward()
    seen = clip.grad[0, 0].nonzero()[:, 0]
    assert (int(seen.min()), int(seen.max())) == (640, 640 + 399)


def test_length_mask_is_true_on_valid_positions() -> None:
    assert length_mask(torch.tensor([2, 0, 3]), 3).int().tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]


def test_crops_are_cut_out_and_padded_with_zeros() -> None:
    features = torch.arange(1.0, 13.0).reshape(2, 3, 2)
    cropped, mask = crop_frames(features, torch.tensor([[1, 3], [2, 3]]))
    assert cropped.tolist() == [[[3, 4], [5, 6]], [[11, 12], [0, 0]]]
    assert mask.tolist() == [[True, True], [True, False]]


def test_a_crop_of_everything_is_everything() -> None:
    features = torch.randn(2, 5, 3)
    cropped, mask = crop_frames(features, torch.tensor([[0, 5], [0, 5]]))
    assert torch.equal(cropped, features) and bool(mask.all())
