# SPDX-License-Identifier: Apache-2.0
"""Plays a rosbag2 over DDS where no `ros2 bag` is installed.

Messages are published as the bytes they were recorded as. Reading images for a run without ROS is
in `evaluation.bag_reader`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from ttt3r_ros.clients.transport import use_large_image_profile
from ttt3r_ros.config import ConfigError
from ttt3r_ros.recordings.bag_reader import IMAGE_TYPES, open_bag, read_messages
from ttt3r_ros.recordings.rosbag2 import Connection, QosDurability, Reader, TopicInfo
from ttt3r_ros.types import SourceError

CLOCK_PERIOD_S = 0.01
QUEUE_SIZE = 100  # messages of a topic kept for subscribers that are behind
MATCH_S = 0.2  # a writer knows of a new reader before the reader knows of the writer
ACKNOWLEDGE_S = 5.0  # at most, for the last messages to arrive

logger = logging.getLogger(__name__)


def play(
    bag: str | Path,
    *,
    rate: float = 1.0,
    loop: bool = False,
    start_s: float = 0.0,
    topics: Sequence[str] | None = None,
    wait_for_subscribers_s: float = 0.0,
    stop: threading.Event | None = None,
) -> dict[str, int]:
    """Publish the messages of a bag at the pace they were recorded at, with /clock.

    /clock is at the time of recording of the message just before that is published, and in
    between goes on every 10 ms; with `loop` it jumps back. A recorded /clock is left out, and so
    are types for which no message package is installed, with a warning.

    All topics are offered as reliable, which meets reliable and best-effort subscribers, and as
    transient local where the recorded offers were. Latched messages from before `start_s` are
    published at the start.

    Args:
        bag: a rosbag2, its folder or one .mcap or .db3 file.
        rate: bag seconds per second.
        loop: begin again at the end, until stopped.
        start_s: seconds of the bag to leave out.
        topics: play these only.
        wait_for_subscribers_s: wait so long at most until one of the image topics (of all topics,
            if none has images) has a subscriber.
        stop: ends the playing at once when set; so does KeyboardInterrupt.

    Returns:
        How many messages were published on each topic, all loops together.

    Raises:
        SourceError: the bag cannot be read or nothing of it can be played.
        ConfigError: `rate` or `start_s` is out of bounds.
    """
    if not (rate > 0 and math.isfinite(rate)):
        raise ConfigError(f"rate: must be positive and finite, got {rate}")
    if not (start_s >= 0 and math.isfinite(start_s)):
        raise ConfigError(f"start_s: must be finite and not negative, got {start_s}")
    with closing(open_bag(bag)) as reader:
        types = _playable_types(reader, topics)
        duration_s = (reader.end_time - reader.start_time) / 1e9
        if start_s >= duration_s:
            raise SourceError(f"{bag}: start_s is {start_s}, the bag lasts {duration_s:.3f} s")
        use_large_image_profile()
        context = Context()
        rclpy.init(context=context)
        try:
            node = rclpy.create_node("ttt3r_player", context=context, enable_rosout=False)
            player = _Player(reader, node, types, rate, stop or threading.Event())
            player.wait_for_subscribers(wait_for_subscribers_s)
            player.run(reader.start_time + round(start_s * 1e9), loop)
        finally:
            context.try_shutdown()
    return player.counts


class _Player:
    """The publishers of one bag and the pace they are used at."""

    def __init__(
        self,
        reader: Reader,
        node: Node,
        types: dict[str, type],
        rate: float,
        stop: threading.Event,
    ) -> None:
        self.counts = dict.fromkeys(types, 0)
        self._reader = reader
        self._rate = rate
        self._stop = stop
        self._clock = node.create_publisher(Clock, "/clock", 10)
        self._publishers: dict[str, Publisher[Any]] = {}
        self._connections: list[Connection] = []
        self._latched: list[Connection] = []
        for topic, message_type in types.items():
            info = reader.topics[topic]
            qos = _qos(topic, info)
            latched = qos.durability is DurabilityPolicy.TRANSIENT_LOCAL
            self._publishers[topic] = node.create_publisher(message_type, topic, qos)
            self._connections += info.connections
            self._latched += info.connections if latched else []
            logger.info(
                "%s: %d messages of %s%s",
                topic,
                info.msgcount,
                info.msgtype,
                ", latched" if latched else "",
            )

    def wait_for_subscribers(self, timeout_s: float) -> None:
        """Wait until an image topic has a subscriber, or any topic if none has images."""
        if not timeout_s:
            return
        images = [t for t in self.counts if self._reader.topics[t].msgtype in IMAGE_TYPES]
        waited_for = images or list(self.counts)
        deadline = time.monotonic() + timeout_s
        while not any(self._publishers[topic].get_subscription_count() for topic in waited_for):
            if time.monotonic() > deadline:
                logger.warning("no subscriber of %s in %g s", ", ".join(waited_for), timeout_s)
                return
            if self._stop.wait(0.05):  # rclpy of Humble cannot be told of a match
                return
        self._stop.wait(MATCH_S)

    def run(self, start_ns: int, loop: bool) -> None:
        """Publish from `start_ns` of the bag to its end, once or until stopped."""
        self._play_once(start_ns)
        while loop and not self._stop.wait(CLOCK_PERIOD_S):
            self._play_once(start_ns)
        if not self._stop.is_set():
            timeout = Duration(seconds=ACKNOWLEDGE_S)
            for publisher in self._publishers.values():
                publisher.wait_for_all_acked(timeout)

    def _play_once(self, start_ns: int) -> None:
        began_s = time.monotonic()
        clock_ns = start_ns
        self._publish_clock(clock_ns)
        for connection, bag_ns, cdr in self._messages(start_ns):
            while clock_ns < bag_ns:
                clock_ns = min(clock_ns + round(CLOCK_PERIOD_S * self._rate * 1e9), bag_ns)
                deadline_s = began_s + (clock_ns - start_ns) / 1e9 / self._rate
                if self._stop.wait(max(deadline_s - time.monotonic(), 0.0)):
                    return
                self._publish_clock(clock_ns)
            self._publishers[connection.topic].publish(cdr)
            self.counts[connection.topic] += 1

    def _messages(self, start_ns: int) -> Iterator[tuple[Connection, int, bytes]]:
        rest = read_messages(self._reader, self._connections, start_ns)
        if not self._latched:  # to rosbags no connections are all connections
            return rest
        return chain(read_messages(self._reader, self._latched, stop_ns=start_ns), rest)

    def _publish_clock(self, bag_ns: int) -> None:
        clock = Clock()
        clock.clock.sec, clock.clock.nanosec = divmod(bag_ns, 1_000_000_000)
        self._clock.publish(clock)


def _playable_types(reader: Reader, wanted: Sequence[str] | None) -> dict[str, type]:
    """Return the message class of each topic that can be played, named in the order of the bag."""
    there = {name: info.msgtype for name, info in reader.topics.items() if name != "/clock"}
    for topic in wanted or ():
        if topic not in there:
            raise SourceError(f"{reader.path}: no topic {topic}; there are: {', '.join(there)}")
    types, missing = {}, []
    for topic, msgtype in there.items():
        if wanted and topic not in wanted:
            continue
        try:
            package, _, name = (msgtype or "").rpartition("/")
            types[topic] = getattr(import_module(package.replace("/", ".")), name)
        except (ImportError, ValueError, AttributeError):
            missing.append(f"{topic} ({msgtype or 'of several types'})")
    if missing:
        logger.warning("no message package is installed for %s: left out", ", ".join(missing))
    if not types:
        raise SourceError(f"{reader.path}: nothing to play: {', '.join(missing) or 'no topics'}")
    return types


def _qos(topic: str, info: TopicInfo) -> QoSProfile:
    offers = [
        offer
        for connection in info.connections
        for offer in getattr(connection.ext, "offered_qos_profiles", ())
    ]
    latched = {offer.durability for offer in offers} == {QosDurability.TRANSIENT_LOCAL}
    if topic == "/tf_static":  # each of its messages holds other transforms, all are to be had
        latched, depth = True, info.msgcount
    else:
        depth = sum(max(offer.depth, 1) for offer in offers) if latched else QUEUE_SIZE
    return QoSProfile(
        depth=min(max(depth, 1), 1000),
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )
