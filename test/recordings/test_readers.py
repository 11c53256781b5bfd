# SPDX-License-Identifier: Apache-2.0
"""Bags and folders whose images, stamps and intrinsics are known."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from known_bags import (
    HEIGHT,
    PERIOD_NS,
    START_NS,
    TYPES,
    WIDTH,
    camera_info,
    compressed,
    images,
    picture,
    raw,
    write_bag,
)
from PIL import Image
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2.enums import CompressionMode

from ttt3r_ros.camera.camera_info import CameraModel
from ttt3r_ros.geometry import Intrinsics
from ttt3r_ros.recordings.datasets import find_recordings
from ttt3r_ros.recordings.readers import open_source
from ttt3r_ros.recordings.recording import Selection
from ttt3r_ros.types import SourceError


def frames(path, **options):
    with open_source(path, **options) as source:
        return list(source)


@pytest.mark.parametrize("version", [8, 9])
@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("make", [raw, compressed])
def test_a_bag_gives_its_images_with_the_stamps_of_their_headers(tmp_path, make, plugin, version):
    bag = write_bag(tmp_path / "bag", images(make=make), plugin, version)

    with open_source(bag) as source:
        assert len(source) == 5
        read = list(source)

    assert [frame.stamp_ns for frame in read] == [START_NS + i * PERIOD_NS for i in range(5)]
    assert all(np.array_equal(frame.rgb, picture(i)) for i, frame in enumerate(read))
    assert {frame.frame_id for frame in read} == {"camera"}
    assert {frame.intrinsics for frame in read} == {None}
    assert source.rejected == []


@pytest.mark.parametrize(
    ("plugin", "suffix"), [(StoragePlugin.MCAP, "mcap"), (StoragePlugin.SQLITE3, "db3")]
)
def test_the_file_of_a_bag_alone_is_enough(tmp_path, plugin, suffix):
    write_bag(tmp_path / "bag", images(), plugin)
    assert len(frames(tmp_path / "bag" / f"bag.{suffix}")) == 5


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_a_bag_compressed_as_a_whole_is_read(tmp_path, mode):
    bag = write_bag(tmp_path / "bag", images(), StoragePlugin.SQLITE3, 8, mode)
    assert np.array_equal(frames(bag)[4].rgb, picture(4))


def test_a_jpeg_topic_is_read(tmp_path):
    bag = write_bag(tmp_path / "bag", [("/c/image_raw/compressed", compressed(0, "jpeg"))])
    (frame,) = frames(bag)
    assert np.abs(frame.rgb.astype(int) - picture(0)).max() < 40


def test_the_time_of_recording_stands_in_for_a_stamp_of_zero(tmp_path):
    bag = write_bag(tmp_path / "bag", [("/image", raw(0, stamp_ns=0))])
    assert frames(bag)[0].stamp_ns == START_NS + 1_000_000


def test_every_and_max_frames_choose_before_anything_is_decoded(tmp_path):
    broken = [("/image", raw(1, data=np.zeros(3, np.uint8)))]
    chosen = [("/image", raw(0)), *broken, ("/image", raw(2)), *broken, ("/image", raw(4))]
    bag = write_bag(tmp_path / "bag", chosen)

    with open_source(bag, every=2, max_frames=2) as source:
        read = list(source)
        assert len(source) == 2

    assert [frame.rgb[0, 0, 0] for frame in read] == [0, 2]
    assert source.rejected == []
    assert len(frames(bag, every=2)) == 3
    assert len(frames(bag, max_frames=1)) == 1


def test_images_at_the_beginning_are_left_out_before_every_and_max_frames(tmp_path):
    bag = write_bag(tmp_path / "bag", images(count=8))
    assert [frame.rgb[0, 0, 0] for frame in frames(bag, start=3)] == [3, 4, 5, 6, 7]
    assert [frame.rgb[0, 0, 0] for frame in frames(bag, start=1, every=3)] == [1, 4, 7]
    chosen = frames(bag, start=2, every=2, max_frames=2)
    assert [frame.rgb[0, 0, 0] for frame in chosen] == [2, 4]
    save(tmp_path, ["a.png", "b.png", "c.png"])
    assert reds(frames(tmp_path, start=1)) == [10, 20]


def test_the_same_bag_gives_the_same_frames_in_every_storage_and_encoding(tmp_path):
    read = []
    for make in (raw, compressed):
        for plugin in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
            suffix = "/compressed" if make is compressed else ""
            path = tmp_path / f"{make.__name__}_{plugin.name}"
            stream = [
                *images(f"/c/image_raw{suffix}", make=make),
                ("/c/camera_info", camera_info()),
            ]
            write_bag(path, stream, plugin)
            (recording,) = find_recordings(path)
            assert (recording.name, recording.format) == (path.name, "rosbag2")
            with recording.images(Selection()) as source:
                read.append(list(source))
    first, *others = read
    assert len(first) == 5 and first[0].intrinsics.fx == 20.0
    for other in others:
        for frame, twin in zip(first, other, strict=True):
            assert np.array_equal(frame.rgb, twin.rgb)
            assert (frame.stamp_ns, frame.intrinsics, frame.frame_id) == (
                twin.stamp_ns,
                twin.intrinsics,
                twin.frame_id,
            )


def test_what_cannot_be_decoded_is_left_out_and_reported(tmp_path):
    kind = "sensor_msgs/msg/Image"
    cut = TYPES.serialize_cdr(raw(3), kind)[:70]
    stream = [raw(0), raw(1, encoding="what"), raw(2, step=5), (kind, bytes(cut)), raw(4)]
    bag = write_bag(tmp_path / "bag", [("/image", message) for message in stream])

    with open_source(bag) as source:
        for _ in range(2):  # an iteration starts its own list
            read = list(source)
            reasons = [rejection.reason for rejection in source.rejected]

    assert [frame.stamp_ns for frame in read] == [START_NS, START_NS + 4 * PERIOD_NS]
    assert [r.stamp_ns - START_NS for r in source.rejected[:2]] == [PERIOD_NS, 2 * PERIOD_NS]
    assert source.rejected[2].stamp_ns == START_NS + 3 * PERIOD_NS + 1_000_000
    assert [reason.split(":")[0] for reason in reasons] == ["encoding", "step", "message"]


@pytest.mark.parametrize("suffix", ["", "/compressed"])
def test_intrinsics_come_from_the_camera_info_beside_the_image(tmp_path, suffix):
    make = compressed if suffix else raw
    others = [("/other/camera_info", camera_info(fx=99.0)), ("/left/info", camera_info(fx=98.0))]
    bag = write_bag(
        tmp_path / "bag",
        [
            *others,
            *images(f"/left/image_raw{suffix}", 2, make),
            ("/left/camera_info", camera_info()),
        ],
    )
    expected = Intrinsics(20.0, 21.0, 8.0, 6.0, WIDTH, HEIGHT)
    assert [frame.intrinsics for frame in frames(bag)] == [expected] * 2


def test_rectified_images_have_the_projection_matrix(tmp_path, caplog):
    info = ("/camera_info", camera_info(distortion=(0.1, 0, 0, 0, 0)))
    bag = write_bag(tmp_path / "bag", [info, ("/image_rect_color", raw(0))])
    assert frames(bag)[0].intrinsics == Intrinsics(30.0, 31.0, 7.0, 5.0, WIDTH, HEIGHT)
    assert caplog.text == ""


def test_distorted_images_are_rectified_as_the_node_does(tmp_path):
    info = camera_info(distortion=(0.2, 0, 0, 0, 0))
    bag = write_bag(tmp_path / "bag", [("/camera_info", info), ("/image_raw", raw(0))])
    (frame,) = frames(bag)
    assert frame.intrinsics == Intrinsics(30.0, 31.0, 7.0, 5.0, WIDTH, HEIGHT)
    camera = CameraModel("/image_raw")
    camera.update(info)
    expected = camera.apply(picture(0))
    assert np.array_equal(frame.rgb, expected.rgb) and not np.array_equal(frame.rgb, picture(0))
    np.testing.assert_array_equal(frame.outside_fov, expected.outside_fov)


def test_another_camera_info_can_be_named(tmp_path):
    bag = write_bag(tmp_path / "bag", [("/a/image", raw(0)), ("/b/info", camera_info())])
    assert frames(bag)[0].intrinsics is None
    assert frames(bag, camera_info_topic="/b/info")[0].intrinsics.fx == 20.0


@pytest.mark.parametrize(
    ("info", "warning"),
    [
        (camera_info(distortion=(0.1, 0.0)), "camera_info: images are used with their distortion"),
        (
            camera_info(distortion=(0.1,) * 4, model="omnidirectional"),
            "camera_info: images are used with their distortion: distortion_model: 'omnidire",
        ),
        (camera_info(width=99), "camera_info: not used: is for 99x12, the images have 16x12"),
        (camera_info(fx=0.0), "camera_info: not used: K: fx and fy must be positive"),
    ],
)
def test_what_is_wrong_with_a_camera_info_is_said_once(tmp_path, caplog, info, warning):
    bag = write_bag(tmp_path / "bag", [("/c/camera_info", info), *images("/c/image", 3)])
    with caplog.at_level(logging.WARNING):
        read = frames(bag)
    assert len(read) == 3
    assert [record.message.startswith(warning) for record in caplog.records] == [True]
    assert (read[2].intrinsics is None) == ("not used" in warning)


def error(path, **options):
    with pytest.raises(SourceError) as raised:
        frames(path, **options)
    return str(raised.value)


def test_several_image_topics_have_to_be_chosen_from(tmp_path):
    bag = write_bag(tmp_path / "bag", [*images("/a", 2), *images("/b/compressed", 3, compressed)])
    message = error(bag)
    assert "choose one with --topic" in message
    assert "/a (sensor_msgs/msg/Image, 2 messages)" in message
    assert "/b/compressed (sensor_msgs/msg/CompressedImage, 3 messages)" in message
    assert len(frames(bag, topic="/b/compressed")) == 3


def test_depth_beside_the_colour_images_makes_no_choice_necessary(tmp_path):
    depth = raw(0, encoding="16UC1", height=2, width=3, step=6, data=np.zeros(12, np.uint8))
    bag = write_bag(tmp_path / "bag", [("/depth", depth), *images("/colour", 2)])
    assert len(frames(bag)) == 2


def test_several_camera_infos_beside_the_image_have_to_be_chosen_from(tmp_path):
    infos = [("/c/info_a", camera_info()), ("/c/info_b", camera_info(fx=30.0))]
    bag = write_bag(tmp_path / "bag", [*infos, ("/c/image", raw(0))])
    message = error(bag)
    assert "choose one with --camera-info-topic:\n  /c/info_a" in message
    assert frames(bag, camera_info_topic="/c/info_b")[0].intrinsics.fx == 30.0


def test_an_unknown_topic_is_answered_with_those_there(tmp_path):
    bag = write_bag(tmp_path / "bag", [("/c/image", raw(0)), ("/c/camera_info", camera_info())])
    assert "no images on /d; topics with images:\n  /c/image (" in error(bag, topic="/d")
    assert "no images on /c/camera_info" in error(bag, topic="/c/camera_info")
    message = error(bag, camera_info_topic="/c/image")
    assert "no sensor_msgs/msg/CameraInfo on /c/image; there are:\n  /c/camera_info" in message


def test_a_bag_without_images_is_an_error_that_lists_its_topics(tmp_path):
    bag = write_bag(tmp_path / "bag", [("/c/camera_info", camera_info())])
    assert "topics in the bag: /c/camera_info" in error(bag)


def test_no_recording_is_an_error_that_names_the_path(tmp_path):
    assert error(tmp_path / "none") == f"{tmp_path / 'none'}: does not exist"
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0")
    assert "rosbags-convert" in error(tmp_path / "old.bag")
    assert "no images (.jpg" in error(tmp_path)


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_damaged_bag_is_an_error_that_names_the_path(tmp_path, plugin):
    bag = write_bag(tmp_path / "bag", images(count=200), plugin)
    (file,) = [file for file in bag.iterdir() if file.name != "metadata.yaml"]
    whole = file.read_bytes()
    for damaged in (b"", whole[:50], whole[: len(whole) // 2], b"\0" * 500 + whole[500:]):
        file.write_bytes(damaged)
        assert str(file) in error(file)
        assert str(bag) in error(bag)
    (bag / "metadata.yaml").write_text("nothing: true")
    assert str(bag) in error(bag)


def test_images_missing_from_a_bag_are_said(tmp_path, caplog):
    bag = write_bag(tmp_path / "bag", images())
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("message_count: 5", "message_count: 7"))
    assert len(frames(bag)) == 5
    assert "2 of 7 images of /camera/image_raw are missing" in caplog.text


def save(folder, names, size=(WIDTH, HEIGHT)):
    for index, name in enumerate(names):
        Image.new("RGB", size, (10 * index, 0, 0)).save(folder / name)


def reds(read):
    return [int(frame.rgb[0, 0, 0]) for frame in read]


def test_a_folder_is_read_in_natural_order_at_the_given_rate(tmp_path):
    save(tmp_path, ["image10.png", "image2.png", "Image1.png"])
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._image3.png").write_text("not an image")
    (tmp_path / "depth").mkdir()

    with open_source(tmp_path, rate_hz=3.0) as source:
        assert len(source) == 3
        read = list(source)

    assert reds(read) == [20, 10, 0]
    assert [frame.stamp_ns for frame in read] == [0, 333_333_333, 666_666_667]
    assert [frame.stamp_ns for frame in frames(tmp_path, every=2)] == [0, 66_666_667]


def test_names_that_are_seconds_are_the_stamps(tmp_path):
    save(tmp_path, ["1305031102.5.png", "1305031102.175304.png", "1305031102.25.png"])
    read = frames(tmp_path)
    assert reds(read) == [10, 20, 0]
    assert [frame.stamp_ns - 1305031102 * 10**9 for frame in read] == [
        175_304_000,
        250_000_000,
        500_000_000,
    ]


def test_one_other_name_makes_all_stamps_counted(tmp_path):
    save(tmp_path, ["1305031102.5.png", "a.png"])
    assert [frame.stamp_ns for frame in frames(tmp_path)] == [0, 33_333_333]


def test_an_image_file_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(picture(0)).save(tmp_path / "a.png", exif=exif)
    (frame,) = frames(tmp_path)
    assert np.array_equal(frame.rgb, np.rot90(picture(0), -1))


def test_gray_of_sixteen_bits_is_scaled_as_mono16(tmp_path):
    gray = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    Image.fromarray(gray).save(tmp_path / "a.png")
    (frame,) = frames(tmp_path)
    expected = (gray.astype(int) + 128) // 257
    assert np.array_equal(frame.rgb, np.repeat(expected[..., None], 3, -1))


def test_a_damaged_image_file_is_left_out_and_reported(tmp_path):
    save(tmp_path, ["a.png", "b.png", "c.jpg", "d.png"], (200, 200))
    (tmp_path / "b.png").write_bytes(b"no image")
    whole = (tmp_path / "c.jpg").read_bytes()
    (tmp_path / "c.jpg").write_bytes(whole[: len(whole) // 2])

    with open_source(tmp_path) as source:
        assert reds(source) == [0, 30]

    assert [r.stamp_ns for r in source.rejected] == [33_333_333, 66_666_667]
    assert source.rejected[0].reason.startswith("b.png: not a whole image")
    assert source.rejected[1].reason.startswith("c.jpg: not a whole image")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"every": 0}, "every: must be at least 1, got 0"),
        ({"max_frames": 0}, "max_frames: must be at least 1, got 0"),
        ({"start": 1}, "start: must be 0 to 0 of 1 images, got 1"),
        ({"start": -1}, "start: must be 0 to 0 of 1 images, got -1"),
        ({"rate_hz": 0.0}, "rate_hz: must be positive and finite, got 0"),
        ({"topic": "/image"}, "no bag (metadata.yaml is missing), so it has no topics"),
    ],
)
def test_an_argument_out_of_bounds_is_named(tmp_path, options, named):
    save(tmp_path, ["a.png"])
    assert named in error(tmp_path, **options)
