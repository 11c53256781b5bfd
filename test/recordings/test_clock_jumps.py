# SPDX-License-Identifier: Apache-2.0
"""Bags in which the clock is set back: images are compared with the truth of their own time."""

from __future__ import annotations

import numpy as np
import pytest
from known_bags import HEIGHT, START_NS, TYPES, WIDTH, T, header, raw
from rosbags.rosbag2 import StoragePlugin, Writer

from ttt3r_ros.evaluation.metrics.true_surface import surface_of_stream
from ttt3r_ros.geometry import Intrinsics
from ttt3r_ros.recordings.datasets import find_recordings
from ttt3r_ros.recordings.recorded_span import RecordedSpan
from ttt3r_ros.recordings.recording import Selection

SECOND = 1_000_000_000
STEP_NS = SECOND // 5
COUNT = 20  # images: ten, then ten behind the jump
IDENTITY = (0.0, 0.0, 0.0, 1.0)
LENS = Intrinsics(40.0, 40.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
TRUTHS = {
    "poses": {},
    "transforms": {"ground_truth_frames": ("world", "truth")},
}


def stamps_of(jump_ns):
    """Two runs of 2 s; the second begins where the first does, but for that."""
    return [START_NS + i % 10 * STEP_NS + (jump_ns if i < 10 else 0) for i in range(COUNT)]


def place(i):
    """The true x and the true depth of an image, in metres: each another one."""
    return 1.0 + 0.1 * i


def pose(i, stamp_ns):
    return T["geometry_msgs/msg/PoseStamped"](
        header(stamp_ns, "world"),
        T["geometry_msgs/msg/Pose"](
            T["geometry_msgs/msg/Point"](place(i), 0.0, 0.0),
            T["geometry_msgs/msg/Quaternion"](*IDENTITY),
        ),
    )


def transform(i, stamp_ns):
    move = T["geometry_msgs/msg/Transform"](
        T["geometry_msgs/msg/Vector3"](place(i), 0.0, 0.0),
        T["geometry_msgs/msg/Quaternion"](*IDENTITY),
    )
    stamped = T["geometry_msgs/msg/TransformStamped"](header(stamp_ns, "world"), "truth", move)
    return T["tf2_msgs/msg/TFMessage"]([stamped])


def depth(i, stamp_ns):
    metres = np.full((HEIGHT, WIDTH), place(i), np.float32)
    data = metres.reshape(-1).view(np.uint8)
    return raw(0, header=header(stamp_ns), encoding="32FC1", step=4 * WIDTH, data=data)


def write(path, jump_ns, truths=COUNT, plugin=StoragePlugin.MCAP):
    """Images every 0.2 s of recording, and 20 ms later the truth of the first so many."""
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for i, stamp_ns in enumerate(stamps_of(jump_ns)):
            messages = [("/image", raw(0, header=header(stamp_ns)))]
            if i < truths:
                messages += [("/pose", pose(i, stamp_ns)), ("/tf", transform(i, stamp_ns))]
                messages += [("/depth", depth(i, stamp_ns))]
            for late, (topic, message) in enumerate(messages):
                kind = message.__msgtype__
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
                recorded_ns = START_NS + i * STEP_NS + 20_000_000 * bool(late)
                data = TYPES.serialize_cdr(message, kind)
                writer.write(connections[topic], recorded_ns, data)
    return path


def compared(bag, kind="poses", **selection):
    """Ask as an evaluation does: depth image by image, then the poses behind the last jump.

    Returns:
        Depth [N] by image, and the true x [M] of those behind the jump.
    """
    (recording,) = find_recordings(bag, topic="/image", **TRUTHS[kind])
    with recording.truth() as truth, recording.images(Selection(**selection)) as source:
        truth.follow(source)
        depths, stamps = [], []
        for frame in source:
            if stamps and frame.stamp_ns < stamps[-1]:
                stamps.clear()
            stamps.append(frame.stamp_ns)
            found = truth.depth(frame.stamp_ns)
            depths.append(None if found is None else found[0, 0])
        places, poses = truth.poses(np.array(stamps))
    return depths, [T_world_camera[0, 3] for T_world_camera in poses], places


JUMPS = {"the same stamps again": 0, "far ahead at first": 10**6 * SECOND, "a bit": 3 * SECOND // 2}


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("kind", TRUTHS)
@pytest.mark.parametrize("jump", JUMPS)
def test_images_behind_a_jump_back_are_compared_with_the_truth_recorded_with_them(
    tmp_path, jump, kind, plugin
):
    bag = write(tmp_path / "bag", JUMPS[jump], plugin=plugin)
    depths, xs, places = compared(bag, kind)
    assert depths == pytest.approx([place(i) for i in range(COUNT)])
    assert places == list(range(10))
    assert xs == pytest.approx([place(i) for i in range(10, COUNT)])


@pytest.mark.parametrize("jump", JUMPS)
def test_the_surface_is_that_of_the_images_behind_the_jump(tmp_path, jump):
    (recording,) = find_recordings(write(tmp_path / "bag", JUMPS[jump]), topic="/image")
    with recording.images(Selection()) as source:
        stamps = [frame.stamp_ns for frame in source][10:]
    with recording.truth() as truth:
        truth.follow(source)
        surface = surface_of_stream(stamps, truth, LENS)
    assert surface.points[:, 2].min() == pytest.approx(place(10))
    assert surface.points[:, 2].max() == pytest.approx(place(19))


def test_a_jump_in_images_that_are_left_out_counts(tmp_path):
    bag = write(tmp_path / "bag", 0)
    depths, xs, _ = compared(bag, start=12, every=3)
    assert depths == pytest.approx([place(12), place(15), place(18)])
    assert xs == pytest.approx([place(12), place(15), place(18)])


@pytest.mark.parametrize("kind", TRUTHS)
def test_images_before_a_jump_that_is_not_reached_have_the_truth_before_it(tmp_path, kind):
    depths, xs, _ = compared(write(tmp_path / "bag", 0), kind, max_frames=8)
    assert depths == pytest.approx([place(i) for i in range(8)])
    assert xs == pytest.approx([place(i) for i in range(8)])


@pytest.mark.parametrize("kind", TRUTHS)
def test_a_truth_that_ends_before_the_jump_is_not_that_of_the_images_behind_it(
    tmp_path, kind, caplog
):
    depths, xs, places = compared(write(tmp_path / "bag", 0, truths=5), kind)
    assert depths == [pytest.approx(place(i)) for i in range(5)] + [None] * 15
    assert (xs, places) == ([], [])
    assert "nothing at the times of the images" in caplog.text


def test_depth_behind_a_jump_waits_on_the_disk(tmp_path, monkeypatch):
    bag = write(tmp_path / "bag", 10**6 * SECOND)
    (recording,) = find_recordings(bag, topic="/image")
    most = 0
    with recording.truth() as truth, recording.images(Selection()) as source:
        truth.follow(source)
        for frame in source:
            truth.depth(frame.stamp_ns)
            most = max(most, len(truth._depth._near))
    assert 1 <= most <= 7  # 1 s, and not all ten behind the jump


def test_a_span_begins_and_ends_where_the_stamps_of_the_other_topic_jump():
    recorded = [i * SECOND // 2 for i in range(12)]
    stamps = [i % 6 * SECOND // 2 for i in range(12)]  # again from the seventh on, at 3 s
    before, behind = slice(0, 6), slice(6, 12)
    for since_s, until_s, expected in (
        (None, None, slice(0, 12)),
        (None, 2.6, before),
        (None, 2.2, before),
        (2.9, 5.0, behind),
        (3.4, None, behind),
    ):
        span = RecordedSpan(*(s and int(s * SECOND) for s in (since_s, until_s)))
        assert span.within(recorded, stamps) == expected
    steady = RecordedSpan(3 * SECOND, 5 * SECOND).within(recorded, recorded)
    assert steady == slice(4, 12)  # a second of tolerance
