"""transformers' own model tests on our models, beside the stock classifier.

`make peers` fetches the source package of the installed transformers through pip, takes the tests that every model of
transformers has to pass (`ModelTesterMixin`) and runs them on tiny models: `HubertForSequenceClassification` and our
three classes, each in both shapes. It ends with status 1 where the stock model passes, ours does not, and
`EXCEPTIONS` gives no reason.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import types
import unittest
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import transformers

from gmp_atl_hf import GMPATLConfig, HubertForGMPATL, HubertForGMPATLFrameClassification, HubertForGMPATLMultiTask

STOCK = transformers.HubertForSequenceClassification
OURS = (HubertForGMPATL, HubertForGMPATLMultiTask, HubertForGMPATLFrameClassification)
SHAPES: dict[str, dict[str, Any]] = {
    "base": {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False},
    "large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
}
# As in transformers' tests of HuBERT, which the source package leaves out.
TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "conv_dim": (32, 32, 32),
    "conv_kernel": (8, 8, 8),
    "conv_stride": (4, 4, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
    "vocab_size": 32,
    "layerdrop": 0.0,
}
BATCH, SAMPLES, FRAMES = 13, 1024, 14
TESTS = "transformers_tests"
# Imported by the tests, left out of the source package, and of no matter here: ours generate nothing.
LEFT_OUT = {"exporters.test_export": "ExportTesterMixin", "generation.test_utils": "GenerationTesterMixin"}

EXCEPTIONS: dict[tuple[str, str], str] = {
    (HubertForGMPATLFrameClassification.__name__, "test_retain_grad_hidden_states_attentions"): (
        "the test takes the first output for a tensor; here it is one tensor of logits for each scale"
    ),
}
"""(class, test), either of them with wildcards → why ours need not pass what the stock model passes."""


def fetch(folder: Path) -> Path:
    """Download the source package of the installed transformers and what its tests import besides; unpack the tests."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = folder / f"transformers-{transformers.__version__}"
    if not source.is_dir():
        wanted = f"transformers=={transformers.__version__}"
        subprocess.run(
            [*pip, "download", "--no-deps", "--no-binary", "transformers", "--dest", folder, wanted], check=True
        )
        with tarfile.open(next(folder.glob("transformers-*.tar.gz"))) as package:
            tests = [member for member in package if Path(member.name).parts[1:2] == ("tests",)]
            if not any(member.name.endswith("test_modeling_common.py") for member in tests):
                sys.exit(f"the source package of {wanted} has no tests/test_modeling_common.py")
            package.extractall(folder, tests, filter="data")
        subprocess.run([*pip, "install", "--target", folder / "packages", "parameterized"], check=True)
    sys.path.append(str(folder / "packages"))
    return source / "tests"


def model_tests(tests: Path) -> Any:
    """The mixin, imported under a name that no other folder of tests has."""
    package = types.ModuleType(TESTS)
    package.__path__ = [str(tests)]
    sys.modules[TESTS] = package
    for name, mixin in LEFT_OUT.items():
        module = types.ModuleType(f"{TESTS}.{name}")
        setattr(module, mixin, type(mixin, (), {}))
        sys.modules.setdefault(f"{TESTS}.{name.split('.')[0]}", types.ModuleType(name.split(".")[0]))
        sys.modules[module.__name__] = module
    return importlib.import_module(f"{TESTS}.test_modeling_common")


class Tester:
    """What the mixin asks for: a tiny configuration and a batch."""

    batch_size, seq_length, encoder_seq_length, key_length = BATCH, SAMPLES, FRAMES, FRAMES
    is_training = True

    def __init__(self, common: Any, model_class: type, shape: str) -> None:
        self.common, self.model_class, self.shape = common, model_class, shape
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
            setattr(self, name, TINY[name])

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, Any]]:
        """A configuration and a batch of waveforms."""
        fields: dict[str, Any] = {**TINY, **SHAPES[self.shape]}
        config = transformers.HubertConfig(**fields)
        if self.model_class is not STOCK:
            config = GMPATLConfig(**fields, frame_scales={"k5": 5, "k9": 9}, frame_targets="all")
        values = self.common.floats_tensor([BATCH, SAMPLES], scale=1.0)
        mask = self.common.random_attention_mask([BATCH, SAMPLES])
        return config, {"input_values": values, "attention_mask": mask}


def case(common: Any, model: type, shape: str) -> type[unittest.TestCase]:
    """A test case of one class in one shape."""

    class Case(common.ModelTesterMixin, unittest.TestCase):  # type: ignore[misc, name-defined]
        all_model_classes = (model,)
        pipeline_model_mapping: dict[str, Any] = {}
        test_resize_embeddings = False  # as in transformers' tests of HuBERT: no table of embeddings
        longMessage = False

        def setUp(self) -> None:
            torch.manual_seed(0)
            self.model_tester = Tester(common, model, shape)

        def _prepare_for_class(self, inputs: Any, model_class: type, return_labels: bool = False) -> Any:
            inputs = super()._prepare_for_class(inputs, model_class, return_labels)
            if return_labels and model_class is HubertForGMPATLFrameClassification:
                inputs["frame_labels"] = torch.zeros(BATCH, FRAMES, 2, dtype=torch.long)
            elif return_labels:
                inputs["labels"] = torch.zeros(BATCH, dtype=torch.long)
            return inputs

    Case.__name__ = Case.__qualname__ = f"{model.__name__}-{shape}"
    return Case


class Outcomes(unittest.TestResult):
    """Test → passed, skipped, or the first line of what went wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def stopTest(self, test: Any) -> None:
        """Note what became of a test; unittest has kept what went wrong."""
        super().stopTest(test)
        wrong = [text for one, text in self.failures + self.errors if test in (one, _parent(one))]
        skipped = any(test in (one, _parent(one)) for one, _ in self.skipped)
        self.found[test._testMethodName] = _last_line(wrong[0]) if wrong else "skipped" if skipped else "passed"


def _parent(test: Any) -> Any:
    """The test that a subtest belongs to."""
    return getattr(test, "test_case", None)


def _last_line(traceback: str) -> str:
    """The exception of a traceback, whose message may have several lines."""
    lines = [line for line in traceback.strip().splitlines() if line and not line.startswith(" ")]
    return next((line for line in lines if ": " in line or line.endswith("Error")), lines[-1])[:200]


def outcomes(common: Any, model: type, shape: str, only: str) -> dict[str, str]:
    """Run the tests on one class in one shape."""
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(case(common, model, shape))
    chosen = unittest.TestSuite(test for test in tests if only in test.id())
    result = Outcomes()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        chosen.run(result)
    return result.found


def reason(model: type, test: str) -> str | None:
    """Why ours need not pass it."""
    return next(
        (why for (name, kind), why in EXCEPTIONS.items() if fnmatch(model.__name__, name) and fnmatch(test, kind)), None
    )


def compare(common: Any, only: str) -> Iterator[tuple[str, type, dict[str, str], dict[str, str]]]:
    """Shape, class, the stock model's outcomes and ours."""
    for shape in SHAPES:
        stock = outcomes(common, STOCK, shape, only)
        for model in OURS:
            yield shape, model, stock, outcomes(common, model, shape, only)


def main() -> int:
    """Fetch, run, print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="keep the source package in this folder; default: a temporary one")
    parser.add_argument("--only", default="", help="run the tests whose name has this in it")
    arguments = parser.parse_args()
    transformers.logging.disable_default_handler()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.cache or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        common = model_tests(fetch(folder))
        rows, unexplained = [], 0
        for shape, model, stock, ours in compare(common, arguments.only):
            passes = {name for name, outcome in stock.items() if outcome == "passed"}
            lost = sorted(name for name in passes if ours[name] != "passed")
            gained = sorted(
                name for name in ours if ours[name] == "passed" and stock[name] not in ("passed", "skipped")
            )
            rows.append([model.__name__, shape, len(passes), len(passes) - len(lost), len(lost), len(gained)])
            print(f"{model.__name__}, {shape}: {len(passes) - len(lost)} of {len(passes)} that the stock model passes")
            for name in lost:
                why = reason(model, name)
                unexplained += why is None
                print(f"  not ours: {name}: {ours[name]}" + (f"\n    exception: {why}" if why else ""))
            for name in gained:
                print(f"  ours only: {name}; stock: {stock[name]}")
    print("\n| class | shape | stock passes | ours of these | not ours | ours only |\n|:--|:--|--:|--:|--:|--:|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__, "rows": rows}))
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
