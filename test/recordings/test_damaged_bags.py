# SPDX-License-Identifier: Apache-2.0
"""Bags that were cut off or do not fit: the good part stays, and what is bad is said once."""

from __future__ import annotations

import shutil
import struct

import numpy as np
import pytest
from known_bags import (
    HEIGHT,
    PERIOD_NS,
    START_NS,
    TYPES,
    WIDTH,
    T,
    camera_info,
    header,
    images,
    raw,
    write_bag,
)
from rosbags.rosbag2 import StoragePlugin

from ttt3r_ros.cli import main
from ttt3r_ros.io.trajectory import read_tum
from ttt3r_ros.recordings.datasets import find_recordings
from ttt3r_ros.recordings.recording import Selection
from ttt3r_ros.recordings.simulated_bag import TRUE_FRAME, write_simulated_bag
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions
from ttt3r_ros.types import SourceError

COUNT = 5
STAMPS = np.array([START_NS + i * PERIOD_NS for i in range(COUNT)])
IDENTITY = (0.0, 0.0, 0.0, 1.0)


def pose(index, position=None, xyzw=IDENTITY, stamp_ns=None):
    place = T["geometry_msgs/msg/Point"](*(position or (float(index), 0.0, 0.0)))
    turn = T["geometry_msgs/msg/Quaternion"](*xyzw)
    return T["geometry_msgs/msg/PoseStamped"](
        header(STAMPS[index].item() if stamp_ns is None else stamp_ns, "world"),
        T["geometry_msgs/msg/Pose"](place, turn),
    )


def depth(index, **fields):
    metres = np.full((HEIGHT, WIDTH), 1.0 + index, np.float32)
    data = metres.reshape(-1).view(np.uint8)
    return raw(index, **{"encoding": "32FC1", "step": 4 * WIDTH, "data": data, **fields})


def damaged(message):
    """Return a message that ends too early."""
    kind = message.__msgtype__
    return kind, bytes(TYPES.serialize_cdr(message, kind))[:40]


def topic(name, make, count=COUNT):
    return [(name, make(index)) for index in range(count)]


def only(path, **options):
    (recording,) = find_recordings(path, **options)
    return recording


def read_until_error(path):
    """Return the frames before the error, and what it says."""
    frames = []
    with (
        only(path).images(Selection()) as source,
        pytest.raises(SourceError) as raised,
    ):
        for frame in source:
            frames.append(frame)
    return frames, str(raised.value)


def the_file(bag):
    (file,) = (file for file in bag.iterdir() if file.name != "metadata.yaml")
    return file


def cut(file, share):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])


def large(index):
    """An image of 0.3 MB, so that a chunk of the file holds three or four."""
    pixels = np.random.default_rng(index).integers(0, 256, (300, 350, 3), np.uint8)
    return raw(index, height=300, width=350, step=1050, data=pixels.reshape(-1))


@pytest.mark.parametrize("has_metadata", [True, False])
def test_the_whole_records_of_an_mcap_that_was_cut_off_are_read(tmp_path, has_metadata, caplog):
    stream = [entry for i in range(20) for entry in (("/pose", pose(i % COUNT)), ("/i", large(i)))]
    bag = write_bag(tmp_path / "bag", stream)
    cut(the_file(bag), 0.6)
    if not has_metadata:
        (bag / "metadata.yaml").unlink()

    frames, message = read_until_error(bag)

    assert [frame.stamp_ns for frame in frames] == [
        START_NS + i * PERIOD_NS for i in range(len(frames))
    ]
    assert len(frames) == 12  # three of five chunks of four
    assert f"{the_file(bag)}: cut off after byte " in message and "mcap recover" in message
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == (0 if has_metadata else 1)
    with only(bag).truth() as truth:
        assert truth.poses(STAMPS)[0] == [0, 1, 2, 3, 4]
    assert "/pose: what was read until there is used" in caplog.text


def test_a_cut_file_that_is_not_read_to_its_end_is_no_error(tmp_path):
    bag = write_bag(tmp_path / "bag", topic("/i", large, 20))
    cut(the_file(bag), 0.6)
    with only(bag).images(Selection(max_frames=3)) as source:
        assert len(list(source)) == 3


def test_an_mcap_without_one_whole_record_is_an_error(tmp_path):
    bag = write_bag(tmp_path / "bag", images())
    for end in (0, 8, 20):
        the_file(bag).write_bytes(the_file(bag).read_bytes()[:end])
        with pytest.raises(SourceError, match="not a whole rosbag2"):
            only(bag).images(Selection())


def test_what_comes_before_a_damage_is_read(tmp_path):
    bag = write_bag(tmp_path / "bag", topic("/i", large, 20))
    file = the_file(bag)
    whole = bytearray(file.read_bytes())
    begin = int(0.6 * len(whole))
    whole[begin : begin + 400_000] = b"\xff" * 400_000
    file.write_bytes(whole)
    frames, message = read_until_error(bag)
    assert str(bag) in message and "damaged after the messages read so far" in message
    assert 4 <= len(frames) < 16
    assert all(np.array_equal(f.rgb.reshape(-1), large(i).data) for i, f in enumerate(frames[:5]))


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "room"
    scene = Scene(SceneOptions(seed=2, width=160, height=120))
    write_simulated_bag(path, scene, range(40), 10.0)
    return path


def test_a_run_keeps_what_it_made_of_the_images_before_the_damage(room, tmp_path, capsys):
    bag = tmp_path / "cut"
    shutil.copytree(room, bag)
    cut(the_file(bag), 0.5)
    out = tmp_path / "out"
    assert main(["run", str(bag), "--topic", "/image", "--output", str(out)]) == 2
    assert "cut off after byte" in capsys.readouterr().err.splitlines()[-1]
    stamps, _ = read_tum(out / "trajectory.tum")
    assert 10 < len(stamps) < 30
    assert (out / "map.ply").stat().st_size > 1000


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_bag_without_metadata_is_read_with_one_warning(tmp_path, plugin, caplog):
    bag = write_bag(tmp_path / "bag", [*images(), *topic("/pose", pose)], plugin)
    (bag / "metadata.yaml").unlink()
    recording = only(bag)
    assert recording.name == "bag"
    with recording.images(Selection()) as source:
        assert len(list(source)) == COUNT
    (warning,) = (record.message for record in caplog.records)
    assert f"{bag}: a bag without its metadata.yaml; {the_file(bag).name} is read" in warning


def test_parts_without_metadata_are_recordings_of_their_own(tmp_path):
    for number in (0, 1):
        bag = write_bag(tmp_path / f"part_{number}", images())
        shutil.move(the_file(bag), tmp_path / f"part_{number}.mcap")
        shutil.rmtree(bag)
    assert [recording.name for recording in find_recordings(tmp_path)] == ["part_0", "part_1"]
    assert main(["run", str(tmp_path), "--output", str(tmp_path / "out")]) == 2


def test_a_file_of_a_bag_that_is_missing_is_named(tmp_path):
    bag = write_bag(tmp_path / "bag", images())
    the_file(bag).unlink()
    with pytest.raises(SourceError, match=r"not a whole rosbag2: .*bag\.mcap"):
        only(bag).images(Selection())


def test_a_bag_whose_images_are_all_gone_is_an_error(tmp_path):
    bag = write_bag(tmp_path / "bag", [("/c/camera_info", camera_info()), ("/pose", pose(0))])
    with pytest.raises(SourceError, match="no topic of type sensor_msgs/msg/Image or"):
        only(bag).images(Selection())


def test_topics_of_other_types_are_answered_with_those_that_fit(tmp_path):
    bag = write_bag(
        tmp_path / "bag", [*images("/c/image"), *topic("/pose", pose), *topic("/depth", depth)]
    )
    for options, message in (
        ({"topic": "/pose"}, "no images on /pose; topics with images:\n  /c/image ("),
        ({"ground_truth_topic": "/depth"}, "5 messages of type sensor_msgs/msg/Image without"),
        ({"depth_topic": "/pose"}, "5 messages of type geometry_msgs/msg/PoseStamped; topics to"),
    ):
        recording = only(bag, **options)
        with pytest.raises(SourceError) as raised:
            (recording.images(Selection()) if "topic" in options else recording.truth()).close()
        assert message in str(raised.value)


def test_poses_that_are_none_are_left_out_with_one_warning(tmp_path, caplog):
    bad = [
        pose(1, (np.nan, 0.0, 0.0)),
        pose(2, xyzw=(0.0, 0.0, 0.0, 0.0)),
        pose(3, (np.inf, 0.0, 0.0)),
    ]
    stream = [pose(0), *bad, pose(4)]
    bag = write_bag(tmp_path / "bag", [*images(), *(("/pose", message) for message in stream)])
    with only(bag).truth() as truth:
        assert truth.poses(STAMPS)[0] == [0, 4]
    (warning,) = (record.message for record in caplog.records)
    assert warning == "/pose: 3 of 5 poses are missing, not finite or no rotation; left out"


def test_a_damaged_pose_message_is_left_out_with_one_warning(tmp_path, caplog):
    stream = [pose(0), damaged(pose(1)), damaged(pose(2)), pose(3), pose(4)]
    bag = write_bag(tmp_path / "bag", [*images(), *(("/pose", message) for message in stream)])
    with only(bag).truth() as truth:
        assert truth.poses(STAMPS)[0] == [0, 3, 4]
    (warning,) = (record.message for record in caplog.records)
    assert "/pose: message of 1700000000034333333 ns is damaged, perhaps others" in warning


def test_poses_may_come_in_any_order(tmp_path):
    order = (3, 0, 4, 2, 1)
    bag = write_bag(tmp_path / "bag", [*images(), *(("/pose", pose(i)) for i in order)])
    with only(bag).truth() as truth:
        places, poses = truth.poses(STAMPS)
    assert places == [0, 1, 2, 3, 4]
    assert [T_world_camera[0, 3] for T_world_camera in poses] == [0, 1, 2, 3, 4]


def test_images_out_of_order_are_rejected_one_by_one(tmp_path, room, capsys):
    stream = [
        raw(i, height=120, width=160, step=480, data=np.zeros(57600, np.uint8))
        for i in (0, 2, 1, 3)
    ]
    bag = write_bag(tmp_path / "bag", [("/image", message) for message in stream])
    assert main(["run", str(bag), "--output", str(tmp_path / "out")]) == 0
    assert "3 images processed" in (out := capsys.readouterr()).out and "1 rejected" in out.out


def test_damaged_depth_leaves_its_image_without_truth_with_one_warning(tmp_path, caplog):
    stream = [
        depth(0),
        depth(1, step=3),
        depth(2, encoding="what"),
        depth(3, data=np.zeros(2, np.uint8)),
        depth(4),
    ]
    bag = write_bag(tmp_path / "bag", [*images("/i"), *(("/depth", message) for message in stream)])
    with only(bag).truth() as truth:
        found = [truth.depth(stamp) is not None for stamp in STAMPS.tolist()]
    assert found == [True, False, False, False, True]
    (warning,) = (record.message for record in caplog.records)
    assert f"/depth: image at {STAMPS[1]} ns has no true depth, perhaps others: step: " in warning


def test_a_bag_and_truth_of_other_times_are_named_with_both_ranges(tmp_path, caplog):
    late = 100 * 10**9
    stream = [
        *images("/i"),
        *(("/pose", pose(i, stamp_ns=START_NS + late + i * PERIOD_NS)) for i in range(COUNT)),
        *(("/depth", depth(i, header=header(START_NS + late))) for i in range(COUNT)),
    ]
    bag = write_bag(tmp_path / "bag", stream)
    with only(bag).truth() as truth:
        assert truth.poses(STAMPS) == ([], [])
        assert [truth.depth(stamp) for stamp in STAMPS.tolist()] == [None] * COUNT
    warnings = [record.message for record in caplog.records]
    ours = "they are from 1700000000.000 s to 1700000000.133 s"
    assert [warning.partition(":")[0] for warning in warnings] == ["/pose", "/depth"]
    assert all(ours in warning and "it is from 1700000100.000 s" in warning for warning in warnings)


def test_transforms_of_other_times_are_named_with_both_ranges(room, caplog):
    with only(room, ground_truth_frames=("world", TRUE_FRAME), topic="/image").truth() as truth:
        assert truth.poses(STAMPS + 10**12) == ([], [])
    (warning,) = (record.message for record in caplog.records)
    assert (
        "/tf, ground_truth_camera in world: nothing at the times of the images: it is from 17000000"
        in warning
    )


def test_a_transform_that_is_not_finite_is_left_out_with_one_warning(tmp_path, caplog):
    def transform(index, x):
        move = T["geometry_msgs/msg/Transform"](
            T["geometry_msgs/msg/Vector3"](x, 0.0, 0.0),
            T["geometry_msgs/msg/Quaternion"](*IDENTITY),
        )
        stamped = T["geometry_msgs/msg/TransformStamped"](
            header(int(STAMPS[index]), "world"), TRUE_FRAME, move
        )
        return T["tf2_msgs/msg/TFMessage"]([stamped])

    stream = [transform(i, np.nan if i in (1, 2) else float(i)) for i in range(COUNT)]
    bag = write_bag(tmp_path / "bag", [*images(), *(("/tf", message) for message in stream)])
    with only(bag, ground_truth_frames=("world", TRUE_FRAME)).truth() as truth:
        places, poses = truth.poses(STAMPS)
    assert places == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([pose[0, 3] for pose in poses], [0, 1, 2, 3, 4], atol=1e-6)
    (warning,) = (record.message for record in caplog.records)
    assert "2 transforms are not finite, left out" in warning


def test_a_chunk_of_zeros_at_the_end_is_cut_off(tmp_path):
    """As file systems leave it when the power goes."""
    bag = write_bag(tmp_path / "bag", topic("/i", large, 20))
    file = the_file(bag)
    cut(file, 0.6)
    with file.open("ab") as stream:
        stream.write(bytes(100_000))
    frames, message = read_until_error(bag)
    assert len(frames) == 12 and "cut off after byte" in message


def test_the_header_of_a_record_alone_is_cut_off(tmp_path):
    bag = write_bag(tmp_path / "bag", topic("/i", large, 8))
    file = the_file(bag)
    whole = file.read_bytes()
    footer = whole.rindex(struct.pack("<BQ", 2, 20))
    file.write_bytes(whole[: footer + 4])
    frames, message = read_until_error(bag)
    assert len(frames) == 8 and "cut off after byte" in message
    assert np.array_equal(frames[0].rgb.reshape(-1), large(0).data)
