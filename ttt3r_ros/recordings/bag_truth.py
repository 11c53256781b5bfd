# SPDX-License-Identifier: Apache-2.0
"""The truth that a bag holds beside its images: poses of the camera, and depth images.

Topics are found by what they carry. Everything is tied to images by the stamps in the headers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ttt3r_ros.camera.camera_info import is_rectified
from ttt3r_ros.geometry import Transform, transform_from_quaternion
from ttt3r_ros.recordings.bag_files import is_bag
from ttt3r_ros.recordings.bag_reader import (
    IMAGE_TYPES,
    BagSource,
    carries_depth,
    image_topic,
    open_bag,
    read_whole,
    stamp_of,
)
from ttt3r_ros.recordings.depth_stream import DepthStream
from ttt3r_ros.recordings.pose_track import MAX_DIFFERENCE_S, PoseTrack, warn_of_other_times
from ttt3r_ros.recordings.recorded_span import EVERYTHING, RecordedSpan
from ttt3r_ros.recordings.recording import Poses, Stamps, Truth
from ttt3r_ros.recordings.rosbag2 import Reader
from ttt3r_ros.recordings.source import Source
from ttt3r_ros.recordings.tf_tree import TfTree
from ttt3r_ros.types import SourceError

POSE_TYPES = (
    "geometry_msgs/msg/PoseStamped",
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/TransformStamped",
)

NO_TOPIC = "none"
"""The name of a depth topic that says: no depth, whatever there is."""

_PosesAt = Callable[[Stamps, RecordedSpan], Poses]
_log = logging.getLogger(__name__)


class BagTruth(Truth):
    """What is true of the images of a bag."""

    def __init__(
        self,
        path: Path,
        *,
        topic: str = "",
        pose_topic: str = "",
        frames: tuple[str, str] | None = None,
        depth_topic: str = "",
        max_difference_s: float = MAX_DIFFERENCE_S,
    ) -> None:
        """Open the bag and find the truth in it.

        Args:
            path: of a rosbag2.
            topic: of the images; empty: the only one there.
            pose_topic: one of `POSE_TYPES`, empty: the only one there. The pose is that of the
                camera in optical axes, but where the message names another frame as the child
                and transforms that never change join this with the images' frame, it is moved
                by these.
            frames: instead of it, the parent and the child, the camera's optical frame, of the
                transform in /tf and /tf_static that says where the camera is.
            depth_topic: 16UC1, 32FC1, 16-bit PNG or compressedDepth, registered to the images,
                raw ones unless it is called `image_rect...`; empty: the only one there;
                `NO_TOPIC`: none of them.
            max_difference_s: between the stamps of an image and of its depth or pose; those from
                `frames` are interpolated.

        Raises:
            SourceError: the bag is damaged, there is no truth in it, or it is not clear which
                topics are meant; the message lists those there.
        """
        if not is_bag(path):
            raise SourceError(f"{path}: no rosbag2, so there is no truth to compare with")
        if pose_topic and frames:
            raise SourceError("--ground-truth-topic, --ground-truth-frames: give one of them")
        self._reader = open_bag(path)
        self._image_topic = topic
        self._max_difference_s = max_difference_s
        self._source: Source | None = None
        try:
            self.depth_source = ""
            if depth_topic != NO_TOPIC:
                images = _topics(self._reader, IMAGE_TYPES)
                depth = [name for name in images if carries_depth(self._reader, name)]
                self.depth_source = _choose(self._reader, "--depth-topic", depth_topic, depth)
            self._depth = self._open_depth() if self.depth_source else None
            self.pose_source, self._poses = self._find_poses(pose_topic, frames)
        except BaseException:
            self._reader.close()
            raise

    def poses(self, stamps_ns: Stamps) -> Poses:
        """Return the true poses at stamps; see `Truth`."""
        return self._poses(stamps_ns, self._span)

    def follow(self, source: Source) -> None:
        """Answer for the images that a source gives; see `Truth`."""
        self._source = source

    def depth(self, stamp_ns: int) -> npt.NDArray[np.float32] | None:
        """Return the true depth image of a stamp; see `Truth`.

        What is registered to raw images loses their distortion as they do, if they are followed.
        """
        depth_m = self._depth.at(stamp_ns, self._span) if self._depth else None
        if (
            depth_m is None
            or not isinstance(self._source, BagSource)
            or is_rectified(self.depth_source)
        ):
            return depth_m
        return self._source.camera.apply_to_depth(depth_m)

    def close(self) -> None:
        """Close the bag."""
        if self._depth:
            self._depth.close()
        self._reader.close()

    @property
    def _span(self) -> RecordedSpan:
        return self._source.span if self._source else EVERYTHING

    def _open_depth(self) -> DepthStream:
        return DepthStream(self._reader, self.depth_source, self._max_difference_s)

    def _find_poses(self, topic: str, frames: tuple[str, str] | None) -> tuple[str, _PosesAt]:
        if frames:
            return self._poses_of_tf(*frames)
        candidates = _topics(self._reader, POSE_TYPES)
        topic = _choose(self._reader, "--ground-truth-topic", topic, candidates)
        if topic:
            recorded_ns, stamped = self._read_poses(topic)
            stamps_ns = [stamp_ns for stamp_ns, _ in stamped]

            def near(asked_ns: Stamps, span: RecordedSpan) -> Poses:
                there = stamped[span.within(recorded_ns, stamps_ns)]
                return PoseTrack(topic, there, self._max_difference_s).near(asked_ns)

            track = PoseTrack(topic, stamped)
            track.warn_of_left_out()
            if len(track):
                return topic, near
        if not self._depth:
            topics = ", ".join(self._reader.topics) or "none"
            known = ", ".join(TfTree(self._reader).frames) or "none"
            raise SourceError(
                f"{self._reader.path}: no ground truth: neither poses ({', '.join(POSE_TYPES)}) "
                f"nor depth images; topics: {topics}; frames for --ground-truth-frames: {known}"
            )
        return "", lambda stamps, span: ([], [])

    def _poses_of_tf(self, parent: str, child: str) -> tuple[str, _PosesAt]:
        tree = TfTree(self._reader)
        tree.check(parent, child)
        source = f"/tf, {child} in {parent}"

        def poses(stamps_ns: Stamps, span: RecordedSpan) -> Poses:
            places, poses = tree.poses(parent, child, stamps_ns, span)
            if len(stamps_ns) and not places:
                warn_of_other_times(source, tree.stamps_ns(), stamps_ns)
            return places, poses

        return source, poses

    def _read_poses(self, topic: str) -> tuple[list[int], list[tuple[int, Transform]]]:
        """Return times of recording, and stamps with poses of the camera."""
        child, times, poses = "", [], []
        connections = self._reader.topics[topic].connections
        for _, recorded_ns, message in read_whole(self._reader, connections):
            child = child or getattr(message, "child_frame_id", "").lstrip("/")
            times.append(recorded_ns)
            poses.append((stamp_of(message, recorded_ns), _pose(message)))
        T_child_camera = self._mount(topic, child) if child else np.eye(4)
        return times, [(stamp_ns, T @ T_child_camera) for stamp_ns, T in poses]

    def _mount(self, topic: str, child: str) -> Transform:
        """Return where the camera is in the frame that poses are of."""
        camera = self._camera_frame().lstrip("/")
        if child == camera:
            return np.eye(4)
        T_child_camera = TfTree(self._reader).fixed(child, camera)
        if T_child_camera is None:
            _log.warning(
                "%s: no fixed transforms of /tf and /tf_static join its child frame %r with the "
                "images' %r: its poses are taken as the camera's, in optical axes",
                topic,
                child,
                camera,
            )
            return np.eye(4)
        return T_child_camera

    def _camera_frame(self) -> str:
        topic = image_topic(self._reader, self._image_topic)
        messages = read_whole(self._reader, self._reader.topics[topic].connections)
        entry = next(messages, None)
        return str(entry[2].header.frame_id) if entry else ""


def _pose(message: Any) -> Transform:
    """Return the pose of one of `POSE_TYPES`; not finite where it is none."""
    if message.__msgtype__ == POSE_TYPES[2]:
        p, q = message.transform.translation, message.transform.rotation
    else:
        pose = message.pose if message.__msgtype__ == POSE_TYPES[0] else message.pose.pose
        p, q = pose.position, pose.orientation
    wxyz = (q.w, q.x, q.y, q.z)
    if not (any(wxyz) and np.isfinite((p.x, p.y, p.z, *wxyz)).all()):
        return np.full((4, 4), np.nan)
    return transform_from_quaternion((p.x, p.y, p.z), wxyz)


def _topics(reader: Reader, msgtypes: Collection[str]) -> list[str]:
    return [
        name for name, info in reader.topics.items() if info.msgtype in msgtypes and info.msgcount
    ]


def _choose(reader: Reader, flag: str, wanted: str, candidates: Sequence[str]) -> str:
    """Return the topic meant; empty if none is wanted and there is none."""
    listing = ", ".join(candidates) or "none"
    if wanted and wanted not in candidates:
        kind = "not there"
        if info := reader.topics.get(wanted):
            kind = f"{info.msgcount} messages of type {info.msgtype}"
            kind += " without depth" if info.msgtype in IMAGE_TYPES else ""
        raise SourceError(f"{reader.path}: {flag} {wanted}: {kind}; topics to name: {listing}")
    if not wanted and len(candidates) > 1:
        raise SourceError(f"{reader.path}: several topics, choose one with {flag}: {listing}")
    return wanted or next(iter(candidates), "")
