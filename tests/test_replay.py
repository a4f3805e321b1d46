"""Plain speech in the retraining: labelled by the clusters of the method, heard by one training, and never tested."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from audio_files import tone, write_audio
from gmp_atl_hf.card import method
from gmp_atl_hf.checkpoints import heard_recordings, seen_speakers
from gmp_atl_hf.data.audio import read_audio
from gmp_atl_hf.data.table import Corpus, read_corpora
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.files import write_json
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run import steps
from gmp_atl_hf.run.perform import Worker
from gmp_atl_hf.run.plan import RunPlan, plan_run
from gmp_atl_hf.run.replay import Replay, read_replays, replay_notes, seconds_of
from gmp_atl_hf.run.reporting import make_report
from gmp_atl_hf.run_folder.layout import ALL_SPEAKERS, RunFolder
from recipes import recipe, refused
from runs import SPEAKER_PATTERN, SPLIT, digests, given_split, read_json, read_lines, run, write_corpus

SECONDS = 1.2
"""Of plain speech: three of eight recordings, none of which is longer than 0.6 seconds."""


def write_speech(root: Path) -> Path:
    """Eight recordings of 0.35 to 0.56 seconds, in folders that say nothing and in several formats."""
    for number in range(8):
        ending = ("wav", "flac", "ogg")[number % 3]
        folder = root / ("a" if number % 2 else "b/c")
        write_audio(folder / f"{number}.{ending}", tone(5_600 + 480 * number, 150 + 40 * number, seed=number))
    return root


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The method with and without plain speech: `folder`, `report`, `recipe`, ids of each `training`, `card`."""
    base = tmp_path_factory.mktemp("replay")
    corpus, speech = write_corpus(base / "corpus", split=SPLIT), write_speech(base / "speech")
    given = given_split(
        corpus,
        pseudo_labels={"layers": [-2], "clusters": [3, 5], "windows": [0.02, 0.06], "normalize": "speaker"},
        variants=[
            {"name": "replay", "set": {"replay": {"root": "${SPEECH}", "seconds": SECONDS}}},
            "gmp-atl",
            {"name": "shuffled", "base": "shuffled-labels", "set": {"replay.root": str(speech)}},
        ],
        stages__finetune__num_train_epochs=1,
    )
    rows: dict[str, list[str]] = {}
    trainer = steps.GMPATLTrainer

    def noted(model: Any, arguments: Any, train: Any = None, *others: Any, **named: Any) -> Any:
        if train is not None:
            step = Path(arguments.output_dir).parent
            rows[f"{step.parents[2].name}/{step.name.removesuffix('.unfinished')}"] = list(train["id"])
        return trainer(model, arguments, train, *others, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPEECH", str(speech))
        patch.setattr(steps, "GMPATLTrainer", noted)
        report = run(given, base / "run")
        again = run(given, base / "run")
    assert again == report
    return {"folder": base / "run", "report": report, "training": rows}


def step(replayed: dict[str, Any], variant: str, name: str) -> Path:
    path: Path = replayed["folder"] / variant / "seed-0/fold-01" / name
    return path


def labels_of(replayed: dict[str, Any], variant: str) -> dict[str, dict[str, list[int]]]:
    """Column → id → frame labels."""
    table = pq.read_table(step(replayed, variant, "2-pseudo-labels") / "labels.parquet").to_pydict()
    names = table.pop("id")
    return {column: dict(zip(names, rows, strict=True)) for column, rows in table.items()}


def test_the_retraining_hears_plain_speech_beside_the_training_clips(replayed: dict[str, Any]) -> None:
    without, heard = replayed["training"]["gmp-atl/3-retrain"], replayed["training"]["replay/3-retrain"]
    further = heard[len(without) :]
    assert heard[: len(without)] == without
    assert len(further) == 3 and all(name.startswith("replay/") for name in further)
    said = read_json(step(replayed, "replay", "3-retrain") / "training.json")
    assert said["replay"]["recordings"] == 3 and SECONDS <= said["replay"]["hours"] * 3600 <= SECONDS + 0.6
    assert said["updates"] > read_json(step(replayed, "gmp-atl", "3-retrain") / "training.json")["updates"]


def test_no_other_training_and_no_test_hears_it(replayed: dict[str, Any]) -> None:
    told = {step: sum(name.startswith("replay/") for name in ids) for step, ids in replayed["training"].items()}
    assert {step for step, count in told.items() if count} == {"replay/3-retrain", "shuffled/3-retrain"}
    assert {"replay/1-multitask", "replay/4-finetune", "gmp-atl/3-retrain"} <= set(told)
    assert replayed["report"]["variants"]["replay"]["utterances"] == 12
    assert replayed["report"]["corpus"]["recordings"] == 36


def test_the_clusters_know_nothing_of_it(replayed: dict[str, Any]) -> None:
    codebooks = [
        digests(step(replayed, one, "2-pseudo-labels"), "codebooks.safetensors") for one in ("gmp-atl", "replay")
    ]
    assert codebooks[0] and codebooks[0] == codebooks[1]
    said = read_json(step(replayed, "replay", "2-pseudo-labels") / "codebooks.json")
    assert said["normalized_by"]["groups"] == sorted(read_json(step(replayed, "replay", "split.json"))["train"])


def test_each_of_its_frames_has_a_label_at_every_scale(replayed: dict[str, Any]) -> None:
    without, found = labels_of(replayed, "gmp-atl"), labels_of(replayed, "replay")
    assert list(found) == ["gmp_layer2_k3", "gmp_layer2_k5", "gmp_layer2_w60ms_k3", "gmp_layer2_w60ms_k5"]
    for column, rows in found.items():
        further = {name: row for name, row in rows.items() if name.startswith("replay/")}
        assert len(further) == 3 and {name: rows[name] for name in without[column]} == without[column]
        assert all(15 < len(row) < 30 and set(row) <= set(range(int(column[-1]))) for row in further.values())


def test_shuffled_labels_stay_with_the_plain_speech(replayed: dict[str, Any]) -> None:
    method, shuffled = labels_of(replayed, "gmp-atl"), labels_of(replayed, "shuffled")
    train = set(replayed["training"]["gmp-atl/3-retrain"])
    for column, rows in method.items():
        counts = [
            Counter(label for name, row in labels.items() if name in train for label in row)
            for labels in (rows, shuffled[column])
        ]
        assert counts[0] == counts[1]


def test_a_step_without_it_has_the_key_that_it_always_had(replayed: dict[str, Any]) -> None:
    inputs = {
        one: read_json(step(replayed, one, "2-pseudo-labels") / "step.json")["inputs"] for one in ("gmp-atl", "replay")
    }
    assert "replay" not in inputs["gmp-atl"]
    assert inputs["replay"] == {**inputs["gmp-atl"], "replay": inputs["replay"]["replay"]}
    retraining = [
        set(read_json(step(replayed, one, "3-retrain") / "step.json")["inputs"]) for one in ("gmp-atl", "replay")
    ]
    assert retraining[0] == retraining[1], "of plain speech it depends through its labels"
    assert "replay" not in read_json(step(replayed, "gmp-atl", "3-retrain") / "training.json")


def test_its_people_count_as_heard_by_every_model_after_it(replayed: dict[str, Any]) -> None:
    assert "replay/unknown" in seen_speakers(step(replayed, "replay", "3-retrain"))
    assert "replay/unknown" in seen_speakers(replayed["folder"] / "model")
    assert "replay/unknown" not in seen_speakers(step(replayed, "gmp-atl", "4-finetune"))


def test_its_recordings_count_as_heard_by_every_model_after_it(replayed: dict[str, Any]) -> None:
    corpus = heard_recordings(step(replayed, "replay", "1-multitask"))
    for name, extra in (("replay", 3), ("gmp-atl", 0), ("shuffled", 8)):
        retrained, tested = (heard_recordings(step(replayed, name, one)) for one in ("3-retrain", "4-finetune"))
        assert retrained == tested >= corpus and len(tested - corpus) == extra
    assert heard_recordings(replayed["folder"] / "model") == heard_recordings(step(replayed, "replay", "3-retrain"))


def test_report_and_card_say_how_much_was_heard(replayed: dict[str, Any]) -> None:
    noted = [note for note in replayed["report"]["notes"] if "plain speech" in note]
    assert [note.partition(":")[0] for note in noted] == ["replay", "shuffled"]
    assert "3 of 8 recordings" in noted[0] and "nobody knows who speaks in them" in noted[0]
    assert "None of them has the same samples as a recording of the table" in noted[0]
    card = (replayed["folder"] / "model" / "README.md").read_text(encoding="utf-8")
    assert "3 recordings, " in card and "without emotions, labelled by these clusters" in card
    assert "4 speakers, and on plain speech of people whom nobody has named" in card


@pytest.mark.parametrize(("cross_validated", "recordings"), [(True, 40), (False, 30)])
def test_the_card_says_what_the_training_of_this_very_model_heard(
    tmp_path: Path, cross_validated: bool, recordings: int
) -> None:
    for fold, heard in ((1, 30), (ALL_SPEAKERS, 40)):
        step = RunFolder(tmp_path).fold("mine", 0, fold).step("retrain")
        write_json(step / "training.json", {"replay": {"recordings": heard, "hours": heard / 100}})
    facts: Any = SimpleNamespace(
        folder=tmp_path,
        variant="mine",
        seed=0,
        cross_validated=cross_validated,
        chosen=recipe(replay={"root": "speech"}).method("gmp-atl"),
        summary={"per_fold": [{"fold": 1}]},
    )
    [row] = method._replay(facts)
    assert row.value.startswith(f"{recordings} recordings, 0.{recordings // 10} hours")


# ---- what is read, and what is refused -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = write_corpus(tmp_path_factory.mktemp("corpus"))
    return read_corpora([{"name": "folder", "root": root, "speaker": SPEAKER_PATTERN}])


def read(corpus: Corpus, short_clips: str = "error", **replay: Any) -> Replay:
    made = recipe(replay=replay, data={"short_clips": short_clips})
    return read_replays(made, {"mine": made.method("gmp-atl")}, corpus)["mine"]


def test_as_much_is_heard_as_there_are_training_clips(corpus: Corpus, tmp_path: Path) -> None:
    speech = read(corpus, root=str(write_speech(tmp_path)))
    for clips in (1, 4, 12):
        train = corpus.table.select(range(clips))
        heard, wanted = speech.beside(train)["num_samples"], sum(train["num_samples"])
        assert sum(heard[:-1]) < wanted <= sum(heard)
    assert speech.beside(corpus.table)["emotion"] == [None] * 8, "all there is"


def test_fewer_seconds_are_the_first_of_the_same_recordings(corpus: Corpus, tmp_path: Path) -> None:
    root = str(write_speech(tmp_path))
    few, more, other = (
        read(corpus, root=root, **how).beside(corpus.table)["id"]
        for how in ({"seconds": 0.9}, {"seconds": 2}, {"seconds": 2, "seed": 1})
    )
    assert few == more[: len(few)] and len(few) < len(more)
    assert set(more) != set(other)


def test_a_recording_of_the_corpus_is_refused_by_name(corpus: Corpus, tmp_path: Path) -> None:
    root, row = write_speech(tmp_path), corpus.table[3]
    read(corpus, root=str(root))
    # The same samples under another name and in another format.
    write_audio(root / "a" / "copy.flac", read_audio(row["audio"]))
    with pytest.raises(RequestError, match=f"same samples .* in 1 recording: replay/a/copy.flac = {row['id']}"):
        read(corpus, root=str(root))


def test_a_recording_that_the_label_map_drops_is_refused_too(tmp_path: Path) -> None:
    # A speaker who is tested on may be heard in it.
    root, speech = write_corpus(tmp_path / "corpus", split=SPLIT), write_speech(tmp_path / "speech")
    dropped = read_audio({"bytes": None, "path": str(root / "test/sadness/f3_0.wav")})
    write_audio(speech / "copy.flac", dropped)
    labels = {"anger": "anger", "neutral": "neutral", "sadness": None}
    made = Recipe.from_dict(given_split(root, labels=labels, replay={"root": str(speech)}))
    with pytest.raises(RequestError, match=r"replay/copy.flac = folder/test/sadness/f3_0.wav"):
        plan_run(made, tmp_path / "run")


def test_a_corpus_whose_recordings_nobody_has_listened_to_is_refused(corpus: Corpus) -> None:
    made = recipe(corpus={"name": "demo", "check_audio": False}, replay={"root": "speech"})
    with pytest.raises(RequestError, match="`replay` is set, and the corpus has `check_audio: false`"):
        read_replays(made, {"mine": made.method("gmp-atl")}, corpus)


def test_what_cannot_be_read_is_listed_and_what_is_too_short_is_handled_as_in_the_corpus(
    corpus: Corpus, tmp_path: Path
) -> None:
    root = write_speech(tmp_path)
    (root / "broken.wav").write_bytes(b"RIFF but no sound")
    write_audio(root / "short.wav", tone(300))
    with pytest.raises(RequestError, match="replay/short.wav has 300 samples"):
        read(corpus, root=str(root))
    speech = read(corpus, "drop", root=str(root))
    assert {one.file for one in speech.left_out} == {"replay/broken.wav", "replay/short.wav"}
    assert (len(speech.table), speech.found) == (8, 8)
    reasons = {one.file: one.reason for one in speech.left_out}
    assert str(tmp_path) not in str(reasons) and reasons["replay/broken.wav"].startswith("broken.wav starts like audio")
    assert replay_notes({}, [speech, speech]) == ["Plain speech: 2 recordings are left out, see left_out.jsonl"]


def test_of_what_lies_beside_plain_speech_only_sound_is_missed(corpus: Corpus, tmp_path: Path) -> None:
    root = write_speech(tmp_path)
    for name in ("a/84-121123.trans.txt", "empty.trans", ".DS_Store", "a/._0.wav", "cover.jpg", "film.mp4"):
        (root / name).write_bytes(b"" if name == "empty.trans" else b"\0\1\2")
    assert [one.file for one in read(corpus, root=str(root)).left_out] == ["replay/film.mp4"]


def test_what_plain_speech_lacks_is_listed_and_does_not_count_as_the_corpus(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    (tmp_path / "speech/film.mp4").write_bytes(b"\0")
    worker = Worker(planned(tmp_path))
    worker.begin()
    assert [row["file"] for row in read_lines(tmp_path / "run/left_out.jsonl")] == ["replay/film.mp4"]
    report = make_report(worker)
    assert report["left_out"] == {} and report["corpus"]["problems"] == plan.corpus.problems
    assert "Plain speech: 1 recording is left out, see left_out.jsonl" in report["notes"]


def damage(file: Path) -> None:
    """Leave a header that says how long the recording is, and a body that cannot be decoded."""
    content = file.read_bytes()
    file.write_bytes(content[:200] + b"\0" * (len(content) - 200))


def test_in_place_of_a_damaged_recording_the_next_one_is_drawn(corpus: Corpus, tmp_path: Path) -> None:
    root = write_speech(tmp_path)
    files = read(corpus, root=str(root), seconds=3).table["file"]
    [first] = [number for number, file in enumerate(files[:6]) if file.endswith(".flac")][:1]
    damage(root / files[first])
    speech = read(corpus, root=str(root), seconds=2)
    undamaged = [*files[:first], *files[first + 1 :]]
    assert speech.table["file"] == undamaged[: len(speech.table)]
    assert seconds_of(speech.table) >= 2
    assert [one.file for one in speech.left_out] == [f"replay/{files[first]}"]
    assert speech.found == 7


def test_a_folder_that_cannot_serve_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    for root, words in ((tmp_path / "nowhere", "which is not there"), (tmp_path, "there are no recordings in")):
        with pytest.raises(RequestError, match=words):
            read(corpus, root=str(root))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/one.wav").write_bytes(b"RIFF but no sound")
    with pytest.raises(RequestError, match="no recording of replay is left; 1 was left out") as refused_for:
        read(corpus, root=str(tmp_path / "broken"))
    assert refused_for.value.fix == f"correct {tmp_path / 'broken'} or what is in it"
    with pytest.raises(RequestError, match=r"`replay.seconds` is 60, and .* has 3.6 seconds of speech"):
        read(corpus, root=str(write_speech(tmp_path)), seconds=60)


def test_plain_speech_that_nobody_would_hear_or_that_has_no_label_is_refused() -> None:
    speech = {"root": "speech"}
    with pytest.raises(RequestError, match="`replay` is set, and `stages.retrain` has `skip: true`"):
        recipe(variants=[{"name": "mine", "base": "direct", "set": {"replay": speech}}])
    assert recipe(replay=speech, variants=["gmp-atl", "direct"]).method("direct").replay is not None
    with pytest.raises(RequestError, match="plain speech has no emotion to be labelled with"):
        recipe(replay=speech, variants=["oracle-labels"])
    without = {"name": "oracle", "base": "oracle-labels", "set": {"replay": None}}
    assert recipe(replay=speech, variants=["gmp-atl", without]).method("oracle").replay is None


def test_a_recipe_without_it_does_not_name_it() -> None:
    assert "replay" not in recipe().to_dict()
    made = recipe(replay={"root": "speech", "seconds": 60})
    assert made.to_dict()["replay"] == {"root": "speech", "seconds": 60.0, "seed": 0}
    assert Recipe.from_dict(made.to_dict()) == made
    refusal = refused({"name": "mine", "corpus": {"name": "demo"}, "replay": {"seconds": 60}})
    assert "`replay` has no `root`" in refusal.found


# ---- what keeps a run sound ------------------------------------------------------------------------------------------


def planned(tmp_path: Path, **replay: Any) -> RunPlan:
    root, speech = tmp_path / "corpus", tmp_path / "speech"
    if not root.exists():
        write_corpus(root, split=SPLIT)
        write_speech(speech)
    made = given_split(root, replay={"root": str(speech), **replay}, variants=["gmp-atl", "direct-long"])
    return plan_run(Recipe.from_dict(made), tmp_path / "run")


def keys(plan: RunPlan) -> dict[str, str]:
    return {f"{each.variant}/{step.folder.path.name}": step.folder.key for each in plan.planned for step in each.steps}


def test_that_nobody_retrains_and_hears_it_is_said(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    given = given_split(root, replay={"root": str(tmp_path / "nowhere")}, variants=["direct"])
    plan = plan_run(Recipe.from_dict(given), tmp_path / "run")
    assert "`replay` is set, and no variant has a retraining to hear it: the plain speech is not read" in plan.notes


def test_a_job_plans_the_same_steps(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert keys(pickle.loads(pickle.dumps(plan))) == keys(plan)


def test_what_hears_it_depends_on_it_and_on_its_seed(tmp_path: Path) -> None:
    first, other = keys(planned(tmp_path)), keys(planned(tmp_path, seed=1))
    changed = {name for name, key in first.items() if other[name] != key}
    # Fine-tuning as long as the whole method is longer with it.
    depend = {f"gmp-atl/{name}" for name in ("2-pseudo-labels", "3-retrain", "4-finetune")} | {"direct-long/4-finetune"}
    assert changed == depend


def test_that_plain_speech_has_changed_is_what_a_finished_run_says(
    replayed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = tmp_path / "speech"
    shutil.copytree(replayed["folder"].parent / "speech", speech)
    for file in filter(Path.is_file, speech.rglob("*")):
        write_audio(file, tone(7_000, 333))
    monkeypatch.setenv("SPEECH", str(speech))
    with pytest.raises(RequestError, match="was made from other settings: the recordings of plain speech below"):
        plan_run(Recipe.from_yaml(replayed["folder"] / "recipe.yaml"), replayed["folder"])


def test_plain_speech_that_is_replaced_while_the_run_goes_on_stops_it(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    with pytest.raises(RequestError, match=r"the recording b/c/0.wav .* was replaced"), plan.unchanged():
        write_audio(tmp_path / "speech" / "b" / "c" / "0.wav", tone(9_000))
