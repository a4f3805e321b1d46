"""The script for a GPU and the packing of speech for it, as far as they can be tried without one."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from audio_files import write_audio
from runs import clip

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def on_gpu(work: Path, *arguments: str, status: int = 0) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "OUT"}
    environment |= {"WORK": str(work), "PYTHON": sys.executable}
    command = ["bash", str(BENCHMARKS / "on_gpu.sh"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def pack(*arguments: str | Path, status: int = 0) -> str:
    command = [sys.executable, str(BENCHMARKS / "pack_speech.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Six recordings of some 13 KiB, with their seconds."""
    lines = ["file_name,speaker,duration"]
    for take in range(6):
        write_audio(tmp_path / "speech" / f"{take}.wav", clip(0, 0, take))
        lines.append(f"{take}.wav,s{take % 2},0.5")
    table = tmp_path / "speech" / "metadata.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def test_all_jobs_are_listed_as_open_at_first(tmp_path: Path) -> None:
    lines = on_gpu(tmp_path / "work", "--list", "--tiny").splitlines()
    assert [line.split()[0] for line in lines][:3] == ["tests", "training-base", "training-large"]
    assert all(line.endswith("open") for line in lines)


def test_an_unknown_job_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    assert "there are tests training-base" in on_gpu(tmp_path / "work", "train", status=2)


def test_a_job_without_time_waits_for_the_next_call(tmp_path: Path) -> None:
    said = on_gpu(tmp_path / "work", "--device", "cpu", "--tiny", "--seconds", "0", "kmeans")
    assert "kmeans: waits for the next call" in said


@pytest.mark.slow
def test_a_finished_job_is_not_done_again(tmp_path: Path) -> None:
    command = (tmp_path / "work", "--device", "cpu", "--tiny", "--seconds", "200", "kmeans")
    assert "kmeans: finished in" in on_gpu(*command)
    assert "kmeans: finished before" in on_gpu(*command)
    assert '"benchmark": "kmeans"' in (tmp_path / "work-tiny" / "kept" / "kmeans.log").read_text("utf-8")


def test_parts_of_speech_join_to_the_same_corpus(speech: Path, tmp_path: Path) -> None:
    pack("split", speech, tmp_path / "parts", "--mebibytes", "0.03")
    assert len(list((tmp_path / "parts").iterdir())) > 1
    assert "6 recordings" in pack("join", tmp_path / "parts", tmp_path / "joined")
    assert rows(tmp_path / "joined" / "metadata.csv") == rows(speech)
    for row in rows(speech):
        assert (tmp_path / "joined" / row["file_name"]).read_bytes() == (speech.parent / row["file_name"]).read_bytes()


def test_a_part_alone_makes_a_smaller_corpus(speech: Path, tmp_path: Path) -> None:
    pack("split", speech, tmp_path / "parts", "--mebibytes", "0.03")
    (tmp_path / "parts" / "part-1").rename(tmp_path / "elsewhere")
    pack("join", tmp_path / "parts", tmp_path / "joined")
    assert 0 < len(rows(tmp_path / "joined" / "metadata.csv")) < 6


def test_a_recording_above_the_size_of_a_part_is_refused(speech: Path, tmp_path: Path) -> None:
    assert "0.wav alone has" in pack("split", speech, tmp_path / "parts", "--mebibytes", "0.001", status=1)
