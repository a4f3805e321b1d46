"""Masks, crops and batches: what is random about a clip hangs on (seed, epoch, row) and on nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmp_atl_hf.batching.clips import TableClips
from gmp_atl_hf.batching.collator import GMPATLDataCollator
from gmp_atl_hf.batching.masks import draw_mask, draw_span
from gmp_atl_hf.batching.sampler import ClipKey
from gmp_atl_hf.data.audio import read_clip
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count, hop_length
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL, HubertForGMPATLFrameClassification
from tables import LABELS, SCALES, feature_extractor, small_model, speech_table, training_config

EVERYTHING = ("labels", "gender_labels", "frame_labels")


def collator(normalise: bool = False, **fields: Any) -> GMPATLDataCollator:
    return GMPATLDataCollator(feature_extractor(normalise), training_config(), EVERYTHING, **fields)


# ---- masks and crops -------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 300), st.floats(0, 1), st.integers(1, 20), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_a_mask_fits_its_clip_and_never_covers_it(
    frames: int, probability: float, length: int, min_masks: int, seed: int
) -> None:
    mask = draw_mask(frames, probability, length, min_masks, np.random.default_rng(seed))
    assert mask.shape == (frames,) and mask.dtype == bool
    assert mask.sum() < frames
    if frames < 2 * length:
        assert mask.sum() <= frames // 2
    if frames == 1 or probability == 0:
        assert not mask.any()
    elif frames >= 2 and min_masks > 0:
        assert mask.any()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 1_500), st.one_of(st.none(), st.integers(1, 1_500)), st.integers(0, 2**32 - 1))
def test_a_crop_lies_inside_its_clip_and_is_as_long_as_allowed(frames: int, most: int | None, seed: int) -> None:
    start, stop = draw_span(frames, most, np.random.default_rng(seed))
    assert 0 <= start < stop <= frames
    assert stop - start == (frames if most is None else min(frames, most))


def test_crops_reach_both_ends_of_the_clip() -> None:
    starts = [draw_span(10, 8, np.random.default_rng(seed))[0] for seed in range(100)]
    assert set(starts) == {0, 1, 2}


def test_the_share_of_masked_frames_is_that_of_spans_that_may_overlap() -> None:
    rng = np.random.default_rng(0)
    frames, length = 150, 10  # 0.75, 4.5 and 9.75 spans
    for probability in (0.05, 0.3, 0.65):
        share = np.mean([draw_mask(frames, probability, length, 0, rng).mean() for _ in range(2_000)])
        # Each frame is missed by a span with probability 1 - length / starts, except near the ends.
        starts = frames - length + 1
        touching = np.minimum(np.minimum(np.arange(frames) + 1, frames - np.arange(frames)), length)
        spans = probability * frames / length
        low = np.floor(spans)
        missed = [
            np.prod([(starts - touching - i) / (starts - i) for i in range(int(number))], axis=0)
            if number
            else np.ones(frames)
            for number in (low, low + 1)
        ]
        expected = 1 - ((low + 1 - spans) * missed[0] + (spans - low) * missed[1]).mean()
        assert share == pytest.approx(expected, rel=0.03)
        assert share < probability + 1e-6


def test_at_least_so_many_masks_as_the_clip_has_room_for() -> None:
    rng = np.random.default_rng(0)
    counts = [draw_mask(100, 1e-6, 5, 2, rng).sum() for _ in range(50)]
    assert min(counts) > 5 and max(counts) <= 10


def test_masks_and_crops_hang_on_seed_epoch_and_row_alone() -> None:
    table = speech_table(6, shortest=8_000)
    clips = TableClips(table, ("emotion", "gender", *SCALES))

    def drawn(row: int, beside: list[int], epoch: int = 0, seed: int = 0) -> tuple[list[int], list[bool]]:
        batch = collator(max_seconds=0.3, seed=seed)([clips[ClipKey(other, epoch)] for other in (*beside, row)])
        span = batch["frame_spans"][-1].tolist()
        return span, batch["mask_time_indices"][-1, : span[1] - span[0]].tolist()

    alone = drawn(3, [])
    assert drawn(3, [0, 5, 1]) == alone
    assert drawn(3, [2]) == alone
    assert drawn(3, [], epoch=1) != alone
    assert drawn(3, [], seed=1) != alone
    assert drawn(4, []) != alone


def test_channels_are_masked_for_each_clip_alone_and_only_in_training() -> None:
    table = speech_table(6)

    def masking(**fields: Any) -> GMPATLDataCollator:
        return GMPATLDataCollator(feature_extractor(), training_config(**fields), EVERYTHING, seed=5)

    channels: dict[str, Any] = {"mask_feature_prob": 0.3, "mask_feature_length": 4}
    keys = [ClipKey(row, epoch=2) for row in range(6)]
    rows = [{**table[row], "key": key} for row, key in enumerate(keys)]
    with_channels, without = masking(**channels), masking()
    batch = with_channels(rows)
    masks = batch["mask_feature_indices"]
    assert masks.shape == (6, 32) and masks.dtype == torch.bool
    assert masks.any(1).all() and not masks.all(1).any()
    assert len({tuple(mask) for mask in masks.tolist()}) > 1
    for row in (1, 4):  # whoever is beside it
        assert torch.equal(with_channels(rows[row : row + 1])["mask_feature_indices"][0], masks[row])
    later = [{**row, "key": ClipKey(index, epoch=3)} for index, row in enumerate(rows)]
    assert not torch.equal(with_channels(later)["mask_feature_indices"], masks)
    # Frames are masked as ever.
    assert torch.equal(batch["mask_time_indices"], without(rows)["mask_time_indices"])
    assert "mask_feature_indices" not in without(rows)
    assert "mask_feature_indices" not in dataclasses.replace(with_channels, training=False)(rows)
    assert "mask_feature_indices" not in masking(apply_spec_augment=False, **channels)(rows)


def test_a_training_with_masked_channels_learns_from_what_is_left() -> None:
    model = small_model(HubertForGMPATL, mask_feature_prob=0.5, mask_feature_length=8).train()
    table = speech_table(3)
    collate = GMPATLDataCollator(feature_extractor(), model.config)
    batch = collate([table[row] for row in range(3)])
    model(**batch).loss.backward()
    projection = model.hubert.feature_projection.projection.weight.grad
    masked = batch["mask_feature_indices"].all(0)
    assert projection[~batch["mask_feature_indices"].any(0)].abs().sum() > 0
    assert not projection[masked].any()
    whole = {name: value for name, value in batch.items() if name != "mask_feature_indices"}
    assert not torch.equal(model(**batch).logits, model(**whole).logits)


def test_labels_are_cut_by_the_same_crop_as_the_frames() -> None:
    table = speech_table(6, shortest=8_000, longest=16_000)
    config = training_config()
    # Labels that say which frame they belong to.
    for name in SCALES:
        table = table.remove_columns(name).add_column(name, [list(range(len(labels))) for labels in table[name]])
    clips = TableClips(table, ("emotion", "gender", *SCALES))
    batch = collator(max_seconds=0.3)([clips[row] for row in range(6)])
    longest = int(0.3 * 16_000 / hop_length(config.conv_stride))
    assert batch["frame_labels"].shape == (6, longest, 2)
    starts = set()
    for (start, stop), labels in zip(batch["frame_spans"].tolist(), batch["frame_labels"], strict=True):
        for scale in range(2):
            assert labels[: stop - start, scale].tolist() == list(range(start, stop))
            assert (labels[stop - start :, scale] == -100).all()
        starts.add(start)
    assert len(starts) > 1
    # The frames that the model keeps are those that it would have computed for the whole clip.
    model = small_model(HubertForGMPATLFrameClassification).eval()
    kept = []
    model.hubert.feature_projection.register_forward_hook(lambda _m, inputs, _o: kept.append(inputs[0]))
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_values", "attention_mask")}
        model.encode(**inputs)
        model.encode(**inputs, frame_spans=batch["frame_spans"])
    whole, cropped = kept
    for row, (start, stop) in enumerate(batch["frame_spans"].tolist()):
        torch.testing.assert_close(cropped[row, : stop - start], whole[row, start:stop], rtol=0, atol=0)


def test_clips_that_fit_are_not_cropped() -> None:
    table = speech_table(3)
    assert "frame_spans" not in collator(max_seconds=10.0)([table[0], table[1]])
    assert "frame_spans" not in collator(max_seconds=None)([table[0], table[1]])


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_plain_rows_of_the_table_become_model_inputs() -> None:
    table = speech_table(4)
    batch = collator()([table[0], table[1], table[2]])
    assert batch["labels"].tolist() == table["emotion"][:3]
    assert batch["gender_labels"].tolist() == [0, 1, -100]  # the third is not known
    assert batch["attention_mask"].sum(1).tolist() == table["num_samples"][:3]
    frames = [
        frame_count(n, training_config().conv_kernel, training_config().conv_stride) for n in table["num_samples"]
    ]
    for row in range(3):
        assert (batch["frame_labels"][row] != -100).sum(0).tolist() == [frames[row]] * 2
        assert batch["frame_labels"][row, : frames[row], 0].tolist() == table[row]["gmp_layer1_k5"]
        assert batch["frame_labels"][row, : frames[row], 1].tolist() == table[row]["gmp_layer1_k7"]
        assert not batch["mask_time_indices"][row, frames[row] :].any()
    output = small_model(HubertForGMPATL)(
        **{name: batch[name] for name in ("input_values", "attention_mask", "mask_time_indices", "labels")}
    )
    assert torch.isfinite(output.loss)
    assert output.logits.shape == (3, len(LABELS))


def test_frame_labels_of_the_wrong_length_name_both_numbers_and_the_clip() -> None:
    row = speech_table(1)[0]
    frames = len(row["gmp_layer1_k7"])
    row["gmp_layer1_k7"] = row["gmp_layer1_k7"][:-1]
    with pytest.raises(ValueError, match=rf"tones/0 has {frames - 1} labels in gmp_layer1_k7.*{frames} frames"):
        collator()([row])


def test_a_ghost_counts_for_nothing() -> None:
    clips = TableClips(speech_table(3), ("emotion", "gender", *SCALES))
    batch = collator()([clips[ClipKey(1, 0, filler=True)]])
    assert batch["labels"].tolist() == [-100]
    assert batch["gender_labels"].tolist() == [-100]
    assert (batch["frame_labels"] == -100).all()
    assert batch["mask_time_indices"].any(), "it is computed like any other"


def test_a_checkpoint_that_normalises_hears_each_clip_as_if_alone() -> None:
    table = speech_table(4)
    extractor = feature_extractor(normalise=True)
    batch = collator(normalise=True)([table[row] for row in range(4)])
    for row in range(4):
        wave = read_clip(table[row]["audio"])
        alone = extractor(wave, sampling_rate=16_000, return_tensors="np")["input_values"][0]
        np.testing.assert_array_equal(batch["input_values"][row, : len(wave)].numpy(), alone)
        assert (batch["input_values"][row, len(wave) :] == 0).all()
        assert abs(float(alone.mean())) < 1e-4 and abs(float(alone.std()) - 1) < 1e-3


def test_evaluation_hears_whole_clips_and_masks_only_for_frame_targets_the_same_every_time() -> None:
    table = speech_table(4)
    rows = [table[row] for row in range(4)]
    for_emotion = GMPATLDataCollator(
        feature_extractor(), training_config(), ("labels",), training=False, max_seconds=0.1
    )(rows)
    assert set(for_emotion) == {"input_values", "attention_mask", "labels"}
    for_frames = dataclasses.replace(collator(), targets=("frame_labels",), training=False, max_seconds=0.1)
    first, second = for_frames(rows), for_frames(rows)
    assert set(first) == {"input_values", "attention_mask", "mask_time_indices", "frame_labels"}
    assert first["mask_time_indices"].any()
    assert torch.equal(first["mask_time_indices"], second["mask_time_indices"])
    assert first["frame_labels"].shape[1] == max(len(labels) for labels in table["gmp_layer1_k5"])


def test_without_spec_augment_nothing_is_masked() -> None:
    config = training_config(apply_spec_augment=False)
    batch = GMPATLDataCollator(feature_extractor(), config, ("labels",))([speech_table(1)[0]])
    assert not batch["mask_time_indices"].any()


def test_a_clip_of_one_frame_passes_and_is_not_masked() -> None:
    table = speech_table(2, shortest=400, longest=401)
    batch = collator(max_seconds=0.3)([table[0], table[1]])
    assert batch["mask_time_indices"].shape == (2, 1)
    assert not batch["mask_time_indices"].any()
    assert torch.isfinite(small_model(HubertForGMPATL)(batch["input_values"], batch["attention_mask"]).logits).all()
