"""Multi-scale k-means: several layers, lengths of averaging and K, one integer per frame and scale."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor

from ..batching.feature_cache import FrontEndCache
from ..data.scale_names import SINGLE_FRAME, column_name, refuse_odd_windows
from ..data.table_values import refuse_missing_columns, usable_clips
from ..errors import RequestError
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from ..numerics import float32_matmul
from ..protocols.speakers import speakers_in
from ..version import __version__
from .averaging import FeatureKey, column_of, feature_keys, in_words
from .choices import NORMALIZATIONS, PER, POSITIONS, Normalize, Per, Positions
from .classes import Classes, FrameClasses
from .codebook import EXTENDED_VERSION, FeatureSource, Scale, read_codebooks, write_codebooks
from .feature_stream import BATCH_SECONDS
from .features import hidden_state_extraction, open_cache
from .frame_sample import Sample, take_sample
from .lloyd import CentredFrames, Codebook, LloydSettings, assign, fit_codebook
from .preparation import UNPREPARED, Preparation
from .published_kmeans import fit_published
from .seeding import SeedingSettings, Subsample, sample_frames

__all__ = ["FeatureSource", "MultiScaleKMeans", "column_name"]

BACKENDS = ("torch", "sklearn")
SAMPLE_FRAMES = 500_000
"""Most frames that are clustered by default, about 2.8 hours. Our choice."""
FRAMES_PER_CLUSTER = 40
"""Fewest frames of the seeding subsample for each cluster, where the features have them. Our choice."""


class MultiScaleKMeans:
    """K-means on frame features of one or more layers at several numbers of clusters.

    The paper says that pseudo-labels come from k-means at several scales; every value below is our choice. The same
    seed on the same machine gives the same bits, and seeding runs on the CPU, so a GPU starts from the same centres.

    With fewer distinct frames than clusters the surplus clusters stay unused: their centres are finite, no frame is
    ever given their number, `codebooks.json` counts them as ``unused_clusters`` and a warning says so.

    Args:
        clusters: The numbers of clusters K. HuBERT itself uses 100 and 500, the authors' neighbours 50.
        seed: Of the subsample and of every start.
        max_iterations: Passes over all frames at most. Three to eight are usual, for seeding leaves little to do.
        tolerance: The pass that lowers the inertia by less than this share of it is the last.
        init_frames: Frames drawn to seed from; at least 40 per cluster of the largest K.
        init_dimensions: Principal directions of those frames in which seeding works.
        init_restarts: Greedy k-means++ starts, of which the best is kept.
        init_iterations: Lloyd iterations on the subsample after each start.
        chunk_frames: Frames handled at once by a thread; they bound the memory beside the features to ``chunk_frames ×
            (max(clusters) + channels)`` floats per thread, the subsample and the codebooks.
        backend: ``"torch"``, or ``"sklearn"`` for the published HuBERT settings (`MiniBatchKMeans`, twenty starts,
            batches of 10,000; slow), to compare with older work; only ``clusters`` and ``seed`` act on it.
        windows: Seconds over which states are averaged around each frame, within its clip, before they are clustered:
            a scale for each window and K, still with one label for every frame. 0.02 is the frame as it is.
        normalize: ``"speaker"`` or ``"gender"`` centres and scales frames by the statistics of their own group before
            that. Who was clustered keeps the statistics of the training frames; others have those of their own frames
            in the table that is labelled; where speaker or gender is not known, all training frames count.
        per: ``"emotion"`` or ``"gender"`` fits K / classes centres on the frames of each class by themselves and joins
            them. Frames of speakers who were clustered then get the nearest centre of their own class, all others the
            nearest of all; frames of an unknown class are not clustered.
        positions: ``"remove"`` takes the mean state of each place in a clip away first, ``"auto"`` where the encoder
            has absolute positions: without it, Whisper's clusters of single frames are clusters of time.

    Example:
        >>> features = {10: torch.randn(2000, 16)}
        >>> source = FeatureSource("hidden-states", {10: "5ac1"}, (10,), {"do_normalize": True})
        >>> kmeans = MultiScaleKMeans(clusters=(4, 8)).fit(features, source, ["emodb/03", "emodb/08"])
        >>> {name: tuple(labels.shape) for name, labels in kmeans.predict(features, source).items()}
        {'gmp_layer10_k4': (2000,), 'gmp_layer10_k8': (2000,)}
    """

    def __init__(
        self,
        clusters: Sequence[int] = (50, 100, 500),
        seed: int = 0,
        max_iterations: int = LloydSettings.max_iterations,
        tolerance: float = LloydSettings.tolerance,
        init_frames: int = SeedingSettings.init_frames,
        init_dimensions: int = SeedingSettings.init_dimensions,
        init_restarts: int = SeedingSettings.init_restarts,
        init_iterations: int = SeedingSettings.init_iterations,
        chunk_frames: int = LloydSettings.chunk_frames,
        backend: str = "torch",
        windows: Sequence[float] = (SINGLE_FRAME,),
        normalize: Normalize = "none",
        per: Per = "none",
        positions: Positions = "auto",
    ) -> None:
        self.clusters = () if isinstance(clusters, int | str) else tuple(int(count) for count in clusters)
        if not self.clusters or min(self.clusters) < 1 or len(set(self.clusters)) < len(self.clusters):
            fix = "for example [50, 100, 500]; [5] for one number"
            raise RequestError(f"clusters {clusters!r}", "a list of different numbers, each at least 1", fix)
        if backend not in BACKENDS:
            raise RequestError(f"k-means backend {backend!r}", f"one of {', '.join(BACKENDS)}", "use 'torch'")
        self.windows = tuple(float(window) for window in windows)
        refuse_odd_windows(self.windows)
        if normalize not in NORMALIZATIONS:
            fix = "normalize='speaker'"
            raise RequestError(f"normalize {normalize!r}", f"one of {', '.join(NORMALIZATIONS)}", fix)
        if per not in PER:
            raise RequestError(f"per {per!r}", f"one of {', '.join(PER)}", "per='emotion'")
        if positions not in POSITIONS:
            raise RequestError(f"positions {positions!r}", f"one of {', '.join(POSITIONS)}", "positions='auto'")
        self.normalize: Normalize = normalize
        self.per: Per = per
        self.positions: Positions = positions
        self.seed = seed
        self.backend = backend
        self.settings = LloydSettings(max_iterations, tolerance, chunk_frames)
        self.seeding = SeedingSettings(init_frames, init_dimensions, init_restarts, init_iterations)
        self._source: FeatureSource | None = None
        self._centres: dict[str, Tensor] = {}
        self._scales: dict[str, Scale] = {}
        self._preparation = UNPREPARED
        self._classes: Classes | None = None

    @property
    def source(self) -> FeatureSource:
        """What the fitted features were."""
        if self._source is None:
            raise ValueError("this MultiScaleKMeans is not fitted: call fit or MultiScaleKMeans.load first")
        return self._source

    @property
    def layers(self) -> tuple[int, ...]:
        """The fitted layers, as given."""
        return self.source.layers

    @property
    def columns(self) -> list[str]:
        """Names of the label columns, by layer, then window, then K, all in the order given."""
        return [column_of(key, count) for key in self.keys for count in self.clusters]

    @property
    def keys(self) -> list[FeatureKey]:
        """What is clustered, as `fit` and `predict` want it: layers, or with windows also (layer, seconds)."""
        return feature_keys(self.layers, self.windows)

    @property
    def preparation(self) -> Preparation:
        """What was measured over the training frames, to prepare frames by before they are clustered or labelled."""
        return self._preparation

    @property
    def classes(self) -> Classes | None:
        """Whose frames were clustered by themselves; None where all were clustered together."""
        return self._classes

    @property
    def scales(self) -> dict[str, Scale]:
        """Column name → what is known about its fit."""
        return dict(self._scales)

    @property
    def frame_scales(self) -> dict[str, int]:
        """Column name → number of clusters, as `HubertForGMPATLFrameClassification` wants to know it."""
        return {name: scale.k for name, scale in self._scales.items()}

    @property
    def codebooks(self) -> dict[str, Tensor]:
        """Column name → (clusters, channels) float32 centres."""
        return dict(self._centres)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all centres and their names: the same for the same labels-to-be."""
        digest = hashlib.sha256()
        for name in self.columns:
            digest.update(name.encode() + self._centres[name].cpu().contiguous().numpy().tobytes())
        if self._classes is not None:
            digest.update("\n".join(self._classes.names).encode())
        self._preparation.add_to(digest)
        return digest.hexdigest()

    @property
    def seeding_frames(self) -> int:
        """How many frames `fit` seeds from, where there are as many."""
        return max(self.seeding.init_frames, FRAMES_PER_CLUSTER * max(self.clusters))

    def fit(
        self,
        features: Mapping[Any, Tensor],
        provenance: FeatureSource,
        speakers: Sequence[str],
        *,
        runs: Sequence[int] | None = None,
        device: torch.device | str | None = None,
        preparation: Preparation = UNPREPARED,
        classes: FrameClasses | None = None,
    ) -> MultiScaleKMeans:
        """Fits a codebook for every layer, window and K.

        Args:
            features: Layer → (frames, channels) floating point, finite, any device; of training speakers only. Averaged
                ones have the key (layer, seconds).
            provenance: What the features are.
            speakers: Whose frames they are.
            runs: Lengths of the runs of frames, one behind the other, that chunks do not reach over; one run if not
                given. They matter to the last bits of the centres only.
            device: Where to fit, one layer at a time; where the features are if not given.
            preparation: How the features were prepared, where they were; `fit_model` measures it.
            classes: The class of each frame, where each is clustered by itself; `fit_model` knows it.

        Returns:
            Itself.

        Raises:
            RequestError: More clusters than frames, values that are not finite, or layers other than the provenance's.
        """
        keys = feature_keys(provenance.layers, self.windows)
        if set(features) != set(keys):
            found = f"features of layers {sorted(features, key=str)}"
            raise RequestError(found, f"layers {keys} as their source and windows say", "extract them together")
        if self.normalize != preparation.normalize:
            found = "features and no statistics" if preparation.groups is None else "features and statistics"
            found += f" of each {self.normalize if preparation.groups is None else preparation.normalize}"
            raise RequestError(found, f"what fits normalize={self.normalize!r}", "fit_model measures and normalises")
        if self.positions == "remove" and preparation.positions is None:
            raise RequestError("features with their places in them", "positions removed", "fit_model removes them")
        if self.per != ("none" if classes is None else classes.classes.by):
            found = f"features and no {self.per} of each frame" if classes is None else "classes of frames"
            raise RequestError(found, f"what fits per={self.per!r}", "fit_model knows them")
        centres: dict[str, Tensor] = {}
        scales: dict[str, Scale] = {}
        for key in keys:
            frames = features[key] if device is None else features[key].to(device)
            fit = partial(self._fit_layer, key)
            each = fit if classes is None else partial(classes.fit_each, fit)
            for clusters, codebook in each(frames, runs, self.clusters).items():
                name = column_of(key, clusters)
                centres[name] = codebook.centres
                how = {**preparation.settings(), "per": self.per}
                scales[name] = Scale.of(key, codebook, provenance, speakers, **how)
                if codebook.unused:
                    warnings.warn(
                        f"{name}: {codebook.unused} of {clusters} clusters have no frame: too few of the "
                        f"{codebook.frames} frames differ, or max_iterations={self.settings.max_iterations} is too few",
                        stacklevel=2,
                    )
        self._source, self._centres, self._scales, self._preparation = provenance, centres, scales, preparation
        self._classes = None if classes is None else classes.classes
        return self

    def fit_sample(
        self,
        sample: Sample,
        provenance: FeatureSource,
        speakers: Sequence[str],
        device: torch.device | None = None,
        preparation: Preparation = UNPREPARED,
        classes: FrameClasses | None = None,
    ) -> MultiScaleKMeans:
        """`fit` on drawn frames: on the device if it is a GPU, on the CPU otherwise."""
        device = device if device is not None and device.type == "cuda" else None
        how: dict[str, Any] = {"runs": sample.runs, "device": device, "preparation": preparation, "classes": classes}
        return self.fit(sample.features, provenance, speakers, **how)

    def fit_model(
        self,
        model: GMPATLPreTrainedModel,
        table: datasets.Dataset,
        feature_extractor: Any,
        layers: Sequence[int] = (-3,),
        sample_frames: int = SAMPLE_FRAMES,
        batch_seconds: float = BATCH_SECONDS,
        description: str | None = "Clustering",
        cache: FrontEndCache | str | os.PathLike[str] | None = None,
    ) -> MultiScaleKMeans:
        """Fits a codebook for every layer, window and K on what a model makes of the training rows.

        Args:
            model: Any GMP-ATL model; it is run in eval mode and without masks.
            table: The training rows and nothing else, with `id`, `audio`, `num_samples`, `speaker`, and the column
                that frames are normalised by or clustered per.
            feature_extractor: The checkpoint's feature extractor.
            layers: Transformer layers, 1-based or negative from the top; the third-last is stated by the paper.
            sample_frames: Most frames that are clustered; each layer and window holds so many in memory.
            batch_seconds: Seconds of audio per batch of the extraction, padding included.
            description: What the progress bars say; None for no bar.
            cache: The front-end cache or its folder; None computes the front end.

        Returns:
            Itself.

        Raises:
            RequestError: The table lacks a column or a length, or as `fit`.

        Example:
            >>> kmeans = MultiScaleKMeans([25, 50]).fit_model(model, table, extractor, layers=[-3])  # doctest: +SKIP
            >>> kmeans.frame_scales  # doctest: +SKIP
            {'gmp_layer4_k25': 25, 'gmp_layer4_k50': 50}
        """
        table = usable_clips(table)
        whose = "whose frames are clustered: codebooks say it, so that none is used on somebody it knows"
        refuse_missing_columns(table, {"speaker": whose}, "load_corpus gives it; add it to a table of your own")
        cache = open_cache(cache, model, feature_extractor, table, description)
        extraction = hidden_state_extraction(model, layers, feature_extractor, cache, batch_seconds)
        preparation = Preparation.measure(extraction, table, self.positions, self.normalize, lambda what: description)
        sample = take_sample(
            preparation.applied(extraction, self.windows), table, sample_frames, self.seed, description
        )
        classes, speakers = FrameClasses.of(sample, table, self.per), sorted(speakers_in([table]))
        return self.fit_sample(sample, extraction.source, speakers, model.device, preparation, classes)

    def predict(
        self, features: Mapping[Any, Tensor], source: FeatureSource, of: str | None = None, prepared: bool = False
    ) -> dict[str, Tensor]:
        """The nearest cluster of every frame, at every scale.

        Args:
            features: Layer → (frames, channels) floating point, any device; layers that were not fitted are not used.
                Averaged ones have the key (layer, seconds).
            source: What the features are.
            of: The class whose centres alone are looked at, where each was clustered by itself; None for all centres.
            prepared: Whether they are normalised, and without their places' means, where the fitted ones were.

        Returns:
            Column name → (frames,) int32 in [0, K), on the device of the features.

        Raises:
            RequestError: Features of another checkpoint, kind, layer, setting or width, or not `prepared`.
        """
        self.check_source(source)
        if (how := self._preparation.described()) and not prepared:
            found = f"features of which nobody says that they are prepared ({', '.join(how)})"
            raise RequestError(found, "prepared ones", "attach_pseudo_labels; or prepared=True where they are")
        labels: dict[str, Tensor] = {}
        for key in self.keys:
            if key not in features:
                found = f"features of layers {sorted(features, key=str)}"
                raise RequestError(found, f"layer {in_words(key)}", "extract that layer too")
            frames = features[key]
            for clusters in self.clusters:
                name = column_of(key, clusters)
                width = self._centres[name].shape[1]
                if frames.ndim != 2 or frames.shape[1] != width:
                    found = f"features of layer {in_words(key)} of shape {tuple(frames.shape)}"
                    raise RequestError(found, f"(frames, {width}) as in {name}", "use the model that was clustered")
                # Moved once: the codebooks stay on the device where features were seen last.
                self._centres[name] = self._centres[name].to(frames.device)
                own = slice(0, clusters) if self._classes is None else self._classes.centres(of, clusters)
                labels[name] = assign(frames, self._centres[name][own], self.settings.chunk_frames) + own.start
        return labels

    def check_source(self, source: FeatureSource) -> None:
        """Refuses features other than those that were fitted.

        Args:
            source: What the features are.

        Raises:
            RequestError: Another checkpoint, kind, layer or setting.
        """
        self.source.refuse_unlike(source)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `codebooks.safetensors` and `codebooks.json`, each whole or not at all.

        Args:
            folder: Created where it does not exist.
        """
        common: dict[str, Any] = {
            "package_version": __version__,
            "seed": self.seed,
            "algorithm": {"backend": self.backend, **asdict(self.settings), **asdict(self.seeding)},
            "source": self.source.to_json(),
            "clusters": list(self.clusters),
        }
        how = self._preparation.described()
        if self.windows != (SINGLE_FRAME,) or how:
            common |= {"format_version": EXTENDED_VERSION, "windows": list(self.windows), "normalize": self.normalize}
        if self._classes is not None:
            common |= {"format_version": EXTENDED_VERSION, "per": self.per, "classes": list(self._classes.names)}
        tensors = self._centres | self._preparation.tensors()
        write_codebooks(Path(folder), tensors, self._scales, common | how)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> MultiScaleKMeans:
        """Reads codebooks that `save` wrote.

        Args:
            folder: Where both files are.

        Returns:
            Fitted k-means on the CPU.

        Raises:
            RequestError: A file is missing or is not what `save` writes.
        """
        centres, scales, content, further = read_codebooks(Path(folder))
        how = {name: content[name] for name in ("windows", "normalize", "per") if name in content}
        try:
            kmeans = cls(content["clusters"], content["seed"], **content["algorithm"], **how)
            kmeans._source = FeatureSource.from_json(content["source"])
            if kmeans.per != "none":
                kmeans._classes = Classes(kmeans.per, tuple(content["classes"]))
            kmeans._preparation = Preparation.of_content(content, kmeans.normalize, kmeans.layers, further)
        except (KeyError, TypeError) as error:
            expected = "settings of MultiScaleKMeans"
            raise RequestError(f"codebooks in {folder} with other settings: {error}", expected, "fit again") from error
        kmeans._centres, kmeans._scales = centres, scales
        if missing := [name for name in kmeans.columns if name not in centres]:
            expected = "a codebook per layer, window and K"
            raise RequestError(f"codebooks in {folder} without {missing}", expected, "fit again")
        return kmeans

    def _fit_layer(
        self, key: FeatureKey, frames: Tensor, runs: Sequence[int] | None, clusters: Sequence[int]
    ) -> dict[int, Codebook]:
        """Fits every K on the frames (frames, channels) of one layer and window."""
        layer = in_words(key)
        if frames.ndim != 2 or not frames.is_floating_point():
            found = f"features of layer {layer} of shape {tuple(frames.shape)} and type {frames.dtype}"
            raise RequestError(found, "(frames, channels), floating point", "give one row per frame")
        if runs is not None and sum(runs) != len(frames):
            raise ValueError(f"runs of {sum(runs)} frames for {len(frames)} frames of layer {layer}")
        frames = frames.detach()
        largest = max(clusters)
        if len(frames) < largest:
            raise RequestError(
                f"{len(frames)} frames of layer {layer} for {largest} clusters",
                f"at least {largest} frames",
                "smaller numbers under `clusters`, or more audio",
            )
        initial = sample_frames(frames, self.seeding_frames, self.seed)
        with float32_matmul(frames.device):
            # Broken frames are left out of the origin only so that they can be counted: nothing is fitted on them.
            usable = torch.isfinite(initial.square().sum(1))
            origin = initial[usable].mean(0).to(frames.device)
            data = CentredFrames.of(frames, origin, self.settings.chunk_frames, runs)
            if data.broken or not bool(usable.all()):
                raise RequestError(
                    f"{data.broken} of {len(frames)} frames of layer {layer} with values that are not finite "
                    "(or beyond 1e18)",
                    "finite features",
                    "look for broken recordings, and for a model that diverged in training",
                )
            subsample = Subsample.of(initial, self.seeding)
        if self.backend == "sklearn":
            return {k: fit_published(data, k, seed=self.seed) for k in clusters}
        return {
            k: fit_codebook(data, subsample, k, seed=self.seed, settings=self.settings, seeding=self.seeding)
            for k in clusters
        }
