"""Controls: frame labels without their content, and frame labels that know the emotion."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.pseudo_labels import controls, label_file
from gmp_atl_hf.pseudo_labels.codebook import codebook_speakers
from gmp_atl_hf.pseudo_labels.controls import shuffle_frame_labels, write_oracle_labels
from gmp_atl_hf.pseudo_labels.feature_stream import frames_of
from gmp_atl_hf.pseudo_labels.kmeans import MultiScaleKMeans
from gmp_atl_hf.pseudo_labels.label_file import LABELS_FILE
from runs import SPLIT, given_split, run, write_corpus
from tables import SCALES, speech_table, training_config

TRAIN, DEV = 37, 13
COLUMNS = ["gmp_layer1_k4", "gmp_layer1_k9"]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A file of frame labels in three row groups; those of training are all below 3, and in runs."""
    random = np.random.default_rng(5)
    windows = [range(start, min(start + 2, TRAIN + DEV)) for start in range(0, TRAIN + DEV, 2)]
    for window in windows:
        lengths = [int(random.integers(0, 40)) for _ in window]
        labels = {
            name: [
                np.full(length, row % 3 if row < TRAIN else 3, np.int32)
                for row, length in zip(window, lengths, strict=True)
            ]
            for name in COLUMNS
        }
        label_file.write_part(tmp_path, window, [str(row) for row in window], labels)
    label_file.join_parts(tmp_path, windows)
    return tmp_path


def rows_of(folder: Path, column: str) -> list[list[int]]:
    rows: list[list[int]] = pq.read_table(folder / LABELS_FILE)[column].to_pylist()
    return rows


def test_shuffled_labels_stay_as_frequent_and_lose_their_place(labelled: Path) -> None:
    before = {name: rows_of(labelled, name) for name in COLUMNS}
    assert pq.ParquetFile(labelled / LABELS_FILE).num_row_groups == 4
    shuffle_frame_labels(labelled, [TRAIN, DEV], seed=0)
    after = {name: rows_of(labelled, name) for name in COLUMNS}
    assert rows_of(labelled, "id") == [str(row) for row in range(TRAIN + DEV)]
    for name in COLUMNS:
        assert [len(row) for row in after[name]] == [len(row) for row in before[name]]
        for part in (slice(0, TRAIN), slice(TRAIN, None)):
            assert Counter(sum(after[name][part], [])) == Counter(sum(before[name][part], []))
        clips = [row for row in after[name][:TRAIN] if len(row) > 12]
        assert all(len(set(row)) == 3 for row in clips), "every clip had one label, and now has all"
    assert after[COLUMNS[0]] != after[COLUMNS[1]], "each scale has a permutation of its own"


def test_the_permutation_follows_from_the_seed(labelled: Path, tmp_path: Path) -> None:
    original = (labelled / LABELS_FILE).read_bytes()
    found = []
    for seed in (0, 0, 1):
        (labelled / LABELS_FILE).write_bytes(original)
        shuffle_frame_labels(labelled, [TRAIN, DEV], seed)
        found.append(rows_of(labelled, COLUMNS[0]))
    assert found[0] == found[1] != found[2]


def test_every_permutation_is_equally_likely(tmp_path: Path) -> None:
    windows = [range(number, number + 1) for number in range(3)]
    for number, window in enumerate(windows):
        label_file.write_part(tmp_path, window, [str(number)], {"gmp_layer1_k3": [np.array([number])]})
    label_file.join_parts(tmp_path, windows)
    original = (tmp_path / LABELS_FILE).read_bytes()
    seen: Counter[tuple[int, ...]] = Counter()
    for seed in range(300):
        (tmp_path / LABELS_FILE).write_bytes(original)
        shuffle_frame_labels(tmp_path, [3], seed)
        seen[tuple(row[0] for row in rows_of(tmp_path, "gmp_layer1_k3"))] += 1
    assert len(seen) == 6
    assert all(24 < count < 76 for count in seen.values()), "50, give or take four deviations"


def test_more_frames_than_can_be_drawn_from_are_refused(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (labelled / LABELS_FILE).read_bytes()
    monkeypatch.setattr(controls, "MOST_FRAMES", 10)
    with pytest.raises(RequestError, match="more frames to shuffle"):
        shuffle_frame_labels(labelled, [TRAIN, DEV], seed=0)
    assert (labelled / LABELS_FILE).read_bytes() == before


def test_oracle_labels_are_the_emotion_of_the_clip_at_every_frame(tmp_path: Path) -> None:
    table = speech_table(9).remove_columns(list(SCALES))
    table = table.add_column("speaker", [f"tones/{row % 2}" for row in range(9)])
    train, dev = table.select(range(6)), table.select(range(6, 9))
    write_oracle_labels(tmp_path, training_config(), train, dev)
    written = pq.read_table(tmp_path / LABELS_FILE)
    assert written.column_names == ["id", "gmp_oracle_k3"]
    assert written["id"].to_pylist() == table["id"]
    frames = frames_of(table, training_config())
    expected = [[emotion] * count for emotion, count in zip(table["emotion"], frames, strict=True)]
    assert written["gmp_oracle_k3"].to_pylist() == expected
    assert codebook_speakers(tmp_path) == ["tones/0", "tones/1"]
    with pytest.raises(RequestError, match=r"no file .*codebooks\.safetensors"):
        MultiScaleKMeans.load(tmp_path)


def test_oracle_labels_need_no_development_rows(tmp_path: Path) -> None:
    table: Dataset = speech_table(4).remove_columns(list(SCALES)).add_column("speaker", ["tones/0"] * 4)
    write_oracle_labels(tmp_path, training_config(), table, None)
    assert pq.read_table(tmp_path / LABELS_FILE)["id"].to_pylist() == table["id"]


@pytest.mark.parametrize("control", ["shuffled", "oracle"])
def test_the_card_of_a_control_says_so_before_anything_else(tmp_path: Path, control: str) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    recipe = given_split(root, pseudo_labels__control=control)
    run(recipe, tmp_path / "run")
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert card.index("**This is a control, not the method: the") < card.index("Scores 3 emotions")
    (row,) = [line for line in card.splitlines() if line.startswith("|") and "a control, not the method |" in line]
    assert ("permuted over all frames" if control == "shuffled" else "the emotion of the clip at every frame") in row
