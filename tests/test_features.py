"""Hidden states for the clusters: eval mode, no masks, no neighbours, and a sample that is the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from transformers import HubertConfig, HubertModel

from gmp_atl_hf.batching.length_batches import length_batches
from gmp_atl_hf.data.audio import read_clip
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel, HubertForGMPATL, HubertForGMPATLMultiTask
from gmp_atl_hf.pseudo_labels import frame_sample as sampling
from gmp_atl_hf.pseudo_labels.features import encoder_hash, extract_features, feature_source, hidden_state_extraction
from gmp_atl_hf.pseudo_labels.frame_sample import FrameDraw, take_sample
from gmp_atl_hf.pseudo_labels.process_group import ProcessGroup
from gmp_atl_hf.threads import prefetch
from tables import feature_extractor, small_model, speech_table


@pytest.fixture(scope="module")
def table() -> Dataset:
    return speech_table(13)


@pytest.fixture
def model() -> GMPATLPreTrainedModel:
    # Dropout and masks that would be seen at once, and weights of ordinary size.
    return small_model(HubertForGMPATLMultiTask, dropout=0.5, initializer_range=0.2, mask_time_prob=0.9)


def states(model: GMPATLPreTrainedModel, table: Dataset, layers: tuple[int, ...], **options: Any) -> list[Any]:
    """Of every row, in the table's order, layer → hidden states."""
    found = dict(extract_features(model, table, layers, feature_extractor(), **options))
    assert sorted(found) == list(range(len(table)))
    return [found[row] for row in range(len(table))]


def test_the_states_are_those_of_eval_mode_without_masks(model: GMPATLPreTrainedModel, table: Dataset) -> None:
    for training in (True, False):
        model.train(training)
        found = states(model, table, (1, 2))
        assert model.training is training
    model.eval()
    for row, layers in enumerate(found):
        wave = torch.from_numpy(read_clip(table[row]["audio"]))[None]
        with torch.no_grad():
            expected = model(wave, output_hidden_states=True).hidden_states
        for layer in (1, 2):
            torch.testing.assert_close(layers[layer], expected[layer][0], atol=1e-5, rtol=0)


def test_the_same_twice_even_in_training_mode(model: GMPATLPreTrainedModel, table: Dataset) -> None:
    model.train()
    first, second = states(model, table, (2,)), states(model, table, (2,))
    assert all(torch.equal(one[2], two[2]) for one, two in zip(first, second, strict=True))
    assert all(child.training for child in model.modules())


def test_the_mode_is_restored_when_the_reader_stops_early(model: GMPATLPreTrainedModel, table: Dataset) -> None:
    model.train()
    stream: Iterator[Any] = extract_features(model, table, (1,), feature_extractor(), batch_seconds=0.1)
    next(stream)
    assert not model.training
    stream.close()  # type: ignore[attr-defined]
    assert model.training


@pytest.mark.parametrize("normalise", [False, True])
def test_neighbours_do_not_matter(table: Dataset, normalise: bool) -> None:
    fields = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True} if normalise else {}
    model = small_model(HubertForGMPATLMultiTask, initializer_range=0.2, **fields)
    alone, together = (
        dict(extract_features(model, table, (1, 2), feature_extractor(normalise), batch_seconds=seconds))
        for seconds in (0.001, 60.0)
    )
    for row in range(len(table)):
        for layer in (1, 2):
            assert alone[row][layer].std() > 0.1
            torch.testing.assert_close(alone[row][layer], together[row][layer], atol=1e-5, rtol=0)


def test_one_vector_for_each_frame_of_each_clip(model: GMPATLPreTrainedModel, table: Dataset) -> None:
    config = model.config
    for row, layers in enumerate(states(model, table, (-1,))):
        frames = frame_count(table[row]["num_samples"], config.conv_kernel, config.conv_stride)
        assert layers[2].shape == (frames, config.hidden_size)
        assert layers[2].dtype == torch.float32


def test_layers_may_be_counted_from_the_top(table: Dataset) -> None:
    model = small_model(HubertForGMPATLMultiTask, num_hidden_layers=5)
    found = states(model, table.select(range(2)), (-3, 1))
    assert [sorted(layers) for layers in found] == [[1, 3]] * 2
    source = feature_source(model, (-3, 1), feature_extractor())
    assert source.layers == (3, 1)
    with pytest.raises(ValueError, match="layer -6 does not exist: the encoder has 5"):
        feature_source(model, (-6,), feature_extractor())


def test_what_is_no_model_no_layers_or_no_feature_extractor_is_refused() -> None:
    model, extractor = small_model(HubertForGMPATLMultiTask), feature_extractor()
    stock = HubertModel(HubertConfig(**{**model.config.to_dict(), "model_type": "hubert"}))
    for arguments, said in (
        ((stock, (1,), extractor), "the model is a HubertModel"),
        ((model, -1, extractor), "layers is -1"),
        ((model, (1,), "mini"), "feature_extractor is 'mini'"),
        ((model, (1,), None), "feature_extractor is None"),
    ):
        with pytest.raises(RequestError, match=said):
            feature_source(*arguments)


def test_batches_hold_neighbours_in_length_and_every_row_once() -> None:
    samples = [16_000, 4_000, 90_000, 4_100, 15_000, 500]
    batches = list(length_batches(samples, batch_seconds=2.0))
    assert batches == [[5, 1, 3], [4, 0], [2]]
    for batch in batches:
        longest = max(samples[row] for row in batch)
        assert len(batch) == 1 or longest * len(batch) <= 2 * 16_000
    assert list(length_batches([], 1.0)) == []


# ---- what identifies them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}])
def test_the_hash_sees_every_tensor_that_the_layer_depends_on_and_no_other(fields: dict[str, Any]) -> None:
    model = small_model(HubertForGMPATLMultiTask, num_hidden_layers=3, **fields)
    before, wave = encoder_hash(model, 2), torch.randn(1, 4_000)
    model.eval()

    def layer_two() -> torch.Tensor:
        with torch.no_grad():
            state: torch.Tensor = model(wave, output_hidden_states=True).hidden_states[2]
        return state

    output, seen = layer_two(), set()
    for name, parameter in model.named_parameters():
        kept = parameter.data.clone()
        parameter.data = kept + torch.randn_like(kept)
        changes = not torch.equal(layer_two(), output)
        # The key's bias shifts all scores of a frame alike, which attention does not see: hashing it does no harm.
        if changes or "k_proj.bias" not in name:
            assert (encoder_hash(model, 2) != before) is changes, name
        seen |= {name} if changes else set()
        parameter.data = kept
    assert encoder_hash(model, 2) == before
    assert any("encoder.layers.1." in name for name in seen)
    assert not any("encoder.layers.2." in name or "classifier" in name for name in seen)


def test_the_hash_is_that_of_the_encoder_in_any_of_the_models() -> None:
    one = small_model(HubertForGMPATLMultiTask)
    other = small_model(HubertForGMPATL, seed=9)
    assert encoder_hash(one, 2) != encoder_hash(other, 2)
    other.hubert.load_state_dict(one.hubert.state_dict())
    assert encoder_hash(one, 2) == encoder_hash(other, 2)
    assert encoder_hash(one, 1) != encoder_hash(one, 2)


def test_the_source_says_how_waveforms_were_prepared() -> None:
    model = small_model(HubertForGMPATLMultiTask)
    plain, normalised = (feature_source(model, (1,), feature_extractor(normalise)) for normalise in (False, True))
    assert plain.settings == {"sampling_rate": 16_000, "do_normalize": False}
    assert normalised.settings["do_normalize"] is True
    assert plain.checkpoint == {1: encoder_hash(model, 1)}


# ---- reading ahead ---------------------------------------------------------------------------------------------------


def test_what_is_read_ahead_comes_in_order_and_not_all_at_once() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1_000):
            taken.append(number)
            yield number

    results = prefetch(lambda number: number * number, items())
    assert [next(results) for _ in range(10)] == [number * number for number in range(10)]
    assert len(taken) < 20
    assert list(results) == [number * number for number in range(10, 1_000)]


def test_a_clip_that_cannot_be_read_ends_the_stream_where_it_stands(
    model: GMPATLPreTrainedModel, table: Dataset
) -> None:
    broken = [*table]
    broken[3] = {**broken[3], "audio": {"path": "broken.wav", "bytes": b"RIFF"}}
    table = Dataset(pa.Table.from_pylist(broken, schema=table.features.arrow_schema))
    model.train()
    found = []
    with pytest.raises(ValueError, match=r"broken\.wav"):
        for row, _ in extract_features(model, table, (1,), feature_extractor(), batches=[[0, 1], [3, 2], [4]]):
            found.append(row)
    assert found == [0, 1]
    assert model.training


# ---- the sample ------------------------------------------------------------------------------------------------------


def sample(model: GMPATLPreTrainedModel, table: Dataset, frames: int, seed: int = 0) -> dict[int, torch.Tensor]:
    extraction = hidden_state_extraction(model, (1, 2), feature_extractor())
    return dict(take_sample(extraction, table, frames, seed).features)


def test_a_sample_that_is_large_enough_holds_every_frame(model: GMPATLPreTrainedModel, table: Dataset) -> None:
    found = sample(model, table, 10**6)
    every = states(model, table, (1, 2))
    order = np.argsort(table["num_samples"], kind="stable")
    for layer in (1, 2):
        torch.testing.assert_close(found[layer], torch.cat([every[row][layer] for row in order]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("bound", [1, 7, 50, 100])
def test_a_sample_holds_exactly_as_many_frames_as_asked_for_and_real_ones(
    model: GMPATLPreTrainedModel, table: Dataset, bound: int
) -> None:
    found = sample(model, table, bound)[2]
    assert len(found) == bound
    every = torch.cat([one[2] for one in states(model, table, (2,))])
    exact = torch.cdist(found, every, compute_mode="donot_use_mm_for_euclid_dist")
    assert exact.min(1).values.max() < 1e-5
    assert len(set(exact.argmin(1).tolist())) == bound


def test_a_sample_depends_on_its_seed_and_on_nothing_that_was_drawn_before(
    model: GMPATLPreTrainedModel, table: Dataset
) -> None:
    def drawn(seed: int) -> torch.Tensor:
        np.random.seed(seed + 7), torch.manual_seed(seed + 8)
        return sample(model, table, 60, seed=seed)[2]

    first = drawn(0)
    assert torch.equal(first, drawn(0))
    assert not torch.equal(drawn(1), first)


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_share_the_very_frames_that_one_would_draw(
    model: GMPATLPreTrainedModel, table: Dataset, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "SHORTEST_RUN", 16)
    extraction = hidden_state_extraction(model, (1, 2), feature_extractor(), batch_seconds=0.5)
    whole = take_sample(extraction, table, 90, seed=3)
    assert len(whole.runs) > 4
    given: list[list[torch.Tensor]] = []

    class Recorded(ProcessGroup):
        """Adds up what the processes before this one have given."""

        def sum(self, values: torch.Tensor) -> torch.Tensor:
            given[self.index].append(values)
            place = len(given[self.index]) - 1
            return sum((parts[place] for parts in given if len(parts) > place), torch.zeros_like(values))

    # The main process comes last here: by then all that the others have to give is known.
    given.extend([] for _ in range(processes))
    for index in reversed(range(processes)):
        sample = take_sample(extraction, table, 90, seed=3, group=Recorded(index, processes))
        assert sample.runs == whole.runs
        for layer in (1, 2):
            assert torch.equal(sample.features[layer], whole.features[layer][: None if index == 0 else 0])


@pytest.mark.parametrize(
    ("error", "elsewhere"),
    [(RequestError("9 frames", "10", "more audio"), RequestError), (OSError("disk full"), RuntimeError)],
)
def test_what_fails_in_the_main_process_fails_in_all(
    error: Exception, elsewhere: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []

    def broadcast(message: list[object], from_process: int) -> None:
        if sent:
            message[:] = sent
        else:
            sent.extend(message)

    def fail() -> None:
        raise error

    monkeypatch.setattr("accelerate.utils.broadcast_object_list", broadcast)
    monkeypatch.setattr(ProcessGroup, "wait", lambda self: None)
    with pytest.raises(type(error)):
        ProcessGroup(0, 2).on_main(fail)
    with pytest.raises(elsewhere):
        ProcessGroup(1, 2).on_main(fail)
    with pytest.raises(type(error)):
        ProcessGroup().on_main(fail)


def test_every_frame_is_as_likely_as_every_other_and_there_are_exactly_as_many_as_asked_for() -> None:
    counts = np.zeros(10)
    for seed in range(400):
        draw = FrameDraw([10, 3, 10], sample_frames=5, seed=seed)
        assert draw.kept.sum() == 5
        for row in (0, 2):
            counts[draw.frames_of(row)] += 1
    assert counts.sum() == pytest.approx(400 * 5 * 20 / 23, rel=0.03)
    assert counts.min() > 0.75 * counts.mean()


def test_the_frames_of_a_clip_are_different_and_its_share_of_all() -> None:
    draw = FrameDraw([40, 60, 100], sample_frames=50, seed=3)
    for row, count in enumerate([40, 60, 100]):
        drawn = draw.frames_of(row)
        assert len(drawn) == draw.kept[row] == len(set(drawn.tolist()))
        assert (np.diff(drawn) > 0).all()
        assert drawn.max() < count
        assert abs(len(drawn) - count / 4) <= 1


def test_all_frames_are_drawn_where_the_bound_allows_it() -> None:
    draw = FrameDraw([3, 2], 5, seed=0)
    assert [draw.frames_of(row).tolist() for row in draw.rows] == [[0, 1, 2], [0, 1]]
    assert FrameDraw([], 5, seed=0).kept.tolist() == []


def test_of_a_very_large_corpus_only_so_many_clips_are_extracted() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(30, 500, 5_000)
    draw = FrameDraw(counts.tolist(), sample_frames=1_000, seed=0)
    extracted = counts[draw.rows].sum()
    assert 8_000 <= extracted < 8_500
    assert draw.kept.sum() == draw.kept[draw.rows].sum() == 1_000
    assert not np.array_equal(draw.rows, FrameDraw(counts.tolist(), 1_000, seed=1).rows)
    # Long clips are as likely to be extracted as short ones: their mean length is that of all.
    means = [counts[FrameDraw(counts.tolist(), 1_000, seed=seed).rows].mean() for seed in range(200)]
    assert np.mean(means) == pytest.approx(counts.mean(), rel=0.03)
