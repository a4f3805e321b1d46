"""The readers on small trees in the layout their corpora are distributed in, with the traps those have."""

from __future__ import annotations

import pickle
import shutil
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from audio_files import tone, write_audio
from corpus_trees import clip, people, read_corpus, reasons, refused, touch
from gmp_atl_hf.data.corpora import MODULES, corpus_names, corpus_reader
from gmp_atl_hf.data.listing import list_recordings

COMMON = ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]


# what every reader says of itself


@pytest.mark.parametrize("name", sorted({*MODULES} - {"csv", "demo", "folder", "hub", "emobox"}))
def test_every_corpus_states_its_facts(name: str) -> None:
    info = corpus_reader(name).info
    assert info.name == name
    assert info.homepage and info.licence and info.citation and info.language and info.layout
    if info.expected and info.expected_files is not None:
        files = list(info.expected_files())
        assert len(files) == len(set(files)) == sum(info.expected.values())
    if info.genders:
        assert info.speakers == sum(info.genders.values())


@pytest.mark.parametrize("name", corpus_names())
def test_what_is_known_of_a_corpus_can_be_sent_to_another_process(name: str) -> None:
    info = corpus_reader(name).info
    assert pickle.loads(pickle.dumps(info)) == replace(info, expected_files=None)


def test_names_of_emotions_are_the_same_in_every_corpus() -> None:
    words = {word for name in corpus_names() for word in corpus_reader(name).info.expected}
    assert words == {*COMMON, "boredom", "calm", "excited", "frustration", "no agreement", "other"}


# CREMA-D


def test_cremad_reads_the_wav_and_lists_the_mp3_of_the_same_repository(tmp_path: Path) -> None:
    (tmp_path / "VideoDemographics.csv").write_text(
        '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","Caucasian","Not Hispanic"\n'
        '1040,42,"Male","Caucasian","Not Hispanic"\n1076,25,"Female","Caucasian","Not Hispanic"\n'
    )
    touch(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1040_ITH_SAD_X.wav", "AudioWAV/1076_IEO_HAP_HI.wav")
    touch(tmp_path, "AudioMP3/1001_DFA_ANG_XX.mp3", "AudioWAV/1001_DFA_JOY_XX.wav", "AudioWAV/notes.wav")
    listed = list_recordings("cremad", tmp_path)
    assert people(listed) == {
        "1001_DFA_ANG_XX": ("anger", "1001", "male"),
        "1040_ITH_SAD_X": ("sadness", "1040", "male"),
        "1076_IEO_HAP_HI": ("happiness", "1076", "female"),
    }
    assert all(one.path is not None and one.path.suffix == ".wav" for one in listed.recordings)
    assert reasons(listed) == {
        "AudioMP3/1001_DFA_ANG_XX.mp3": "another copy of a recording that is read",
        "1001_DFA_JOY_XX.wav": "'JOY' is no emotion of this corpus (ANG, DIS, FEA, HAP, NEU, SAD)",
        "notes.wav": "its name is not built like 1001_DFA_ANG_XX",
    }
    assert any("happiness 1 instead of 1271" in problem for problem in listed.problems)


def test_cremad_knows_the_genders_without_the_table_and_follows_the_table_where_it_is(tmp_path: Path) -> None:
    touch(tmp_path, "AudioWAV/1002_DFA_ANG_XX.wav", "AudioWAV/1001_DFA_ANG_XX.wav")
    assert {one[1:] for one in people(list_recordings("cremad", tmp_path)).values()} == {
        ("1001", "male"),
        ("1002", "female"),
    }
    (tmp_path / "VideoDemographics.csv").write_text('"ActorID","Age","Sex"\n1002,21,"Male"\n')
    assert people(list_recordings("cremad", tmp_path / "AudioWAV"))["1002_DFA_ANG_XX"][2] == "male"


# RAVDESS


def ravdess(root: Path, folder: str, channel: str) -> None:
    for name in corpus_reader("ravdess" if channel == "01" else "ravdess-song").info.expected_files():  # type: ignore[misc]
        touch(root, f"{folder}/Actor_{name[-2:]}/{name}.wav")


def test_ravdess_is_complete_as_distributed_and_speech_and_song_are_kept_apart(tmp_path: Path) -> None:
    ravdess(tmp_path, "Audio_Speech_Actors_01-24", "01")
    ravdess(tmp_path, "Audio_Song_Actors_01-24", "02")
    speech, song = list_recordings("ravdess", tmp_path), list_recordings("ravdess-song", tmp_path)
    assert (len(speech.recordings), speech.problems) == (1440, [])
    assert (len(song.recordings), song.problems) == (1012, [])
    assert Counter(one.emotion for one in song.recordings)["neutral"] == 92
    assert set(reasons(speech).values()) == {"it is sung: the corpus ravdess-song reads it"}
    assert people(speech)["03-01-08-02-01-01-01"] == ("surprise", "01", "male")
    assert people(speech)["03-01-01-01-01-01-24"] == ("neutral", "24", "female")
    assert "18" not in {one.speaker for one in song.recordings}


@pytest.mark.parametrize(
    ("whole", "part", "recording"),
    [
        ("ravdess", "ravdess-song", "Actor_01/03-02-05-01-01-01-01.wav"),
        ("esd", "esd-en", "0011/Angry/0011_000351.wav"),
        ("esd", "esd-zh", "0001/Angry/0001_000351.wav"),
    ],
)
def test_the_same_person_has_one_name_in_all_readers_of_a_corpus(
    whole: str, part: str, recording: str, tmp_path: Path
) -> None:
    clip(tmp_path / recording)
    assert {name.partition("/")[0] for name in read_corpus(part, tmp_path).table["speaker"]} == {whole}


def test_ravdess_twice_in_one_archive_is_read_once_and_the_sound_of_videos_is_listed(tmp_path: Path) -> None:
    name = "03-01-05-01-01-01-02"
    touch(tmp_path, f"Actor_02/{name}.wav", f"audio_speech_actors_01-24/Actor_02/{name}.wav")
    touch(tmp_path, "Actor_02/01-01-05-01-01-01-02.wav", "Actor_02/03-01-09-01-01-01-02.wav")
    listed = list_recordings("ravdess", tmp_path)
    assert [*people(listed)] == [name]
    assert reasons(listed) == {
        f"audio_speech_actors_01-24/Actor_02/{name}.wav": "another copy of a recording that is read",
        "01-01-05-01-01-01-02.wav": "the sound of a video, the same performance as the audio-only recording",
        "03-01-09-01-01-01-02.wav": "'09' is no emotion of this corpus (01, 02, 03, 04, 05, 06, 07, 08)",
    }
    assert any("1,439 files of ravdess are missing: 03-01-01" in problem for problem in listed.problems)


def test_two_recordings_with_the_same_sound_are_named(tmp_path: Path) -> None:
    first = clip(tmp_path / "Actor_05/03-01-02-01-01-01-05.wav")
    shutil.copy(first, tmp_path / "Actor_05/03-01-03-01-02-02-05.wav")
    clip(tmp_path / "Actor_06/03-01-02-01-01-01-06.wav")
    [problem] = [one for one in read_corpus("ravdess", tmp_path).problems if "same sound" in one]
    assert problem.endswith("03-01-02-01-01-01-05 = 03-01-03-01-02-02-05 (under different emotions)")


def test_silent_recordings_are_named(tmp_path: Path) -> None:
    clip(tmp_path / "1001_DFA_ANG_XX.wav")
    write_audio(tmp_path / "1076_MTI_SAD_XX.wav", tone(600) * 0)
    problems = read_corpus("cremad", tmp_path).problems
    assert "cremad has silent recordings (1): 1076_MTI_SAD_XX" in problems


# SAVEE


def test_savee_is_complete_in_its_original_and_in_its_flat_layout(tmp_path: Path) -> None:
    names = list(corpus_reader("savee").info.expected_files())  # type: ignore[misc]
    touch(tmp_path, *(f"original/AudioData/{name.replace('_', '/')}.wav" for name in names))
    touch(tmp_path, *(f"flat/ALL/{name}.wav" for name in names))
    (tmp_path / "original/AudioData/Info.txt").write_text("Speakers")
    original, flat = list_recordings("savee", tmp_path / "original"), list_recordings("savee", tmp_path / "flat")
    assert len(original.recordings) == 480
    assert original.problems == flat.problems == []
    assert people(original) == people(flat)
    assert people(flat)["JK_su15"] == ("surprise", "JK", "male")
    assert people(flat)["DC_sa01"] == ("sadness", "DC", "male")


def test_savee_lists_what_belongs_to_nobody(tmp_path: Path) -> None:
    touch(tmp_path, "AudioData/DC/a01.wav", "AudioData/XX/a01.wav", "AudioData/DC/zz01.wav")
    assert reasons(list_recordings("savee", tmp_path)) == {
        "a01.wav": "neither its name nor its folder is one of DC, JE, JK, KL",
        "zz01.wav": "'zz' is no emotion of this corpus (a, d, f, h, n, sa, su)",
    }


# TESS

TESS = {
    "angry": ("OAF_angry", "YAF_angry"),
    "disgust": ("OAF_disgust", "YAF_disgust"),
    "fear": ("OAF_Fear", "YAF_fear"),
    "happy": ("OAF_happy", "YAF_happy"),
    "neutral": ("OAF_neutral", "YAF_neutral"),
    "ps": ("OAF_Pleasant_surprise", "YAF_pleasant_surprised"),
    "sad": ("OAF_Sad", "YAF_sad"),
}


def tess(root: Path, words: list[str]) -> None:
    for emotion, folders in TESS.items():
        for folder in folders:
            for word in words:
                name = f"{folder[:3]}_{word}_{emotion}.wav"
                touch(root, f"{folder}/{name.replace('OAF_bite_neutral', 'OA_bite_neutral')}")


def test_tess_is_complete_in_the_archive_that_holds_it_twice(tmp_path: Path) -> None:
    letters = "abcdefghijklmnopqrst"
    words = ["bite", *(a + b for a in letters for b in letters)][:200]
    tess(tmp_path / "TESS Toronto emotional speech set data", words)
    tess(tmp_path / "TESS Toronto emotional speech set data/TESS Toronto emotional speech set data", words[:2])
    listed = list_recordings("tess", tmp_path)
    assert (len(listed.recordings), listed.problems) == (2800, [])
    assert people(listed)["OAF_bite_neutral"] == ("neutral", "OAF", "female")
    assert people(listed)["YAF_bite_ps"] == ("surprise", "YAF", "female")
    assert {one.speaker for one in listed.recordings} == {"OAF", "YAF"}
    assert len(listed.left_out) == 28
    assert set(reasons(listed).values()) == {"another copy of a recording that is read"}


def test_tess_tells_which_recordings_are_missing_from_the_words_it_has(tmp_path: Path) -> None:
    tess(tmp_path, ["bite", "back"])
    (tmp_path / "YAF_sad/YAF_back_sad.wav").unlink()
    assert (
        "tess lacks recordings of words that it has otherwise (1), such as YAF_back_sad"
        in list_recordings("tess", tmp_path).problems
    )


# ESD


@pytest.mark.parametrize("part", ["", "train/", "evaluation/"])
def test_esd_is_read_with_and_without_its_parts(tmp_path: Path, part: str) -> None:
    touch(tmp_path, f"ESD/0001/Angry/{part}0001_000351.wav", f"ESD/0011/Surprise/{part}0011_001401.wav")
    (tmp_path / "ESD/0001/0001.txt").write_text("0001_000351\t打远一看\t生气\n", encoding="gbk")
    (tmp_path / "ESD/0011/0011.txt").write_text("0011_001401\tThe nine\tSurprise\n", encoding="utf-16")
    listed = list_recordings("esd", tmp_path)
    assert people(listed) == {
        "0001_000351": ("anger", "0001", "female"),
        "0011_001401": ("surprise", "0011", "male"),
    }
    assert listed.recordings[0].split is None
    english = list_recordings("esd-en", tmp_path)
    assert [*people(english)] == ["0011_001401"]
    assert reasons(english) == {"0001_000351.wav": "its speaker speaks the other language: esd-en is one half of ESD"}
    assert any("17,499 files of esd-en are missing" in problem for problem in english.problems)


def test_esd_lists_what_lies_in_no_emotion(tmp_path: Path) -> None:
    touch(tmp_path, "0011/Angry/0011_000351.wav", "0011/Bored/0011_000352.wav", "0021/Angry/0021_000351.wav")
    found = reasons(list_recordings("esd", tmp_path))
    assert found["0011_000352.wav"].startswith("its folder Bored is none of ESD's emotions")
    assert found["0021_000351.wav"].startswith("'0021' is no speaker of this corpus")


# nEMO

NEMO = "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"


def test_nemo_takes_the_blanks_off_its_speakers_and_names_what_is_missing_and_what_is_extra(tmp_path: Path) -> None:
    (tmp_path / "data.tsv").write_text(
        NEMO + "WR0_surprised_64.wav\tsurprised\tUcho „Ród\tucho\t        WR0\tmale\t23\n"
        'EB0_neutral_13.wav\tneutral\t"Ród smoka” to serial\tród\t        EB0\tfemale\t27\n'
        "EB0_anger_1.wav\tanger\tx\tx\t        EB0\tfemale\t27\n"
        "EB0_bored_1.wav\tbored\tx\tx\t        EB0\tfemale\t27\n",
        encoding="utf-8",
    )
    touch(tmp_path, *(f"samples/{name}.wav" for name in ("WR0_surprised_64", "EB0_neutral_13", "XX0_anger_1")))
    touch(tmp_path, "samples/EB0_bored_1.wav", "nemo/samples/EB0_neutral_13.wav")
    listed = list_recordings("nemo", tmp_path)
    assert people(listed) == {
        "WR0_surprised_64": ("surprise", "WR0", "male"),
        "EB0_neutral_13": ("neutral", "EB0", "female"),
    }
    assert reasons(listed) == {
        "EB0_anger_1.wav": "listed in data.tsv, but the recording is missing",
        "EB0_bored_1.wav": "'bored' is none of nEMO's emotions (anger, fear, happiness, neutral, sadness, surprised)",
        "XX0_anger_1.wav": "not listed in data.tsv",
        "samples/EB0_neutral_13.wav": "another copy of a recording that is read",
    }
    (tmp_path / "data.tsv").unlink()
    assert "there is no" in refused("nemo", tmp_path).found


# EMOVO


def test_emovo_is_complete_whatever_the_case_of_its_names(tmp_path: Path) -> None:
    for name in corpus_reader("emovo").info.expected_files():  # type: ignore[misc]
        touch(tmp_path, f"EMOVO/{name[4:6].upper()}/{name.replace('-f', '-F')}.wav")
    listed = list_recordings("emovo", tmp_path)
    assert (len(listed.recordings), listed.problems, listed.left_out) == (588, [], [])
    assert people(listed)["dis-f1-b1"] == ("disgust", "f1", "female")
    assert people(listed)["tri-m3-d2"] == ("sadness", "m3", "male")


# CaFE


@pytest.mark.parametrize(
    "anger", ["Colère", unicodedata.normalize("NFD", "Colère"), "Colère".encode().decode("cp437")], ids=str
)
def test_cafe_is_complete_however_its_folders_came_out_of_the_archive(tmp_path: Path, anger: str) -> None:
    folders = dict(zip("CDJNPST", (anger, "Dégoût", "Joie", "Neutre", "Peur", "Surprise", "Tristesse"), strict=True))
    for name in corpus_reader("cafe").info.expected_files():  # type: ignore[misc]
        _, emotion, intensity, _ = name.split("-")
        strength = "" if emotion == "N" else ("Faible/" if intensity == "1" else "Fort/")
        touch(tmp_path, f"CaFE_48k/{folders[emotion]}/{strength}{name}.wav")
    touch(tmp_path, "CaFE_192k_1/Joie/Fort/01-J-2-1.wav")
    listed = list_recordings("cafe", tmp_path)
    assert (len(listed.recordings), listed.problems) == (936, [])
    assert reasons(listed) == {"CaFE_192k_1/Joie/Fort/01-J-2-1.wav": "another copy of a recording that is read"}
    assert people(listed)["01-C-1-1"] == ("anger", "01", "male")
    assert people(listed)["12-T-2-6"] == ("sadness", "12", "female")


# IEMOCAP


def test_iemocap_counts_are_those_of_the_four_classes() -> None:
    expected = corpus_reader("iemocap").info.expected
    assert sum(expected.values()) == 10_039
    assert sum(expected[one] for one in ("anger", "happiness", "excited", "neutral", "sadness")) == 5_531


# what archives leave behind


def test_leftovers_of_archives_are_not_read_but_listed(tmp_path: Path) -> None:
    touch(tmp_path, "f1/dis-f1-b1.wav", "f1/._dis-f1-b2.wav", "__MACOSX/f1/dis-f1-b3.wav", "f1/.DS_Store", ".gitignore")
    listed = list_recordings("emovo", tmp_path)
    assert [one.file for one in listed.recordings] == ["dis-f1-b1"]
    assert sorted(reasons(listed)) == ["__MACOSX/f1/dis-f1-b3.wav", "f1/.DS_Store", "f1/._dis-f1-b2.wav"]


def test_every_corpus_becomes_a_table(tmp_path: Path) -> None:
    """One recording of each, decoded, at the rates the corpora have."""
    files = {
        "cremad": "AudioWAV/1001_DFA_ANG_XX.wav",
        "ravdess": "Actor_01/03-01-05-01-01-01-01.wav",
        "ravdess-song": "Actor_01/03-02-05-01-01-01-01.wav",
        "savee": "DC/a01.wav",
        "tess": "OAF_angry/OAF_back_angry.wav",
        "esd": "0011/Angry/0011_000351.wav",
        "emovo": "f1/rab-f1-b1.wav",
        "cafe": "Colère/Fort/01-C-2-1.wav",
    }
    for name, file in files.items():
        clip(tmp_path / name / file, rate=44_100)
        table = read_corpus(name, tmp_path / name).table
        assert table.features["emotion"].names == ["anger"]
        assert table[0]["id"].startswith(f"{name}/")
        assert table[0]["speaker"].startswith(f"{name.removesuffix('-song')}/")
        assert table[0]["num_samples"] == 726
