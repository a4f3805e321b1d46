"""The readers of corpora whose labels are in tables: MELD, MSP-Podcast and EmoBox' folds, on small trees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpus_trees import LEFTOVER, clip, read_corpus, reasons, refused, touch
from gmp_atl_hf.data.corpora import UNKNOWN_SPEAKER
from gmp_atl_hf.data.listing import list_recordings

# MELD

MELD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"


def meld(root: Path) -> Path:
    rows = {
        "train": [("Hi\x85 you", "Ross", "joy", 0, 0), ('"“Oh, no”"', "Rachel and Phoebe", "surprise", 0, 1)],
        "dev": [('"Hey\nyou"', "The Waiter", "neutral", 0, 0), ("Gone", "Joey", "fear", 110, 7)],
        "test": [("“Ho”", "Monica", "disgust", 0, 0), ("Hm", "Monica", "boredom", 0, 1)],
    }
    for part, lines in rows.items():
        text = "".join(
            f'{n},{said},{who},{how},neutral,{dia},{utt},8,21,"00:16:16,059","00:16:21,731"\n'
            for n, (said, who, how, dia, utt) in enumerate(lines, start=1)
        )
        (root / f"{part}_sent_emo.csv").parent.mkdir(parents=True, exist_ok=True)
        (root / f"{part}_sent_emo.csv").write_text(MELD + text, encoding="cp1252" if part == "test" else "utf-8")
    return root


def test_meld_tells_the_same_dialogue_number_of_three_parts_apart(tmp_path: Path) -> None:
    meld(tmp_path)
    touch(tmp_path, "train_splits/dia0_utt0.wav", "train_splits/dia0_utt1.flac", "dev_splits_complete/dia0_utt0.mp3")
    touch(tmp_path, "output_repeated_splits_test/dia0_utt0.wav", "output_repeated_splits_test/dia0_utt1.wav")
    touch(tmp_path, "output_repeated_splits_test/final_videos_testdia0_utt0.wav", "stray/dia0_utt0.wav")
    touch(tmp_path, "output_repeated_splits_test/._dia0_utt0.wav", "train_splits/dia0_utt0.mp4")
    listed = list_recordings("meld", tmp_path)
    assert {one.file: (one.emotion, one.speaker, one.gender, one.split) for one in listed.recordings} == {
        "train/dia0_utt0": ("happiness", "Ross", "male", "train"),
        "train/dia0_utt1": ("surprise", UNKNOWN_SPEAKER, None, "train"),
        "dev/dia0_utt0": ("neutral", "The Waiter", None, "dev"),
        "test/dia0_utt0": ("disgust", "Monica", "female", "test"),
    }
    assert reasons(listed) == {
        "dev/dia110_utt7": "in the table, but its sound is missing (extract it from its video)",
        "test/dia0_utt1": "'boredom' is none of MELD's emotions "
        "(anger, disgust, fear, joy, neutral, sadness, surprise)",
        "test/final_videos_testdia0_utt0": "not in test_sent_emo.csv",
        "dia0_utt0.wav": "no folder on its path has train, dev or test in its name",
        "output_repeated_splits_test/._dia0_utt0.wav": LEFTOVER,
        "train_splits/dia0_utt0.mp4": "files ending in .mp4 are not read as sound",
    }
    assert any("the speaker of 1 of 4 recordings is not known" in problem for problem in listed.problems)


def test_meld_as_videos_is_refused_with_the_way_to_extract_their_sound(tmp_path: Path) -> None:
    meld(tmp_path)
    touch(tmp_path, "train_splits/dia0_utt0.mp4", "train_splits/._dia0_utt1.mp4")
    error = refused("meld", tmp_path)
    assert "1 videos (such as dia0_utt0.mp4)" in error.found
    assert "ffmpeg -i" in str(error.fix)


# MSP-Podcast

MSP = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"
MSP_ROWS = [
    "MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1",
    "MSP-PODCAST_0001_0009.wav,H,3.7,3.5,3.7,39,Female,Train",
    "MSP-PODCAST_0002_0001.wav,U,3.7,3.5,3.7,Unknown,Unknown,Train",
    "MSP-PODCAST_0002_0002.wav,X,3.7,3.5,3.7,41,Male,Development",
    "MSP-PODCAST_0002_0003.wav,S,3.7,3.5,3.7,42,Male,Test2",
    "MSP-PODCAST_0002_0004.wav,Q,3.7,3.5,3.7,42,Male,Train",
    "MSP-PODCAST_0002_0005.wav,A,3.7,3.5,3.7,42,Male,Train",
]


@pytest.mark.parametrize(
    "table", ["Labels/labels_consensus.csv", "Labels/labels_concensus.csv", "labels_consensus.csv"]
)
def test_msp_podcast_is_read_with_either_spelling_of_its_table(tmp_path: Path, table: str) -> None:
    touch(tmp_path, table, *(f"Audios/{row.split(',')[0]}" for row in MSP_ROWS[:-1]))
    touch(tmp_path, "Audios/MSP-PODCAST_9999_0001.wav", "Copy/MSP-PODCAST_0001_0008.wav")
    (tmp_path / table).write_text(MSP + "\n".join(MSP_ROWS))
    listed = list_recordings("msp-podcast", tmp_path)
    assert {one.file[-9:]: (one.emotion, one.speaker, one.gender, one.split) for one in listed.recordings} == {
        "0001_0008": ("neutral", "30", "male", "test"),
        "0001_0009": ("happiness", "39", "female", "train"),
        "0002_0001": ("surprise", UNKNOWN_SPEAKER, None, "train"),
        "0002_0002": ("no agreement", "41", "male", "dev"),
    }
    assert {name[-13:-4]: reason for name, reason in reasons(listed).items()} == {
        "0002_0003": "partition Test2; the one to test on is Test1",
        "0002_0004": "'Q' is none of the corpus' classes (A C D F H N O S U X)",
        "0002_0005": "listed in the table, but the recording is missing",
        "9999_0001": "not listed in the table of labels",
        "0001_0008": "another copy of a recording that is read",
    }
    known = list_recordings("msp-podcast", tmp_path, test="Test2", unknown_speakers="drop")
    assert {one.split for one in known.recordings if one.emotion == "sadness"} == {"test"}
    assert UNKNOWN_SPEAKER not in {one.speaker for one in known.recordings}
    assert "its speaker is not known" in reasons(known).values()
    assert not any("is not known" in problem for problem in known.problems)


def test_msp_podcast_says_what_it_lacks(tmp_path: Path) -> None:
    assert "is empty" in refused("msp-podcast", tmp_path).found
    (tmp_path / "Audios").mkdir()
    (tmp_path / "Audios" / "x.wav").touch()
    assert "no table of labels" in refused("msp-podcast", tmp_path).found
    (tmp_path / "labels_consensus.csv").write_text("FileName,EmoClass\nx.wav,A\n")
    assert "no column SpkrID, Gender, Split_Set" in refused("msp-podcast", tmp_path).found
    (tmp_path / "labels_consensus.csv").write_text(MSP + MSP_ROWS[0])
    assert "one of Test1" in str(refused("msp-podcast", tmp_path, test="Test3").expected)
    assert "keep or drop" in str(refused("msp-podcast", tmp_path, unknown_speakers="no").expected)


# EmoBox


def emobox(root: Path, name: str, parts: dict[str, list[tuple[str, str]]], words: dict[str, str]) -> Path:
    folder = root / "data" / name
    for part, rows in parts.items():
        path = folder / "fold_1" / f"{name}_{part}_fold_1.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            {
                "key": f"{name}-{Path(wav).stem}",
                "dataset": name,
                "wav": f"downloads/{name}/{wav}",
                "type": "raw",
                "sample_rate": 44100,
                "num_frame": 600.0,
                "task": "category",
                "length": 0.1,
                "emo": emo,
                "channel": 1,
            }
            for wav, emo in rows
        ]
        path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    (folder / "label_map.json").write_text(json.dumps(words))
    return folder


def test_emobox_folds_get_speakers_and_genders_from_the_corpus_own_reader(tmp_path: Path) -> None:
    lists = {
        "train": [("AudioData/DC/a01.wav", "a"), ("AudioData/JE/sa01.wav", "sa"), ("AudioData/JE/sa02.wav", "sa")],
        "valid": [("AudioData/JK/n01.wav", "nn")],
        "test": [("AudioData/KL/d01.wav", "d"), ("AudioData/extra/x.wav", "d")],
    }
    folder = emobox(tmp_path, "savee", lists, {"a": "Angry", "sa": "Sad", "d": "Disgust"})
    touch(tmp_path, *(f"downloads/savee/{wav}" for part in lists.values() for wav, _ in part if "sa02" not in wav))
    listed = list_recordings("emobox", folder, fold=1)
    assert {one.file: (one.emotion, one.speaker, one.gender, one.split) for one in listed.recordings} == {
        "savee-a01": ("Angry", "DC", "male", "train"),
        "savee-sa01": ("Sad", "JE", "male", "train"),
        "savee-n01": ("nn", "JK", "male", "dev"),
        "savee-d01": ("Disgust", "KL", "male", "test"),
        "savee-x": ("Disgust", UNKNOWN_SPEAKER, None, "test"),
    }
    assert reasons(listed) == {"savee-sa02": "in the list, but the recording is missing"}
    assert "label_map.json does not name the label 'nn' (recordings: 1), so it stays as it is" in listed.problems
    assert "fold_1" in refused("emobox", folder, fold=2).found


def test_the_people_of_emobox_folds_are_those_of_the_corpus_itself(tmp_path: Path) -> None:
    lists = {"train": [("DC/a01.wav", "a"), ("x.wav", "a")], "test": [("KL/d01.wav", "a")]}
    folder = emobox(tmp_path, "savee", lists, {"a": "Angry"})
    for part in lists.values():
        for wav, _ in part:
            clip(tmp_path / "downloads/savee" / wav)
    table = read_corpus("emobox", folder).table
    assert sorted(table["speaker"]) == ["savee/DC", "savee/KL", "savee/unknown"]
    assert set(table["corpus"]) == {"emobox"}


def test_emobox_folds_of_a_corpus_without_a_reader_have_unknown_speakers(tmp_path: Path) -> None:
    folder = emobox(tmp_path, "casia", {"train": [("a.wav", "happy")], "test": [("b.wav", "happy")]}, {})
    touch(tmp_path / "elsewhere", "downloads/casia/a.wav", "downloads/casia/b.wav")
    assert "downloads" in refused("emobox", folder).found
    listed = list_recordings("emobox", folder, audio_root=str(tmp_path / "elsewhere"))
    assert {one.speaker for one in listed.recordings} == {UNKNOWN_SPEAKER}
    assert any("the speaker of 2 of 2 recordings" in problem for problem in listed.problems)
