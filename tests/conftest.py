"""Settings of all tests."""

from __future__ import annotations

import pytest

from gmp_atl_hf import files
from gmp_atl_hf.report import build as report


@pytest.fixture(autouse=True, scope="session")
def few_pictures() -> None:
    """Runs of tests leave pictures out: drawing ten of them takes longer than training a tiny model does.

    A test that wants some takes the fixture `pictures`.
    """
    report.can_draw = lambda: False


@pytest.fixture(autouse=True, scope="session")
def no_power_failures() -> None:
    """Nothing waits for the disk: a tiny run writes hundreds of files, and waiting takes longer than training."""
    files.sync = lambda place: None


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports of this test have pictures; skipped without matplotlib."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(report, "can_draw", lambda: True)
