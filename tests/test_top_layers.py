"""Training the highest layers alone, on states of the layers below that are computed once."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers.trainer_utils import get_last_checkpoint

import gmp_atl_hf.batching.layer_states
from families import CASES, make_stock, take_over
from gmp_atl_hf.batching.feature_cache import FrontEndCache
from gmp_atl_hf.batching.feature_store import FeatureStore
from gmp_atl_hf.batching.layer_states import LowestLayers
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.encoding_gmp_atl import GMPATLModel
from gmp_atl_hf.modeling.modeling_gmp_atl import (
    GMPATLPreTrainedModel,
    HubertForGMPATL,
    HubertForGMPATLFrameClassification,
    HubertForGMPATLMultiTask,
)
from gmp_atl_hf.training.top_layers import FOLDER
from gmp_atl_hf.training.trainer import GMPATLTrainer
from models import make_clips, pad
from runs import SPLIT, given_split, run, write_corpus
from tables import changed, feature_extractor, small_model, speech_table, training_arguments, weights_of
from test_trainer_resume import BY_EPOCH, CutOff, CutOffAt

TABLE, DEV = speech_table(9), speech_table(5, seed=1)
LAYERS = 3


def model_of(kind: type[GMPATLPreTrainedModel] = HubertForGMPATL, dropout: float = 0.0, **fields: Any) -> Any:
    return small_model(kind, dropout, **{"num_hidden_layers": LAYERS, "mask_time_prob": 0.0, **fields})


def trainer_in(folder: Path, model: Any, **fields: Any) -> GMPATLTrainer:
    cache = fields.pop("front_end_cache", True)
    settings = {"freeze_feature_encoder": True, "learning_rate": 1e-2, "max_seconds": 0.4, **fields}
    arguments = training_arguments(folder, **settings)
    return GMPATLTrainer(model, arguments, TABLE, DEV, processing_class=feature_extractor(), front_end_cache=cache)


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


@pytest.mark.parametrize("model_class", [HubertForGMPATL, HubertForGMPATLMultiTask, HubertForGMPATLFrameClassification])
@pytest.mark.parametrize(("count", "trained"), [(0, set()), (1, {"2"}), (2, {"1", "2"}), (3, {"0", "1", "2"})])
def test_only_the_highest_layers_and_the_heads_are_trained(
    model_class: Any, count: int, trained: set[str], tmp_path: Path
) -> None:
    masked = {"mask_time_prob": 0.3} if model_class is HubertForGMPATLFrameClassification else {}
    model = model_of(model_class, **masked)
    before = weights_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # frame labels need masks: said in a test of its own
        trainer_in(tmp_path, model, trained_layers=count, num_train_epochs=1).train()
    names = changed(before, weights_of(model))
    assert {name.split(".")[3] for name in names if name.startswith("hubert.encoder.layers.")} == trained
    assert all(name.startswith("hubert.encoder.layers.") for name in names if name.startswith("hubert."))
    assert any(not name.startswith("hubert.") for name in names)


def test_a_norm_behind_the_last_layer_is_trained_with_it(tmp_path: Path) -> None:
    model = model_of(do_stable_layer_norm=True, feat_extract_norm="layer")
    before = weights_of(model)
    trainer_in(tmp_path, model, trained_layers=1, num_train_epochs=1).train()
    assert "hubert.encoder.layer_norm.weight" in changed(before, weights_of(model))


@pytest.mark.parametrize("stable", [False, True])
def test_what_is_kept_changes_weights_by_its_rounding_only(
    stable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"do_stable_layer_norm": stable, "feat_extract_norm": "layer" if stable else "group"}
    # By plain descent: Adam divides noise by itself where a gradient is nought. Crops are taken behind what is kept.
    settings = {"trained_layers": 1, "optim": "sgd", "max_seconds": None}
    kept, computed, exact = (model_of(**shape) for _ in range(3))
    before = weights_of(kept)
    trainer_in(tmp_path / "kept", kept, **settings).train()
    trainer_in(tmp_path / "computed", computed, **settings, front_end_cache=False).train()
    monkeypatch.setattr("gmp_atl_hf.batching.conv_features.rounded", lambda features: features)
    trainer_in(tmp_path / "exact", exact, **settings).train()
    change = largest_difference(before, weights_of(computed))
    assert 0 < largest_difference(weights_of(kept), weights_of(computed)) < 0.01 * change
    assert largest_difference(weights_of(exact), weights_of(computed)) < 1e-4 * change


@pytest.mark.parametrize("case", [case for case in CASES if case != "whisper"])
@torch.no_grad()
def test_what_is_above_a_layer_gives_the_same_as_the_whole(case: str, tmp_path: Path) -> None:
    make_stock(case, tmp_path)
    model = take_over(HubertForGMPATL, tmp_path, mask_time_prob=0.0)
    batch = pad(make_clips([1_000, 4_000, 2_500]))
    whole = model.encode(**batch, layers=(1,))
    above = model.encode(layer_states=whole.hidden_states[1], layer_of_states=1, frame_mask=whole.frame_mask)
    torch.testing.assert_close(above.last_hidden_state[whole.frame_mask], whole.last_hidden_state[whole.frame_mask])
    torch.testing.assert_close(
        model(layer_states=whole.hidden_states[1], layer_of_states=1, frame_mask=whole.frame_mask).logits,
        model(**batch).logits,
    )


@pytest.mark.parametrize("case", [case for case in CASES if case != "whisper"])
def test_kept_states_are_those_of_the_clip_alone(case: str, tmp_path: Path) -> None:
    make_stock(case, tmp_path)
    model = take_over(HubertForGMPATL, tmp_path, mask_time_prob=0.0)
    clip = make_clips([3_000])[0]
    kept = LowestLayers(model, feature_extractor(), 1).encode(clip.numpy())
    with torch.no_grad():
        expected = model.encode(clip[None], layers=(1,)).hidden_states[1][0]
    assert kept.dtype == np.float16
    torch.testing.assert_close(torch.from_numpy(kept).float(), expected, rtol=1e-3, atol=1e-3)


def test_each_clip_passes_the_layers_below_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = 0
    encode = gmp_atl_hf.batching.layer_states.encode_speech

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal passed
        passed += 1
        return encode(*args, **kwargs)

    monkeypatch.setattr("gmp_atl_hf.batching.layer_states.encode_speech", counting)
    trainer = trainer_in(tmp_path, model_of(), trained_layers=1, head_epochs=2, eval_strategy="epoch")
    trainer.train()
    assert passed == len(TABLE) + len(DEV)
    trainer.evaluate()
    assert passed == len(TABLE) + len(DEV)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_what_is_kept_however_they_are_started(start: str, tmp_path: Path) -> None:
    alone, with_worker = model_of(), model_of()
    trainer_in(tmp_path / "alone", alone, trained_layers=1).train()
    workers = {"dataloader_num_workers": 1, "dataloader_multiprocessing_context": start}
    trainer_in(tmp_path / "worker", with_worker, trained_layers=1, **workers).train()
    assert largest_difference(weights_of(alone), weights_of(with_worker)) == 0


def test_checkpointed_layers_learn_the_same(tmp_path: Path) -> None:
    plain, checkpointed = model_of(), model_of()
    trainer_in(tmp_path / "plain", plain, trained_layers=2).train()
    trainer_in(tmp_path / "checkpointed", checkpointed, trained_layers=2, gradient_checkpointing=True).train()
    assert largest_difference(weights_of(plain), weights_of(checkpointed)) < 1e-5


def test_a_model_that_is_cut_up_among_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = training_arguments(tmp_path, trained_layers=1, freeze_feature_encoder=True)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RequestError, match="trained_layers is 1, under FSDP or DeepSpeed"):
        GMPATLTrainer(model_of(), arguments, TABLE, DEV, processing_class=feature_extractor())


def test_a_training_of_everything_leaves_what_another_has_kept(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    trainer_in(tmp_path, model_of(), num_train_epochs=1).train()
    assert (tmp_path / FOLDER).is_dir()


def test_what_is_kept_is_gone_once_the_training_is_finished(tmp_path: Path) -> None:
    there: list[int] = []

    class Look(CutOffAt):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            there.append(len(list((tmp_path / FOLDER).rglob("*.npy"))))

    trainer = trainer_in(tmp_path, model_of(), trained_layers=2)
    trainer.add_callback(Look(0))
    trainer.train()
    assert min(there) >= len(TABLE)
    assert not (tmp_path / FOLDER).exists()


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = trainer_in(tmp_path / "whole", model_of(dropout=0.1), trained_layers=2, **BY_EPOCH)
    whole.train()
    cut = trainer_in(tmp_path / "cut", model_of(dropout=0.1), trained_layers=2, **BY_EPOCH)
    cut.add_callback(CutOffAt(4))
    with pytest.raises(CutOff):
        cut.train()
    assert (tmp_path / "cut" / FOLDER).exists()
    resumed = trainer_in(tmp_path / "cut", model_of(dropout=0.1), trained_layers=2, **BY_EPOCH)
    resumed.train(resume_from_checkpoint=get_last_checkpoint(str(tmp_path / "cut")))
    assert largest_difference(weights_of(whole.model), weights_of(resumed.model)) == 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mask_time_prob": 0.1}, "mask_time_prob"),
        ({"mask_feature_prob": 0.1}, "mask_feature_prob"),
        ({"layerdrop": 0.1}, "layerdrop is 0.1"),
        ({"readout": "sum"}, "readout is 'sum'"),
        ({"augment": "sound"}, "augment makes another waveform"),
    ],
)
def test_what_cannot_be_kept_is_said_and_computed(fields: dict[str, Any], reason: str, tmp_path: Path) -> None:
    settings = {name: fields.pop(name) for name in ("augment",) if name in fields}
    model = model_of(**fields)
    before = weights_of(model)
    with pytest.warns(UserWarning, match="computed in every epoch, not once") as said:
        trainer_in(tmp_path, model, trained_layers=1, num_train_epochs=1, **settings).train()
    assert reason in str(said[0].message)
    assert any(name.startswith("hubert.encoder.layers.2.") for name in changed(before, weights_of(model)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"trained_layers": 4}, "trained_layers is 4, and the model has 3 transformer layers"),
        ({"trained_layers": 2, "readout": 1}, "has 1 transformer layers: what is above readout 1 is left out"),
        ({"trained_layers": 1, "freeze_encoder": True}, "freeze_encoder is true"),
        ({"trained_layers": 1, "freeze_feature_encoder": False}, "the front end is trained"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    shape = {name: fields.pop(name) for name in ("readout",) if name in fields}
    with pytest.raises(RequestError, match=said):
        trainer_in(tmp_path, model_of(**shape), **fields)


def test_fewer_than_no_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trained_layers is -1; expected 0 or more layers"):
        training_arguments(tmp_path, trained_layers=-1)


@pytest.mark.parametrize(
    "fields",
    [{"layer_of_states": None}, {"layer_of_states": 4}, {"layer_of_states": 1, "mask_time_indices": True}],
)
def test_states_that_no_layer_can_go_on_from_are_refused(fields: dict[str, Any]) -> None:
    encoder = GMPATLModel(model_of().config)
    if "mask_time_indices" in fields:
        fields = {**fields, "mask_time_indices": torch.ones(1, 5, dtype=torch.bool)}
    with pytest.raises(ValueError, match="layer_"):
        encoder(layer_states=torch.zeros(1, 5, 32), **fields)


def test_hidden_states_of_layers_below_cannot_be_given() -> None:
    encoder = GMPATLModel(model_of().config)
    with pytest.raises(ValueError, match="output_hidden_states"):
        encoder(layer_states=torch.zeros(1, 5, 32), layer_of_states=1, output_hidden_states=True)


def test_other_weights_or_another_layer_have_another_key() -> None:
    keys = {
        LowestLayers(model_of(), feature_extractor(), 1).key,
        LowestLayers(model_of(), feature_extractor(), 2).key,
        LowestLayers(small_model(HubertForGMPATL, seed=1, num_hidden_layers=LAYERS), feature_extractor(), 1).key,
        LowestLayers(model_of(), feature_extractor(True), 1).key,
    }
    assert len(keys) == 4


def test_a_key_does_not_depend_on_what_is_above() -> None:
    model = model_of()
    key = LowestLayers(model, feature_extractor(), 1).key
    with torch.no_grad():
        model.hubert.encoder.layers[2].final_layer_norm.weight.add_(1)
    assert LowestLayers(model, feature_extractor(), 1).key == key


def test_a_key_does_not_depend_on_what_changes_no_state() -> None:
    keys = {
        LowestLayers(model, feature_extractor(), 1).key
        for model in (model_of(), model_of(am_softmax_margin=0.3), model_of(seen_speakers=["a/1"]))
    }
    assert len(keys) == 1
    assert LowestLayers(model_of(layer_norm_eps=1e-3), feature_extractor(), 1).key not in keys


def test_damaged_states_are_computed_again(tmp_path: Path) -> None:
    model = model_of()
    cache = FrontEndCache(tmp_path, model, feature_extractor(), LowestLayers(model, feature_extractor(), 2))
    cache.fill(TABLE)
    name = cache.names(TABLE)[0]
    before = np.array(cache.store.read(name))
    cache.store.path(name).write_bytes(b"nothing")
    cache.fill(TABLE)
    assert (FeatureStore(cache.store.folder, 32).read(name) == before).all()


def test_a_recipe_trains_the_top_of_its_encoder(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    stage = {"trained_layers": 1, "freeze_feature_encoder": True, "model": {"mask_time_prob": 0.0}}
    top = {"name": "top", "base": "direct", "set": {f"stages.finetune.{name}": each for name, each in stage.items()}}
    run(given_split(root, variants=[top], final=False), tmp_path / "run")
    before = load_file(tmp_path / "run/backbone/seed-0/model.safetensors")
    after = load_file(tmp_path / "run/top/seed-0/fold-01/4-finetune/model.safetensors")
    trained = {name for name in before if not torch.equal(before[name], after[f"hubert.{name}"])}
    assert len({name.split(".")[2] for name in trained}) == 1
    assert trained <= {name for name in before if name.startswith("encoder.layers.")}
    assert not list((tmp_path / "run").rglob(FOLDER))


def test_a_recipe_with_more_layers_than_its_encoder_has_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    stage = {"stages__finetune__trained_layers": 40, "stages__finetune__freeze_feature_encoder": True}
    with pytest.raises(RequestError, match="stages.finetune: trained_layers is 40, and the model has"):
        run(given_split(root, **stage), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.safetensors"))
