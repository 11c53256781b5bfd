# SPDX-License-Identifier: Apache-2.0
"""A sequence of a data set in a folder as a recording; its `layout.Format` says what is where."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ttt3r_ros.recordings.datasets.layout import Depth, ImageFile, Options, SequenceFiles
from ttt3r_ros.recordings.folder_reader import read_image
from ttt3r_ros.recordings.pose_track import PoseTrack, nearest, time_range, warn_of_other_times
from ttt3r_ros.recordings.recording import Poses, Recording, Selection, Stamps, Truth
from ttt3r_ros.recordings.source import Rejection, Source
from ttt3r_ros.types import Frame, FrameRejected, SourceError

TRUTHS = ("poses", "depth")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FolderRecording(Recording):
    """A sequence, and how it is read."""

    path: Path
    read: Callable[[Path, Options], SequenceFiles]
    options: Options

    def images(self, selection: Selection) -> Source:
        """Open the images; see `Recording`."""
        files = self._files()
        wanted = selection.with_truth
        return FolderImages(self._with_truth(files, wanted) if wanted else files.images, selection)

    def truth(self) -> FolderTruth:
        """Open the truth; see `Recording`."""
        return FolderTruth(self.path, self._files())

    def _files(self) -> SequenceFiles:
        files = self.read(self.path, self.options)
        if not files.images:
            raise SourceError(f"{self.path}: no images")
        return files

    def _with_truth(self, files: SequenceFiles, wanted: str) -> list[ImageFile]:
        if wanted not in TRUTHS:
            raise SourceError(f"with_truth: must be one of {', '.join(TRUTHS)}, got {wanted!r}")
        stamps = np.array([image.stamp_ns for image in files.images], np.int64)
        if wanted == "poses":
            track = PoseTrack(files.pose_source, files.read_poses(), files.max_difference_s)
            true_stamps = track.stamps_ns
        else:
            true_stamps = np.array(
                sorted(stamp_ns for stamp_ns, path in files.depth if path.is_file()), np.int64
            )
        places, _ = nearest(stamps, true_stamps, round(1e9 * files.max_difference_s))
        if not len(places):
            raise SourceError(
                f"{self.path}: none of {len(stamps)} images has true {wanted}; images: "
                f"{time_range(stamps)}, {wanted}: {time_range(true_stamps)}"
            )
        return [files.images[place] for place in places]


class FolderImages(Source):
    """The images of a sequence."""

    def __init__(self, images: list[ImageFile], selection: Selection) -> None:
        super().__init__(len(images), selection.every, selection.max_frames, selection.start)
        self._images = images
        self._warned = False

    def close(self) -> None:
        """Do nothing: files are open only while they are decoded."""

    def _read(self, chosen: range) -> Iterator[Frame | Rejection]:
        for image in self._images[chosen.start : chosen.stop : chosen.step]:
            try:
                yield self._frame(image)
            except FrameRejected as error:
                yield Rejection(image.stamp_ns, str(error))

    def _frame(self, image: ImageFile) -> Frame:
        rgb, lens = read_image(image.path), image.intrinsics
        if lens and (lens.height, lens.width) != rgb.shape[:2]:
            if not self._warned:
                _log.warning(
                    "%s: intrinsics not used: they are for %dx%d, the image has %dx%d",
                    image.path,
                    lens.width,
                    lens.height,
                    rgb.shape[1],
                    rgb.shape[0],
                )
            self._warned = True
            lens = None
        return Frame(image.stamp_ns, rgb, lens)


class FolderTruth(Truth):
    """What the files of a sequence say about its images."""

    def __init__(self, path: Path, files: SequenceFiles) -> None:
        """Read the poses.

        Raises:
            SourceError: neither poses nor depth are there.
        """
        self._path, self._files = path, files
        track = PoseTrack(f"{path}: poses", files.read_poses(), files.max_difference_s)
        track.warn_of_left_out()
        self._track = track
        self._depth = sorted(entry for entry in files.depth if entry[1].is_file())
        if len(self._depth) < len(files.depth):
            _log.warning(
                "%s: %d of %d depth images are missing",
                path,
                len(files.depth) - len(self._depth),
                len(files.depth),
            )
        self._depth_stamps = np.array([stamp_ns for stamp_ns, _ in self._depth], np.int64)
        self.pose_source = files.pose_source if len(track) else ""
        self.depth_source = files.depth_source if self._depth else ""
        if not (self.pose_source or self.depth_source):
            raise SourceError(f"{path}: neither true poses nor true depth is there")
        self._warned = self._found = False
        self._asked_ns: list[int] = []  # the first stamp and the latest

    def poses(self, stamps_ns: Stamps) -> Poses:
        """Return the true poses at stamps; see `Truth`."""
        return self._track.near(stamps_ns) if self.pose_source else ([], [])

    def depth(self, stamp_ns: int) -> Depth | None:
        """Return the true depth image of a stamp; see `Truth`."""
        if not self.depth_source:
            return None
        self._asked_ns[1:] = [stamp_ns]
        _, places = nearest(
            np.array([stamp_ns], np.int64),
            self._depth_stamps,
            round(1e9 * self._files.max_difference_s),
        )
        if not len(places):
            return None
        self._found = True
        try:
            return self._files.read_depth(self._depth[places[0]][1])
        except FrameRejected as error:
            if not self._warned:
                _log.warning(
                    "%s: image at %d ns has no true depth, perhaps others: %s",
                    self._path,
                    stamp_ns,
                    error,
                )
            self._warned = True
            return None

    def close(self) -> None:
        """Say so if there was no depth for any image; files are open only while they are read."""
        if self._asked_ns and not self._found:
            asked = np.array(self._asked_ns, np.int64)
            warn_of_other_times(f"{self._path}: depth", self._depth_stamps, asked)
        self._asked_ns.clear()
