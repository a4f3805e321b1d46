"""Promise 1 in the full base and large shapes, with random weights."""

from __future__ import annotations

import pytest
import torch

from gmp_atl_hf.modeling.encoding_gmp_atl import convolve
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from models import MODELS, make_clips, pad, pad_rows, real_config
from test_modeling_batches import count_frames, furthest, scores

LENGTHS = (8_000, 24_000, 12_345, 4_000, 23_999, 16_000, 719, 20_000)
SIZES = {"base": (12, 768, "group"), "large": (24, 1024, "layer")}


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["base", "large"])
@pytest.mark.parametrize("model_class", MODELS)
@torch.no_grad()
def test_the_full_shape_scores_a_clip_alone_as_in_a_batch_of_eight(
    model_class: type[GMPATLPreTrainedModel], shape: str
) -> None:
    torch.manual_seed(0)
    model = model_class(real_config(shape)).eval()
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.feat_extract_norm) == SIZES[shape]
    clips = make_clips(LENGTHS)
    batch = model(**pad(clips))
    chosen = (0, 3, 6)
    features = [convolve(model.hubert, clips[row][None], None)[0] for row in chosen]
    masks = [torch.ones(len(frames), dtype=torch.long) for frames in features]
    featured = model(conv_features=pad_rows(features, 3.0), frame_mask=pad_rows(masks, 0))
    for index, row in enumerate(chosen):
        frames = count_frames(model, LENGTHS[row])
        alone = scores(model(clips[row][None]), 0, frames)
        assert furthest(alone, scores(batch, row, frames)) < 1e-4
        assert furthest(alone, scores(featured, index, frames)) < 1e-4
