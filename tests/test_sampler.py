"""Which clips make up an optimiser step: each once, the same however the step is cut up, little padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmp_atl_hf.batching.sampler import ClipKey, StepBatchSampler

RATE = 16_000


def corpus_lengths(clips: int = 5_531, seed: int = 0) -> np.ndarray:
    """(clips,) samples like IEMOCAP's: log-normal, 4.5 s on average, from 0.6 to 30 s."""
    seconds = np.random.default_rng(seed).lognormal(np.log(4.5) - 0.65**2 / 2, 0.65, clips)
    return (np.clip(seconds, 0.6, 30) * RATE).astype(np.int64)


def epoch_of(processes: int, accumulation: int, epoch: int = 0, **fields: object) -> list[list[list[list[ClipKey]]]]:
    """Batches as [step][process][accumulation][clip]."""
    per_process = []
    for process in range(processes):
        sampler = StepBatchSampler(
            accumulation=accumulation,
            processes=processes,
            process_index=process,
            **fields,  # type: ignore[arg-type]
        )
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        per_process.append([batches[start : start + accumulation] for start in range(0, len(batches), accumulation)])
    assert len({len(steps) for steps in per_process}) == 1, "processes disagree about the number of steps"
    return [list(step) for step in zip(*per_process, strict=True)]


def rows_of_steps(steps: list[list[list[list[ClipKey]]]]) -> list[list[int]]:
    """Sorted rows of each step, without fillers."""
    return [
        sorted(key.row for process in step for batch in process for key in batch if not key.filler) for step in steps
    ]


lengths = st.lists(st.integers(400, 500_000), min_size=1, max_size=60)
splits = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=60, deadline=None)
@given(lengths, splits, st.integers(1, 6), st.one_of(st.none(), st.floats(1, 60)), st.integers(0, 3))
def test_every_clip_comes_exactly_once_per_epoch(
    samples: list[int], split: tuple[int, int], batch_size: int, seconds: float | None, epoch: int
) -> None:
    steps = epoch_of(*split, epoch, samples=samples, batch_size=batch_size, batch_seconds=seconds, max_samples=160_000)
    assert sorted(row for step in rows_of_steps(steps) for row in step) == list(range(len(samples)))
    for step in steps:
        for process in step:
            assert len(process) == split[1]
            for batch in process:
                assert batch, "a process without a clip would leave the others waiting"
                assert all(key.epoch == epoch for key in batch)
                assert not any(key.filler for key in batch) or len(batch) == 1


@settings(max_examples=60, deadline=None)
@given(lengths, st.sampled_from([1, 2, 3, 4, 6, 12]), st.one_of(st.none(), st.floats(1, 60)))
def test_a_step_holds_the_same_clips_however_it_is_split(
    samples: list[int], batches_per_step: int, seconds: float | None
) -> None:
    divisors = [number for number in range(1, batches_per_step + 1) if batches_per_step % number == 0]
    taken = [
        rows_of_steps(
            epoch_of(processes, batches_per_step // processes, samples=samples, batch_size=2, batch_seconds=seconds)
        )
        for processes in divisors
    ]
    assert all(steps == taken[0] for steps in taken)
    if seconds is None:
        # Fewer and larger batches are the same step too.
        whole = epoch_of(1, 1, samples=samples, batch_size=2 * batches_per_step)
        assert rows_of_steps(whole) == taken[0]


def test_steps_depend_on_seed_and_epoch_and_nothing_else() -> None:
    samples = corpus_lengths(300)
    for seconds in (None, 40.0):
        fields = {"samples": samples, "batch_size": 8, "batch_seconds": seconds}
        first = epoch_of(1, 1, 0, seed=1, **fields)
        assert epoch_of(1, 1, 0, seed=1, **fields) == first
        assert rows_of_steps(epoch_of(1, 1, 1, seed=1, **fields)) != rows_of_steps(first)
        assert rows_of_steps(epoch_of(1, 1, 0, seed=2, **fields)) != rows_of_steps(first)


def test_neighbours_change_from_epoch_to_epoch_also_with_batches_by_seconds() -> None:
    samples = corpus_lengths(300)
    together = []
    for epoch in range(2):
        steps = epoch_of(1, 1, epoch, samples=samples, batch_size=1, batch_seconds=40.0)
        together.append({frozenset(rows) for rows in rows_of_steps(steps)})
    assert len(together[0] & together[1]) < len(together[0]) / 2


@pytest.mark.parametrize("cropped_to", [None, 10 * RATE])
@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (4, 2)])
def test_batches_by_seconds_are_even_and_hardly_padded(
    processes: int, accumulation: int, cropped_to: int | None
) -> None:
    samples = corpus_lengths()
    used = samples if cropped_to is None else np.minimum(samples, cropped_to)
    for epoch in range(2):
        steps = epoch_of(
            processes, accumulation, epoch, samples=samples, batch_size=1, batch_seconds=80.0, max_samples=cropped_to
        )
        batches = [[key.row for key in batch] for step in steps for process in step for batch in process]
        valid = np.array([used[batch].sum() for batch in batches])
        padded = np.array([used[batch].max() * len(batch) for batch in batches])
        assert 1 - valid.sum() / padded.sum() < 0.05
        front_end = sum(samples[batch].max() * len(batch) for batch in batches)
        assert 1 - samples.sum() / front_end < 0.08, "the front end gets whole clips and pads them, too"
        seconds = valid / RATE
        assert abs(seconds.mean() - 80) < 2
        assert seconds.min() > 80 - 31 and seconds.max() < 80 + 31


def test_clips_cropped_to_one_length_still_meet_neighbours_of_like_whole_length() -> None:
    samples = [160_000, 480_000] * 8
    for seconds in (None, 20.0):
        steps = epoch_of(1, 8, samples=samples, batch_size=2, batch_seconds=seconds, max_samples=160_000)
        for batch in (batch for step in steps for process in step for batch in process):
            assert len({samples[key.row] for key in batch}) == 1


def test_a_batch_by_count_never_holds_more_clips_than_wanted_and_an_epoch_has_ceil_steps() -> None:
    steps = epoch_of(2, 3, samples=[16_000] * 25, batch_size=2)
    assert [len(rows) for rows in rows_of_steps(steps)] == [12, 12, 1]
    assert max(len(batch) for step in steps for process in step for batch in process) == 2
    fillers = [key for process in steps[2] for batch in process for key in batch if key.filler]
    assert len(fillers) == 5


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="no clip to sample"):
        StepBatchSampler([], 4)
