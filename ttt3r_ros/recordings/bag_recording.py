# SPDX-License-Identifier: Apache-2.0
"""A rosbag2 as a recording that can be evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ttt3r_ros.recordings.pose_track import MAX_DIFFERENCE_S
from ttt3r_ros.recordings.recording import Recording, Selection, Truth
from ttt3r_ros.recordings.source import Source
from ttt3r_ros.types import SourceError


@dataclass(frozen=True, slots=True)
class BagRecording(Recording):
    """A bag, and which of its topics are meant; see `BagSource` and `BagTruth`."""

    path: Path
    topic: str = ""
    camera_info_topic: str = ""
    ground_truth_topic: str = ""
    ground_truth_frames: tuple[str, str] | None = None
    depth_topic: str = ""
    max_difference_s: float = MAX_DIFFERENCE_S

    def images(self, selection: Selection) -> Source:
        """Open the images; see `Recording`."""
        if selection.with_truth:
            raise SourceError(
                f"{self.path}: with_truth: of data sets in folders only, a bag is read as it comes"
            )
        from ttt3r_ros.recordings.bag_reader import BagSource  # needs rosbags

        return BagSource(
            self.path,
            topic=self.topic,
            camera_info_topic=self.camera_info_topic,
            start=selection.start,
            every=selection.every,
            max_frames=selection.max_frames,
        )

    def truth(self) -> Truth:
        """Open the truth; see `Recording`."""
        from ttt3r_ros.recordings.bag_truth import BagTruth  # needs rosbags

        return BagTruth(
            self.path,
            topic=self.topic,
            pose_topic=self.ground_truth_topic,
            frames=self.ground_truth_frames,
            depth_topic=self.depth_topic,
            max_difference_s=self.max_difference_s,
        )
