"""Promise 1 in the full base and large shapes, with random weights."""

from __future__ import annotations

import pytest
import torch
from models import MODELS, make_clips, pad, real_config
from test_modeling_batches import count_frames, furthest, scores

from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel

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
    for row in (0, 3, 6):
        frames = count_frames(model, LENGTHS[row])
        assert furthest(scores(model(clips[row][None]), 0, frames), scores(batch, row, frames)) < 1e-4
