# SPDX-License-Identifier: Apache-2.0
"""Images from the files of a folder."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from ttt3r_ros.camera.decoding import to_uint8
from ttt3r_ros.recordings.source import Rejection, Source
from ttt3r_ros.types import NS_PER_S, Frame, FrameRejected, SourceError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_SECONDS = re.compile(r"[0-9]+\.[0-9]{1,9}")


class FolderSource(Source):
    """The images of one folder, not of those below it, in natural order: 2.png before 10.png.

    Where every name is seconds with decimals as in the TUM data sets (1305031102.175304.png),
    these are the stamps and give the order; otherwise image i is stamped i / `rate_hz`. Images are
    turned upright as their EXIF orientation says. Intrinsics are unknown.

    Raises:
        SourceError: the folder has no images, or an argument is out of bounds.
    """

    def __init__(
        self,
        path: Path,
        *,
        rate_hz: float = 30.0,
        start: int = 0,
        every: int = 1,
        max_frames: int | None = None,
    ) -> None:
        if not (rate_hz > 0 and math.isfinite(rate_hz)):
            raise SourceError(f"rate_hz: must be positive and finite, got {rate_hz}")
        files = [
            file
            for file in path.iterdir()
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
        ]
        if not files:
            raise SourceError(f"{path}: no images ({', '.join(IMAGE_SUFFIXES)})")
        super().__init__(len(files), every, max_frames, start)
        if all(_SECONDS.fullmatch(file.stem) for file in files):
            self._images = sorted((_nanoseconds(file.stem), file) for file in files)
        else:
            files.sort(key=lambda file: _natural(file.name))
            self._images = [(round(i * 1e9 / rate_hz), file) for i, file in enumerate(files)]

    def _read(self, chosen: range) -> Iterator[Frame | Rejection]:
        for index in chosen:
            stamp_ns, file = self._images[index]
            try:
                yield Frame(stamp_ns, read_image(file))
            except FrameRejected as error:
                yield Rejection(stamp_ns, str(error))

    def close(self) -> None:
        """Do nothing: files are open only while they are decoded."""


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Return the image of a file as RGB, uint8 [H, W, 3], upright by its EXIF orientation.

    Gray of 16 bits is scaled as mono16 is, alpha is dropped.

    Raises:
        FrameRejected: the file cannot be read or decoded.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # gray of 16 bits, which Pillow would clip
                gray: npt.NDArray[Any] = np.asarray(image).astype(np.uint16)
                return np.repeat(to_uint8(gray)[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise FrameRejected(f"{path.name}: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        raise FrameRejected(f"{path.name}: not a whole image: {error}") from error


def _nanoseconds(seconds: str) -> int:
    whole, _, fraction = seconds.partition(".")
    return int(whole) * NS_PER_S + int(fraction.ljust(9, "0"))


def _natural(name: str) -> list[int | str]:
    # Text and numbers take turns, so that equals are compared with equals.
    return [int(p) if i % 2 else p.lower() for i, p in enumerate(re.split("([0-9]+)", name))]
