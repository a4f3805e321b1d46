"""What a run ran on: versions, processor, memory and accelerators, for `environment.json` and bug reports."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "gmp-atl-hf",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "evaluate",
    "huggingface-hub",
    "safetensors",
    "scikit-learn",
    "scipy",
    "numpy",
    "soundfile",
    "soxr",
    "pyyaml",
)
"""Packages whose versions can change a number or a file."""


def package_version(name: str) -> str | None:
    """Give the installed version of a distribution without importing it; None when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        if name == "gmp-atl-hf":
            # Run from a source checkout, where only the package itself knows its version.
            from .version import __version__

            return __version__
        return None


def describe_environment() -> dict[str, Any]:
    """Describe the machine and the software, without user names, paths or the machine's name.

    Returns:
        Plain values, ready for JSON: `packages` (name to version, None when missing), `python`, `platform`, `cpus`
        (usable by this process), `cpu`, `memory_gib`, `torch` (its build and the version of CUDA, None when it is not
        installed) and `gpus` (each `{name, memory_gib}`).
    """
    build, gpus = _accelerators()
    return {
        "packages": {name: package_version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": _memory_gib(),
        "torch": build,
        "gpus": gpus,
    }


def with_earlier(now: dict[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Add `earlier`: other machines on which parts of the same work were done, the oldest first, each once."""
    if before is None:
        return now
    last = {name: value for name, value in before.items() if name != "earlier"}
    found = [one for one in before.get("earlier", ()) if one != last]
    earlier = [one for one in (*found, last) if one != now]
    return {**now, "earlier": earlier} if earlier else now


def format_environment(environment: Mapping[str, Any]) -> str:
    """Write a description as lines that can be pasted into an issue."""
    memory = environment["memory_gib"]
    build = environment["torch"]
    lines = {
        "python": environment["python"],
        "platform": environment["platform"],
        "processor": f"{environment['cpu'] or 'unknown'}, {environment['cpus']} usable",
        "memory": "unknown" if memory is None else f"{memory} GiB",
        "torch build": "not installed" if build is None else f"CUDA {build['cuda']}" if build["cuda"] else "no CUDA",
        "GPUs": ", ".join(f"{gpu['name']} ({gpu['memory_gib']} GiB)" for gpu in environment["gpus"]) or "none",
        **{name: version or "not installed" for name, version in environment["packages"].items()},
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines.items())


def _accelerators() -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    if "torch" not in sys.modules and package_version("torch") is None:
        return None, []
    import torch

    build = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip}
    if not torch.cuda.is_available():
        return build, []
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return build, [{"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in found]


def _cpu_model() -> str | None:
    """Name of the processor; `platform.processor()` is empty on most Linux systems."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or None


def _memory_gib() -> float | None:
    """Physical memory in GiB, where the system tells it."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
