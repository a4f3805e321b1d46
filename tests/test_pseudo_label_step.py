"""Step 2 as a whole: the same files from any number of processes and after a stop, in memory that does not grow."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, are_progress_bars_disabled

import gmp_atl_hf
from damages import DAMAGES
from gmp_atl_hf.batching import length_batches as batches
from gmp_atl_hf.modeling.frames_gmp_atl import frame_count
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATLMultiTask
from gmp_atl_hf.pseudo_labels import cluster as step
from gmp_atl_hf.pseudo_labels import feature_stream, features, label_file
from gmp_atl_hf.pseudo_labels import frame_sample as sample
from gmp_atl_hf.pseudo_labels import labelling as labels
from gmp_atl_hf.pseudo_labels.kmeans import MultiScaleKMeans
from gmp_atl_hf.pseudo_labels.label_file import LABELS_FILE, PARTS_FOLDER
from gmp_atl_hf.run import steps
from runs import digests, files_of
from tables import SCALES, feature_extractor, small_model, speech_table
from two_processes import make_labels

SCRIPT = Path(__file__).parent / "two_processes" / "make_labels.py"
RESULTS = {"codebooks.json", "codebooks.safetensors", LABELS_FILE}
COLUMNS = ["gmp_layer2_k3", "gmp_layer2_k6", "gmp_layer1_k3", "gmp_layer1_k6"]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and two tables on the disk."""
    folder = tmp_path_factory.mktemp("given")
    model = small_model(HubertForGMPATLMultiTask, initializer_range=0.2)
    model.save_pretrained(folder / "model")
    feature_extractor().save_pretrained(folder / "model")
    for part, clips, seed in (("train", 33, 0), ("dev", 8, 1)):
        table = speech_table(clips, seed).remove_columns(list(SCALES))
        ids = [f"{part}/{row}" for row in range(clips)]
        table = table.remove_columns("id").add_column("id", ids)
        table = table.add_column("speaker", [f"tones/{part}-{row % 3}" for row in range(clips)])
        table.save_to_disk(str(folder / part))
    return folder


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """`make_labels.make` cuts everything small; other tests shall not."""
    threads = torch.get_num_threads()
    kept = (labels.WINDOW_ROWS, sample.SHORTEST_RUN)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    labels.WINDOW_ROWS, sample.SHORTEST_RUN = kept
    feature_stream.length_batches = batches.length_batches


@pytest.fixture(scope="module")
def alone(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    folder = tmp_path_factory.mktemp("alone")
    launch(given, folder, 1)
    return folder


def launch(given: Path, folder: Path, processes: int, *further: str) -> None:
    source = Path(gmp_atl_hf.__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    options = ["--nproc_per_node", str(processes), "--standalone"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(SCRIPT), str(given), str(folder), *further]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _, complained = process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        process.terminate()  # the launcher then ends its processes, which killing it would not
        process.wait(30)
        raise
    assert process.returncode == 0, complained[-4_000:]


def shares(folder: Path) -> dict[str, list[int]]:
    """Process → windows that it labelled."""
    return {file.name: [int(word) for word in file.read_text().split()] for file in folder.glob("share-*")}


@pytest.mark.slow
@pytest.mark.two_processes
def test_two_processes_share_the_work_and_write_the_bytes_of_one(given: Path, alone: Path, tmp_path: Path) -> None:
    launch(given, tmp_path, 2)
    assert shares(alone) == {"share-0-of-1": list(range(0, 41, 5))}
    assert shares(tmp_path) == {"share-0-of-2": list(range(0, 41, 10)), "share-1-of-2": list(range(5, 41, 10))}
    assert digests(tmp_path, *RESULTS) == digests(alone, *RESULTS)
    assert files_of(tmp_path) == {*RESULTS, "hashes.json", *shares(tmp_path)}, "parts are left behind"


@pytest.mark.slow
@pytest.mark.two_processes
def test_two_processes_measure_average_and_shuffle_as_one_does(given: Path, tmp_path: Path) -> None:
    make_labels.make(given, tmp_path / "one", make_labels.SLOW_SPEC)
    launch(given, tmp_path / "two", 2, "slow")
    assert digests(tmp_path / "two", *RESULTS) == digests(tmp_path / "one", *RESULTS)
    assert MultiScaleKMeans.load(tmp_path / "two").windows == (0.02, 0.1)


def test_a_step_that_was_cut_off_measures_its_development_speakers_again(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_labels.make(given, tmp_path / "whole", make_labels.SLOW_SPEC)
    write, written = step.write_part, []

    def stop(folder: Path, window: range, *rest: Any) -> None:
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(window)
        write(folder, window, *rest)

    monkeypatch.setattr(step, "write_part", stop)
    with pytest.raises(KeyboardInterrupt):
        make_labels.make(given, tmp_path / "cut", make_labels.SLOW_SPEC)
    monkeypatch.setattr(step, "write_part", write)
    monkeypatch.setattr("gmp_atl_hf.pseudo_labels.preparation.measure_groups", None)
    make_labels.make(given, tmp_path / "cut", make_labels.SLOW_SPEC)
    assert digests(tmp_path / "cut", *RESULTS) == digests(tmp_path / "whole", *RESULTS)


def test_every_row_of_both_tables_is_labelled_in_their_order(given: Path, alone: Path) -> None:
    written = pq.read_table(alone / LABELS_FILE)
    assert written.column_names == ["id", *COLUMNS]
    assert written["id"].to_pylist() == [f"train/{row}" for row in range(33)] + [f"dev/{row}" for row in range(8)]
    model = HubertForGMPATLMultiTask.from_pretrained(given / "model")
    samples = [n for part in ("train", "dev") for n in Dataset.load_from_disk(str(given / part))["num_samples"]]
    frames = [frame_count(n, model.config.conv_kernel, model.config.conv_stride) for n in samples]
    for column in COLUMNS:
        assert [len(row) for row in written[column].to_pylist()] == frames
    kmeans = MultiScaleKMeans.load(alone)
    assert {scale.frames for scale in kmeans.scales.values()} == {180}
    assert all(speaker.startswith("tones/train") for speaker in kmeans.scales[COLUMNS[0]].training_speakers)


def test_a_step_that_was_cut_off_keeps_codebooks_and_labelled_windows(
    given: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = step.write_part, []

    def stop(folder: Path, window: range, *rest: Any) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(window)
        write(folder, window, *rest)

    monkeypatch.setattr(step, "write_part", stop)
    with pytest.raises(KeyboardInterrupt):
        make_labels.make(given, tmp_path)
    assert len(list((tmp_path / PARTS_FOLDER).iterdir())) == 3
    # Two processes could go on from here as well: windows do not depend on them.
    resumed: list[range] = []
    monkeypatch.setattr(step, "write_part", lambda *given: (resumed.append(given[1]), write(*given)))
    monkeypatch.setattr(step, "take_sample", None)
    make_labels.make(given, tmp_path)
    assert [window.start for window in resumed] == list(range(15, 41, 5))
    assert digests(tmp_path, *RESULTS) == digests(alone, *RESULTS)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_part_that_is_damaged_does_not_count(tmp_path: Path, damage: str) -> None:
    window = range(2)
    label_file.write_part(tmp_path, window, ["a", "b"], {"gmp_layer1_k2": [np.zeros(3, np.int32)] * 2})
    assert label_file.read_part(tmp_path, window) is not None
    DAMAGES[damage](label_file.part_path(tmp_path, window))
    assert label_file.read_part(tmp_path, window) is None


def test_labels_are_written_in_row_groups_of_several_windows(tmp_path: Path) -> None:
    windows = [range(start, start + 2) for start in range(0, 40, 2)]
    for window in windows:
        rows = [np.full(row % 3, row, np.int32) for row in window]  # a row of no frames, too
        label_file.write_part(tmp_path, window, [str(row) for row in window], {"gmp_layer1_k50": rows})
    label_file.join_parts(tmp_path, windows)
    file = pq.ParquetFile(tmp_path / LABELS_FILE)
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [16, 16, 8]
    assert file.read()["gmp_layer1_k50"].to_pylist() == [[row] * (row % 3) for row in range(40)]
    label_file.copy_for_mapping(tmp_path / LABELS_FILE, tmp_path / "copy.arrow")
    assert label_file.map_labels(tmp_path / "copy.arrow").equals(file.read())


def test_labels_are_put_beside_the_rows_they_belong_to(
    given: Path, alone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    written = {row["id"]: row for row in pq.read_table(alone / LABELS_FILE).to_pylist()}
    train, dev = (Dataset.load_from_disk(str(given / part)) for part in ("train", "dev"))
    shuffled = train.select(np.random.default_rng(0).permutation(len(train)).tolist())
    with steps.pseudo_labels_of(alone, tmp_path) as labelled:
        for table in (train, dev, shuffled, train.select([4, 9, 2]), dev.select([])):
            found = labelled(table)
            assert found.column_names == [*table.column_names, *COLUMNS]
            assert found["id"] == table["id"]
            for row in found.remove_columns("audio"):
                assert {name: row[name] for name in COLUMNS} == {name: written[row["id"]][name] for name in COLUMNS}
    assert files_of(tmp_path) == set(), "the copy stays"
    assert "Flattening" not in capfd.readouterr().err
    assert not are_progress_bars_disabled()


def test_no_more_is_read_or_kept_than_a_window_and_what_is_read_ahead(
    given: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, kmeans = Dataset.load_from_disk(str(given / "train")), MultiScaleKMeans.load(alone)
    model = HubertForGMPATLMultiTask.from_pretrained(given / "model")
    honest = features.hidden_state_extraction(model, kmeans.layers, feature_extractor())
    taken, given_back = [], []
    monkeypatch.setattr(labels, "WINDOW_ROWS", 4)
    monkeypatch.setattr(features, "trim_heap", lambda: given_back.append(len(taken)))

    def extract(rows: Dataset, batches: Any) -> Any:
        def noted() -> Iterator[Any]:
            for batch in batches:
                taken.extend(batch)
                yield batch

        return honest.extract(rows, noted())

    windows = labels.windows_of(len(table))
    extraction = dataclasses.replace(honest, extract=extract, batch_seconds=0.5)
    stream = labels.label_windows(extraction, kmeans, table, windows)
    assert len(windows) == 9
    for number, (window, _) in enumerate(stream, start=1):
        assert window == windows[number - 1]
        # At most one batch of up to four clips waits for each of up to four threads, and one is being worked on.
        assert len(taken) <= 4 * number + 4 * 6
    assert sorted(taken) == list(range(33))
    assert len(given_back) > 9, "what is free goes back after every batch"


def test_bars_say_what_is_done(given: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make_labels.make(given, tmp_path)
    shown = capfd.readouterr().err
    assert "test: frames to cluster: 100%" in shown
    assert "test: frame labels: 100%" in shown
    for stock in ("Flattening", "Creating parquet", "Map", "Saving"):
        assert stock not in shown
