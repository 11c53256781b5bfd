# SPDX-License-Identifier: Apache-2.0
"""The truth that a bag holds beside its images: poses of the camera, and depth images.

Topics are found by what they carry. Everything is tied to images by the stamps in the headers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from ttt3r_ros.evaluation.bag_reader import (
    BAG_SUFFIXES,
    IMAGE_TYPES,
    carries_depth,
    open_bag,
    read_messages,
)
from ttt3r_ros.evaluation.depth_stream import DepthStream
from ttt3r_ros.evaluation.source import SourceError
from ttt3r_ros.evaluation.tf_tree import TfTree
from ttt3r_ros.geometry import Transform, transform_from_quaternion

if TYPE_CHECKING:
    from typing_extensions import Self

POSE_TYPE = "geometry_msgs/msg/PoseStamped"

Stamps = npt.NDArray[np.int64]  # nanoseconds
Poses = tuple[Sequence[int], Sequence[Transform]]
"""Which of the stamps asked for have a true pose, and these poses, camera to world."""


class GroundTruth:
    """What is true of the images of a bag; a context manager.

    Attributes:
        pose_source: where poses come from, in words; empty if there are none.
        poses: gives the true poses at stamps.
        depth_topic: empty if there is none.
        depth: gives the true depth image by image; None if there is none.
    """

    def __init__(
        self,
        path: Path,
        *,
        pose_topic: str = "",
        frames: tuple[str, str] | None = None,
        depth_topic: str = "",
    ) -> None:
        """Open the bag and find the truth in it.

        Args:
            path: of a rosbag2.
            pose_topic: PoseStamped, camera to world in optical axes; empty: the only one there.
            frames: instead of it, the parent and the child, the camera's optical frame, of the
                transform in /tf and /tf_static that says where the camera is.
            depth_topic: 16UC1, 32FC1 or 16-bit PNG, registered to the images; empty: the only
                one there.

        Raises:
            SourceError: the bag is damaged, there is no truth in it, or it is not clear which
                topics are meant; the message lists those there.
        """
        if not (path.suffix in BAG_SUFFIXES or (path / "metadata.yaml").exists()):
            raise SourceError(f"{path}: no rosbag2, so there is no truth to compare with")
        if pose_topic and frames:
            raise SourceError("--ground-truth-topic, --ground-truth-frames: give one of them")
        self._reader = open_bag(path)
        try:
            images = _topics(self._reader, IMAGE_TYPES)
            depth = [topic for topic in images if carries_depth(self._reader, topic)]
            self.depth_topic = _choose(self._reader, "--depth-topic", depth_topic, depth)
            self.depth = DepthStream(self._reader, self.depth_topic) if self.depth_topic else None
            self.pose_source, self.poses = self._find_poses(pose_topic, frames)
        except BaseException:
            self._reader.close()
            raise

    def _find_poses(
        self, topic: str, frames: tuple[str, str] | None
    ) -> tuple[str, Callable[[Stamps], Poses]]:
        if frames:
            parent, child = frames
            tree = TfTree(self._reader)
            tree.check(parent, child)
            return f"/tf, {child} in {parent}", lambda stamps: tree.poses(parent, child, stamps)
        candidates = _topics(self._reader, (POSE_TYPE,))
        topic = _choose(self._reader, "--ground-truth-topic", topic, candidates)
        if topic:
            true_stamps, true_poses = _read_poses(self._reader, topic)
            return topic, lambda stamps: _nearest(stamps, true_stamps, true_poses)
        if not self.depth:
            raise SourceError(
                f"{self._reader.path}: no ground truth: neither a topic of type {POSE_TYPE} nor "
                f"depth images; topics: {', '.join(self._reader.topics) or 'none'}; frames for "
                f"--ground-truth-frames: {', '.join(TfTree(self._reader).frames) or 'none'}"
            )
        return "", lambda stamps: ([], [])

    def close(self) -> None:
        """Close the bag."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _topics(reader: Reader, msgtypes: Collection[str]) -> list[str]:
    return [
        name for name, info in reader.topics.items() if info.msgtype in msgtypes and info.msgcount
    ]


def _choose(reader: Reader, flag: str, wanted: str, candidates: Sequence[str]) -> str:
    """Return the topic meant; empty if none is wanted and there is none."""
    listing = ", ".join(candidates) or "none"
    if wanted and wanted not in candidates:
        raise SourceError(f"{reader.path}: {flag} {wanted}: not there; topics to name: {listing}")
    if not wanted and len(candidates) > 1:
        raise SourceError(f"{reader.path}: several topics, choose one with {flag}: {listing}")
    return wanted or next(iter(candidates), "")


def _read_poses(reader: Reader, topic: str) -> tuple[Stamps, list[Transform]]:
    types = get_typestore(Stores.ROS2_JAZZY)
    stamps, poses = [], []
    for _, recorded_ns, cdr in read_messages(reader, reader.topics[topic].connections):
        message: Any = types.deserialize_cdr(cdr, POSE_TYPE)
        stamp, p, q = message.header.stamp, message.pose.position, message.pose.orientation
        stamps.append(stamp.sec * 1_000_000_000 + stamp.nanosec or recorded_ns)
        poses.append(transform_from_quaternion((p.x, p.y, p.z), (q.w, q.x, q.y, q.z)))
    return np.array(stamps, np.int64), poses


def _nearest(stamps: Stamps, true_stamps: Stamps, true_poses: Sequence[Transform]) -> Poses:
    # Here, so that depth can be compared without evo.
    from ttt3r_ros.evaluation.trajectory_metrics import associate

    places, there = associate(stamps, true_stamps)
    return places, [true_poses[i] for i in there]
