"""The model on a CPU, clips side by side: the numbers of the model itself, in float32 and, within reason, in int8."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from audio_files import RATE, tone
from classifiers import HAS_INT8, make_classifier, needs_int8, score, score_all, values
from gmp_atl_hf import HubertForGMPATL, SpeechEmotionClassifier
from gmp_atl_hf.checkpoints import default_feature_extractor
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.inference import devices
from gmp_atl_hf.inference.cpu import front_end
from gmp_atl_hf.inference.cpu import linear as products
from gmp_atl_hf.inference.cpu import model as packing
from gmp_atl_hf.inference.cpu.linear import Float32Convolution, Float32Linear, Int8Convolution, Int8Linear, PackedLinear
from gmp_atl_hf.inference.cpu.model import PackedModel
from gmp_atl_hf.inference.devices import resolve_precision
from gmp_atl_hf.inference.scorers import PackedScorer, PaddedScorer
from gmp_atl_hf.numerics import no_tf32
from gmp_atl_hf.threads import prefetch
from models import POOLINGS, build, make_clips

LENGTHS = (12_345, 4_000, 4_000, 400, 30_000, 719)


def build_model(shape: str = "base", **fields: Any) -> HubertForGMPATL:
    model = build(HubertForGMPATL, shape, **fields)
    assert isinstance(model, HubertForGMPATL)
    return model


@torch.inference_mode()
def one_by_one(model: HubertForGMPATL, clips: list[Tensor]) -> Tensor:
    return torch.cat([model(clip[None]).logits for clip in clips]).softmax(-1)


# The whole model


@pytest.mark.parametrize(
    ("shape", "fields"),
    [(shape, {"pooling": pooling}) for shape in ("base", "large") for pooling in POOLINGS]
    + [
        ("base", {"conv_bias": True, "num_conv_pos_embeddings": 15, "hidden_act": "relu"}),
        ("base", {"emotion_loss": "cross-entropy", "feat_proj_layer_norm": False, "feat_extract_activation": "relu"}),
        ("large", {"conv_kernel": (20, 15, 4), "conv_stride": (10, 8, 4), "conv_dim": (8, 12, 16)}),
        ("base", {"conv_kernel": (20, 15, 4), "conv_stride": (10, 8, 4), "conv_dim": (8, 12, 16)}),
        ("base", {"conv_kernel": (10, 7, 2), "conv_stride": (5, 2, 32), "conv_dim": (8, 12, 16)}),
    ],
)
def test_clips_side_by_side_score_as_one_by_one(shape: str, fields: dict[str, Any]):
    model = build_model(shape, **fields)
    clips = make_clips(LENGTHS)
    wanted = one_by_one(model, clips)
    torch.testing.assert_close(PackedModel(model)(clips).softmax(-1), wanted, atol=1e-5, rtol=0)
    assert float((wanted[0] - wanted[1]).abs().max()) > 1e-3  # or the clips could not be told apart


@pytest.mark.parametrize("activation", ["gelu", "relu", "gelu_new"])
@pytest.mark.parametrize("shape", ["base", "large"])
def test_products_of_onednn_and_of_torch_score_alike(shape: str, activation: str, monkeypatch: pytest.MonkeyPatch):
    model = build_model(shape, hidden_act=activation, feat_extract_activation=activation)
    clips = make_clips(LENGTHS)
    wanted = one_by_one(model, clips)
    assert products._has_onednn() == torch.backends.mkldnn.is_available()
    for has_onednn in (True, False):
        if has_onednn <= products._has_onednn():
            monkeypatch.setattr(products, "_has_onednn", lambda has=has_onednn: has)
            # What applies GELU, and whether layers have a second copy of their weights.
            for beyond, most in ((True, 0), (False, 0), (True, 1 << 30), (False, 1 << 30)):
                monkeypatch.setattr(products, "_beyond_avx2", lambda has=beyond: has)
                monkeypatch.setattr(packing, "PACKED_BYTES", most)
                packed = PackedModel(model)
                assert isinstance(packed.layers[0].output, PackedLinear if most else Float32Linear)
                torch.testing.assert_close(packed(clips).softmax(-1), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", ["base", "large"])
def test_a_copy_scores_as_the_one_it_is_made_of(shape: str):
    packed, clips = PackedModel(build_model(shape)), make_clips((4_000, 719))
    assert torch.equal(deepcopy(packed)(clips), packed(clips))


@pytest.mark.parametrize("shape", ["base", "large"])
def test_a_waveform_goes_through_the_front_end_in_pieces(shape: str, monkeypatch: pytest.MonkeyPatch):
    model, clips = build_model(shape), make_clips((40_000, 5_300))
    whole = PackedModel(model)
    monkeypatch.setattr(front_end, "CHUNK_BYTES", 0)
    pieces = PackedModel(model)
    assert pieces.front_end.frames == 16 < whole.front_end.frames
    torch.testing.assert_close(pieces(clips), whole(clips), atol=1e-5, rtol=0)


def test_silence_and_an_offset_are_what_they_are_to_the_model():
    model = build_model("base")
    packed, [clip] = PackedModel(model), make_clips((9_000,))
    silence = [torch.zeros(8_000)]
    torch.testing.assert_close(packed(silence).softmax(-1), one_by_one(model, silence), atol=1e-6, rtol=0)
    # Group norm takes an offset out; in float32 the model itself loses digits to it, and says something else.
    torch.testing.assert_close(packed([clip + 64.0]).softmax(-1), one_by_one(model, [clip]), atol=1e-3, rtol=0)


def test_what_cannot_be_computed_side_by_side_is_padded():
    adapted = build_model("large", adapter_attn_dim=4)
    extractor = default_feature_extractor(adapted.config)
    assert isinstance(SpeechEmotionClassifier(adapted, extractor)._scorer, PaddedScorer)
    assert isinstance(make_classifier(precision="bfloat16")._scorer, PaddedScorer)
    assert isinstance(make_classifier()._scorer, PackedScorer)
    if HAS_INT8:
        with pytest.raises(RequestError, match="adapters"):
            SpeechEmotionClassifier(adapted, extractor, precision="int8")


@pytest.mark.parametrize("threads", [1, 2])
def test_several_batches_at_once_change_nothing(threads: int):
    classifier, before = make_classifier(batch_seconds=1), torch.get_num_threads()
    clips = [(RATE, tone(4_000 + 300 * number, 100 + 50 * number)) for number in range(20)]
    wanted = np.stack([values(score(classifier, clip)) for clip in clips])
    try:
        torch.set_num_threads(threads)
        found = np.stack([values(one) for one in score_all(classifier, clips)])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


# Batches in threads


def test_results_come_in_order_and_a_bounded_number_ahead():
    taken: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for side_by_side, threads in ((True, 3), (False, 1)):
            taken.clear()
            seen = []
            for result in prefetch(lambda n: (n, torch.get_num_threads()), batches(), threads, side_by_side):
                seen.append(result)
                assert len(taken) - len(seen) <= threads + 1
            assert seen == [(number, 1 if side_by_side else 3) for number in range(20)]
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_what_goes_wrong_in_a_worker_is_raised_and_leaves_no_thread():
    def fail(number: int) -> int:
        if number == 2:
            raise RuntimeError("out of memory")
        return number

    before = threading.active_count()
    for side_by_side in (True, False):
        with pytest.raises(RuntimeError, match="out of memory"):
            list(prefetch(fail, range(9), 2, side_by_side))
    assert threading.active_count() == before


# Products


def gelu_steps(steps: int = 60, channels: int = 32) -> Tensor:
    """Values as they come out of GELU: many near 0, none below -0.17, rows of different size."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.logspace(-2, 1, steps)[:, None]
    return nn.functional.gelu(sizes * torch.randn(steps, channels, generator=generator))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (10, 5), (1, 1), (7, 3), (2, 4)])
@pytest.mark.parametrize("channels", [1, 8])
def test_a_convolution_is_a_sum_of_products(kernel: int, stride: int, channels: int):
    convolution = nn.Conv1d(channels, 6, kernel, stride, bias=channels > 1)
    weight, bias = convolution.weight.detach(), None if convolution.bias is None else convolution.bias.detach()
    for steps in (kernel, kernel + 1, 41, 42, 43):
        rows = torch.randn(steps, channels)
        with torch.inference_mode():
            wanted = convolution(rows.T[None])[0].T
        torch.testing.assert_close(Float32Convolution(weight, bias, stride)(rows), wanted, atol=1e-5, rtol=0)
        if HAS_INT8:
            found = Int8Convolution(weight, bias, stride)(rows)
            torch.testing.assert_close(found, wanted, atol=0.03 * float(wanted.abs().max()), rtol=0)


@needs_int8
@pytest.mark.parametrize("lowest", [None, -0.17])
def test_int8_is_close_row_by_row_and_no_row_changes_another(lowest: float | None):
    linear, rows = nn.Linear(32, 24), gelu_steps()
    product = Int8Linear(linear.weight.detach(), linear.bias.detach(), lowest)
    wanted, found = linear(rows).detach(), product(rows)
    error = (found - wanted).norm(dim=1) / (wanted - linear.bias.detach()).norm(dim=1)
    # A bound below helps rows of ordinary size; tiny ones are counted from it, not from 0.
    assert float(error[20:].max()) < (0.02 if lowest is None else 0.012)
    louder = rows.clone()
    louder[::2] *= 1000.0
    assert torch.equal(product(louder)[1::2], found[1::2])
    assert torch.equal(product(rows[7:8]), found[7:8])
    assert torch.isfinite(product(torch.zeros(3, 32))).all()


@needs_int8
@pytest.mark.parametrize("shape", ["base", "large"])
def test_int8_scores_are_near_and_do_not_depend_on_the_clips_beside(shape: str):
    model = build_model(shape, initializer_range=0.05, logit_temperature=3.0)
    packed, clips = PackedModel(model, int8=True), make_clips(LENGTHS)
    together, exact = packed(clips).softmax(-1), one_by_one(model, clips)
    alone = torch.cat([packed([clip]) for clip in clips]).softmax(-1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert 0 < float((together - exact).abs().max()) < 0.05


@needs_int8
def test_the_classifier_computes_in_int8_when_asked():
    exact, rounded = (make_classifier(precision=name) for name in ("float32", "int8"))
    clip = (RATE, tone(20_000))
    assert 0 < np.abs(values(score(exact, clip)) - values(score(rounded, clip))).max() < 0.1
    assert rounded.precision == "int8"


# Precision


def test_precisions_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    for name in ("float16", "int4", ""):
        with pytest.raises(RequestError, match="precision is"):
            SpeechEmotionClassifier.from_pretrained(tmp_path / "no model is looked for", "cpu", precision=name)
    with pytest.raises(RequestError, match="int8 is for the CPU"):
        resolve_precision("int8", torch.device("cuda"))
    monkeypatch.setattr(products, "_has_int8", lambda: False)
    with pytest.raises(RequestError, match="VNNI or AMX"):
        resolve_precision("int8", torch.device("cpu"))


def test_auto_is_bfloat16_on_gpus_that_have_it(monkeypatch: pytest.MonkeyPatch):
    assert resolve_precision("auto", torch.device("cpu")) == "float32"
    for has_it, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(devices.torch.cuda, "is_bf16_supported", lambda including_emulation, has_it=has_it: has_it)
        assert resolve_precision("auto", torch.device("cuda")) == name


def test_float32_on_a_gpu_is_no_tf32():
    conv: Any = torch.backends.cudnn.conv
    before = conv.fp32_precision
    try:
        conv.fp32_precision = "tf32"
        with no_tf32(torch.device("cpu")):
            assert conv.fp32_precision == "tf32"
        with no_tf32(torch.device("cuda")):
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == "tf32"
        one, other = no_tf32(torch.device("cuda")), no_tf32(torch.device("cuda"))  # as in two threads
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        assert conv.fp32_precision == "ieee", "who ends first ends it for the others"
        other.__exit__(None, None, None)
        assert conv.fp32_precision == "tf32"
    finally:
        conv.fp32_precision = before
