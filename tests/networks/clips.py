"""What the cameras and microphones of the browsers show and say: made once, the same on every machine.

The picture moves over a large one and has noise, so each layer takes the bitrate that it may have. It ends where it
begins, since browsers repeat it. The voice has syllables and pauses.
"""

from __future__ import annotations

import array
import functools
import math
import os
import random
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageChops

from networks.emulator import KEPT

FPS = 15
SECONDS = 4
NOISE = 12
"""Standard deviation, of 255."""
RATE_HZ = 48_000


def camera(lines: int) -> Path:
    """A Y4M file of 16:9 with so many lines."""
    path = KEPT / f"camera-{lines}.y4m"
    if not path.exists():
        width = lines * 16 // 9
        head = f"YUV4MPEG2 W{width} H{lines} F{FPS}:1 Ip A1:1 C420jpeg\n".encode()
        _write(path, [head, *(b"FRAME\n" + picture for picture in _pictures(width, lines))])
    return path


def voice(*, loud: bool) -> Path:
    """A WAV file. What is not `loud` is 20 dB softer: the server does not take it for the speaker."""
    path = KEPT / f"voice-{'loud' if loud else 'soft'}.wav"
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as folder:
            made = Path(folder) / path.name
            with wave.open(str(made), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE_HZ)
                file.writeframes(_speech(12_000 if loud else 1_200).tobytes())
            os.replace(made, path)
    return path


def _write(path: Path, parts: list[bytes]) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as folder:
        made = Path(folder) / path.name
        made.write_bytes(b"".join(parts))
        os.replace(made, path)


def _pictures(width: int, lines: int) -> Iterator[bytes]:
    """Planes of YUV 4:2:0, one picture after the other."""
    scene = _scene().resize((width * 3 // 2, lines * 3 // 2))
    spare_x, spare_y = scene.width - width, scene.height - lines
    chroma = bytes([110]) * (width // 2 * (lines // 2)) + bytes([150]) * (width // 2 * (lines // 2))
    for number in range(FPS * SECONDS):
        angle = 2 * math.pi * number / (FPS * SECONDS)
        left, top = round(spare_x * (1 + math.cos(angle)) / 2), round(spare_y * (1 + math.sin(angle)) / 2)
        clean = scene.crop((left, top, left + width, top + lines))
        yield ImageChops.add(clean, Image.effect_noise(clean.size, NOISE), offset=-128).tobytes() + chroma


@functools.cache
def _scene() -> Image.Image:
    return Image.effect_mandelbrot((1280, 720), (-0.8, -0.3, -0.4, -0.075), 100)


def _speech(peak: int) -> array.array[int]:
    """Eight seconds: vowels of a voice of 125 Hz, four syllables a second, a pause after every seven."""
    chance = random.Random(7)
    period = RATE_HZ // 125
    samples = array.array("h")
    for syllable in range(32):
        formants = (chance.randrange(300, 800), chance.randrange(900, 2300))
        glottal = [
            sum(math.exp(-90 * i / RATE_HZ) * math.sin(2 * math.pi * hertz * i / RATE_HZ) for hertz in formants) / 2
            for i in range(period)
        ]
        length = RATE_HZ // 4
        loudness = 0 if syllable % 8 == 7 else peak
        samples.extend(int(loudness * math.sin(math.pi * i / length) * glottal[i % period]) for i in range(length))
    return samples
