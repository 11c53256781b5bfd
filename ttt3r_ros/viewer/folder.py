# SPDX-License-Identifier: Apache-2.0
"""The results of a run on the page, with a slider along the path."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ttt3r_ros.io.point_cloud import find_cloud, read_cloud
from ttt3r_ros.io.trajectory import read_tum
from ttt3r_ros.run import DEPTH, MAP, TRAJECTORY
from ttt3r_ros.types import NS_PER_S, ViewError
from ttt3r_ros.viewer.page import Page

TICK_S = 0.1  # between two poses while it plays
_MM_PER_M = 1000


@dataclass(frozen=True, slots=True)
class Results:
    """What `ttt3r run` has written."""

    folder: Path
    points: npt.NDArray[np.float32]  # [N, 3]; none if there is no map
    colours: npt.NDArray[np.uint8]  # [N, 3]
    stamps_ns: npt.NDArray[np.int64]  # [M]; none if there is no trajectory
    poses: npt.NDArray[np.float64]  # [M, 4, 4], of the camera in the map


def read_results(folder: Path) -> Results:
    """Read the map and the trajectory in a folder; one of them may be missing.

    Raises:
        ViewError: both are, or one is damaged.
        OSError: a file cannot be read.
    """
    cloud, path = find_cloud(folder, MAP), folder / TRAJECTORY
    if cloud is None and not path.is_file():
        raise ViewError(f"{folder}: neither {MAP}.ply nor {MAP}.pcd nor {TRAJECTORY} in it")
    points, colours = np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8)
    stamps_ns, poses = np.empty(0, np.int64), np.empty((0, 4, 4))
    try:
        if cloud:
            points, colours = read_cloud(cloud)
        if path.is_file():
            stamps_ns, poses = read_tum(path)
    except ValueError as error:
        raise ViewError(str(error)) from error
    return Results(folder, points, colours, stamps_ns, poses)


class FolderView:
    """Results on the page, and the camera at one pose of the path."""

    def __init__(self, page: Page, results: Results) -> None:
        """Show them."""
        self._page, self._results = page, results
        self._shown, self._now_ns = 0, 0  # index, and time on the way to the next
        page.show_cloud(results.points, results.colours)
        page.show_path(results.poses[:, :3, 3])
        steps_m = np.linalg.norm(np.diff(results.poses[:, :3, 3], axis=0), axis=1)
        self._rows = {
            "Folder": str(results.folder),
            "Map": f"{len(results.points):,} points",
            "Path": f"{len(results.poses):,} poses, {steps_m.sum():.2f} m",
        }
        page.show_text(self._rows)
        if len(results.poses):
            self.timeline = page.add_timeline(len(results.poses))
            self._show(0)

    def run(self) -> None:
        """Follow the timeline until KeyboardInterrupt."""
        while True:
            time.sleep(TICK_S)
            if len(self._results.poses):
                self.step()

    def step(self) -> None:
        """Show the pose that the slider was moved to, or what comes `TICK_S` later if it plays."""
        stamps_ns = self._results.stamps_ns
        if self.timeline.index == self._shown and self.timeline.plays:
            self._now_ns += round(TICK_S * NS_PER_S)
            if self._now_ns > stamps_ns[-1]:
                self._now_ns = int(stamps_ns[0])
            self.timeline.index = max(0, int(np.searchsorted(stamps_ns, self._now_ns, "right")) - 1)
            if self.timeline.index != self._shown:
                self._show(self.timeline.index, self._now_ns)
        elif self.timeline.index != self._shown:
            self._show(self.timeline.index)

    def _show(self, index: int, now_ns: int | None = None) -> None:
        """Show a pose of the path and, if it was written, its depth."""
        stamps_ns, folder = self._results.stamps_ns, self._results.folder
        stamp_ns = int(stamps_ns[index])
        self._shown, self._now_ns = index, stamp_ns if now_ns is None else now_ns
        self._page.show_camera(self._results.poses[index])
        self._show_depth(folder / DEPTH / f"{stamp_ns}.png")
        seconds = (stamp_ns - int(stamps_ns[0])) / NS_PER_S
        self._page.show_text({**self._rows, "Time": f"{seconds:.2f} s", "Stamp": f"{stamp_ns} ns"})

    def _show_depth(self, path: Path) -> None:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
        if image is not None:
            depth_m = np.where(image > 0, image / _MM_PER_M, np.nan).astype(np.float32)
            self._page.show_depth(depth_m)
