"""The changes of a stress test: each does what it says, to the same recording always the same."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import soundfile

from audio_files import RATE, tone
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.stress.changes import clipped, reverberant
from gmp_atl_hf.stress.coding import MP3, OPUS, Coding
from gmp_atl_hf.stress.conditions import CLEAN, CONDITIONS, Condition, choose_conditions

NAMED = {condition.name: condition for condition in CONDITIONS}
SEVERAL = ("white", "shaped")


def speech(samples: int = 3 * RATE, seed: int = 0) -> np.ndarray:
    """Syllables of a hum in brown noise, with pauses between them."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / RATE
    hum = sum(np.sin(2 * np.pi * 130 * number * time) / number for number in range(1, 40))
    loud = np.clip(np.sin(2 * np.pi * 2 * time), 0, 1)
    return (0.1 * loud * hum + 0.0003 * np.cumsum(rng.standard_normal(samples)) / 10).astype(np.float32)


def changed(name: str, waveform: np.ndarray, recording: str = "corpus/a", seed: int = 0) -> np.ndarray:
    return NAMED[name].apply(waveform, recording, seed)


def power(waveform: np.ndarray) -> float:
    return float(np.mean(waveform.astype(np.float64) ** 2))


def band(waveform: np.ndarray, low: float, high: float) -> float:
    """Energy between two frequencies, in decibels."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) ** 2
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE)
    return float(10 * np.log10(spectrum[(frequencies >= low) & (frequencies < high)].sum()))


# ---- each of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("snr", [20, 10, 0])
@pytest.mark.parametrize("level", [1.0, 0.001])
def test_noise_is_as_far_below_the_recording_as_it_says(kind: str, snr: int, level: float) -> None:
    clean = np.float32(level) * speech()
    noise = changed(f"{kind}-{snr}", clean).astype(np.float64) - clean
    assert 10 * np.log10(power(clean) / power(noise)) == pytest.approx(snr, abs=0.1)


def test_shaped_noise_has_the_spectrum_of_the_recording_and_no_pauses() -> None:
    clean = speech()
    noise = {kind: changed(f"{kind}-0", clean) - clean for kind in SEVERAL}
    bands = [(100, 500), (500, 1_500), (1_500, 3_500), (3_500, 7_500)]
    own, white, shaped = ([band(each, *edges) for edges in bands] for each in (clean, noise["white"], noise["shaped"]))
    assert shaped == pytest.approx(own, abs=2)
    assert abs(white[-1] - own[-1]) > 6
    pause = slice(round(0.27 * RATE), round(0.48 * RATE))
    assert power(noise["shaped"][pause]) > 0.2 * power(noise["shaped"]) > 5 * power(clean[pause])


def test_a_telephone_leaves_its_band_and_nothing_else() -> None:
    clean = np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    heard = changed("telephone", clean)
    assert band(heard, 400, 3_300) == pytest.approx(band(clean, 400, 3_300), abs=0.1)
    for low, high in ((3_460, 8_000), (0, 240)):
        assert band(heard, low, high) < band(clean, low, high) - 40
    # In time with the recording.
    middle = changed("telephone", tone(RATE, 1_000)) - tone(RATE, 1_000)
    assert power(middle[2_000:-2_000]) < 0.01 * power(tone(RATE, 1_000))


def test_quiet_is_20_decibels_lower_and_the_same_otherwise() -> None:
    clean = speech()
    assert changed("quiet", clean) * 10 == pytest.approx(clean, abs=1e-6)


@pytest.mark.parametrize("level", [3.0, 1.0, 0.01])
def test_any_recording_is_cut_at_full_scale_however_quiet_it_was(level: float) -> None:
    clean = tone(RATE, 200) * np.float32(level)
    loud = changed("clipped", clean)
    assert np.abs(loud).max() == 1
    # A sine 12 dB too loud is at full scale for 84 % of the time.
    assert np.mean(np.abs(loud) == 1) == pytest.approx(1 - 2 / np.pi * np.arcsin(10 ** (-12 / 20)), abs=0.02)
    assert (clipped(np.zeros(9, np.float32), np.random.default_rng(0), 12) == 0).all()


@pytest.mark.parametrize("rt60", [0.3, 0.8])
def test_a_room_decays_by_60_decibels_in_its_time(rt60: float) -> None:
    click = np.zeros(RATE, np.float32)
    click[100] = 1
    response = changed(f"reverb-{rt60}", click)[100:].astype(np.float64)
    assert (changed(f"reverb-{rt60}", click)[:100] == pytest.approx(0, abs=1e-6)) and response[0] > 0
    assert np.sum(response[1:] ** 2) == pytest.approx(response[0] ** 2, rel=1e-3)
    left = 10 * np.log10(np.cumsum(response[:0:-1] ** 2)[::-1])  # Schroeder's integral
    time = np.arange(len(left)) / RATE
    part = (left < left[0] - 5) & (left > left[0] - 25)
    slope = np.polyfit(time[part], left[part], 1)[0]
    assert -60 / slope == pytest.approx(rt60, rel=0.1)


def test_a_room_leaves_the_level_as_it_was() -> None:
    clean = speech()
    wet = reverberant(clean, np.random.default_rng(0), 0.8)
    assert power(wet) == pytest.approx(power(clean), rel=1e-5)
    assert not np.allclose(wet, clean, atol=0.01)


@pytest.mark.parametrize("coding", [MP3, OPUS])
def test_lossy_coding_keeps_few_kilobits_a_second_and_the_place_of_the_sound(coding: Coding) -> None:
    if (missing := coding.missing()) is not None:
        pytest.skip(missing)
    clean = speech()
    heard = coding(clean, np.random.default_rng(0))
    assert 10 < len(coding.encode(clean)) * 8 / 3 / 1_000 < 20
    shifts = range(-800, 801, 10)
    match = [float(np.dot(clean[1_000:-1_000], np.roll(heard, shift)[1_000:-1_000])) for shift in shifts]
    assert shifts[int(np.argmax(match))] == 0
    loss = power(heard - clean) / power(clean)
    assert 1e-4 < loss < 0.5


def test_a_coding_that_libsndfile_cannot_write_is_missing_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot write it" in str(Coding("OGG", "MPEG_LAYER_III", 0.5).missing())
    assert "cannot write it" in str(Coding("WHAT", "PCM_16", 0.5).missing())

    def refuse(*_: object, **__: object) -> None:
        raise soundfile.LibsndfileError(1, "no encoder: ")

    monkeypatch.setattr(soundfile, "write", refuse)
    assert f"the installed libsndfile ({soundfile.__libsndfile_version__}) cannot write it: " in str(MP3.missing())


@pytest.mark.parametrize(("name", "factor"), [("slower", 0.9), ("faster", 1.1)])
def test_another_speed_changes_length_and_pitch(name: str, factor: float) -> None:
    heard = changed(name, tone(RATE, 1_000))
    assert len(heard) == round(RATE / factor)
    peak = int(np.argmax(np.abs(np.fft.rfft(heard)))) * RATE / len(heard)
    assert peak == pytest.approx(1_000 * factor, abs=2)


def test_silence_is_a_second_before_and_a_second_behind() -> None:
    clean = speech(5_000)
    heard = changed("silence", clean)
    assert (heard[RATE:-RATE] == clean).all() and len(heard) == 2 * RATE + 5_000
    assert not heard[:RATE].any() and not heard[-RATE:].any()


# ---- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMED if name != "clean"])
def test_a_recording_of_any_length_gets_always_the_same_change(name: str) -> None:
    if (missing := NAMED[name].missing()) is not None:
        pytest.skip(missing)
    for samples in (1, 2, 399, 440, 441, 4_001):
        for clean in (tone(samples), np.zeros(samples, np.float32)):
            before = clean.copy()
            heard = changed(name, clean)  # refuses other lengths than those it promises
            assert (changed(name, clean) == heard).all() and (clean == before).all()
    clean = tone(4_001)
    heard = changed(name, clean)
    assert heard.shape != clean.shape or not np.array_equal(heard, clean)
    draws = name.startswith((*SEVERAL, "reverb"))
    for other in (changed(name, clean, "corpus/b"), changed(name, clean, seed=1)):
        assert np.array_equal(other, heard) is not draws


def test_noise_of_three_levels_is_the_same_noise() -> None:
    clean = tone(4_001)
    noise = [changed(f"white-{snr}", clean) - clean for snr in (20, 10, 0)]
    assert noise[1] == pytest.approx(np.sqrt(10) * noise[0], abs=1e-5)
    assert noise[2] == pytest.approx(10 * noise[0], abs=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda waveform, rng: waveform[1:],
        lambda waveform, rng: waveform.astype(np.float64),
        lambda waveform, rng: waveform + np.float32(np.nan),
    ],
)
def test_a_condition_that_gives_something_else_than_it_promises_fails(change: object) -> None:
    with pytest.raises(ValueError, match="the condition odd gives .* for corpus/a"):
        Condition("odd", "something odd", change).apply(tone(500), "corpus/a")  # type: ignore[arg-type]


# ---- the choice ------------------------------------------------------------------------------------------------------


def test_conditions_are_chosen_by_name_and_clean_is_always_the_first() -> None:
    assert choose_conditions(None) == list(CONDITIONS)
    assert choose_conditions(["quiet", "clean", "mp3", "quiet"]) == [CLEAN, NAMED["quiet"], NAMED["mp3"]]
    hum = Condition("hum", "50 Hz", partial(clipped, decibels=3))
    assert choose_conditions([hum, "quiet"]) == [CLEAN, hum, NAMED["quiet"]]


def test_a_wrong_choice_is_refused() -> None:
    with pytest.raises(RequestError, match="there is no condition 'telefone'") as refused:
        choose_conditions(["telefone"])
    assert refused.value.fix == "did you mean `telephone`?" and "reverb-0.8" in str(refused.value.expected)
    with pytest.raises(RequestError, match="no condition is to be tested but clean"):
        choose_conditions(["clean"])
    with pytest.raises(RequestError, match="two conditions are called quiet"):
        choose_conditions(["quiet", Condition("quiet", "another", partial(clipped, decibels=3))])
