# SPDX-License-Identifier: Apache-2.0
"""Opens a recording by its path; the readers themselves are in `bag_reader`, `folder_reader`."""

from __future__ import annotations

from pathlib import Path

from ttt3r_ros.recordings.bag_files import BAG_SUFFIXES, is_bag
from ttt3r_ros.recordings.folder_reader import FolderSource
from ttt3r_ros.recordings.source import Source
from ttt3r_ros.types import SourceError


def open_source(
    path: str | Path,
    *,
    topic: str = "",
    camera_info_topic: str = "",
    start: int = 0,
    every: int = 1,
    max_frames: int | None = None,
    rate_hz: float = 30.0,
) -> Source:
    """Open a rosbag2 (its folder, or one .mcap or .db3 file) or a folder of images.

    Args:
        path: of the recording.
        topic: with a bag, the topic of the images; empty: the only one there.
        camera_info_topic: with a bag, the camera's intrinsics; empty: the topic beside the images.
        start: leave out so many images at the beginning.
        every: take the first image of those left and every n-th after it.
        max_frames: take at most so many images, those that cannot be decoded included.
        rate_hz: with a folder whose file names are not seconds, images per second.

    Raises:
        SourceError: there is no such recording or topic, several topics might be meant, or the
            recording is damaged. A bag whose damage lies farther on raises while it is read.
    """
    path = Path(path)
    if not path.exists():
        raise SourceError(f"{path}: does not exist")
    if is_bag(path):
        from ttt3r_ros.recordings.bag_reader import BagSource  # needs rosbags

        return BagSource(
            path,
            topic=topic,
            camera_info_topic=camera_info_topic,
            start=start,
            every=every,
            max_frames=max_frames,
        )
    if not path.is_dir():
        raise SourceError(
            f"{path}: neither a folder nor a bag file ({', '.join(BAG_SUFFIXES)}); "
            "rosbags-convert makes a rosbag2 of a ROS 1 bag"
        )
    if topic or camera_info_topic:
        raise SourceError(f"{path}: no bag (metadata.yaml is missing), so it has no topics")
    return FolderSource(path, rate_hz=rate_hz, start=start, every=every, max_frames=max_frames)
