# SPDX-License-Identifier: Apache-2.0
"""What every source of recorded images has in common; `readers.open_source` picks one by path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from ttt3r_ros.recordings.recorded_span import EVERYTHING, RecordedSpan
from ttt3r_ros.types import Frame, SourceError

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Rejection:
    """An image of a source that could not be decoded."""

    stamp_ns: int
    reason: str


class Source(ABC):
    """Recorded images in order, one in memory at a time; a context manager.

    `len()` counts the images that are looked at. An image that cannot be decoded is among them:
    it is left out of the iteration and added to `rejected`, which each iteration begins anew.

    Attributes:
        span: when the images since the last jump back of their stamps were recorded, those left
            out included, as far as they have been read; for `Truth.follow`.
    """

    span: RecordedSpan = EVERYTHING

    def __init__(self, images: int, every: int, max_frames: int | None, start: int = 0) -> None:
        """Choose, of `images` images from `start` on, every `every`-th, at most `max_frames`.

        Raises:
            SourceError: `every` or `max_frames` is less than 1, or `start` leaves no image.
        """
        for name, value in (("every", every), ("max_frames", max_frames)):
            if value is not None and value < 1:
                raise SourceError(f"{name}: must be at least 1, got {value}")
        if not 0 <= start < max(images, 1):
            raise SourceError(f"start: must be 0 to {images - 1} of {images} images, got {start}")
        stop = None if max_frames is None else start + max_frames * every
        self._chosen = range(images)[start:stop:every]
        self.rejected: list[Rejection] = []

    def __len__(self) -> int:
        return len(self._chosen)

    def __iter__(self) -> Iterator[Frame]:
        self.rejected.clear()
        for image in self._read(self._chosen):
            if isinstance(image, Rejection):
                self.rejected.append(image)
            else:
                yield image

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _read(self, chosen: range) -> Iterator[Frame | Rejection]:
        """Yield the images whose indices are `chosen`, decoding no others."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the source holds open."""
