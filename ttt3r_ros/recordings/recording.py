# SPDX-License-Identifier: Apache-2.0
"""What every recording that can be evaluated has in common: images, and what is true of them.

Bags are read in `bag_reader` and `bag_truth`, data sets in their published folder layouts in
`datasets`; `find_recordings` there tells which is which.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Transform
from ttt3r_ros.recordings.source import Source

if TYPE_CHECKING:
    from typing_extensions import Self

Stamps = npt.NDArray[np.int64]  # nanoseconds
Poses = tuple[Sequence[int], Sequence[Transform]]
"""Which of the stamps asked for have a true pose, and these poses, camera to world."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of a recording's images are taken, in this order: truth, start, every, max_frames."""

    start: int = 0  # images left out at the beginning
    every: int = 1  # the first of those left and every n-th after it
    max_frames: int | None = None  # at most so many
    with_truth: str = ""  # "poses" or "depth": only images that have it; folders of data sets only


class Truth(ABC):
    """What is true of the images of a recording; a context manager.

    Attributes:
        pose_source: where true poses come from, in words; empty if there are none.
        depth_source: where true depth comes from, in words; empty if there is none.
    """

    pose_source: str
    depth_source: str

    @abstractmethod
    def poses(self, stamps_ns: Stamps) -> Poses:
        """Return the true poses of the camera's optical frame at stamps, where there are any.

        Ask for those of all images at once: if none of them has a pose, a warning names both
        ranges of time.
        """

    def follow(self, source: Source) -> None:  # noqa: B027  most have nothing to do
        """Answer for the images that a source gives, from now on.

        Where the stamps of a bag jump back by 1 s or more, the same stamps come again. From the
        image behind the jump on, which the source has given last, poses and depth are then those
        that were recorded with the images since the jump. Without a source, stamps alone count.
        """

    @abstractmethod
    def depth(self, stamp_ns: int) -> npt.NDArray[np.float32] | None:
        """Return the true depth image that belongs to a stamp; None if there is none.

        Args:
            stamp_ns: of an image, not before the last one asked for, but behind a jump; see
                `follow`.

        Returns:
            Metres along the optical axis, float32 [H, W], of the colour camera's view at any size;
            NaN where unknown. None also for an image that is damaged; the first one is told of in
            a warning.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Recording(ABC):
    """One sequence of images on disk; opening it is up to its methods.

    It holds paths and choices alone, so that it can be sent to another process.
    """

    name: str  # unlike all others of one call; fit for a folder's name
    format: str  # "rosbag2", or one of `datasets.FORMATS`

    @abstractmethod
    def images(self, selection: Selection) -> Source:
        """Open the images.

        Raises:
            SourceError: they cannot be read, or the selection is not possible; why.
        """

    @abstractmethod
    def truth(self) -> Truth:
        """Open the truth.

        Raises:
            SourceError: there is none, or it cannot be read; why.
        """
