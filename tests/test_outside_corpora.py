"""A reader of somebody's own: what goes wrong in it is answered with its line and a way out, not with our frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corpus_trees import refused, touch
from gmp_atl_hf.data.corpora import REGISTERED
from gmp_atl_hf.data.corpora import from_file as outside
from gmp_atl_hf.data.corpora.base import CorpusInfo
from gmp_atl_hf.data.listing import list_recordings
from gmp_atl_hf.errors import RequestError
from runs import read_lines, recipe_dict, run, write_corpus

HEAD = """from gmp_atl_hf.data.corpora import CorpusInfo, LeftOut, Recording, audio_files, named_files, register_corpus


@register_corpus(CorpusInfo(name="mine", protocol="{protocol}"))
def read({parameters}):
    pattern = r"(?P<gender>[fm])(?P<who>[0-9]+)_(?P<emotion>[a-z]+)"
"""
LOOP = """    for path in audio_files(root):
        yield {item}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    touch(tmp_path / "data", "f03_happy.wav", "F03_angry.wav", "m04_angry.wav")
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    REGISTERED.pop("mine", None)
    outside._LOADED.clear()


def reader(root: Path, body: str, parameters: str = "root", protocol: str = "group-k-fold") -> str:
    file = root.parent / "mine.py"
    file.write_text(HEAD.format(parameters=parameters, protocol=protocol) + body, encoding="utf-8")
    return str(file)


def test_spellings_of_one_speaker_are_one_person_and_told(root: Path) -> None:
    body = LOOP.format(item='Recording(path.stem, path, "anger", path.stem[:3])')
    listed = list_recordings(reader(root, body), root)
    assert "F03 and f03 differ in case" in listed.problems[0]
    assert "f03" not in {one.speaker for one in listed.recordings}


@pytest.mark.parametrize(
    ("body", "found", "fix"),
    [
        (LOOP.format(item='Recording(path.stem, path, {}["JOY"], "1")'), "mine.py, line 8 fails: KeyError: 'JOY'", ""),
        (LOOP.format(item='Recording(path.stem, path, "anger", None)'), "its speaker is None", "LeftOut(file, reason)"),
        (LOOP.format(item='Recording(path.stem, path, "anger", 3)'), "its speaker is 3", "speaker '3'"),
        (LOOP.format(item='Recording(path.stem, path, "anger", "1", session=5)'), "its session is 5", "session '5'"),
        (LOOP.format(item='Recording(path.stem, str(path), "anger", "1")'), "its path is '", "Path("),
        (LOOP.format(item='(path.stem, "anger")'), "the reader of mine gave ('F03_angry', 'anger')", "yield Recording"),
        ("    return iter(())\n", "mine found no recordings", "yields nothing at all"),
        (
            '    yield from named_files(audio_files(root), pattern, "f03_happy", {"emotions": ["happy"]})\n',
            "'emotions', which is no group",
            "the same",
        ),
    ],
)
def test_a_readers_mistake_names_its_place_and_a_way_out(root: Path, body: str, found: str, fix: str) -> None:
    error = refused(reader(root, body), root)
    assert found in error.found
    assert fix in str(error.fix)


def test_a_reader_that_takes_no_root_is_told_how_it_is_called(root: Path) -> None:
    error = refused(reader(root, "    yield\n", parameters=""), root)
    assert "the reader in mine.py does not take the corpus' root: def read()" in error.found
    assert error.fix == "def read(root): …"


def test_a_reader_that_gives_nothing_back_is_told_to_yield(root: Path) -> None:
    error = refused(reader(root, "    audio_files(root)\n"), root)
    assert error.found == "the reader in mine.py gives None in place of recordings"
    assert "yield Recording(...)" in str(error.fix)


def test_a_reader_may_return_a_list(root: Path) -> None:
    body = '    return [Recording(path.stem, path, "anger", path.stem[:3].lower()) for path in audio_files(root)]\n'
    assert len(list_recordings(reader(root, body), root).recordings) == 3


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        ("    yield [1][5]\n", "correct line 7: yield [1][5]"),
        ('    yield from named_files(audio_files(root), "(?P<who>", "f03")\n', "correct the pattern (?P<who>"),
        ('    for _, _ in named_files(audio_files(root), "x", "x"):\n        yield\n', "pass every LeftOut of"),
    ],
)
def test_the_advice_is_about_the_mistake_that_was_made(root: Path, body: str, advice: str) -> None:
    error = refused(reader(root, body), root)
    assert "the reader in mine.py, line 7 fails: " in error.found
    assert str(error.fix).startswith(advice)


def test_a_protocol_that_does_not_exist_is_refused(root: Path) -> None:
    error = refused(reader(root, "    yield\n", protocol="loso"), root)
    assert "the corpus mine has the protocol 'loso'" in error.found and "leave-one-speaker-out" in error.expected
    with pytest.raises(RequestError):
        CorpusInfo(name="mine", protocol="")


def test_a_corpus_in_a_file_is_called_by_the_name_it_gives_itself(tmp_path: Path) -> None:
    file = tmp_path / "reader.py"
    file.write_text(
        "from gmp_atl_hf.data.corpora import CorpusInfo, Recording, audio_files, register_corpus\n\n\n"
        '@register_corpus(CorpusInfo(name="mine"))\n'
        "def read(root):\n"
        "    for path in audio_files(root):\n"
        "        yield Recording(f'{path.parent.name}/{path.stem}', path, path.parent.name, path.stem[:2])\n"
    )
    one, two = (write_corpus(tmp_path / name) for name in ("one", "two"))
    recipe = recipe_dict(one, variants=["direct"], labels={name: name for name in ("anger", "neutral", "sadness")})
    recipe["corpus"] = [recipe["corpus"], {"name": str(file), "root": str(two)}]
    recipe["protocol"] = {"kind": "cross-corpus", "test": ["yours"]}
    with pytest.raises(RequestError, match=r"no corpus of the table\n  expected: one of folder, mine"):
        run(recipe, tmp_path / "run")
    recipe["protocol"]["test"] = ["mine"]
    run(recipe, tmp_path / "run")
    rows = read_lines(tmp_path / "run/direct/seed-0/fold-01/predictions.jsonl")
    assert rows and all(row["speaker"].startswith("mine/") for row in rows)
