"""The pages: every block of code and every command in them works, every link leads somewhere, and every name exists.

Commands run in a folder with stand-ins for what a reader has: a run of the demo, recordings, corpora of a few tones,
encoders of a few weights in folders that are called like those on the Hub. Recipes are loaded as they are and then made
small.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import HubertModel, Wav2Vec2FeatureExtractor

import gmp_atl_hf as gmp
from audio_files import RATE, tone, write_audio
from classifiers import HAS_INT8
from corpus_trees import read_corpus
from foreign import make_foreign
from gmp_atl_hf.cli import main
from gmp_atl_hf.data.corpora import from_file as outside
from gmp_atl_hf.data.corpora.base import REGISTERED
from gmp_atl_hf.data.corpora.emodb import complete_corpus
from gmp_atl_hf.pretraining.recipe import PretrainRecipe
from models import tiny_hubert_config
from runs import BACKBONE, SPLIT, SPLIT_EMOTION_PATTERN, clip, run
from teachers import make_teacher

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "recipes" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOK = ROOT / "examples" / "first_model.ipynb"
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
HUB = ("facebook/hubert-base-ls960", "openai/whisper-base")
ONLY_LOADED = {"iemocap": "a licensed corpus"}
"""Recipes whose commands stop when the recipe is loaded, and why. All others run."""


class Loaded(BaseException):
    """A recipe was loaded that cannot run here; no `Exception`, so that nothing on the way takes it for a failure."""


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"`((?:gmp-atl|make|python|pip|accelerate|[A-Z_]+=\S+) [^`]+)`")


def blocks_and_commands(page: str) -> Iterator[tuple[str, str]]:
    """Language and text of each block, and, as `bash`, of each command in the sentences between them."""
    end = 0
    for block in BLOCK.finditer(page):
        yield from (("bash", code) for code in COMMAND.findall(page, end, block.start()))
        yield block["language"], textwrap.dedent(block["text"])
        end = block.end()
    yield from (("bash", code) for code in COMMAND.findall(page, end))


def prose(page: Path) -> str:
    return BLOCK.sub("", read(page))


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE))


def extras() -> set[str]:
    return {*tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]}


# ---- stand-ins -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What readers have on their disk; no two corpora have the same sound, which a model of one would know."""
    root = tmp_path_factory.mktemp("stock")
    words = {"angry": "anger", "happy": "happiness", "calm": "neutral", "joy": "happiness"}
    rows = ["file,speaker,emotion"]
    for number, speaker in enumerate(("f01", "f02", "m03", "m04")):
        for emotion, word in enumerate(words):
            name = f"{speaker}_{word}_1.wav"
            for folder in ("recordings", "my/recordings"):
                write_audio(root / folder / word / speaker / name, clip(emotion, number, 1))
            rows.append(f"recordings/{word}/{speaker}/{name},{speaker},{words[word]}")
    (root / "mine.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for number, (speaker, part) in enumerate(SPLIT.items()):
        for emotion, word in enumerate(("anger", "happiness", "neutral", "sadness")):
            write_audio(root / "tones" / part / word / f"{speaker}_1.wav", clip(emotion, number, 2))
    write_audio(root / "call.wav", tone(7 * RATE))
    for number, name in enumerate(("anna/monday.wav", "anna/tuesday.wav", "ben/monday.wav")):
        write_audio(root / "callers" / name, clip(number, number, 0))
    (root / "callers" / "calls.csv").write_text("file,caller\nanna/monday.wav,anna\n", encoding="utf-8")
    for name in {(name[:2], name[5]): name for name in complete_corpus() if name[:2] < "11"}.values():
        write_audio(root / "data" / "emodb" / f"{name}.wav", clip(ord(name[5]) % 7, int(name[:2]), 0))
    for actor in range(1, 5):
        for emotion in range(1, 9):
            name = f"03-01-{emotion:02}-01-01-01-{actor:02}.wav"
            write_audio(root / "data" / "RAVDESS" / f"Actor_{actor:02}" / name, clip(emotion, actor, 3))
    speech = ["file_name,speaker"]
    for speaker in range(26):
        write_audio(root / "speech" / f"{speaker}.wav", clip(0, speaker, 0))
        speech.append(f"{speaker}.wav,s{speaker}")
    (root / "speech" / "metadata.csv").write_text("\n".join(speech) + "\n", encoding="utf-8")
    HubertModel(tiny_hubert_config()).save_pretrained(root / HUB[0])
    Wav2Vec2FeatureExtractor().save_pretrained(root / HUB[0])
    make_teacher("whisper", root / HUB[1])
    make_foreign("hubert", root / "superb" / "hubert-base-superb-er", ("neu", "hap", "ang", "sad"))
    make_foreign("wav2vec2", root / "you" / "scales", ("arousal", "dominance", "valence"), problem_type="regression")
    centres = re.search(r"```text\n(anger: .*?)```", read(ROOT / "docs" / "other-models.md"), re.DOTALL)
    assert centres is not None
    (root / "centres.yaml").write_text(centres[1], encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def demo(stock: Path) -> Path:
    """A finished run that stands for any."""
    run(small(gmp.Recipe.from_yaml("demo").to_dict(), stock, ["gmp-atl", "direct", "tapt"]), stock / "finished")
    return stock / "finished"


def small(recipe: Mapping[str, Any], stock: Path, variants: Sequence[str] = ("direct",)) -> dict[str, Any]:
    """The same recipe with a tiny backbone, one epoch, seed and variant, and two folds, on tones for voices."""
    plain = dict(recipe)
    stage = {"num_train_epochs": 1, "use_cpu": True, "freeze_feature_encoder": False}
    adapters = {name: given["lora"] for name, given in plain["stages"].items() if "lora" in given}
    plain["stages"] = {
        name: {**stage, "lora": adapters[name], "freeze_feature_encoder": True} if name in adapters else stage
        for name in ("multitask", "retrain", "finetune")
    }
    plain["pseudo_labels"] = {**plain["pseudo_labels"], "layers": [-1], "clusters": [3]}
    plain["data"] = {**plain["data"], "max_seconds": 0.2}
    plain["seeds"], plain["variants"] = plain["seeds"][:1], variants
    plain["final"] = plain["name"] in ("demo", "mine")
    if plain["protocol"]["kind"] in ("group-k-fold", "leave-one-speaker-out"):
        plain["protocol"] = {"kind": "group-k-fold", "folds": 2, "dev_speakers": 1}
    if plain["backbone"] not in HUB:
        plain["backbone"] = dict(BACKBONE)
    if plain["corpus"] == {"name": "demo"}:
        plain["corpus"] = {"name": "folder", "root": str(stock / "tones"), "speaker": SPLIT_EMOTION_PATTERN}
    return plain


@pytest.fixture
def desk(
    stock: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Path]:
    """The folder in which a page is read, with everything in place; recipes become small as they are loaded."""
    shutil.copytree(stock, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("finished", "tones"))
    monkeypatch.chdir(tmp_path)
    load, load_pretraining = gmp.Recipe.from_yaml, PretrainRecipe.from_yaml

    def recipe(*words: Any) -> gmp.Recipe:
        loaded = load(*words)
        if Path(words[0]).name == "recipe.yaml":  # that of a run
            return loaded
        again = not str(words[0]).endswith(".yaml") and repr(words) in TRAINED
        if loaded.name in ONLY_LOADED or again:
            raise Loaded
        TRAINED.add(repr(words))
        return gmp.Recipe.from_dict(small(loaded.to_dict(), stock))

    def pretraining(*words: Any) -> PretrainRecipe:
        plain = load_pretraining(*words).to_dict()
        iterations = [{**one, "clusters": [3], "num_train_epochs": 1} for one in plain["iterations"]]
        iterations = [one if one["features"] == "mfcc" else {**one, "layers": [-1]} for one in iterations]
        norm = plain["backbone"]["do_stable_layer_norm"]  # a student has that of its teacher
        shape = {
            "backbone": {**BACKBONE, "do_stable_layer_norm": norm},
            "data": {**plain["data"], "max_seconds": 0.2},
            "iterations": iterations,
        }
        few = {"arguments": {"batch_seconds": 1.0, "use_cpu": True}}
        return PretrainRecipe.from_dict({**plain, **shape, **few})

    monkeypatch.setattr(gmp.Recipe, "from_yaml", recipe)
    monkeypatch.setattr(PretrainRecipe, "from_yaml", pretraining)
    for extra, (name, stand_in) in STAND_INS.items():
        module = ModuleType(name)
        module.__dict__.update(stand_in)
        monkeypatch.setitem(sys.modules, name, module)
        for package in extra:
            known = ModuleType(package)
            known.__spec__ = ModuleSpec(package, None)
            monkeypatch.setitem(sys.modules, package, known)
    yield tmp_path
    REGISTERED.pop("mine", None)
    outside._LOADED.clear()


class Page:
    """What `gmp-atl ui` serves, without gradio and without waiting for somebody to end it."""

    local_url = "http://127.0.0.1:7860"

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def block_thread(self) -> None: ...

    def close(self) -> None: ...


STAND_INS: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {
    ("gradio",): ("gmp_atl_hf.ui.app", {"serve": Page}),  # an extra, and the page would wait until it is ended
    ("onnx", "onnxscript", "onnxruntime"): (  # an extra, and slow
        "gmp_atl_hf.inference.onnx_export",
        {"export_onnx": lambda *_, **__: {}, "describe_export": lambda *_: ""},
    ),
}
"""What comes in place of an extra that the tests do not need, up to the module of the package that imports it."""


# ---- code and commands -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_code_and_the_commands_of_a_page_work(name: str, desk: Path, demo: Path) -> None:
    page = ROOT / name
    for language, text in blocks_and_commands(read(page)):
        if language == "python":
            put_runs(text, demo)
            perform_python(page, text)
        elif language == "yaml":
            load_yaml(text)
        elif language == "bash":
            for words in commands(text):
                perform(words, demo)
        else:
            assert language in ("text", "")
            assert not re.search(r"gmp-atl [a-z]+ |^import |^from ", text, re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The words of each command, without comments and without the variables that are set before it."""
    lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    for words in lines:
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            del words[0]
    return [words for words in lines if words]


def perform(words: list[str], demo: Path) -> None:
    """Do what one command does, or see that what it names is there."""
    match words:
        case ["gmp-atl", *rest]:
            perform_gmp_atl(rest, demo)
        case ["accelerate", "launch", *rest]:
            launched = launch_parser().parse_args(rest)
            if launched.config_file is not None:
                assert (ROOT / launched.config_file).is_file()
            assert (launched.module, launched.training_script) == (True, "gmp_atl_hf.cli")
            perform_gmp_atl(launched.training_script_args, demo)
        case ["make", target]:
            assert target in makefile_targets()
        case ["pip", "install", "-e", what]:
            assert {*re.fullmatch(r"\.\[([a-z,]+)\]", what)[1].split(",")} <= extras()  # type: ignore[index]
        case ["python", "-c", code]:
            exec(code, {})
        case ["python", script, *_]:
            assert (ROOT / script).is_file()
        case [".", ".venv/bin/activate"]:
            pass
        case _:
            pytest.fail(f"no reader of the pages would know what to do with {shlex.join(words)}")


TRAINED: set[str] = set()
"""Commands that have trained a packaged recipe on an earlier page; the same again is only loaded."""


def perform_gmp_atl(words: list[str], demo: Path) -> None:
    if len(words) == 1:  # a sentence that names a verb
        words = [*words, "--help"]
    if words[0] in ("run", "pretrain"):
        words = ["demo" if word in ("NAME", "NAME_OR_FILE") else word for word in words]
    else:
        if words[0] == "compare":  # what a page has trained has one variant
            shutil.rmtree("runs", ignore_errors=True)
        put_runs(" ".join(words), demo)
        words = [str(ROOT / word) if word.startswith("benchmarks/results/") else word for word in words]
        if "--variants" in words:
            give_each_run_its_corpus()
            words = ["gmp-atl" if word == "windows" else word for word in words]  # the finished run has no `windows`
    try:
        refused = "int8" in words and not HAS_INT8
        assert main(words) == (2 if refused else 0), shlex.join(words)
    except Loaded:
        assert words[0] == "run"
    if "--variants" in words:
        shutil.rmtree("runs", ignore_errors=True)  # what stood for runs of other recipes


def put_runs(text: str, demo: Path) -> None:
    """Put the finished run wherever a run is named that this page has not made."""
    for folder in re.findall(r"runs/[a-z-]+", text):
        if not Path(folder).exists():
            shutil.copytree(demo, folder)


def give_each_run_its_corpus() -> None:
    """Name the corpus of each run, and with it its speakers, like the folder: all are copies of one run."""
    for file in Path("runs").rglob("predictions.jsonl"):
        rows = [json.loads(line) for line in read(file).splitlines()]
        for row in rows:
            row |= {key: f"{file.parts[1]}/{row[key].partition('/')[2]}" for key in ("id", "speaker")}
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (file.parent / "hashes.json").unlink()


def launch_parser() -> Any:
    from accelerate.commands.launch import launch_command_parser

    return launch_command_parser()


def perform_python(page: Path, code: str) -> None:
    if page.stem == "by-hand":  # its blocks are the example, which has a test of its own
        assert code.strip() in read(ROOT / "examples" / "four_steps.py")
    elif "@register_corpus" in code:
        assert len(code.splitlines()) < 60
        Path("mine.py").write_text(code, encoding="utf-8")
    else:
        exec(compile(code, page.name, "exec"), {"__name__": "docs"})


def load_yaml(text: str) -> gmp.Recipe:
    """Load a recipe, or the part of one, as it stands."""
    if not re.search(r"^name:", text, re.MULTILINE):
        text = f"name: mine\ncorpus: {{name: demo}}\n{text}"
    Path("mine.yaml").write_text(text, encoding="utf-8")
    return gmp.Recipe.from_yaml("mine.yaml")


def test_yaml_in_the_sentences_fits_a_recipe(desk: Path) -> None:
    for page in PAGES:
        for code in re.findall(r"`((?:protocol|search|stages): \{[^`]+\})`", prose(page)):
            if "cross-corpus" in code:
                code += "\nname: mine\ncorpus: [{name: emodb, root: a}, {name: cafe, root: b}]\nlabels: {anger: anger}"
            load_yaml(code)
        for code in re.findall(r"`(\{name: [^`]+\})`", prose(page)):
            load_yaml(f"variants: [gmp-atl, {code}]")


def test_the_example_of_a_reader_reads_and_lists_what_it_says(desk: Path) -> None:
    page = read(ROOT / "docs" / "corpora.md")
    [code] = [text for _, text in blocks_and_commands(page) if "@register_corpus" in text]
    Path("mine.py").write_text(code, encoding="utf-8")
    for seed, name in enumerate(("f03_happy_12", "m04_angry_1", "m04_sleepy_1", "notes")):
        write_audio(desk / "few" / f"{name}.wav", tone(1_000, seed=seed))
    corpus = read_corpus("mine.py", desk / "few")
    assert corpus.table["id"][:] == ["mine/f03_happy_12", "mine/m04_angry_1"]
    assert corpus.table["speaker"][:] == ["mine/f03", "mine/m04"]
    assert [one.file for one in corpus.left_out] == ["mine/m04_sleepy_1.wav", "mine/notes.wav"]
    assert "mine has 2 speakers instead of 12" in corpus.problems


def test_the_notebook_works_and_shows_what_it_printed(desk: Path, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = json.loads(read(NOTEBOOK))["cells"]
    assert NOTEBOOK.stat().st_size < 300_000
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", ()))
    shown = ModuleType("IPython.display")
    shown.__dict__["Image"] = lambda *_, **__: None
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    put_runs("runs/first", demo)  # the same folders and files as a run of the notebook leaves
    shutil.copytree(desk / "recordings", "runs/first/corpus")
    monkeypatch.setattr(gmp, "run_recipe", lambda recipe, output_dir: None)  # trained a moment ago, by the fixture
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    changes = names["small"]
    monkeypatch.undo()
    assert gmp.Recipe.from_yaml("demo", changes).to_dict() != gmp.Recipe.from_yaml("demo").to_dict()


# ---- links and names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "model_cards/README.md", "benchmarks/README.md"])
def test_the_links_of_a_page_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for place, anchor in re.findall(r"\]\((?![a-z]+:)([^)#\s]*)#?([^)\s]*)\)", prose(page)):
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), place
        if anchor:
            headings = re.findall(r"^#+ (.*)$", read(target), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}, anchor


def test_every_page_is_in_the_site_and_every_public_name_is_on_the_page_of_the_api() -> None:
    nav = re.findall(r"([\w-]+)\.md$", read(ROOT / "mkdocs.yml"), re.MULTILINE)
    assert sorted(nav) == sorted(page.stem for page in PAGES[2:])
    documented = re.findall(r"^::: gmp_atl_hf\.(\w+)$", read(ROOT / "docs" / "api.md"), re.MULTILINE)
    assert sorted(documented) == sorted({*gmp.__all__} - {"__version__"})


def test_the_readme_is_short_and_its_pictures_are_small() -> None:
    assert len(read(ROOT / "README.md").splitlines()) <= 120
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size <= 300_000
