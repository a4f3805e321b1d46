"""The web page: what it draws, what it says, and that it works over HTTP."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from audio_files import tone, write_audio
from classifiers import make_classifier
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.ui.timeline import MOST_COLUMNS, Scored, flatten_windows, timeline_svg

ROOT = Path(__file__).parents[1]


def scored(*spans: tuple[float, float, float]) -> list[Scored]:
    return [Scored(start, end, {"anger": p, "calm": 1 - p}) for start, end, p in spans]


def test_overlapping_windows_become_stretches_side_by_side() -> None:
    columns = flatten_windows(scored((0, 2, 0.0), (1, 3, 1.0), (2, 4, 0.5)))
    assert [(one.start, one.end) for one in columns] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [one.scores["anger"] for one in columns] == [0.0, 0.5, 0.75, 0.5]


def test_hours_are_drawn_in_a_bounded_number_of_columns() -> None:
    columns = flatten_windows(scored(*((1.5 * i, 1.5 * i + 3, (i % 7) / 7) for i in range(7_000))))
    assert len(columns) == MOST_COLUMNS
    assert all(one.end == other.start for one, other in zip(columns, columns[1:], strict=False))
    assert (columns[0].start, columns[-1].end) == (0, 1.5 * 6_999 + 3)


def test_the_timeline_is_valid_svg_whose_columns_fill_the_height() -> None:
    svg = ElementTree.fromstring(timeline_svg(scored((0, 2, 0.25), (2, 4, 0.5)), ["anger", "calm"]))
    groups = list(svg.iter("g"))
    assert len(groups) == 2
    for group in groups:
        heights = [float(bar.attrib["height"]) for bar in group.iter("rect")]
        assert sum(heights) == pytest.approx(222)
    assert "anger 25 %, calm 75 %" in ElementTree.tostring(svg, encoding="unicode")


def test_names_of_labels_cannot_become_markup() -> None:
    text = timeline_svg([Scored(0, 1, {"<b>": 1.0}), Scored(1, 2, {"<b>": 1.0})], ["<b>"])
    ElementTree.fromstring(text)
    assert "<b>" not in text


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of the running page."""
    pytest.importorskip("gradio", reason="the extra `ui`")
    from gradio_client import Client

    from gmp_atl_hf.ui.app import serve

    page = serve(make_classifier(), "tones", prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    try:
        folder = tmp_path_factory.mktemp("downloads")
        yield Client(page.local_url, verbose=False, analytics_enabled=False, download_files=str(folder))
    finally:
        page.close()


def listen(client: Any, file: Path, window: float = 1.0) -> Any:
    from gradio_client import handle_file

    return client.predict(handle_file(str(file)), window, api_name="/listen")


def test_an_uploaded_recording_gets_the_classifiers_scores_and_a_timeline(client: Any, tmp_path: Path) -> None:
    file = write_audio(tmp_path / "speech.wav", np.concatenate([tone(24_000), tone(32_000, pitch=600)]))
    label, drawn = listen(client, file)
    expected = make_classifier()(file, 1.0, 0.5)
    scores = {one["label"]: one["confidence"] for one in label["confidences"]}
    assert scores == pytest.approx(expected.scores, abs=1e-5)  # type: ignore[union-attr]
    assert label["label"] == expected.label  # type: ignore[union-attr]
    assert len(re.findall("<g>", drawn)) >= 6


def test_a_short_recording_is_scored_as_a_whole(client: Any, tmp_path: Path) -> None:
    label, said = listen(client, write_audio(tmp_path / "short.flac", 8_000, rate=8_000), 3.0)
    assert len(label["confidences"]) == 4
    assert "scored as a whole" in said and "<svg" not in said


def test_a_bad_file_is_named_without_the_servers_folders(client: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("nothing to hear")
    with pytest.raises(Exception, match=r"^notes\.wav is not audio") as caught:
        listen(client, tmp_path / "notes.wav")
    assert str(tmp_path) not in str(caught.value) and "/gradio/" not in str(caught.value)
    with pytest.raises(Exception, match="Give a recording first"):
        client.predict(None, 3.0, api_name="/listen")


def kept(name: str) -> list[Path]:
    """Files of a name in the page's temporary folder."""
    from gmp_atl_hf.ui.app import _RECORDINGS

    return list(Path(_RECORDINGS.name).rglob(name))


def test_a_recording_is_kept_until_the_next_one_is_given(client: Any, tmp_path: Path) -> None:
    first, second = (
        write_audio(tmp_path / f"{name}.wav", tone(16_000, pitch)) for name, pitch in (("a", 200), ("b", 300))
    )
    listen(client, first)
    assert kept("a.wav")
    listen(client, first, 2.0)
    listen(client, second)
    assert not kept("a.wav") and kept("b.wav")


def test_uploads_have_a_limit_and_nothing_is_kept_once_the_page_has_ended(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the extra `ui`")
    from gradio_client import Client

    from gmp_atl_hf.ui.app import serve

    page = serve(make_classifier(), "tones", prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    client = Client(page.local_url, verbose=False, analytics_enabled=False)
    listen(client, write_audio(tmp_path / "end.wav", 16_000))
    assert kept("end.wav")
    assert page.max_file_size == 200 * 1024**2
    page.max_file_size = 1_000
    with pytest.raises(Exception, match="413"):
        listen(client, write_audio(tmp_path / "large.wav", 16_000))
    assert not kept("large.wav")
    page.close()
    assert not kept("end.wav")


def test_a_model_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the extra `ui`")
    assert main(["ui", str(tmp_path / "nowhere"), "--port", "99999"]) == 2
    assert "from 1 to 65535" in capsys.readouterr().err
    assert main(["ui", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_spaces_requirements_are_the_packages_own() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "src/gmp_atl_hf/ui/requirements.txt").read_text(encoding="utf-8").splitlines()
    needed = {line for line in lines if not line.startswith("#")}
    assert needed <= set(project["dependencies"])


def test_a_space_asks_for_the_gradio_that_is_known_to_work() -> None:
    from gmp_atl_hf.ui.space import files_of_space

    files = {file.path: file for file in files_of_space("ana/listen", "ana/tones")}
    readme = files["README.md"].content
    assert isinstance(readme, bytes)
    metadata = yaml.safe_load(readme.decode().split("---\n")[1])
    pinned = re.search(r"^gradio==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None and metadata["sdk_version"] == pinned[1]
    assert metadata["models"] == ["ana/tones"]


def test_a_space_starts_from_its_own_files_alone(tmp_path: Path) -> None:
    from gmp_atl_hf.ui.space import files_of_space

    for file in files_of_space("ana/listen", "ana/tones"):
        place = tmp_path / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content if isinstance(file.content, bytes) else file.content.read_bytes())
    code = """
import runpy, sys, types
sys.modules["gradio"] = types.ModuleType("gradio")  # a Space brings it along
sys.path.insert(0, ".")
app = runpy.run_path("app.py")
print(sys.modules["gmp_atl_hf"].__file__, app["timeline_svg"].__module__)
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "gmp_atl_hf/__init__.py"), "gmp_atl_hf.ui.timeline"]
