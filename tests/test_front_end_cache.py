"""A frozen front end is computed once per recording; nothing changes but by the rounding to half precision."""

from __future__ import annotations

import errno
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from huggingface_hub.utils import filter_repo_objects
from transformers import HubertModel
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

import gmp_atl_hf.batching.clips
import gmp_atl_hf.batching.feature_cache
from gmp_atl_hf.batching.clips import TableClips
from gmp_atl_hf.batching.collator import GMPATLDataCollator
from gmp_atl_hf.batching.conv_features import front_end_key, rounded
from gmp_atl_hf.batching.feature_cache import FrontEndCache, fill_in_own_order
from gmp_atl_hf.batching.feature_store import FeatureStore
from gmp_atl_hf.batching.sampler import ClipKey
from gmp_atl_hf.data.audio import read_clip
from gmp_atl_hf.data.fingerprints import recording_hashes
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.files import write_whole
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count
from gmp_atl_hf.modeling.modeling_gmp_atl import (
    GMPATLPreTrainedModel,
    HubertForGMPATL,
    HubertForGMPATLFrameClassification,
    HubertForGMPATLMultiTask,
)
from gmp_atl_hf.pseudo_labels.features import extract_features
from gmp_atl_hf.training.trainer import GMPATLTrainer
from models import SHAPES
from tables import changed, feature_extractor, small_model, speech_table, training_arguments, weights_of

MODELS = (HubertForGMPATLMultiTask, HubertForGMPATLFrameClassification, HubertForGMPATL)
TABLE, DEV = speech_table(9), speech_table(5, seed=1)
HALF = 2.0**-11  # largest relative error of rounding to float16


def model_of(kind: type[GMPATLPreTrainedModel] = HubertForGMPATL, dropout: float = 0.0, **fields: Any) -> Any:
    model = small_model(kind, dropout, **fields)
    model.freeze_feature_encoder()
    return model


def cache_in(folder: Path, model: Any = None, normalise: bool = False) -> FrontEndCache:
    return FrontEndCache(folder, model or model_of(), feature_extractor(normalise))


def trainer_in(
    folder: Path, model: Any = None, cache: bool | Path = True, table: Dataset = TABLE, **fields: Any
) -> GMPATLTrainer:
    settings = {"freeze_feature_encoder": True, "learning_rate": 1e-3, "max_seconds": 0.4, **fields}
    arguments = training_arguments(folder, **settings)
    return GMPATLTrainer(
        model or model_of(), arguments, table, DEV, processing_class=feature_extractor(), front_end_cache=cache
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def features_of(cache: FrontEndCache, table: Dataset) -> list[np.ndarray]:
    clips = TableClips(table, (), cache)
    return [np.array(clips[row]["conv_features"]) for row in range(len(table))]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Lengths of the recordings that were decoded."""
    lengths: list[int] = []

    def count(source: Any) -> np.ndarray:
        waveform = read_clip(source)
        lengths.append(len(waveform))
        return waveform

    monkeypatch.setattr(gmp_atl_hf.batching.feature_cache, "read_clip", count)
    monkeypatch.setattr(gmp_atl_hf.batching.clips, "read_clip", count)
    yield lengths


# ---- what is stored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_features_are_the_front_ends_own_rounded_to_half_precision(shape: str, normalise: bool, tmp_path: Path) -> None:
    model = model_of(**SHAPES[shape])
    extractor = feature_extractor(normalise)
    stored = features_of(cache_in(tmp_path, model, normalise), TABLE)
    stock = HubertModel(model.config).eval()
    stock.load_state_dict(model.hubert.state_dict())
    for row, features in enumerate(stored):
        waveform = read_clip(TABLE[row]["audio"])
        values = extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_values
        with torch.no_grad():
            expected = stock.feature_extractor(values)[0].T.numpy()
        assert features.dtype == np.float16
        np.testing.assert_array_equal(features, expected.astype(np.float16))
        assert len(features) == frame_count(len(waveform), model.config.conv_kernel, model.config.conv_stride)


def test_values_depend_neither_on_the_order_nor_on_the_neighbours_nor_on_who_asks_first(tmp_path: Path) -> None:
    filled, reversed_, asked = (tmp_path / name for name in ("filled", "reversed", "asked"))
    cache_in(filled).fill(TABLE)
    for row in reversed(range(len(TABLE))):
        cache_in(reversed_).fill(TABLE.select([row]))
    features_of(cache_in(asked), TABLE)
    assert len(contents(filled)) == len(TABLE)
    assert contents(reversed_) == contents(asked) == contents(filled)


def test_what_exceeds_half_precision_is_kept_in_float32(tmp_path: Path) -> None:
    values = np.array([[1.0, 70_000.0], [3e-9, -0.1]], dtype=np.float32)
    assert rounded(values).dtype == np.float32
    np.testing.assert_array_equal(rounded(values), values)
    assert rounded(values[1:]).dtype == np.float16
    store = FeatureStore(tmp_path, channels=2)
    store.write("ab", rounded(values))
    np.testing.assert_array_equal(store.read("ab"), values)
    rows = [{"id": name, "conv_features": part} for name, part in (("a", values), ("b", rounded(values[1:])))]
    batch = GMPATLDataCollator(feature_extractor(), model_of().config, targets=(), training=False)(rows)
    assert batch["conv_features"].isfinite().all()


def test_an_hour_takes_184_megabytes(tmp_path: Path) -> None:
    config = HubertModel.config_class()
    seconds = 4.5  # a usual clip, so that what is beside the values weighs as it does in a corpus
    frames = frame_count(int(seconds * 16_000), config.conv_kernel, config.conv_stride)
    store = FeatureStore(tmp_path, config.conv_dim[-1])
    store.write("ab", np.zeros((frames, config.conv_dim[-1]), dtype=np.float16))
    assert store.path("ab").stat().st_size / seconds * 3_600 == pytest.approx(184e6, rel=0.01)


# ---- nothing changes but the rounding --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("model_class", MODELS)
def test_losses_and_logits_change_by_no_more_than_the_rounding(
    model_class: type[GMPATLPreTrainedModel], shape: str, tmp_path: Path
) -> None:
    """The bound is measured: what one unit of rounding, put on every value with random sign, does to the same batch."""
    model = model_of(model_class, **SHAPES[shape]).train()
    collate = GMPATLDataCollator(feature_extractor(), model.config, model.target_names, max_seconds=0.4)
    keys, columns = [ClipKey(row, 1) for row in range(len(TABLE))], tuple(TABLE.column_names)
    fresh, cached = (TableClips(TABLE, columns, cache) for cache in (None, cache_in(tmp_path, model)))
    batches = [collate([clips[key] for key in keys]) for clips in (fresh, cached)]
    assert "frame_spans" in batches[0], "crops are to be compared too"
    assert batches[1]["conv_features"].dtype == torch.float16
    shared = batches[0].keys() & batches[1].keys()
    assert shared >= {*model.target_names, "mask_time_indices"}
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in shared)

    def outcome(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        output = model(**batch)
        shown = [output.loss[None], output.loss_sums.flatten()]
        return torch.cat(
            [*shown, *(value.flatten() for value in (output.logits, output.gender_logits) if value is not None)]
        )

    reference, seen = outcome(batches[0]), outcome(batches[1])
    generator = torch.Generator().manual_seed(0)
    pushed = []
    for _ in range(5):
        features = batches[1]["conv_features"].float()
        signs = torch.randint(0, 2, features.shape, generator=generator) * 2 - 1
        pushed.append((outcome({**batches[1], "conv_features": features * (1 + HALF * signs)}) - seen).abs().max())
    difference = (reference - seen).abs().max()
    assert 0 < difference <= max(pushed)


def test_a_clip_from_the_cache_scores_alone_as_in_a_batch(tmp_path: Path) -> None:
    model = model_of().eval()
    clips = TableClips(TABLE, (), cache_in(tmp_path, model))
    collate = GMPATLDataCollator(feature_extractor(), model.config, targets=(), training=False)
    rows = [clips[row] for row in range(len(TABLE))]
    with torch.no_grad():
        together = model(**collate(rows)).logits
        for row, clip in enumerate(rows):
            assert (model(**collate([clip])).logits[0] - together[row]).abs().max() < 1e-4


@pytest.mark.parametrize("model_class", MODELS)
def test_a_training_with_the_cache_is_the_training_without_but_for_the_rounding(
    model_class: type[GMPATLPreTrainedModel], tmp_path: Path
) -> None:
    logs, predicted = [], []
    for cache in (True, False):
        trainer = trainer_in(tmp_path / str(cache), model_of(model_class), cache)
        trainer.train()
        assert (trainer.front_end_cache is not None) == cache
        logs.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        predicted.append(trainer.evaluate()["eval_loss"])
    # 9 steps; a relative error of 2^-11 in the features, and what the optimiser makes of it.
    np.testing.assert_allclose(logs[0], logs[1], rtol=20 * HALF)
    np.testing.assert_allclose(predicted[0], predicted[1], rtol=20 * HALF)
    assert logs[0] != logs[1], "the cache was not used"


@pytest.mark.parametrize("before", ["nothing", "a part", "all"])
def test_it_makes_no_difference_when_the_cache_was_filled(before: str, tmp_path: Path, decoded: list[int]) -> None:
    """Dropout is on: filling must not move the random numbers either."""
    reference = trainer_in(tmp_path / "reference", model_of(dropout=0.2))
    reference.train()
    rows = {"nothing": 0, "a part": 4, "all": len(TABLE)}[before]
    cache = tmp_path / "cache"
    if rows:
        cache_in(cache).fill(TABLE.select(range(rows)))
    decoded.clear()
    trainer = trainer_in(tmp_path / "other", model_of(dropout=0.2), cache)
    trainer.train()
    assert len(decoded) == len(TABLE) - rows, "each recording is decoded once, in three epochs"
    assert changed(weights_of(trainer.model), weights_of(reference.model)) == set()


def test_loader_workers_read_the_same(tmp_path: Path) -> None:
    alone = trainer_in(tmp_path / "alone")
    alone.train()
    helped = trainer_in(tmp_path / "helped", dataloader_num_workers=2)
    helped.train()
    assert changed(weights_of(helped.model), weights_of(alone.model)) == set()


def test_evaluation_prediction_and_extraction_read_the_cache(tmp_path: Path, decoded: list[int]) -> None:
    model = model_of()
    cache = cache_in(tmp_path / "cache", model)
    cache.fill(DEV)
    decoded.clear()
    trainer = trainer_in(tmp_path, model, tmp_path / "cache")
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    logits = trainer.predict(DEV).predictions
    extracted = dict(extract_features(model, DEV, [-1], feature_extractor(), cache=cache))
    assert decoded == []
    plain = trainer_in(tmp_path, model, False).predict(DEV).predictions
    np.testing.assert_allclose(logits, plain, atol=30 * 20 * HALF)  # cosines times 30
    for row, states in extract_features(model, DEV, [-1], feature_extractor()):
        for layer, values in states.items():
            torch.testing.assert_close(extracted[row][layer], values, rtol=0, atol=20 * HALF)


# ---- whose features they are -----------------------------------------------------------------------------------------


def test_the_key_is_that_of_the_front_end_alone() -> None:
    model = model_of()
    key = front_end_key(model, feature_extractor())
    assert front_end_key(model_of(HubertForGMPATLFrameClassification), feature_extractor()) == key
    assert front_end_key(model, feature_extractor(normalise=True)) != key
    with torch.no_grad():
        model.classifier.weight.add_(1)
        model.hubert.encoder.layers[0].final_layer_norm.weight.add_(1)
        model.hubert.feature_projection.projection.weight.add_(1)
    assert front_end_key(model, feature_extractor()) == key
    for name, parameter in model.hubert.feature_extractor.named_parameters():
        with torch.no_grad():
            parameter.view(-1)[0] += 1e-3
        changed_key = front_end_key(model, feature_extractor())
        assert changed_key != key, name
        key = changed_key
    model.config.feat_extract_activation = "relu"
    assert front_end_key(model, feature_extractor()) != key


def test_another_training_finds_what_the_first_one_left(tmp_path: Path, decoded: list[int]) -> None:
    first = trainer_in(tmp_path / "first", model_of(HubertForGMPATLMultiTask), tmp_path / "cache")
    first.train()
    first.model.save_pretrained(tmp_path / "trained")
    decoded.clear()
    # Another stage from the first one's weights, another seed, and the rows of another fold.
    stage = HubertForGMPATL.from_pretrained(tmp_path / "trained")
    trainer_in(tmp_path / "second", stage, tmp_path / "cache", TABLE.select([7, 1, 3, 5]), seed=3).train()
    assert decoded == []


def test_a_recording_is_known_by_its_sound_and_not_by_its_place(tmp_path: Path) -> None:
    audio = [{"path": str(tmp_path / f"{row}.wav"), "bytes": None} for row in range(len(TABLE))]
    for row, clip in enumerate(audio):
        Path(str(clip["path"])).write_bytes(TABLE[row]["audio"]["bytes"])
    files = TABLE.remove_columns(["audio"]).add_column("audio", audio).cast(TABLE.features)
    cache = cache_in(tmp_path / "cache")
    assert cache.names(files) == cache.names(TABLE)
    assert len(set(cache.names(TABLE))) == len(TABLE)
    file = Path(str(audio[2]["path"]))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    write_whole(file, bytes(content))
    assert [one == other for one, other in zip(cache.names(files), cache.names(TABLE), strict=True)].count(False) == 1


def test_what_is_made_of_recordings_is_not_sent_along_with_the_output_folder(tmp_path: Path) -> None:
    trainer_in(tmp_path, max_steps=1).train()
    names = [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.npy")]
    assert names
    # What `Trainer.push_to_hub` hands to the Hub.
    assert list(filter_repo_objects(names, ignore_patterns=["_*", f"{PREFIX_CHECKPOINT_DIR}-*"])) == []


@pytest.mark.parametrize("reason", ["a front end that is trained", "switched off", "a collator of one's own"])
def test_the_waveform_is_read_in_every_epoch_with(reason: str, tmp_path: Path, decoded: list[int]) -> None:
    trained = reason == "a front end that is trained"
    model = small_model(HubertForGMPATL)
    collator = None
    if reason == "a collator of one's own":

        class Louder(GMPATLDataCollator):
            pass

        collator = Louder(feature_extractor(), model.config)
    trainer = GMPATLTrainer(
        model,
        training_arguments(tmp_path, freeze_feature_encoder=not trained),
        TABLE,
        processing_class=feature_extractor(),
        data_collator=collator,
        front_end_cache=reason != "switched off",
    )
    trainer.train()
    assert len(decoded) == 3 * len(TABLE)
    assert not (tmp_path / "_front-end").exists()


def test_a_front_end_that_was_changed_by_hand_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    before = trainer.predict(DEV).predictions
    with torch.no_grad():
        for parameter in trainer.model.hubert.feature_extractor.parameters():
            parameter.mul_(1.5)
    after = trainer.predict(DEV).predictions
    plain = trainer_in(tmp_path, trainer.model, False).predict(DEV).predictions
    np.testing.assert_allclose(after, plain, atol=30 * 20 * HALF)
    assert np.abs(after - before).max() > 100 * np.abs(after - plain).max()


# ---- files -----------------------------------------------------------------------------------------------------------


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(b"no array" * 500)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def of_another_width(path: Path) -> None:
    FeatureStore(path.parent.parent, 3).write(path.stem, np.zeros((5, 3), dtype=np.float16))


@pytest.mark.parametrize("harm", [cut_short, empty, garble, flip_a_bit, of_another_width])
def test_a_damaged_file_is_computed_again_with_a_word(
    harm: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = cache_in(tmp_path)
    cache.fill(TABLE)
    sound = contents(tmp_path)
    victim = cache.store.path(cache.names(TABLE)[4])
    for repair in (cache.fill, lambda table: features_of(cache, table)):
        harm(victim)
        capsys.readouterr()
        repair(TABLE)
        said = capsys.readouterr().out
        assert said.count("is damaged") == 1
        assert victim.name in said
        assert contents(tmp_path) == sound
    cache.fill(TABLE)
    assert capsys.readouterr().out == ""


def test_files_deleted_during_a_training_are_made_again(tmp_path: Path) -> None:
    reference = trainer_in(tmp_path / "reference")
    reference.train()
    trainer = trainer_in(tmp_path / "other")
    loader = trainer.get_train_dataloader()
    shutil.rmtree(tmp_path / "other" / "_front-end")
    assert sum(len(batch["labels"]) for batch in loader) == len(TABLE)
    assert (
        contents(tmp_path / "other" / "_front-end").items() <= contents(tmp_path / "reference" / "_front-end").items()
    )


def fill_in_a_process(folder: Path, barrier: Any) -> None:
    torch.set_num_threads(1)
    cache = cache_in(folder)
    barrier.wait(60)
    cache.fill(TABLE)


def test_two_processes_that_fill_the_same_folder_at_once_do_no_harm(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    processes = [context.Process(target=fill_in_a_process, args=(tmp_path / "shared", barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    cache_in(tmp_path / "alone").fill(TABLE)
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def test_processes_with_a_number_fill_the_same_folder_in_orders_of_their_own_and_skip_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int]
) -> None:
    orders = []
    for number in (0, 1):
        monkeypatch.setattr(gmp_atl_hf.batching.feature_cache, "_own_order", None)
        fill_in_own_order(number)
        cache_in(tmp_path / str(number)).fill(TABLE)
        orders.append(decoded.copy())
        decoded.clear()
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    shutil.rmtree(tmp_path / "0")
    first, second = cache_in(tmp_path / "0"), cache_in(tmp_path / "0")
    encode = first.front_end.encode

    def meanwhile(*inputs: Any) -> Any:
        second.fill(TABLE)
        return encode(*inputs)

    monkeypatch.setattr(first.front_end, "encode", meanwhile)
    first.fill(TABLE)
    assert len(decoded) == len(TABLE) + 1, "the one that it was at, and none of those after it"
    assert contents(tmp_path / "0") == contents(tmp_path / "1")


def test_threads_may_ask_for_the_same_recording_at_once(tmp_path: Path) -> None:
    clips = TableClips(TABLE.select([0] * 16), (), cache_in(tmp_path))
    with ThreadPoolExecutor(8) as pool:
        found = [row["conv_features"] for row in pool.map(clips.__getitem__, range(16))]
    assert all(np.array_equal(features, found[0]) for features in found)
    assert len(contents(tmp_path)) == 1


def test_a_disk_without_room_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int]
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(gmp_atl_hf.batching.feature_store.shutil, "disk_usage", lambda _folder: usage)
    with pytest.raises(RequestError, match=r"cache needs .* GB are free") as refused:
        trainer_in(tmp_path).train()
    assert "data.front_end_cache" in str(refused.value)
    assert decoded == []
    assert contents(tmp_path) == {}


def test_a_disk_that_fills_up_meanwhile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes, durable: bool = True) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gmp_atl_hf.batching.feature_store.write_whole", full)
    with pytest.raises(RequestError, match="cache needs more room"):
        cache_in(tmp_path).fill(TABLE)


def test_the_bar_says_what_is_computed_and_where_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache_in(tmp_path).fill(TABLE, "1-multitask")
    said = capsys.readouterr().err
    assert "1-multitask: front end:" in said
    assert f"{len(TABLE)}/{len(TABLE)}" in said
    cache_in(tmp_path).fill(TABLE, "1-multitask")
    assert capsys.readouterr().err == "", "nothing is left to compute"


def test_every_byte_of_a_recording_counts() -> None:
    content = bytes(range(256)) * 4_000  # a megabyte
    places = [10, 100_000, 340_000, 500_000, 1_020_000]
    altered = [content, content + b"\0"]
    for place in places:
        altered.append(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    audio = [{"path": None, "bytes": each} for each in altered]
    table = TABLE.select(range(len(audio))).remove_columns(["audio"]).add_column("audio", audio)
    assert len(set(recording_hashes(table))) == len(altered)
