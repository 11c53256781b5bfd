# SPDX-License-Identifier: Apache-2.0
"""TUM files: exact stamps, poses there and back."""

from __future__ import annotations

import numpy as np
import pytest

from ttt3r_ros.geometry import transform, transform_from_quaternion
from ttt3r_ros.io.trajectory import BoundedTrajectory, TumWriter, read_tum, subsample


def poses(count):
    rng = np.random.default_rng(0)
    return [
        transform_from_quaternion(rng.normal(scale=100, size=3), rng.normal(size=4))
        for _ in range(count)
    ]


def test_a_line_is_stamp_position_and_quaternion_with_w_last(tmp_path):
    half = np.sqrt(0.5)
    with TumWriter(tmp_path / "t.txt") as writer:
        writer.append(
            1_700_000_000_000_000_001, transform_from_quaternion((1, -2, 3.5), (half, half, 0, 0))
        )
        writer.append(5, np.eye(4))
    assert (tmp_path / "t.txt").read_text().splitlines() == [
        "1700000000.000000001 1.000000000 -2.000000000 3.500000000 "
        "0.707106781 0.000000000 0.000000000 0.707106781",
        "0.000000005 0.000000000 0.000000000 0.000000000 "
        "0.000000000 0.000000000 0.000000000 1.000000000",
    ]


def test_poses_come_back_and_stamps_to_the_nanosecond(tmp_path):
    written = poses(50)
    stamps = [1_700_000_000_123_456_789 + 33_333_333 * i for i in range(50)]
    with TumWriter(str(tmp_path / "t.txt")) as writer:
        for stamp_ns, T in zip(stamps, written, strict=True):
            writer.append(stamp_ns, T)

    read_stamps, read_poses = read_tum(tmp_path / "t.txt")

    assert read_stamps.dtype == np.int64
    assert read_stamps.tolist() == stamps
    np.testing.assert_allclose(read_poses, written, atol=5e-9)


def test_lines_are_in_the_file_before_it_is_closed(tmp_path):
    writer = TumWriter(tmp_path / "t.txt")
    for count, T in enumerate(poses(3), start=1):
        writer.append(count, T)
        assert len(read_tum(tmp_path / "t.txt")[0]) == count
    writer.close()


def test_an_empty_trajectory_has_no_poses(tmp_path):
    with TumWriter(tmp_path / "t.txt"):
        pass
    stamps, read = read_tum(tmp_path / "t.txt")
    assert (stamps.shape, read.shape) == ((0,), (0, 4, 4))


def test_files_of_others_are_read(tmp_path):
    (tmp_path / "t.txt").write_text(
        "# timestamp tx ty tz qx qy qz qw\n\n"
        "1305031102.1758 1 2 3 0 0 0 2\n"
        "1.3050311025e9\t0 0 0  1e0 0 0 0\n"
    )
    stamps, read = read_tum(tmp_path / "t.txt")
    assert stamps.tolist() == [1_305_031_102_175_800_000, 1_305_031_102_500_000_000]
    np.testing.assert_allclose(read[0], [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    np.testing.assert_allclose(np.diag(read[1]), [1, -1, -1, 1])


@pytest.mark.parametrize(
    "line",
    ["1 2 3", "a 0 0 0 0 0 0 1", "1 0 0 0 0 0 0 0", "1 0 0 0 0 0 0 1 9", "1 nan 0 0 0 0 0 1",
     "nan 0 0 0 0 0 0 1", "inf 0 0 0 0 0 0 1"],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line):
    (tmp_path / "t.txt").write_text(f"0 0 0 0 0 0 0 1\n{line}\n")
    with pytest.raises(ValueError, match=r"t.txt, line 2: expected stamp .* got"):
        read_tum(tmp_path / "t.txt")


@pytest.mark.parametrize(
    ("stamp_ns", "T", "named"),
    [
        (-1, np.eye(4), "stamp_ns: must not be negative, got -1"),
        (0, np.eye(3), "T: expected finite numbers"),
        (0, np.full((4, 4), np.nan), "T: expected finite numbers"),
    ],
)
def test_what_is_no_pose_is_not_written(tmp_path, stamp_ns, T, named):
    with TumWriter(tmp_path / "t.txt") as writer, pytest.raises(ValueError, match=named):
        writer.append(stamp_ns, T)
    assert (tmp_path / "t.txt").read_text() == ""


def test_a_bounded_trajectory_stays_bounded_and_even():
    thinned = BoundedTrajectory(10)
    for i in range(1000):
        thinned.append(i, np.eye(4) * i)
        stamps = [stamp_ns for stamp_ns, _ in thinned.poses()]
        assert len(stamps) <= 10 and stamps[0] == 0
        assert len(set(np.diff(stamps))) <= 1
        assert len(stamps) > 4 or i < 5
        assert i - stamps[-1] <= i / 4
    assert all(pose[0, 0] == stamp_ns for stamp_ns, pose in thinned.poses())


def test_a_trajectory_of_one_pose_is_refused():
    with pytest.raises(ValueError, match="max_poses: must be at least 2, got 1"):
        BoundedTrajectory(1)


def test_a_bounded_copy_is_bounded_even_and_ends_with_the_last_pose():
    assert subsample([], 2) == []
    before = set()
    for length in range(1, 300):
        copy = subsample(range(length), 10)
        assert len(copy) <= 10 and copy[0] == 0 and copy[-1] == length - 1
        assert len(copy) > 5 or len(copy) == length
        assert len(set(np.diff(copy[:-1]))) <= 1
        grown, before = before, set(copy[:-1])
        assert before <= grown | {length - 2}  # those that were made once are used again


def test_a_copy_of_one_pose_is_refused():
    with pytest.raises(ValueError, match="max_poses: must be at least 2, got 1"):
        subsample([1, 2, 3], 1)


def test_poses_move_with_their_segments_and_take_their_new_numbers():
    subject = BoundedTrajectory(10)
    shift, again = (transform(np.eye(3), (metres, 0, 0)) for metres in (1.0, 10.0))
    for segment in (0, 0, 1, 2):
        subject.append(segment, np.eye(4), segment)
    subject.move({0: shift, 2: shift}, {1: 0})
    subject.move({0: again}, {})
    assert [T[0, 3] for _, T in subject.poses()] == [11, 11, 10, 1]
