"""Speak text with espeak-ng, reproducibly.

espeak-ng is GPL-3.0 and therefore an optional extra (`pip install "gmp-atl-hf[demo]"`): PyPI's `espeakng-loader` brings
the shared library and its data, nothing is compiled and nothing has to be installed on the system.

espeak-ng 1.52 keeps hidden state that outlives its own termination call, and seeds its random numbers from the clock.
The same bytes every time therefore need a fresh process and a set seed; `Espeak` is that process. It also keeps a crash
of the library, and its licence, out of the training process.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ....errors import RequestError


def _library_and_data() -> tuple[str, str]:
    try:
        import espeakng_loader
    except ImportError as error:
        raise RequestError(
            "espeak-ng, which speaks the demo corpus, is not installed",
            "the package espeakng-loader (GPL-3.0, hence optional)",
            'pip install "gmp-atl-hf[demo]"',
        ) from error
    return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())


class Espeak:
    """A fresh espeak-ng in a process of its own; a context manager.

    Two instances with the same seed that are asked the same things in the same order give the same samples.

    Args:
        seed: Seed of espeak's own random numbers (aspiration, flutter).

    Attributes:
        sample_rate: Of everything it speaks, in Hz.
        version: espeak-ng's version, such as "1.52.0".

    Raises:
        RequestError: The optional extra is not installed.
        RuntimeError: The engine's process does not start.
    """

    def __init__(self, seed: int = 0) -> None:
        library, data = _library_and_data()
        engine = Path(__file__).with_name("espeak_engine.py")
        # -I: neither the user's site folder nor PYTHONPATH may slow down or change the child.
        command = [sys.executable, "-I", str(engine), library, data, str(seed)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        header = self._read_header()
        self.sample_rate: int = header["sample_rate"]
        self.version: str = header["version"]

    def speak(
        self,
        text: str,
        *,
        voice: str,
        rate: int = 175,
        pitch: int = 50,
        range: int = 50,
        volume: int = 100,
        word_gap: int = 0,
    ) -> NDArray[np.int16]:
        r"""Speak one text.

        Args:
            text: Plain text. espeak's embedded commands work: `"\x0160P"` before a word sets the pitch to 60 from
                there on.
            voice: A voice, with or without a variant, such as "gmw/en-US+f2".
            rate: Words per minute, 80 to 450.
            pitch: 0 to 99; 50 is the voice's own, 50 steps are about one octave.
            range: Pitch range, 0 to 99; 0 is monotone, 50 is the voice's own.
            volume: 0 to 200.
            word_gap: Extra pause between words, in units of 10 ms at the default rate.

        Returns:
            int16[samples] at `sample_rate`.

        Raises:
            ValueError: espeak has no such voice or refuses a parameter.
            RuntimeError: The engine's process has ended.
        """
        request = {
            "text": text,
            "voice": voice,
            "rate": rate,
            "pitch": pitch,
            "range": range,
            "volume": volume,
            "word_gap": word_gap,
        }
        if self._process.returncode is not None:
            raise self._ended()
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error
        header = self._read_header()
        if "error" in header:
            raise ValueError(header["error"])
        samples = self._process.stdout.read(2 * header["samples"])
        if len(samples) < 2 * header["samples"]:
            raise self._ended()
        return np.frombuffer(samples, dtype=np.int16)

    def _read_header(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return cast(dict[str, Any], json.loads(line))

    def _ended(self) -> RuntimeError:
        self.close()
        return RuntimeError(f"the espeak-ng process ended with status {self._process.returncode}")

    def close(self) -> None:
        """End the engine's process; a second call does nothing."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone already, which is what we want
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def __enter__(self) -> Espeak:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
