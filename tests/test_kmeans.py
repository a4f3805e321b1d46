"""MultiScaleKMeans: what it finds, refuses and writes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.pseudo_labels import lloyd
from gmp_atl_hf.pseudo_labels.codebook import FeatureSource
from gmp_atl_hf.pseudo_labels.kmeans import MultiScaleKMeans, column_name
from gmp_atl_hf.pseudo_labels.seeding import sample_frames, seed_centres

SPEAKERS = ["emodb/08", "emodb/03", "emodb/08"]


def source(*layers: int, **changes: Any) -> FeatureSource:
    layers = layers or (10,)
    fields: dict[str, Any] = {
        "kind": "hidden-states",
        "checkpoint": {layer: f"hash-{layer}" for layer in layers},
        "layers": layers,
        "settings": {"do_normalize": True},
    }
    return FeatureSource(**{**fields, **changes})


def mixture(frames: int = 4000, channels: int = 80, components: int = 60, seed: int = 0) -> Tensor:
    """Overlapping clusters of uneven weight with correlated channels, as hidden states have."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(24, channels, generator=generator) / 3
    means = torch.randn(components, 24, generator=generator) @ mixing * 2
    weights = 1 / (torch.arange(components) + 5.0)
    chosen = torch.multinomial(weights, frames, replacement=True, generator=generator)
    correlated = torch.randn(frames, 24, generator=generator) @ mixing
    return means[chosen] + correlated + 0.2 * torch.randn(frames, channels, generator=generator)


def fit(features: Tensor, *clusters: int, **settings: Any) -> MultiScaleKMeans:
    return MultiScaleKMeans(clusters=clusters, **settings).fit({10: features}, source(), SPEAKERS)


def exact_inertia(features: Tensor, centres: Tensor) -> float:
    return float(torch.cdist(features.double(), centres.double()).min(1).values.square().sum())


def test_every_frame_gets_one_integer_per_layer_and_number_of_clusters() -> None:
    features = {9: mixture(seed=1), 10: mixture(seed=2)}
    kmeans = MultiScaleKMeans(clusters=(5, 12)).fit(features, source(9, 10), SPEAKERS)
    labels = kmeans.predict({9: features[9][:7], 10: features[10][:7]}, source(9, 10))
    assert list(labels) == kmeans.columns == ["gmp_layer9_k5", "gmp_layer9_k12", "gmp_layer10_k5", "gmp_layer10_k12"]
    assert all(values.shape == (7,) and values.dtype == torch.int32 for values in labels.values())
    assert max(int(values.max()) for name, values in labels.items() if name.endswith("k5")) < 5
    assert kmeans.predict({9: features[9][:0], 10: features[10][:0]}, source(9, 10))["gmp_layer9_k5"].shape == (0,)


def test_clusters_that_are_far_apart_are_found_exactly() -> None:
    truth = torch.arange(3000) % 30
    centres = torch.randn(30, 100, generator=torch.Generator().manual_seed(0)) * 10
    features = centres[truth] + 0.1 * torch.randn(3000, 100, generator=torch.Generator().manual_seed(1))
    labels = fit(features, 30).predict({10: features}, source())["gmp_layer10_k30"]
    assert len({(int(a), int(b)) for a, b in zip(truth, labels, strict=True)}) == 30


@pytest.mark.parametrize("clusters", [8, 50])
def test_the_inertia_is_no_worse_than_that_of_the_published_settings(clusters: int) -> None:
    features = mixture()
    published = fit(features, clusters, backend="sklearn").scales[column_name(10, clusters)]
    assert fit(features, clusters).scales[column_name(10, clusters)].inertia <= published.inertia * 1.002


def test_the_inertia_written_is_that_of_the_centres_written() -> None:
    features = mixture()
    for settings in ({}, {"max_iterations": 1}, {"backend": "sklearn"}):
        kmeans = fit(features, 20, **settings)
        scale = kmeans.scales["gmp_layer10_k20"]
        assert scale.inertia == pytest.approx(exact_inertia(features, kmeans.codebooks["gmp_layer10_k20"]), rel=1e-5)
        assert scale.inertia_per_frame == pytest.approx(scale.inertia / 4000)
        assert scale.frames == 4000


def test_labels_name_the_nearest_centre_even_where_channels_have_a_large_offset() -> None:
    offset = torch.zeros(80)
    offset[:3] = torch.tensor([30_000.0, -20_000.0, 5_000.0])
    features = mixture() + offset
    kmeans = fit(features, 20)
    exact = torch.cdist(features.double(), kmeans.codebooks["gmp_layer10_k20"].double()).argmin(1)
    labels = kmeans.predict({10: features}, source())["gmp_layer10_k20"]
    assert float((labels == exact).float().mean()) >= 0.999


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    features = mixture()
    settings = {"init_frames": 1000}
    first, second = fit(features, 10, 20, **settings), fit(features, 10, 20, **settings)
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != fit(features, 10, 20, seed=1, **settings).fingerprint


def test_the_number_of_threads_changes_no_label_and_is_left_as_it_was() -> None:
    features = mixture().requires_grad_()
    threads = torch.get_num_threads()
    labels, fingerprints, inertias = [], [], []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            kmeans = fit(features, 10, 20, chunk_frames=500, init_dimensions=80)
            assert torch.get_num_threads() == number
            labels.append(kmeans.predict({10: features}, source())["gmp_layer10_k20"])
            fingerprints.append(kmeans.fingerprint)
            inertias.append(kmeans.scales["gmp_layer10_k20"].inertia)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*labels)
    assert len(set(fingerprints)) == len(set(inertias)) == 1


def test_a_scale_does_not_depend_on_the_scales_beside_it() -> None:
    features = mixture()
    together, alone = fit(features, 10, 20), fit(features, 20)
    assert torch.equal(together.codebooks["gmp_layer10_k20"], alone.codebooks["gmp_layer10_k20"])


def test_no_more_than_a_chunk_of_frames_is_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    nearest = lloyd.nearest

    def spy(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(points))
        return nearest(points, centres)

    monkeypatch.setattr(lloyd, "nearest", spy)
    features = mixture()
    small = fit(features, 20, chunk_frames=300)
    labels = small.predict({10: features}, source())
    assert max(seen) == 300
    large = fit(features, 20)
    assert torch.allclose(small.codebooks["gmp_layer10_k20"], large.codebooks["gmp_layer10_k20"], atol=1e-4)
    assert torch.equal(labels["gmp_layer10_k20"], large.predict({10: features}, source())["gmp_layer10_k20"])


def test_precision_that_a_training_switched_down_does_not_reach_the_distances() -> None:
    features = mixture()
    kmeans = fit(features, 50)
    expected = kmeans.predict({10: features}, source())["gmp_layer10_k50"]
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(kmeans.predict({10: features}, source())["gmp_layer10_k50"], expected)
            assert fit(features, 50).fingerprint == kmeans.fingerprint
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_half_precision_features_are_fitted_in_float32() -> None:
    features = mixture().half()
    kmeans = fit(features, 10)
    assert kmeans.codebooks["gmp_layer10_k10"].dtype == torch.float32
    assert kmeans.fingerprint == fit(features.float(), 10).fingerprint


def test_more_clusters_than_frames_are_refused_with_both_numbers() -> None:
    with pytest.raises(RequestError, match=r"(?s)40 frames.*at least 50.*under `clusters`, or more audio"):
        fit(mixture(frames=40), 10, 50)
    assert fit(mixture(frames=50), 50).scales["gmp_layer10_k50"].unused_clusters == 0


def test_fewer_distinct_frames_than_clusters_leave_clusters_unused_and_say_so() -> None:
    distinct = torch.randn(3, 80, generator=torch.Generator().manual_seed(0))
    features = distinct.repeat(100, 1)
    with pytest.warns(UserWarning, match="gmp_layer10_k8: 5 of 8 clusters have no frame"):
        kmeans = fit(features, 8)
    scale = kmeans.scales["gmp_layer10_k8"]
    assert scale.unused_clusters == 5
    assert scale.iterations < 10
    assert scale.inertia_per_frame == pytest.approx(0, abs=1e-4)
    assert torch.isfinite(kmeans.codebooks["gmp_layer10_k8"]).all()
    labels = kmeans.predict({10: features}, source())["gmp_layer10_k8"]
    assert len(labels.unique()) == 3
    assert torch.equal(labels[:3].repeat(100), labels)


def test_frames_that_are_all_the_same_are_one_cluster() -> None:
    with pytest.warns(UserWarning, match="3 of 4 clusters have no frame"):
        kmeans = fit(torch.full((50, 80), 0.1), 4)
    assert torch.isfinite(kmeans.codebooks["gmp_layer10_k4"]).all()
    assert len(kmeans.predict({10: torch.full((9, 80), 0.1)}, source())["gmp_layer10_k4"].unique()) == 1


def test_centres_without_a_frame_move_to_the_frames_farthest_from_their_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    features = mixture()

    def seed_badly(*arguments: Any) -> tuple[Tensor, Tensor]:
        centres, used = seed_centres(*arguments)
        centres[10:] = 1000.0  # Where no frame is.
        return centres, used

    monkeypatch.setattr(lloyd, "seed_centres", seed_badly)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kmeans = fit(features, 20)
    assert kmeans.scales["gmp_layer10_k20"].unused_clusters == 0
    assert len(kmeans.predict({10: features}, source())["gmp_layer10_k20"].unique()) == 20


def test_unused_centres_move_to_the_farthest_points_and_never_two_to_the_same() -> None:
    points = torch.tensor([[0.0, 0.0], [0.1, 0.0], [9.0, 0.0], [9.1, 0.0], [0.0, -5.0], [0.0, 2.0]])
    centres, taken = torch.zeros(4, 2), torch.tensor([True, False, False, True])
    repaired, moved = lloyd._repair(centres, taken, points, same_point=0.02)
    assert moved == 2
    assert torch.equal(repaired, torch.tensor([[0.0, 0.0], [9.1, 0.0], [0.0, -5.0], [0.0, 0.0]]))


def test_the_passes_go_on_while_an_unused_centre_can_be_put_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    real = lloyd.lloyd_pass

    def lose_a_cluster_twice(*arguments: Any) -> tuple[Tensor, Tensor, float]:
        sums, counts, inertia = real(*arguments)
        passes.append(len(passes) + 1)
        if passes[-1] in (2, 3):
            counts[4] = 0
        return sums, counts, inertia

    monkeypatch.setattr(lloyd, "lloyd_pass", lose_a_cluster_twice)
    assert fit(mixture(), 5, tolerance=1.0).scales["gmp_layer10_k5"].unused_clusters == 0
    assert len(passes) == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_values_that_are_not_finite_are_refused_and_counted_wherever_they_are(value: float) -> None:
    features = mixture()
    features[1234, 5] = value
    for init_frames in (4000, 400):
        with pytest.raises(RequestError, match="1 of 4000 frames of layer 10 with values that are not finite"):
            fit(features, 10, init_frames=init_frames)


def test_features_of_another_origin_are_refused_with_both_named() -> None:
    features = mixture()
    kmeans = fit(features, 5)
    refused = {
        r"(?s)kind is mfcc.*kind hidden-states": source(kind="mfcc"),
        r"(?s)checkpoint up to layer 10 is other.*hash-10": source(checkpoint={10: "other"}),
        r"(?s)layers is \[9\].*layers \[10\]": source(9),
        r"(?s)settings is \{'do_normalize': False\}.*True": source(settings={"do_normalize": False}),
    }
    for message, other in refused.items():
        with pytest.raises(RequestError, match=message):
            kmeans.predict({10: features}, other)
    with pytest.raises(RequestError, match=r"(?s)shape \(4000, 79\).*80"):
        kmeans.predict({10: features[:, 1:]}, source())
    with pytest.raises(RequestError, match=r"(?s)layers \[9\].*layer 10"):
        kmeans.predict({9: features}, source())
    kmeans.predict({9: features, 10: features}, source(9, 10))  # More layers than needed do no harm.


def test_features_that_are_not_what_their_source_says_are_not_fitted() -> None:
    with pytest.raises(RequestError, match=r"(?s)layers \[9\].*layers \[10\]"):
        MultiScaleKMeans(clusters=(4,)).fit({9: mixture()}, source(10), SPEAKERS)


def test_settings_that_make_no_sense_are_refused() -> None:
    for clusters in ((), (0, 5), (5, 5)):
        with pytest.raises(RequestError, match="clusters"):
            MultiScaleKMeans(clusters=clusters)
    with pytest.raises(RequestError, match="faiss"):
        MultiScaleKMeans(backend="faiss")
    with pytest.raises(ValueError, match="not fitted"):
        _ = MultiScaleKMeans().columns


def test_what_is_saved_can_be_read_and_gives_the_same_labels(tmp_path: Path) -> None:
    features = {9: mixture(seed=1), 10: mixture(seed=2)}
    where = source(9, 10)
    kmeans = MultiScaleKMeans(clusters=(5, 12), seed=3).fit(features, where, SPEAKERS)
    kmeans.save(tmp_path / "codebooks")
    written = sorted(path.name for path in (tmp_path / "codebooks").iterdir())
    assert written == ["codebooks.json", "codebooks.safetensors"]
    loaded = MultiScaleKMeans.load(tmp_path / "codebooks")
    assert loaded.columns == kmeans.columns
    assert loaded.fingerprint == kmeans.fingerprint
    assert loaded.source == where
    for name, labels in kmeans.predict(features, where).items():
        assert torch.equal(loaded.predict(features, where)[name], labels)
    with pytest.raises(RequestError, match="settings"):
        loaded.predict(features, source(9, 10, settings={}))
    loaded.save(tmp_path / "again")
    for name in written:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "codebooks" / name).read_bytes()


def test_the_json_says_where_each_codebook_comes_from(tmp_path: Path) -> None:
    fit(mixture(), 5, seed=3).save(tmp_path)
    content = json.loads((tmp_path / "codebooks.json").read_text())
    scale = content["scales"]["gmp_layer10_k5"]
    assert scale["k"] == 5
    assert scale["training_speakers"] == ["emodb/03", "emodb/08"]
    assert scale["inertia"] == pytest.approx(scale["inertia_per_frame"] * 4000)
    feature = {"kind": "hidden-states", "checkpoint": "hash-10", "layer": 10, "settings": {"do_normalize": True}}
    assert scale["feature"] == feature
    assert (content["seed"], content["algorithm"]["backend"], content["format_version"]) == (3, "torch", 1)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no file .*codebooks\.json"):
        MultiScaleKMeans.load(tmp_path)
    fit(mixture(), 5).save(tmp_path)
    good = (tmp_path / "codebooks.json").read_text()
    other_layer = json.loads(good)
    other_layer["source"]["layers"] = [11]
    for foreign in ("not json", "[]", "{}", good.replace('"k": 5', '"q": 5'), json.dumps(other_layer)):
        (tmp_path / "codebooks.json").write_text(foreign)
        with pytest.raises(RequestError, match=r"not a description of codebooks|format None|is no JSON"):
            MultiScaleKMeans.load(tmp_path)
    (tmp_path / "codebooks.json").write_text(good.replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(RequestError, match="format 99"):
        MultiScaleKMeans.load(tmp_path)
    (tmp_path / "codebooks.json").write_text(good.replace('"chunk_frames"', '"chunks"'))
    with pytest.raises(RequestError, match="other settings"):
        MultiScaleKMeans.load(tmp_path)
    (tmp_path / "codebooks.json").write_text(good)
    (tmp_path / "codebooks.safetensors").unlink()
    with pytest.raises(RequestError, match=r"no file .*codebooks\.safetensors"):
        MultiScaleKMeans.load(tmp_path)


def test_a_save_that_was_cut_off_never_passes_for_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(mixture(), 5).save(tmp_path)
    replace = Path.replace

    def cut_off(self: Path, target: Path) -> Path:
        if target.name == "codebooks.json":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", cut_off)
    with pytest.raises(KeyboardInterrupt):
        fit(mixture(seed=5), 5).save(tmp_path)
    with pytest.raises(RequestError, match=r"not the file that codebooks\.json describes"):
        MultiScaleKMeans.load(tmp_path)


def test_the_subsample_is_seeded_and_without_repetition() -> None:
    features = torch.arange(1000.0)[:, None].expand(-1, 2)
    drawn = sample_frames(features, 300, seed=0)
    assert len(drawn[:, 0].unique()) == 300
    assert torch.equal(drawn, sample_frames(features, 300, seed=0))
    assert not torch.equal(drawn, sample_frames(features, 300, seed=1))
    assert torch.equal(sample_frames(features, 5000, seed=0), features)


def test_the_sums_of_a_pass_are_those_of_the_frames_nearest_to_each_centre() -> None:
    features = mixture()
    origin = features.mean(0)
    centres = mixture(frames=15, seed=4) - origin
    data = lloyd.CentredFrames.of(features, origin, 500, [700, 600, 500, 1300, 900])
    sums, counts, inertia = lloyd.lloyd_pass(data, centres)
    labels = torch.cdist((features - origin).double(), centres.double()).argmin(1)
    exact = torch.zeros_like(sums).index_add_(0, labels, (features - origin).double())
    assert torch.allclose(sums, exact, rtol=1e-5, atol=1e-3)
    assert torch.equal(counts, torch.bincount(labels, minlength=15).double())
    assert inertia == pytest.approx(exact_inertia(features - origin, centres), rel=1e-5)


def test_rounded_numbers_add_up_to_the_same_in_any_order() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5000, generator=generator, dtype=torch.float64) * 10 ** torch.linspace(-6, 6, 5000).double()
    bound = float(values.abs().sum())
    near = lloyd.rounded(values, bound)
    assert float((near - values).abs().max()) <= 2**-52 * bound * 4
    sums = {float(near[torch.randperm(5000, generator=generator)].cumsum(0)[-1]) for _ in range(20)}
    assert len(sums) == 1
    plain = {float(values[torch.randperm(5000, generator=generator)].cumsum(0)[-1]) for _ in range(20)}
    assert len(plain) > 1, "the test would not notice"


def test_chunks_end_where_runs_end() -> None:
    assert lloyd.cut([5, 0, 7], 3) == [range(3), range(3, 5), range(5, 8), range(8, 11), range(11, 12)]
    assert lloyd.cut([], 3) == lloyd.cut([0], 3) == []


def test_runs_that_are_not_all_the_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="runs of 3999 frames for 4000"):
        MultiScaleKMeans(clusters=(4,)).fit({10: mixture()}, source(), SPEAKERS, runs=[3999])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_what_the_cpu_finds_and_the_same_each_time() -> None:
    features = mixture()
    on_cpu, on_gpu = fit(features, 10, 30), fit(features.cuda(), 10, 30)
    assert on_gpu.fingerprint == fit(features.cuda(), 10, 30).fingerprint
    for name in on_cpu.columns:
        assert on_gpu.scales[name].inertia == pytest.approx(on_cpu.scales[name].inertia, rel=1e-4)
        labels = on_gpu.predict({10: features.cuda()}, source())[name]
        assert labels.is_cuda
        assert float((labels.cpu() == on_cpu.predict({10: features}, source())[name]).float().mean()) > 0.99


def test_a_source_survives_json() -> None:
    where = source(9, 10, settings={"do_normalize": True, "window": (1, 2)})
    assert FeatureSource.from_json(json.loads(json.dumps(where.to_json()))) == where
    with pytest.raises(ValueError, match="no checkpoint hash"):
        source(9, checkpoint={10: "x"})


@pytest.mark.parametrize("clusters", [5, "50"])
def test_clusters_that_are_no_list_are_refused(clusters: Any) -> None:
    with pytest.raises(RequestError, match=f"(?s)clusters {clusters!r}.*a list of different numbers"):
        MultiScaleKMeans(clusters)
