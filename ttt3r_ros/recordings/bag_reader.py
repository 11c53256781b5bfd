# SPDX-License-Identifier: Apache-2.0
"""Images from a rosbag2 without ROS, and the opening of bags for whoever else reads them."""

from __future__ import annotations

import logging
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ttt3r_ros.camera.camera_info import CameraModel
from ttt3r_ros.camera.decoding import (
    decode_compressed,
    decode_compressed_depth,
    decode_depth_image,
    decode_image,
)
from ttt3r_ros.recordings.bag_files import files_of
from ttt3r_ros.recordings.cut_mcap import CutMcap
from ttt3r_ros.recordings.recorded_span import EVERYTHING, JUMP_BACK_NS, RecordedSpan
from ttt3r_ros.recordings.rosbag2 import Connection, Reader, Stores, get_typestore
from ttt3r_ros.recordings.source import Rejection, Source
from ttt3r_ros.types import NS_PER_S, Frame, FrameRejected, SourceError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"

logger = logging.getLogger(__name__)


def open_bag(path: str | Path) -> Reader:
    """Open a rosbag2, its folder or one .mcap or .db3 file; whoever opens it closes it.

    Of a folder without its metadata.yaml, the only file is opened, with a warning. An .mcap file
    that was cut off opens too; `read_messages` raises after its last whole record.

    Raises:
        SourceError: there is none, or it is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise SourceError(f"{path}: does not exist")
    if path.is_dir() and not (path / "metadata.yaml").exists():
        path = _only_file(path)
    try:
        return _opened(path)
    except Exception as error:  # rosbags passes on what its decoders and databases raise
        files = files_of(path) if path.is_dir() else [path]
        if len(files) == 1 and files[0].suffix == ".mcap":
            with suppress(Exception):
                return _opened(CutMcap(files[0]))
        raise SourceError(
            f"{path}: not a whole rosbag2: {type(error).__name__}: {error}"
        ) from error


def _only_file(folder: Path) -> Path:
    files = files_of(folder)
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "no bag files"
        raise SourceError(
            f"{folder}: a bag without its metadata.yaml; `ros2 bag reindex` makes it anew, or open "
            f"one of its files: {names}"
        )
    logger.warning("%s: a bag without its metadata.yaml; %s is read", folder, files[0].name)
    return files[0]


def _opened(path: Path | CutMcap) -> Reader:
    reader = Reader(path)  # type: ignore[arg-type]  # it has what is used of it
    reader.open()
    return reader


def read_messages(
    reader: Reader,
    connections: Collection[Connection],
    start_ns: int | None = None,
    stop_ns: int | None = None,
) -> Iterator[tuple[Connection, int, bytes]]:
    """Yield connection, time of recording in nanoseconds and CDR of each message, in time order.

    Args:
        reader: an open bag.
        connections: those to read, at least one.
        start_ns: time of recording of the first message.
        stop_ns: time of recording that is not reached any more.

    Raises:
        SourceError: the bag is damaged from here on.
    """
    try:
        yield from reader.messages(connections, start_ns, stop_ns)
    except Exception as error:
        raise SourceError(
            f"{reader.path}: damaged after the messages read so far: "
            f"{type(error).__name__}: {error}"
        ) from error
    if isinstance(reader.path, CutMcap):
        raise SourceError(
            f"{reader.path}: cut off after byte {reader.path.end}; what follows is lost "
            "(`mcap recover` makes a whole file of what is there)"
        )


def read_whole(
    reader: Reader, connections: Collection[Connection], start_ns: int | None = None
) -> Iterator[tuple[Connection, int, Any]]:
    """Yield connection, time of recording in nanoseconds and message, as far as they are whole.

    The first damaged message is told of in a warning, and where the bag is damaged, these end with
    a warning.

    Args:
        reader: an open bag.
        connections: those to read, at least one.
        start_ns: time of recording of the first message.
    """
    types = get_typestore(Stores.ROS2_JAZZY)
    topics = ", ".join(sorted({connection.topic for connection in connections}))
    warned = False
    try:
        for connection, recorded_ns, cdr in read_messages(reader, connections, start_ns):
            try:
                message = types.deserialize_cdr(cdr, connection.msgtype)
            except Exception as error:  # whatever reading past the end or a bad string raises
                if not warned:
                    logger.warning(
                        "%s: %s: message of %d ns is damaged, perhaps others: %s: %s",
                        reader.path,
                        topics,
                        recorded_ns,
                        type(error).__name__,
                        error,
                    )
                warned = True
                continue
            yield connection, recorded_ns, message
    except SourceError as error:
        logger.warning("%s: what was read until there is used: %s", topics, error)


def stamp_of(message: Any, recorded_ns: int) -> int:
    """Return the nanoseconds of a message's header, or the time of recording if they are 0."""
    stamp = message.header.stamp
    return int(stamp.sec * NS_PER_S + stamp.nanosec or recorded_ns)


def _stamp_in(cdr: bytes, recorded_ns: int) -> int | None:
    """Return what `stamp_of` does of an image that is not read; None if it is too short."""
    if len(cdr) < 12:
        return None
    sec, nanosec = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return int(sec * NS_PER_S + nanosec or recorded_ns)


def decode_depth(message: Any) -> npt.NDArray[np.float32]:
    """Return a depth message in metres, float32 [H, W], NaN where unknown.

    Raises:
        FrameRejected: it is a colour image, of an unknown encoding or damaged.
    """
    if message.__msgtype__ == IMAGE_TYPES[1]:
        return decode_compressed_depth(message.data, message.format)
    return decode_depth_image(
        message.encoding,
        message.height,
        message.width,
        message.step,
        message.is_bigendian,
        message.data,
    )


def carries_depth(reader: Reader, topic: str) -> bool:
    """Return whether the first image of a topic is a depth image."""
    info = reader.topics[topic]
    try:
        _, _, cdr = next(read_messages(reader, info.connections))
        decode_depth(get_typestore(Stores.ROS2_JAZZY).deserialize_cdr(cdr, str(info.msgtype)))
    except Exception:  # damaged, or a colour image; whoever reads it says what is wrong
        return False
    return True


class BagSource(Source):
    """The images of one topic of a rosbag2.

    A frame is stamped with its header; with the time of recording where the header says 0. The
    first message of the camera info topic holds for the whole bag, as `camera_info` understands it.

    Attributes:
        camera: what is known of the images' camera.

    Raises:
        SourceError: the bag is damaged, or it is not clear which topics are meant.
    """

    def __init__(
        self,
        path: Path,
        *,
        topic: str = "",
        camera_info_topic: str = "",
        start: int = 0,
        every: int = 1,
        max_frames: int | None = None,
    ) -> None:
        self._reader = open_bag(path)
        try:
            self.topic = image_topic(self._reader, topic)
            self.camera_info_topic = _camera_info_topic(self._reader, self.topic, camera_info_topic)
            info = self._reader.topics[self.topic]
            super().__init__(info.msgcount, every, max_frames, start)
            self._images = info.msgcount
            self._connections = info.connections
            # Their definitions are the same in every distribution; those in the bag may be missing.
            self._types = get_typestore(Stores.ROS2_JAZZY)
            self.camera = CameraModel(self.topic)
            self._last_ns: int | None = None  # stamp of the image before
            if self.camera_info_topic:
                self.camera.update(self._first_camera_info())
        except BaseException:
            self._reader.close()
            raise

    def close(self) -> None:
        """Close the bag."""
        self._reader.close()

    def _read(self, chosen: range) -> Iterator[Frame | Rejection]:
        messages = read_messages(self._reader, self._connections)
        self.span, self._last_ns = EVERYTHING, None
        count = 0
        stop = chosen[-1] + 1 if chosen else 0
        for place, (connection, recorded_ns, cdr) in enumerate(islice(messages, stop)):
            self._follow_clock(cdr, recorded_ns)
            if place in chosen:
                yield self._decode(connection.msgtype, recorded_ns, cdr)
                count += 1
        if chosen.stop == self._images:  # the end of the bag, where it may turn out to be cut off
            for _ in messages:
                pass
        if count < len(chosen):
            logger.warning(
                "%s: %d of %d images of %s are missing, its metadata is wrong",
                self._reader.path,
                len(chosen) - count,
                len(chosen),
                self.topic,
            )

    def _follow_clock(self, cdr: bytes, recorded_ns: int) -> None:
        """Note where the stamps jump back, in images that are left out too."""
        since_ns, stamp_ns = self.span.since_ns, _stamp_in(cdr, recorded_ns)
        if stamp_ns is not None:
            if self._last_ns is not None and self._last_ns - stamp_ns >= JUMP_BACK_NS:
                since_ns = recorded_ns
            self._last_ns = stamp_ns
        self.span = RecordedSpan(since_ns, recorded_ns)

    def _decode(self, msgtype: str, recorded_ns: int, cdr: bytes) -> Frame | Rejection:
        try:
            message: Any = self._types.deserialize_cdr(cdr, msgtype)
        except Exception as error:  # whatever reading past the end or a bad string raises
            return Rejection(recorded_ns, f"message: damaged: {type(error).__name__}: {error}")
        stamp_ns = stamp_of(message, recorded_ns)
        try:
            if msgtype == IMAGE_TYPES[0]:
                rgb = decode_image(
                    message.encoding,
                    message.height,
                    message.width,
                    message.step,
                    message.is_bigendian,
                    message.data,
                )
            else:
                rgb = decode_compressed(message.data, message.format)
            image = self.camera.apply(rgb)
            return Frame(stamp_ns, frame_id=message.header.frame_id, **image._asdict())
        except FrameRejected as error:
            return Rejection(stamp_ns, str(error))

    def _first_camera_info(self) -> Any:
        connections = self._reader.topics[self.camera_info_topic].connections
        try:
            _, _, cdr = next(read_messages(self._reader, connections))
            return self._types.deserialize_cdr(cdr, CAMERA_INFO_TYPE)
        except Exception as error:  # as in `_decode`; StopIteration where the metadata is wrong
            raise SourceError(
                f"{self._reader.path}: {self.camera_info_topic} is damaged: "
                f"{type(error).__name__}: {error}"
            ) from error


def _topics(reader: Reader, msgtypes: Collection[str]) -> dict[str, str]:
    """Return the topics of these types that have messages, with a line on each for a listing."""
    return {
        name: f"\n  {name} ({info.msgtype}, {info.msgcount} messages)"
        for name, info in reader.topics.items()
        if info.msgtype in msgtypes and info.msgcount
    }


def image_topic(reader: Reader, wanted: str) -> str:
    """Return the topic of the colour images.

    Args:
        reader: an open bag.
        wanted: its name; empty: the only one there.

    Raises:
        SourceError: it is not there, or there are several.
    """
    topics = _topics(reader, IMAGE_TYPES)
    listing = "".join(topics.values()) or " none"
    if wanted and wanted not in topics:
        raise SourceError(f"{reader.path}: no images on {wanted}; topics with images:{listing}")
    if not topics:
        raise SourceError(
            f"{reader.path}: no topic of type {' or '.join(IMAGE_TYPES)} has messages; "
            f"topics in the bag: {', '.join(reader.topics) or 'none'}"
        )
    if not wanted and len(topics) > 1:
        topics = {topic: line for topic, line in topics.items() if not carries_depth(reader, topic)}
    if not wanted and len(topics) != 1:
        raise SourceError(
            f"{reader.path}: several topics have images, choose one with --topic:{listing}"
        )
    return wanted or next(iter(topics))


def _camera_info_topic(reader: Reader, image_topic: str, wanted: str) -> str:
    """Return the topic of the intrinsics, empty if there is none.

    image_transport puts `camera_info` beside the image: /a/image_raw has /a/camera_info.
    """
    topics = _topics(reader, (CAMERA_INFO_TYPE,))
    if wanted:
        if wanted not in topics:
            listing = "".join(topics.values()) or " none"
            raise SourceError(
                f"{reader.path}: no {CAMERA_INFO_TYPE} on {wanted}; there are:{listing}"
            )
        return wanted
    namespace = _base_name(image_topic).rpartition("/")[0]
    beside = [topic for topic in topics if topic.rpartition("/")[0] == namespace]
    if f"{namespace}/camera_info" in beside:
        return f"{namespace}/camera_info"
    if len(beside) > 1:
        raise SourceError(
            f"{reader.path}: several topics beside {image_topic} have intrinsics, choose one with "
            f"--camera-info-topic:{''.join(topics[topic] for topic in beside)}"
        )
    return beside[0] if beside else ""


def _base_name(image_topic: str) -> str:
    return image_topic.removesuffix("/compressed")
