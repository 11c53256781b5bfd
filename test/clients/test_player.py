# SPDX-License-Identifier: Apache-2.0
"""The bag player heard over DDS by subscribers that take the bytes as they come."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from ttt3r_ros.clients.player import play
from ttt3r_ros.clients.transport import PROFILE, VARIABLES, use_large_image_profile
from ttt3r_ros.types import SourceError

TYPES = get_typestore(Stores.ROS2_JAZZY)
TYPES.register(get_types_from_msg("int32 x", "nobody_msgs/msg/Thing"))
T = TYPES.types
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 10_000_000
PATIENCE_S = 20.0
LATCHED = Qos(
    QosHistory.UNKNOWN, 0, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
    QosTime(0, 0), QosTime(0, 0), QosLiveliness.AUTOMATIC, QosTime(0, 0), False,
)  # fmt: skip
BEST_EFFORT = LATCHED._replace(
    reliability=QosReliability.BEST_EFFORT, durability=QosDurability.VOLATILE
)


@pytest.fixture(autouse=True)
def _own_dds(domain, monkeypatch):
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")


class Listener:
    """A node of its own context that collects the bytes of topics while it is entered."""

    def __enter__(self):
        self.received = {}
        self._arrived = threading.Condition()
        self._context = Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node("listener", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin)
        self._thread.start()
        return self

    def listen(self, message_type, topic, reliable=True, latched=False):
        qos = QoSProfile(
            depth=1000,
            reliability=(ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT),
            durability=(DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE),
        )
        heard = self.received.setdefault(topic, [])

        def put(cdr):
            with self._arrived:
                heard.append(padded(cdr))
                self._arrived.notify_all()

        self.node.create_subscription(message_type, topic, put, qos, raw=True)

    def __exit__(self, *_):
        self._executor.shutdown()
        self._thread.join()
        self._context.try_shutdown()

    def wait_until(self, condition):
        with self._arrived:
            assert self._arrived.wait_for(condition, PATIENCE_S), {
                topic: len(heard) for topic, heard in self.received.items()
            }


class Playing(threading.Thread):
    """`play` in the background; `finish` returns its counts or raises its error."""

    def __init__(self, bag, **options):
        super().__init__()
        self.stop = threading.Event()
        self._work = lambda: play(bag, stop=self.stop, **options)
        self.start()

    def run(self):
        try:
            self._result = self._work()
        except Exception as error:
            self._result = error

    def finish(self):
        self.join(PATIENCE_S)
        assert not self.is_alive()
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


@pytest.fixture
def listener():
    with Listener() as listener:
        yield listener


def padded(cdr):
    """On its way over the network a message is filled up to a multiple of four bytes."""
    return cdr + bytes(-len(cdr) % 4)


def write_bag(path, stream, qos=None, plugin=StoragePlugin.MCAP):
    """Write (topic, time of recording in periods, message); return the path and the CDRs."""
    cdrs = {}
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for topic, period, message in stream:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, kind, typestore=TYPES, offered_qos_profiles=(qos or {}).get(topic, [])
                )
            cdr = bytes(TYPES.serialize_cdr(message, kind))
            writer.write(connections[topic], START_NS + round(period * PERIOD_NS), cdr)
            cdrs.setdefault(topic, []).append(padded(cdr))
    return path, cdrs


def header(frame_id):
    return T["std_msgs/msg/Header"](T["builtin_interfaces/msg/Time"](1, 2), frame_id)


def text(value):
    return T["std_msgs/msg/String"](value)


def image(index, width=40, height=30):
    data = np.random.default_rng(index).integers(0, 256, width * height * 3, np.uint8)
    return T["sensor_msgs/msg/Image"](header("camera"), height, width, "rgb8", 0, width * 3, data)


def static_transform(child):
    zero, one = (
        T["geometry_msgs/msg/Vector3"](0, 0, 0),
        T["geometry_msgs/msg/Quaternion"](0, 0, 0, 1),
    )
    transform = T["geometry_msgs/msg/Transform"](zero, one)
    stamped = T["geometry_msgs/msg/TransformStamped"](header("base"), child, transform)
    return T["tf2_msgs/msg/TFMessage"]([stamped])


def clocks(listener):
    stamps = [deserialize_message(cdr, Clock).clock for cdr in listener.received["/clock"]]
    return [stamp.sec * 1_000_000_000 + stamp.nanosec for stamp in stamps]


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_every_message_arrives_in_order_with_its_very_bytes(tmp_path, listener, plugin):
    stream = [
        entry for i in range(30) for entry in (("/image", i, image(i)), ("/note", i, text(f"{i}")))
    ]
    bag, cdrs = write_bag(tmp_path / "bag", stream, plugin=plugin)
    listener.listen(Image, "/image")
    listener.listen(String, "/note", reliable=False)

    counts = Playing(bag, wait_for_subscribers_s=PATIENCE_S).finish()

    listener.wait_until(lambda: len(listener.received["/image"]) == 30)
    listener.wait_until(lambda: len(listener.received["/note"]) == 30)
    assert counts == {"/image": 30, "/note": 30}
    assert listener.received == cdrs


def test_what_was_recorded_as_best_effort_meets_reliable_subscribers(tmp_path, listener):
    stream = [("/note", i, text(f"{i}")) for i in range(5)]
    bag, cdrs = write_bag(tmp_path / "bag", stream, {"/note": [BEST_EFFORT]})
    listener.listen(String, "/note", reliable=True)
    Playing(bag, wait_for_subscribers_s=PATIENCE_S).finish()
    listener.wait_until(lambda: listener.received == cdrs)


def test_the_clock_is_at_each_message_before_it_comes_and_goes_on_between(tmp_path, listener):
    periods = [0, 0.5, 0.7, 20, 20.1]
    bag, _ = write_bag(tmp_path / "bag", [("/note", p, text("")) for p in periods])
    listener.listen(Clock, "/clock")
    listener.listen(String, "/note")

    Playing(bag, wait_for_subscribers_s=PATIENCE_S).finish()

    end_ns = START_NS + round(20.1 * PERIOD_NS)
    listener.wait_until(lambda: clocks(listener)[-1:] == [end_ns])
    stamps = clocks(listener)
    assert stamps[0] == START_NS
    assert stamps == sorted(set(stamps))
    assert {START_NS + round(p * PERIOD_NS) for p in periods} <= set(stamps)
    assert max(np.diff(stamps)) == PERIOD_NS


def test_a_recorded_clock_is_not_played(tmp_path, listener):
    recorded = T["rosgraph_msgs/msg/Clock"](T["builtin_interfaces/msg/Time"](7, 0))
    bag, _ = write_bag(tmp_path / "bag", [("/clock", 0, recorded), ("/note", 1, text(""))])
    listener.listen(Clock, "/clock")
    listener.listen(String, "/note")
    assert Playing(bag, wait_for_subscribers_s=PATIENCE_S).finish() == {"/note": 1}
    listener.wait_until(lambda: len(clocks(listener)) == 2)
    assert clocks(listener) == [START_NS, START_NS + PERIOD_NS]


def test_a_late_subscriber_gets_all_static_transforms(tmp_path, listener):
    stream = [("/tf_static", i, static_transform(f"link{i}")) for i in range(3)]
    stream += [("/note", i, text("")) for i in range(3, 1000)]
    bag, cdrs = write_bag(tmp_path / "bag", stream)
    listener.listen(String, "/note")
    playing = Playing(bag, wait_for_subscribers_s=PATIENCE_S)
    listener.wait_until(lambda: len(listener.received["/note"]) > 3)

    listener.listen(TFMessage, "/tf_static", latched=True)

    listener.wait_until(lambda: listener.received["/tf_static"] == cdrs["/tf_static"])
    playing.stop.set()
    playing.finish()


def test_a_topic_recorded_as_latched_keeps_its_last_message_for_late_subscribers(
    tmp_path, listener
):
    stream = [("/map", i, text(f"{i}")) for i in range(3)]
    stream += [("/note", i, text("")) for i in range(3, 1000)]
    bag, cdrs = write_bag(tmp_path / "bag", stream, {"/map": [LATCHED]})
    listener.listen(String, "/note")
    playing = Playing(bag, wait_for_subscribers_s=PATIENCE_S)
    listener.wait_until(lambda: len(listener.received["/note"]) > 3)

    listener.listen(String, "/map", latched=True)

    listener.wait_until(lambda: listener.received["/map"] == cdrs["/map"][-1:])
    playing.stop.set()
    playing.finish()


def test_a_start_within_the_bag_leaves_out_what_is_before_it_but_for_latched_messages(
    tmp_path, listener
):
    stream = [("/tf_static", 0, static_transform("link"))]
    stream += [("/note", i, text(f"{i}")) for i in range(10)]
    bag, cdrs = write_bag(tmp_path / "bag", stream)
    for message_type, topic in ((String, "/note"), (Clock, "/clock")):
        listener.listen(message_type, topic)
    listener.listen(TFMessage, "/tf_static", latched=True)

    counts = Playing(bag, start_s=0.07, wait_for_subscribers_s=PATIENCE_S).finish()

    assert counts == {"/note": 3, "/tf_static": 1}
    listener.wait_until(lambda: listener.received["/note"] == cdrs["/note"][7:])
    listener.wait_until(lambda: listener.received["/tf_static"] == cdrs["/tf_static"])
    assert clocks(listener)[0] == START_NS + 7 * PERIOD_NS


def test_only_the_topics_asked_for_are_played(tmp_path, listener):
    stream = [(topic, i, text("")) for i in range(4) for topic in ("/a", "/b", "/c")]
    bag, _ = write_bag(tmp_path / "bag", stream)
    assert play(bag, topics=["/a", "/c"]) == {"/a": 4, "/c": 4}


@pytest.mark.parametrize(("rate", "seconds"), [(1.0, 0.4), (0.5, 0.8)])
def test_playing_takes_no_less_than_the_bag_lasts_at_its_rate(tmp_path, rate, seconds):
    bag, _ = write_bag(tmp_path / "bag", [("/a", 0, text("")), ("/a", 40, text(""))])
    began = time.monotonic()
    play(bag, rate=rate)
    assert time.monotonic() - began >= seconds


def test_a_high_rate_does_not_wait_for_the_recorded_time(tmp_path):
    hour_periods = 3600e9 / PERIOD_NS
    bag, _ = write_bag(tmp_path / "bag", [("/a", 0, text("")), ("/a", hour_periods, text(""))])
    assert Playing(bag, rate=1e5).finish() == {"/a": 2}


def test_a_loop_begins_again_with_the_clock_until_it_is_stopped(tmp_path, listener):
    stream = [("/note", i, text(f"{i}")) for i in range(3)]
    bag, cdrs = write_bag(tmp_path / "bag", stream)
    listener.listen(String, "/note")
    listener.listen(Clock, "/clock")

    playing = Playing(bag, loop=True, wait_for_subscribers_s=PATIENCE_S)
    listener.wait_until(lambda: len(listener.received["/note"]) >= 7)
    playing.stop.set()
    counts = playing.finish()

    assert counts["/note"] >= 7
    assert listener.received["/note"][:7] == (cdrs["/note"] * 3)[:7]
    assert clocks(listener)[:6] == [START_NS + i * PERIOD_NS for i in (0, 1, 2)] * 2


def test_the_command_renames_topics_as_ros_does_and_ends_well_by_ctrl_c(tmp_path, listener):
    bag, _ = write_bag(tmp_path / "bag", [("/note", i, text(f"{i}")) for i in range(3)])
    listener.listen(String, "/robot/note")
    command = [sys.executable, "-m", "ttt3r_ros.cli", "play", str(bag), "--loop"]
    # Whoever runs the tests in the background has them ignore SIGINT.
    playing = subprocess.Popen(
        [*command, "--ros-args", "-r", "/note:=/robot/note"],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        listener.wait_until(lambda: listener.received["/robot/note"])
        playing.send_signal(signal.SIGINT)
        assert playing.wait(PATIENCE_S) == 0
    finally:
        playing.kill()


def test_nobody_to_wait_for_is_said_and_the_bag_is_played(tmp_path, caplog):
    bag, _ = write_bag(tmp_path / "bag", [("/image", 0, image(0)), ("/note", 1, text(""))])
    assert play(bag, wait_for_subscribers_s=0.1) == {"/image": 1, "/note": 1}
    assert "no subscriber of /image in 0.1 s" in caplog.text


def test_a_type_that_is_not_installed_is_left_out_with_one_warning(tmp_path, caplog):
    things = [("/thing", i, T["nobody_msgs/msg/Thing"](i)) for i in range(3)]
    bag, _ = write_bag(tmp_path / "bag", [*things, ("/note", 3, text(""))])
    with caplog.at_level(logging.WARNING):
        assert play(bag) == {"/note": 1}
    (record,) = caplog.records
    assert "no message package is installed for /thing (nobody_msgs/msg/Thing)" in record.message


def test_nothing_to_play_is_an_error(tmp_path):
    bag, _ = write_bag(tmp_path / "bag", [("/thing", 0, T["nobody_msgs/msg/Thing"](1))])
    with pytest.raises(SourceError, match=r"nothing to play: /thing \(nobody_msgs/msg/Thing\)"):
        play(bag)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"rate": 0.0}, "rate: must be positive and finite, got 0.0"),
        ({"rate": float("inf")}, "rate: must be positive and finite, got inf"),
        ({"start_s": -1.0}, "start_s: must be finite and not negative, got -1.0"),
        ({"start_s": 5.0}, "start_s is 5.0, the bag lasts 0.000 s"),
        ({"topics": ["/b"]}, "no topic /b; there are: /a"),
    ],
)
def test_an_argument_out_of_bounds_is_named(tmp_path, options, named):
    bag, _ = write_bag(tmp_path / "bag", [("/a", 0, text(""))])
    with pytest.raises(ValueError) as raised:
        play(bag, **options)
    assert named in str(raised.value)


def test_a_missing_bag_is_named(tmp_path):
    with pytest.raises(SourceError, match="none: does not exist"):
        play(tmp_path / "none")


@pytest.mark.parametrize(("distribution", "index"), [("humble", 0), ("jazzy", 0), ("kilted", 1)])
def test_the_shipped_profile_is_used_under_the_name_the_distribution_knows(
    monkeypatch, distribution, index
):
    monkeypatch.setenv("ROS_DISTRO", distribution)
    profile = use_large_image_profile()
    assert profile.name == PROFILE
    assert os.environ[VARIABLES[index]] == str(profile)
    assert os.environ[VARIABLES[1 - index]] == ""


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_profile_of_the_user_is_left_alone(monkeypatch, variable):
    monkeypatch.setenv(variable, "/mine.xml")
    assert use_large_image_profile() is None
    assert [os.environ[name] for name in VARIABLES if name != variable] == [""]
    assert os.environ[variable] == "/mine.xml"


def test_an_installed_profile_is_found_by_the_prefix(monkeypatch, tmp_path):
    folder = tmp_path / "share/ttt3r_ros/config"
    folder.mkdir(parents=True)
    (folder / PROFILE).write_text("<dds/>")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere{os.pathsep}{tmp_path}")
    monkeypatch.setattr(
        "ttt3r_ros.clients.transport.__file__", "/site/ttt3r_ros/clients/transport.py"
    )
    assert use_large_image_profile() == folder / PROFILE
