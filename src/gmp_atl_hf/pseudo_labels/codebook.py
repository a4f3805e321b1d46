"""Codebooks on disk and where they come from: centres in safetensors, everything one wants to read in JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..data.scale_names import SINGLE_FRAME
from ..errors import RequestError
from ..files import read_json, write_whole
from .averaging import FeatureKey, layer_and_window
from .lloyd import Codebook

FORMAT_VERSION = 1
"""Of `codebooks.json`; raised when the meaning of a field changes."""

EXTENDED_VERSION = 2
"""Of codebooks of averaged or normalised states, or per emotion or gender, which an earlier release would misread."""

TENSORS_FILE = "codebooks.safetensors"
PROVENANCE_FILE = "codebooks.json"


@dataclass(frozen=True)
class FeatureSource:
    """What features are, so that a codebook can refuse those of another model, layer or preparation.

    Args:
        kind: ``"hidden-states"`` or ``"mfcc"``.
        checkpoint: Layer → hash of all tensors that the layer's output depends on.
        layers: Resolved 1-based layers.
        settings: Whatever else changes the features, e.g. whether the waveform is normalised. Plain JSON values.
    """

    kind: str
    checkpoint: Mapping[int, str]
    layers: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # As JSON would give them back, so that a source read from a file equals the one that was written.
        object.__setattr__(self, "checkpoint", {int(layer): str(digest) for layer, digest in self.checkpoint.items()})
        object.__setattr__(self, "layers", tuple(int(layer) for layer in self.layers))
        object.__setattr__(self, "settings", json.loads(json.dumps(dict(self.settings), sort_keys=True)))
        if missing := [layer for layer in self.layers if layer not in self.checkpoint]:
            raise ValueError(f"no checkpoint hash for layers {missing}")

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "kind": self.kind,
            "checkpoint": {str(layer): digest for layer, digest in self.checkpoint.items()},
            "layers": list(self.layers),
            "settings": dict(self.settings),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FeatureSource:
        """The source that `to_json` described."""
        return cls(content["kind"], content["checkpoint"], tuple(content["layers"]), content["settings"])

    def refuse_unlike(self, other: FeatureSource) -> None:
        """Refuses features that are not those of this source; further layers do no harm.

        Raises:
            RequestError: Another kind, checkpoint or setting, or a layer is missing; both sides are named.
        """
        for name, expected, found in self._compared(other):
            if expected != found:
                raise RequestError(
                    f"features whose {name} is {found}",
                    f"{name} {expected}, on which these codebooks were fitted",
                    "take the features from the model and the layers of codebooks.json, or fit the codebooks again",
                )

    def _compared(self, other: FeatureSource) -> Iterator[tuple[str, Any, Any]]:
        yield "kind", self.kind, other.kind
        for layer in self.layers:
            if layer not in other.layers:
                yield "layers", list(self.layers), list(other.layers)
            yield f"checkpoint up to layer {layer}", self.checkpoint[layer], other.checkpoint[layer]
        yield "settings", dict(self.settings), dict(other.settings)


@dataclass(frozen=True)
class Scale:
    """One codebook's provenance: one entry of `codebooks.json`.

    Args:
        k: Number of clusters.
        layer: Resolved 1-based layer.
        inertia: Sum over the fitted frames of the squared distance to the nearest centre.
        inertia_per_frame: The same per frame.
        frames: How many frames were fitted.
        iterations: Passes over all of them.
        unused_clusters: Clusters that none of them belongs to.
        training_speakers: Sorted; whose frames they were.
        feature: kind, checkpoint (hash of the tensors up to the layer), layer, settings.
    """

    k: int
    layer: int
    inertia: float
    inertia_per_frame: float
    frames: int
    iterations: int
    unused_clusters: int
    training_speakers: list[str]
    feature: dict[str, Any]

    @classmethod
    def of(
        cls, key: FeatureKey, codebook: Codebook, source: FeatureSource, speakers: Sequence[str], **how: str
    ) -> Scale:
        """What is to be kept of a fit; `how` are settings of the clustering by name, `none` where they are off."""
        layer, window = layer_and_window(key)
        feature = {"kind": source.kind, "checkpoint": source.checkpoint[layer], "layer": layer}
        if window != SINGLE_FRAME:
            feature["window"] = window
        feature |= {name: value for name, value in how.items() if value != "none"}
        return cls(
            k=len(codebook.centres),
            layer=layer,
            inertia=codebook.inertia,
            inertia_per_frame=codebook.inertia / codebook.frames,
            frames=codebook.frames,
            iterations=codebook.iterations,
            unused_clusters=codebook.unused,
            training_speakers=sorted(set(speakers)),
            feature={**feature, "settings": dict(source.settings)},
        )


def write_codebooks(
    folder: Path, centres: Mapping[str, Tensor], scales: Mapping[str, Scale], common: Mapping[str, Any]
) -> None:
    """Writes both files, each whole or not at all; the JSON comes last and holds the hash of the tensors.

    Args:
        folder: Created where it does not exist.
        centres: Column name → (clusters, channels) float32, and whatever other tensors belong to them.
        scales: Column name → provenance.
        common: JSON values that all scales share: seed, algorithm, package version, source; a format version that is
            not the usual one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = save({name: tensor.detach().cpu().contiguous() for name, tensor in centres.items()})
    content = {
        "format_version": FORMAT_VERSION,
        **common,
        "tensors": {"file": TENSORS_FILE, "sha256": hashlib.sha256(tensors).hexdigest()},
        "scales": {name: asdict(scale) for name, scale in scales.items()},
    }
    write_whole(folder / TENSORS_FILE, tensors)
    write_whole(folder / PROVENANCE_FILE, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_codebooks(folder: Path) -> tuple[dict[str, Tensor], dict[str, Scale], dict[str, Any], dict[str, Tensor]]:
    """Reads what `write_codebooks` wrote.

    Returns:
        Centres on the CPU, provenance by column in the order of writing, the whole JSON, and all other tensors.

    Raises:
        RequestError: A file is missing, is not what it should be, or does not belong to the other.
    """
    fix = "give the folder that MultiScaleKMeans.save wrote (2-pseudo-labels of a run), or fit the codebooks again"
    for name in (PROVENANCE_FILE, TENSORS_FILE):
        if not (folder / name).is_file():
            raise RequestError(f"no file {folder / name}", f"codebooks: {TENSORS_FILE} and {PROVENANCE_FILE}", fix)
    content = read_json(folder / PROVENANCE_FILE)
    try:
        version = content["format_version"]
        known = version in (FORMAT_VERSION, EXTENDED_VERSION)
        scales = {name: Scale(**entry) for name, entry in content["scales"].items()} if known else {}
        digest = content["tensors"]["sha256"]
        FeatureSource.from_json(content["source"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{folder / PROVENANCE_FILE} is not a description of codebooks ({type(error).__name__}: {error})"
        raise RequestError(found, "the JSON that MultiScaleKMeans.save writes", fix) from error
    if not known:
        expected = f"format {FORMAT_VERSION} or {EXTENDED_VERSION}"
        raise RequestError(f"codebooks of format {version} in {folder}", expected, fix)
    data = (folder / TENSORS_FILE).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise RequestError(f"{TENSORS_FILE} in {folder} is not the file that {PROVENANCE_FILE} describes", digest, fix)
    try:
        centres = load(data)
    except SafetensorError as error:
        raise RequestError(f"{folder / TENSORS_FILE}: {error}", "a safetensors file", fix) from error
    for name, scale in scales.items():
        if name not in centres or centres[name].ndim != 2 or len(centres[name]) != scale.k:
            raise RequestError(f"no {name} with {scale.k} centres in {folder / TENSORS_FILE}", "all scales", fix)
    further = {name: tensor for name, tensor in centres.items() if name not in scales}
    return {name: centres[name].to(torch.float32) for name in scales}, scales, content, further


def codebook_speakers(folder: Path) -> list[str]:
    """Whose frames the codebooks in a folder were fitted on, sorted."""
    scales = read_json(folder / PROVENANCE_FILE)["scales"].values()
    return sorted({speaker for scale in scales for speaker in scale["training_speakers"]})
