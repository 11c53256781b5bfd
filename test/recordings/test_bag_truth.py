# SPDX-License-Identifier: Apache-2.0
"""Where a bag's true poses and depth come from; what is damaged is in `test_damaged_bags`."""

from __future__ import annotations

import io
import pickle
import struct

import numpy as np
import pytest
from known_bags import HEIGHT, PERIOD_NS, START_NS, WIDTH, T, header, images, raw, write_bag
from PIL import Image
from rosbags.rosbag2 import StoragePlugin

from ttt3r_ros.geometry import inverse, quaternion, transform_from_quaternion
from ttt3r_ros.recordings.datasets import find_recordings
from ttt3r_ros.recordings.recording import Selection
from ttt3r_ros.types import SourceError

COUNT = 5
STAMPS = np.array([START_NS + i * PERIOD_NS for i in range(COUNT)])
RANDOM = np.random.default_rng(3)
POSES = [
    transform_from_quaternion(RANDOM.normal(size=3), RANDOM.normal(size=4)) for _ in range(COUNT)
]
MOUNT = transform_from_quaternion((0.1, -0.2, 1.3), (0.5, -0.5, 0.5, -0.5))  # of the camera
ARM = transform_from_quaternion((0.0, 0.4, 0.1), (0.9, 0.1, 0.0, 0.2))


def fields(T_a_b, vector):
    w, *xyz = quaternion(T_a_b).tolist()
    place = T[f"geometry_msgs/msg/{vector}"](*T_a_b[:3, 3].tolist())
    return place, T["geometry_msgs/msg/Quaternion"](*xyz, w)


def stamped_pose(index, T_world_camera, child):
    pose = T["geometry_msgs/msg/Pose"](*fields(T_world_camera, "Point"))
    return T["geometry_msgs/msg/PoseStamped"](header(int(STAMPS[index]), "world"), pose)


def odometry(index, T_world_child, child):
    pose = T["geometry_msgs/msg/PoseWithCovariance"](
        T["geometry_msgs/msg/Pose"](*fields(T_world_child, "Point")), np.zeros(36)
    )
    zero = T["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
    twist = T["geometry_msgs/msg/TwistWithCovariance"](
        T["geometry_msgs/msg/Twist"](zero, zero), np.zeros(36)
    )
    return T["nav_msgs/msg/Odometry"](header(int(STAMPS[index]), "odom"), child, pose, twist)


def transform(index, T_parent_child, child, parent="world"):
    move = T["geometry_msgs/msg/Transform"](*fields(T_parent_child, "Vector3"))
    return T["geometry_msgs/msg/TransformStamped"](header(int(STAMPS[index]), parent), child, move)


def tf(*stamped):
    return T["tf2_msgs/msg/TFMessage"]([*stamped])


def bag_of(path, make, poses, child, *others):
    truth = [("/truth", make(i, pose, child)) for i, pose in enumerate(poses)]
    return write_bag(path, [*images(), *truth, *others])


def only(path, **options):
    (recording,) = find_recordings(path, **options)
    return recording


def poses_of(recording):
    with recording.truth() as truth:
        places, poses = truth.poses(STAMPS)
    assert places == list(range(COUNT))
    return poses


@pytest.mark.parametrize("make", [stamped_pose, odometry, transform])
@pytest.mark.parametrize("child", ["camera", "/camera", ""])
def test_poses_of_the_camera_are_taken_as_they_are(tmp_path, make, child, caplog):
    recording = only(bag_of(tmp_path / "bag", make, POSES, child))
    np.testing.assert_allclose(poses_of(recording), POSES, atol=1e-9)
    with recording.truth() as truth:
        assert (truth.pose_source, truth.depth_source) == ("/truth", "")
        assert truth.depth(START_NS) is None
    assert caplog.text == ""


def chain(index):
    """base -> arm -> camera."""
    return (
        transform(index, MOUNT @ inverse(ARM), "arm", parent="base"),
        transform(index, ARM, "camera", parent="arm"),
    )


@pytest.mark.parametrize("make", [odometry, transform])
@pytest.mark.parametrize("topic", ["/tf", "/tf_static"])
def test_poses_of_another_frame_are_moved_to_the_camera_by_fixed_transforms(
    tmp_path, make, topic, caplog
):
    others = [(topic, tf(*chain(index))) for index in range(2)]
    base = [T_world_camera @ inverse(MOUNT) for T_world_camera in POSES]
    recording = only(bag_of(tmp_path / "bag", make, base, "base", *others))
    np.testing.assert_allclose(poses_of(recording), POSES, atol=1e-9)
    assert caplog.text == ""


def test_fixed_transforms_are_followed_up_and_down(tmp_path):
    """rig -> base (of which poses are), rig -> camera."""
    T_rig_base = ARM @ inverse(MOUNT)
    static = tf(transform(0, T_rig_base, "base", "rig"), transform(0, ARM, "camera", "rig"))
    base = [T_world_camera @ inverse(MOUNT) for T_world_camera in POSES]
    recording = only(bag_of(tmp_path / "bag", odometry, base, "base", ("/tf_static", static)))
    np.testing.assert_allclose(poses_of(recording), POSES, atol=1e-9)


def test_poses_of_a_frame_that_moves_against_the_camera_are_taken_as_the_cameras(tmp_path, caplog):
    others = [("/tf", tf(transform(i, POSES[i], "camera", parent="base"))) for i in range(2)]
    recording = only(bag_of(tmp_path / "bag", odometry, POSES, "base", *others))
    np.testing.assert_allclose(poses_of(recording), POSES, atol=1e-9)
    (warning,) = (record.message for record in caplog.records)
    assert "join its child frame 'base' with the images' 'camera'" in warning
    assert "its poses are taken as the camera's, in optical axes" in warning


def test_poses_of_several_types_have_to_be_chosen_from(tmp_path):
    bag = bag_of(tmp_path / "bag", odometry, POSES, "camera", ("/p", stamped_pose(0, ARM, "")))
    with pytest.raises(SourceError, match="choose one with --ground-truth-topic: /p, /truth"):
        only(bag).truth()
    np.testing.assert_allclose(poses_of(only(bag, ground_truth_topic="/truth")), POSES, atol=1e-9)


def test_without_truth_the_error_says_what_is_looked_for(tmp_path):
    bag = write_bag(tmp_path / "bag", images())
    with pytest.raises(SourceError, match="nav_msgs/msg/Odometry") as raised:
        only(bag).truth()
    assert str(raised.value).endswith(
        "topics: /camera/image_raw; frames for --ground-truth-frames: none"
    )


MILLIMETRES = (1000 * np.linspace(0.4, 8.0, HEIGHT * WIDTH)).round().reshape(HEIGHT, WIDTH)
MILLIMETRES[0, :3] = 0
METRES = np.where(MILLIMETRES == 0, np.nan, MILLIMETRES / 1000)
A = 100.0 * 101.0
B = 1.0 - A / 10.0


def png(samples):
    file = io.BytesIO()
    Image.fromarray(samples.round().astype(np.uint16)).save(file, "png")
    return file.getvalue()


def packed(data, format):
    data = np.frombuffer(data, np.uint8)
    return T["sensor_msgs/msg/CompressedImage"](header(START_NS), format, data)


def plain(encoding, samples):
    data = np.ascontiguousarray(samples).reshape(-1).view(np.uint8)
    return raw(0, encoding=encoding, step=samples[0].nbytes, data=data)


@pytest.mark.parametrize(
    ("message", "error_m"),
    [
        (plain("16UC1", MILLIMETRES.astype("<u2")), 1e-6),
        (plain("32FC1", METRES.astype("<f4")), 1e-6),
        (packed(png(MILLIMETRES), "16UC1; png compressed "), 1e-6),
        (packed(struct.pack("<iff", 0, 0, 0) + png(MILLIMETRES), "16UC1; compressedDepth"), 1e-6),
        (
            packed(struct.pack("<iff", 0, 0, 0) + png(MILLIMETRES), "16UC1; compressedDepth png"),
            1e-6,
        ),
        (
            packed(
                struct.pack("<iff", 0, A, B) + png(np.nan_to_num(A / METRES + B)),
                "32FC1; compressedDepth png",
            ),
            64 / A,  # half a step of its quantisation at 8 m
        ),
    ],
)
def test_depth_is_read_in_every_encoding(tmp_path, message, error_m):
    bag = write_bag(tmp_path / "bag", [*images("/colour"), ("/depth", message)])
    recording = only(bag)
    with recording.truth() as truth:
        assert (truth.pose_source, truth.depth_source) == ("", "/depth")
        assert truth.poses(STAMPS) == ([], [])
        found = truth.depth(START_NS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, METRES, atol=error_m)
    with recording.images(Selection()) as source:  # the depth is not taken for colour
        assert len(list(source)) == COUNT


def test_truth_is_no_farther_in_time_than_asked_for(tmp_path):
    bag = bag_of(
        tmp_path / "bag",
        stamped_pose,
        POSES,
        "",
        ("/depth", plain("16UC1", MILLIMETRES.astype("<u2"))),
    )
    for limit, off, found in (
        (0.01, 9, True),
        (0.01, 11, False),
        (0.02, 11, True),
        (0.005, 9, False),
    ):
        with only(bag, max_difference_s=limit).truth() as truth:
            stamp = START_NS + off * 1_000_000
            assert (truth.poses(np.array([stamp]))[0] == [0]) == found
            assert (truth.depth(stamp) is not None) == found


def test_bags_below_a_folder_are_recordings_with_names_of_their_own(tmp_path):
    for place in ("runs/a/bag", "runs/b/bag", "c"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        write_bag(tmp_path / place, images(), StoragePlugin.SQLITE3)
    recordings = find_recordings(tmp_path)
    assert [r.name for r in recordings] == ["c", "runs-a-bag", "runs-b-bag"]
    assert [r.name for r in find_recordings(tmp_path / "runs" / "b")] == ["bag"]
    assert [r.path.name for r in find_recordings(tmp_path, sequences=["c"])] == ["c"]
    assert pickle.loads(pickle.dumps(recordings)) == recordings


def test_a_bag_is_not_thinned_by_its_truth(tmp_path):
    bag = bag_of(tmp_path / "bag", stamped_pose, POSES, "")
    with pytest.raises(SourceError, match="with_truth: of data sets in folders only"):
        only(bag).images(Selection(with_truth="poses"))
    with only(bag).images(Selection(start=1, every=2)) as source:
        assert [frame.stamp_ns for frame in source] == [STAMPS[1], STAMPS[3]]


def test_no_depth_is_taken_if_none_is_asked_for(tmp_path):
    depth = [("/depth", plain("16UC1", MILLIMETRES.astype("<u2")))]
    bag = bag_of(tmp_path / "bag", stamped_pose, POSES, "", *depth, *[("/other", depth[0][1])])
    with pytest.raises(SourceError, match="--depth-topic: /depth, /other"):
        only(bag).truth()
    with only(bag, depth_topic="none").truth() as truth:
        assert (truth.pose_source, truth.depth_source) == ("/truth", "")
        assert truth.depth(START_NS) is None


def loose(path, plugin):
    """Write a bag and return its only file, moved to a path."""
    bag = write_bag(path.parent / "whole", images(), plugin)
    (file,) = (file for file in bag.iterdir() if file.name != "metadata.yaml")
    path.parent.mkdir(exist_ok=True)
    file.rename(path)
    (bag / "metadata.yaml").unlink()
    bag.rmdir()
    return path


def test_bag_files_that_differ_by_their_suffix_alone_are_named_with_it(tmp_path):
    paths = [
        loose(tmp_path / "run.db3", StoragePlugin.SQLITE3),
        loose(tmp_path / "run.mcap", StoragePlugin.MCAP),
    ]
    assert [(r.name, r.path) for r in find_recordings(tmp_path)] == [
        ("run.db3", paths[0]),
        ("run.mcap", paths[1]),
    ]
    assert only(paths[1]).name == "run"


def test_a_stray_bag_file_hides_no_bags_below_it(tmp_path):
    stray = loose(tmp_path / "stray.mcap", StoragePlugin.MCAP)
    for place in ("a", "runs/b"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        write_bag(tmp_path / place, images())
    recordings = find_recordings(tmp_path)
    assert {r.name: r.path for r in recordings} == {
        "a": tmp_path / "a",
        "b": tmp_path / "runs" / "b",
        "stray": stray,
    }
