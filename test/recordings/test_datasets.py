# SPDX-License-Identifier: Apache-2.0
"""Data sets in folders: miniatures are read as they were written."""

from __future__ import annotations

import logging
import os
import pickle
import re

import numpy as np
import pytest
from dataset_writers import (
    COUNT,
    HEIGHT,
    WIDTH,
    K,
    content,
    text,
    write_7scenes,
    write_kitti_depth,
    write_kitti_odometry,
    write_scannet,
    write_sintel,
    write_tum,
)

from ttt3r_ros.geometry import Intrinsics, inverse
from ttt3r_ros.recordings.datasets import (
    FORMATS,
    bonn,
    find_recordings,
    kitti,
    scannet,
    seven_scenes,
    sintel,
    tum,
)
from ttt3r_ros.recordings.recording import Selection
from ttt3r_ros.types import SourceError

LENS = Intrinsics(70.0, 71.0, 31.0, 23.5, WIDTH, HEIGHT)


def only(path, **options):
    (recording,) = find_recordings(path, **options)
    return recording


def frames(recording, **selection):
    with recording.images(Selection(**selection)) as source:
        return list(source)


def check(recording, written, format, name, *, has_poses=True, has_depth=True, lost=()):
    """Compare everything that is read with what was written."""
    assert (recording.format, recording.name) == (format, name)
    assert pickle.loads(pickle.dumps(recording)) == recording
    read = frames(recording)
    assert [frame.stamp_ns for frame in read] == written.stamps_ns
    stamps = np.array(written.stamps_ns, np.int64)
    with recording.truth() as truth:
        assert (bool(truth.pose_source), bool(truth.depth_source)) == (has_poses, has_depth)
        places, poses = truth.poses(stamps)
        depth = [truth.depth(stamp_ns) for stamp_ns in written.stamps_ns]
    there = [i for i in range(len(stamps)) if i not in lost] if has_poses else []
    assert places == there
    if has_poses:
        np.testing.assert_allclose(poses, written.poses[there], atol=1e-9)
    if has_depth:
        for found, expected in zip(depth, written.depth_m, strict=True):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    else:
        assert depth == [None] * len(stamps)
    return read


def pictures(read):
    return np.array([frame.rgb for frame in read])


def test_tum_is_read_as_written_and_its_stamps_are_associated(tmp_path, caplog):
    written = write_tum(tmp_path / "rgbd_dataset_freiburg1_xyz")
    read = check(only(written.path), written, "tum", "rgbd_dataset_freiburg1_xyz")
    np.testing.assert_array_equal(pictures(read), written.pictures)
    assert "intrinsics not used: they are for 640x480, the image has 64x48" in caplog.text
    assert len(caplog.records) == 1
    assert only(tmp_path).name == "rgbd_dataset_freiburg1_xyz"


def test_depth_and_poses_of_tum_are_no_farther_from_the_image_than_asked_for(tmp_path, caplog):
    written = write_tum(tmp_path / "a")
    near = only(tmp_path, max_difference_s=0.004).truth()
    assert near.depth(written.stamps_ns[0]) is None
    assert near.depth(written.stamps_ns[0] + 5_000_000) is not None
    assert near.poses(np.array(written.stamps_ns) - 4_000_000)[0] == []
    assert "nothing at the times of the images: it is from 1305031101.990 s" in caplog.text
    far = only(tmp_path, max_difference_s=0.02).truth()
    assert far.poses(np.array(written.stamps_ns) - 14_000_000)[0] == list(range(COUNT))


def test_7scenes_is_read_as_written(tmp_path):
    written = write_7scenes(tmp_path / "fire" / "seq-01")
    read = check(only(written.path), written, "7scenes", "fire-seq-01")
    np.testing.assert_array_equal(pictures(read), written.pictures)


def test_7scenes_takes_the_sequences_to_evaluate_on_unless_others_are_named(tmp_path):
    for scene, split in (("chess", (2, 3)), ("fire", (1,))):
        for number in (1, 2, 3):
            write_7scenes(tmp_path / scene / f"seq-{number:02d}", seed=number)
        text(tmp_path / scene / "TestSplit.txt", [f"sequence{number}" for number in split])
    names = [recording.name for recording in find_recordings(tmp_path)]
    assert names == ["chess-seq-02", "chess-seq-03", "fire-seq-01"]
    assert [r.name for r in find_recordings(tmp_path / "chess")] == names[:2]
    assert only(tmp_path / "chess" / "seq-01").name == "chess-seq-01"
    assert only(tmp_path / "chess", sequences=["seq-01"]).path.name == "seq-01"
    assert only(tmp_path, sequences=["fire-seq-03"]).path == tmp_path / "fire" / "seq-03"


def test_kitti_odometry_is_read_as_written_with_the_poses_of_the_colour_camera(tmp_path):
    written = write_kitti_odometry(tmp_path / "dataset")
    recording = only(tmp_path)
    read = check(recording, written, "kitti", "00", has_depth=False)
    np.testing.assert_array_equal(pictures(read), written.pictures)
    assert {frame.intrinsics for frame in read} == {LENS}


def test_kitti_sequences_without_poses_are_taken_only_if_named(tmp_path):
    write_kitti_odometry(tmp_path, "03")
    write_kitti_odometry(tmp_path, "11")
    (tmp_path / "poses" / "11.txt").unlink()
    assert only(tmp_path).name == "03"
    unknown = only(tmp_path, sequences=["11"])
    assert len(frames(unknown)) == COUNT
    with pytest.raises(SourceError, match="neither true poses nor true depth"):
        unknown.truth()


def test_poses_of_kitti_belong_to_the_numbers_of_images(tmp_path):
    written = write_kitti_odometry(tmp_path)
    (written.path / "image_2" / "000001.png").unlink()
    stamps = np.array([frame.stamp_ns for frame in frames(only(tmp_path))])
    assert stamps.tolist() == [written.stamps_ns[i] for i in (0, 2, 3, 4)]
    with only(tmp_path).truth() as truth:
        np.testing.assert_allclose(truth.poses(stamps)[1], written.poses[[0, 2, 3, 4]], atol=1e-9)


@pytest.mark.parametrize("raw", [".", "raw"])
def test_kitti_depth_finds_its_raw_images(tmp_path, raw):
    written = write_kitti_depth(tmp_path, raw=raw)
    for recording in (only(tmp_path), only(tmp_path / "val"), only(written.path)):
        read = frames(recording)
        assert [frame.stamp_ns for frame in read] == written.stamps_ns
        np.testing.assert_array_equal(pictures(read), written.pictures)
        assert read[0].intrinsics == LENS
        with recording.truth() as truth:
            assert truth.pose_source == ""
            assert truth.depth(written.stamps_ns[0]) is None
            np.testing.assert_allclose(truth.depth(written.stamps_ns[1]), written.depth_m[1])
        chosen = frames(recording, with_truth="depth", start=1, every=2)
        assert [frame.stamp_ns for frame in chosen] == [written.stamps_ns[2]]


def test_kitti_depth_without_raw_images_says_where_they_belong(tmp_path):
    drive = "2011_09_26_drive_0002_sync"
    write_kitti_depth(tmp_path)
    (tmp_path / "2011_09_26").rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=f"put 2011_09_26/{drive}/image_02/data beside val"):
        frames(only(tmp_path / "val"))


def test_scannet_is_read_as_written_in_the_order_of_numbers(tmp_path, caplog):
    written = write_scannet(tmp_path / "scene0707_00")
    read = check(only(tmp_path), written, "scannet", "scene0707_00", lost=(2,))
    assert {frame.intrinsics for frame in read} == {LENS}
    # JPEG keeps the mean of noise, which tells the pictures apart.
    means = [
        frame.rgb.mean() - picture.mean()
        for frame, picture in zip(read, written.pictures, strict=True)
    ]
    assert np.abs(means).max() < 3
    assert [record.message.partition("poses: ")[2] for record in caplog.records] == [
        "1 of 12 poses are missing, not finite or no rotation; left out"
    ]


def test_bonns_poses_are_moved_from_the_markers_to_the_camera(tmp_path):
    _, _, poses = content()
    way = inverse(bonn.T_ROS), bonn.T_ROS @ bonn.T_MARKERS_CAMERA
    markers = [inverse(way[0]) @ T @ inverse(way[1]) for T in poses]
    written = write_tum(tmp_path / "rgbd_bonn_balloon", poses=markers)
    recording = only(tmp_path)
    assert (recording.format, recording.name) == ("bonn", "rgbd_bonn_balloon")
    with recording.truth() as truth:
        places, found = truth.poses(np.array(written.stamps_ns))
        np.testing.assert_allclose(truth.depth(written.stamps_ns[3]), written.depth_m[3], rtol=1e-6)
    assert places == list(range(COUNT))
    np.testing.assert_allclose(found, poses, atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(bonn.T_MARKERS_CAMERA), 1.0)
    published = [[1.0157, 0.1828, -0.2389], [0.0009, -0.8431, -0.6413], [-0.3009, 0.6147, -0.8085]]
    np.testing.assert_allclose(1.0593 * bonn.T_MARKERS_CAMERA[:3, :3], published, atol=1e-3)


def test_sequences_may_be_named_by_the_ends_of_their_names(tmp_path):
    for name in ("balloon", "balloon2", "crowd2"):
        write_tum(tmp_path / f"rgbd_bonn_{name}")
    chosen = find_recordings(tmp_path, sequences=["crowd2", "balloon"])
    assert [recording.name for recording in chosen] == ["rgbd_bonn_balloon", "rgbd_bonn_crowd2"]
    with pytest.raises(SourceError, match="no sequence crowd; there are: rgbd_bonn_balloon, "):
        find_recordings(tmp_path, sequences=["crowd"])


def test_sintel_is_read_as_written(tmp_path):
    written = write_sintel(tmp_path)
    read = check(only(tmp_path), written, "sintel", "alley_1")
    np.testing.assert_array_equal(pictures(read), written.pictures)
    assert [frame.intrinsics.fx for frame in read] == [K[0, 0] + i for i in range(COUNT)]


def test_sintels_final_pass_is_taken_unless_the_clean_one_is_pointed_at(tmp_path):
    for name in ("alley_1", "cave_2"):
        write_sintel(tmp_path, name)
    for path in (tmp_path, tmp_path / "training", tmp_path / "training" / "final"):
        recordings = find_recordings(path)
        assert [recording.name for recording in recordings] == ["alley_1", "cave_2"]
        assert {recording.path.parent.name for recording in recordings} == {"final"}
    assert only(tmp_path, sequences=["cave_2"]).path.parent.name == "final"
    clean = tmp_path / "training" / "clean"
    assert [r.path for r in find_recordings(clean)] == [clean / "alley_1", clean / "cave_2"]
    assert only(clean / "cave_2").path == clean / "cave_2"


LAYOUTS = {
    "tum": (tum, lambda root: write_tum(root / "freiburg1")),
    "kitti": (kitti, write_kitti_odometry),
    "7scenes": (seven_scenes, lambda root: write_7scenes(root / "seq-01")),
    "scannet": (scannet, lambda root: write_scannet(root / "scene0000_00")),
    "bonn": (bonn, lambda root: write_tum(root / "rgbd_bonn_crowd")),
    "sintel": (sintel, write_sintel),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_told_from_all_others(tmp_path, name):
    module, write = LAYOUTS[name]
    written = write(tmp_path / "data")
    for path in (tmp_path, written.path):
        assert only(path).format == name  # of several, one has to be chosen
        assert only(path, format=name).format == name
    others = [other for other in FORMATS if other != name]
    for other in others:
        with pytest.raises(SourceError, match=f"looked for:\n  {other}: "):
            find_recordings(tmp_path, format=other)
    assert module.FORMAT.name == name


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_only_images_with_truth_if_asked_to(tmp_path, name):
    _, write = LAYOUTS[name]
    written = write(tmp_path / "data")
    chosen = frames(only(tmp_path), with_truth="poses", start=1, max_frames=2)
    there = [1, 3] if name == "scannet" else [1, 2]
    assert [frame.stamp_ns for frame in chosen] == [written.stamps_ns[i] for i in there]


def test_what_is_not_found_is_said_with_what_was_looked_for(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(SourceError) as raised:
        find_recordings(tmp_path)
    message = str(raised.value)
    assert all(f"\n  {name}: " in message for name in ("rosbag2", *FORMATS))
    assert "rgb.txt, depth.txt, groundtruth.txt" in message
    with pytest.raises(SourceError, match="does not exist"):
        find_recordings(tmp_path / "none")
    with pytest.raises(SourceError, match=r"format: must be one of rosbag2, tum, .* got 'x'"):
        find_recordings(tmp_path, format="x")
    (tmp_path / "a.bag").write_bytes(b"#ROSBAG V2.0")
    with pytest.raises(SourceError, match="rosbags-convert"):
        find_recordings(tmp_path / "a.bag")


def test_options_that_do_not_fit_are_named(tmp_path):
    write_tum(tmp_path / "a")
    with pytest.raises(SourceError, match="a folder of tum, so it has no topics"):
        find_recordings(tmp_path, topic="/image")
    with pytest.raises(SourceError, match="rate_hz: must be positive and finite, got 0"):
        find_recordings(tmp_path, rate_hz=0)
    with pytest.raises(SourceError, match="with_truth: must be one of poses, depth, got 'all'"):
        frames(only(tmp_path), with_truth="all")
    with pytest.raises(SourceError, match="start: must be 0 to 4 of 5 images, got 5"):
        frames(only(tmp_path), start=5)


def test_formats_that_are_mixed_have_to_be_chosen_from(tmp_path):
    write_tum(tmp_path / "a")
    write_scannet(tmp_path / "b")
    with pytest.raises(SourceError, match=r"several formats \(tum, scannet\); choose .* --format"):
        find_recordings(tmp_path)
    assert only(tmp_path, format="scannet").name == "b"


def test_without_stamps_the_rate_may_be_given(tmp_path):
    write_7scenes(tmp_path / "seq-01")
    recording = only(tmp_path, rate_hz=10.0)
    assert [frame.stamp_ns for frame in frames(recording)] == [i * 10**8 for i in range(COUNT)]


def test_a_missing_or_broken_file_leaves_its_image_without_truth_with_one_warning(tmp_path, caplog):
    written = write_7scenes(tmp_path / "seq-01")
    (written.path / "frame-000000.depth.png").unlink()
    for i in (1, 2):
        (written.path / f"frame-{i:06d}.depth.png").write_bytes(b"no image")
    (written.path / "frame-000001.pose.txt").write_text("1 2 3")
    (written.path / "frame-000002.pose.txt").unlink()
    (written.path / "frame-000003.color.png").write_bytes(b"no image")
    recording = only(tmp_path)
    with recording.truth() as truth, caplog.at_level(logging.WARNING):
        assert [truth.depth(stamp) is not None for stamp in written.stamps_ns] == [False] * 3 + [
            True
        ] * 2
        assert truth.poses(np.array(written.stamps_ns))[0] == [0, 3, 4]
    warnings = [record.message.partition("seq-01: ")[2] for record in caplog.records]
    assert warnings == [
        "poses: 2 of 5 poses are missing, not finite or no rotation; left out",
        "1 of 5 depth images are missing",
        "image at 33333333 ns has no true depth, perhaps others: frame-000001.depth.png: not a "
        "whole image: cannot identify image file "
        f"'{written.path / 'frame-000001.depth.png'}'",
    ]
    with recording.images(Selection()) as source:
        assert len(list(source)) == 4
        assert source.rejected[0].reason.startswith("frame-000003.color.png: not a whole image")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "does not begin with 202021"),
        (b"\0" * 40, "does not begin with 202021"),
        (np.float32(202021.25).tobytes() + bytes([8, 0, 0, 0] * 2), "12 bytes are no 8x8 depths"),
    ],
)
def test_a_damaged_depth_file_of_sintel_is_told(tmp_path, caplog, data, named):
    written = write_sintel(tmp_path)
    (tmp_path / "training" / "depth" / "alley_1" / "frame_0001.dpt").write_bytes(data)
    (tmp_path / "training" / "camdata_left" / "alley_1" / "frame_0002.cam").write_bytes(data)
    with only(tmp_path).truth() as truth:
        assert truth.depth(written.stamps_ns[0]) is None
        assert truth.poses(np.array(written.stamps_ns))[0] == [0, 2, 3, 4]
    assert named in caplog.text


def test_poses_that_are_none_are_left_out_of_tum_with_one_warning(tmp_path, caplog):
    written = write_tum(tmp_path / "a")
    path = written.path / "groundtruth.txt"
    lines = path.read_text().splitlines()
    stamp = [line.split()[0] for line in lines]
    lines[2] = f"{stamp[2]} nan nan nan 0 0 0 1"
    lines[5] = f"{stamp[5]} 1 2 3 0 0 0 0"
    lines[8] = f"{stamp[8]} 1 2"
    path.write_text("\n".join(reversed(lines)))  # in any order
    with only(tmp_path).truth() as truth:
        places, poses = truth.poses(np.array(written.stamps_ns))
    np.testing.assert_allclose(poses[-1], written.poses[4], atol=1e-9)
    right = [
        np.allclose(pose[:3, 3], written.poses[i][:3, 3])
        for i, pose in zip(places, poses, strict=True)
    ]
    assert right == [False, False, False, True, True]  # the next ones are 100 m off
    assert "3 of 15 poses are missing, not finite or no rotation" in caplog.text
    assert len(caplog.records) == 1


def test_images_and_truth_of_other_times_are_named_with_both_ranges(tmp_path, caplog):
    written = write_tum(tmp_path / "a")
    for name in ("groundtruth.txt", "depth.txt"):
        path = written.path / name
        path.write_text(re.sub("^13050311", "13050399", path.read_text(), flags=re.MULTILINE))
    recording = only(tmp_path)
    with recording.truth() as truth:
        assert truth.poses(np.array(written.stamps_ns)) == ([], [])
        assert [truth.depth(stamp) for stamp in written.stamps_ns] == [None] * COUNT
    ranges = "they are from 1305031102.000 s to 1305031102.133 s"
    assert [ranges in record.message for record in caplog.records] == [True, True]
    assert "it is from 1305039901.990 s" in caplog.text
    with pytest.raises(SourceError, match=r"none of 5 images has true poses; images: 1305031102\."):
        frames(recording, with_truth="poses")


def test_a_sequence_without_images_is_an_error(tmp_path):
    text(tmp_path / "a" / "rgb.txt", ["# color images"])
    with pytest.raises(SourceError, match="a: no images"):
        frames(only(tmp_path))


@pytest.mark.parametrize("name", FORMATS)
def test_a_path_from_where_one_stands_finds_the_same_as_an_absolute_one(
    tmp_path, monkeypatch, name
):
    written = LAYOUTS[name][1](tmp_path / "data")
    expected = only(written.path)
    monkeypatch.chdir(written.path)
    assert only(".") == expected
    assert expected.path == written.path
    monkeypatch.chdir(written.path.parent)
    assert only(written.path.name) == expected
    assert only(f"{written.path.name}/../{written.path.name}") == expected


def test_a_link_is_named_and_told_by_its_own_name(tmp_path):
    written = write_tum(tmp_path / "store" / "0042")
    link = tmp_path / "data" / "rgbd_bonn_balloon"
    link.parent.mkdir()
    link.symlink_to(written.path)
    assert [(r.format, r.name, r.path) for r in find_recordings(link.parent)] == [
        ("bonn", "rgbd_bonn_balloon", link)
    ]


def test_names_that_parts_of_paths_make_alike_are_numbered(tmp_path):
    for place in ("x-y/z", "x/y-z", "w/z", "w/x-y-z-2"):
        write_tum(tmp_path / place)
    found = {str(r.path.relative_to(tmp_path)): r.name for r in find_recordings(tmp_path)}
    assert found == {"x/y-z": "x-y-z", "x-y/z": "x-y-z-2", "w/z": "w-z", "w/x-y-z-2": "w-x-y-z-2"}


def test_names_are_fit_for_folders_and_differ_as_such(tmp_path):
    for place in ("a b", "a_b", "a_b-2"):
        write_tum(tmp_path / place)
    assert [r.name for r in find_recordings(tmp_path)] == ["a_b", "a_b-3", "a_b-2"]
    assert only(tmp_path, sequences=["a b"]).path.name == "a b"


def test_a_folder_that_cannot_be_read_is_left_out_with_one_warning(tmp_path, monkeypatch, caplog):
    write_tum(tmp_path / "b")
    (tmp_path / "a").mkdir()
    (tmp_path / "ring").symlink_to("ring")
    scandir = os.scandir

    def refusing(path):
        if path == tmp_path / "a":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert only(tmp_path).name == "b"
    (warning,) = (record.message for record in caplog.records)
    assert warning.startswith(f"{tmp_path / 'a'}: not looked into: ") and "Permission" in warning


def test_each_folder_is_looked_into_once(tmp_path, monkeypatch):
    write_tum(tmp_path / "a" / "b")
    looked, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(path) or scandir(path))
    find_recordings(tmp_path)
    assert sorted(looked) == sorted({tmp_path, *(p for p in tmp_path.rglob("*") if p.is_dir())})


@pytest.mark.parametrize("line", [",", ", ,", "1e30 1 2 3 0 0 0 1", "nan 1 2 3 0 0 0 1"])
def test_a_line_of_tum_that_has_no_stamp_is_left_out(tmp_path, line):
    written = write_tum(tmp_path / "a")
    for name in ("groundtruth.txt", "rgb.txt", "depth.txt"):
        with (written.path / name).open("a") as file:
            file.write(line + "\n")
    check(only(tmp_path), written, "tum", "a")


def test_a_folder_without_a_number_is_no_sequence_to_evaluate_7scenes_on(tmp_path):
    for name in ("seq-01", "seq-foo"):
        write_7scenes(tmp_path / "fire" / name)
    (tmp_path / "fire" / "TestSplit.txt").write_bytes(b"sequence1\n\xff\xb2\n")
    assert only(tmp_path).name == "fire-seq-01"
    assert only(tmp_path, sequences=["seq-foo"]).path.name == "seq-foo"
