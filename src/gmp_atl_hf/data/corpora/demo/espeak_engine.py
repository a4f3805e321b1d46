"""The espeak-ng library behind a pipe: one JSON request per line in, one JSON header and raw samples out.

Run as a program by `espeak.py`, never imported: a process of its own, because espeak-ng keeps state that
survives re-initialisation. Standard library only, so that it starts in milliseconds.

    python espeak_engine.py LIBRARY DATA_FOLDER SEED
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any, BinaryIO

# From espeak-ng's speak_lib.h.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
CHARS_UTF8 = 1
EE_OK = 0
PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4, "word_gap": 7}

Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Engine:
    """One initialised espeak-ng library; there can be only one in a process.

    Args:
        library: Path of the shared library.
        data: The `espeak-ng-data` folder.
        seed: Seed of espeak's own random numbers, which otherwise come from the clock.
    """

    def __init__(self, library: str, data: str, seed: int) -> None:
        self._library = ctypes.cdll.LoadLibrary(library)
        self._library.espeak_Info.restype = ctypes.c_char_p
        self._chunks: list[bytes] = []
        self._callback = Callback(self._receive)  # held here: the library keeps only the bare pointer
        self.sample_rate = int(
            self._library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), INITIALIZE_DONT_EXIT)
        )
        if self.sample_rate <= 0:
            raise RuntimeError(f"espeak-ng does not start with the data folder {data}")
        self.version = self._library.espeak_Info(None).decode().split()[0]
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))

    def _receive(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    def speak(self, text: str, voice: str, **parameters: int) -> bytes:
        """Speak one text and give back its 16-bit samples in the machine's byte order.

        Raises:
            ValueError: The voice or a parameter is refused.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != EE_OK:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for name, value in parameters.items():
            if self._library.espeak_SetParameter(PARAMETERS[name], value, 0) != EE_OK:
                raise ValueError(f"espeak-ng refuses {name}={value}")
        self._chunks.clear()
        encoded = text.encode()
        size = ctypes.c_size_t(len(encoded) + 1)
        status = self._library.espeak_Synth(encoded, size, 0, 1, 0, CHARS_UTF8, None, None)
        if status == EE_OK:
            status = self._library.espeak_Synchronize()
        if status != EE_OK:
            raise ValueError(f"espeak-ng cannot speak {text!r}: status {status}")
        return b"".join(self._chunks)


def serve(engine: Engine, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until their stream ends.

    Args:
        engine: The engine that speaks.
        requests: One JSON object per line: `text`, `voice` and parameters.
        answers: Per request one JSON line, `{"samples": n}` and then n 16-bit samples, or `{"error": why}`.
    """

    def answer(header: dict[str, Any], samples: bytes = b"") -> None:
        answers.write(json.dumps(header).encode() + b"\n" + samples)
        answers.flush()

    answer({"sample_rate": engine.sample_rate, "version": engine.version})
    for line in requests:
        try:
            samples = engine.speak(**json.loads(line))
        except ValueError as error:
            answer({"error": str(error)})
        else:
            answer({"samples": len(samples) // 2}, samples)


if __name__ == "__main__":
    serve(Engine(sys.argv[1], sys.argv[2], int(sys.argv[3])), sys.stdin.buffer, sys.stdout.buffer)
