# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tolerant import TOLERANT
from tracked_frames import CONFIG, frames

from ttt3r_ros.config import with_values
from ttt3r_ros.geometry import Intrinsics
from ttt3r_ros.io.trajectory import read_tum
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.run import run
from ttt3r_ros.types import Frame, MapMoves, SessionError

CAMERA = Intrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)
PATHS = ["trajectory.tum", "trajectory_online.tum"]


def test_a_run_writes_what_the_pipeline_says(tmp_path):
    images = frames(3)
    twin = Pipeline.from_config(CONFIG)
    results = [twin.process(frame) for frame in images]
    output = tmp_path / "new" / "folder"
    summary = run(images, Pipeline.from_config(CONFIG), output, depth_images=True)

    stamps, poses = read_tum(output / "trajectory.tum")
    assert stamps.tolist() == [frame.stamp_ns for frame in images]
    np.testing.assert_allclose(poses, [result.T_odom_camera for result in results], atol=1e-8)
    header = (output / "map.ply").read_bytes().split(b"end_header\n")[0].decode()
    assert f"element vertex {len(twin.map)}\n" in header
    depth_mm = cv2.imread(str(output / "depth" / "100000000.png"), cv2.IMREAD_UNCHANGED)
    usable = results[1].usable(CONFIG.confidence.min, CONFIG.depth.max_m).numpy()
    usable &= results[1].points[..., 2].numpy() >= 0.0005  # less rounds to 0, unknown
    np.testing.assert_array_equal(depth_mm > 0, usable)
    z = results[1].points[..., 2].numpy()
    np.testing.assert_allclose(depth_mm[usable] / 1000, z[usable], atol=0.00051)
    assert (summary.processed, summary.rejected, summary.segments) == (3, 0, 1)
    assert summary.map_points == len(twin.map)


def test_a_session_is_written_if_it_is_wanted_and_the_next_run_goes_on_from_it(tmp_path):
    images = [replace(frame, intrinsics=CAMERA) for frame in frames(6)]
    first = Pipeline.from_config(with_values(CONFIG, TOLERANT))
    run(images, first, tmp_path / "one", save_to_session=True)
    session = tmp_path / "one" / "session"
    second = Pipeline.from_config(with_values(CONFIG, {**TOLERANT, "session": str(session)}))
    assert len(second.map) == len(first.map) and len(second.trajectory()) == 6


def test_that_no_session_can_be_written_is_said_before_the_first_image(tmp_path):
    (tmp_path / "session").write_text("mine")
    with pytest.raises(SessionError, match="session: exists and is no session"):
        run(iter(lambda: 1 / 0, None), Pipeline.from_config(CONFIG), tmp_path, save_to_session=True)


def test_without_being_asked_no_depth_is_written(tmp_path):
    run(frames(1), Pipeline.from_config(CONFIG), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.ply", *PATHS]


def test_the_map_may_be_a_pcd_file(tmp_path):
    subject = Pipeline.from_config(CONFIG)
    run(frames(1), subject, tmp_path, map_format="pcd")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.pcd", *PATHS]
    assert f"\nPOINTS {len(subject.map)}\n".encode() in (tmp_path / "map.pcd").read_bytes()


def test_rejected_images_are_counted_and_the_run_goes_on(tmp_path):
    images = frames(3)
    summary = run([*images[:2], images[0], images[2]], Pipeline.from_config(CONFIG), tmp_path)
    assert (summary.processed, summary.rejected) == (3, 1)


def test_segments_are_counted_across_resets(tmp_path):
    images = [Frame(stamp_s * 10**9, frames(1)[0].rgb) for stamp_s in (100, 109, 1, 2, 11)]
    summary = run(images, Pipeline.from_config(CONFIG), tmp_path)
    assert (summary.segments, summary.rejected) == (4, 1)  # one image back in time may be a fault


def test_a_run_that_is_broken_off_keeps_trajectory_and_map(tmp_path):
    def broken_off():
        yield from frames(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(broken_off(), Pipeline.from_config(CONFIG), tmp_path)
    assert [len(read_tum(tmp_path / name)[0]) for name in PATHS] == [2, 2]
    assert b"element vertex 0\n" not in (tmp_path / "map.ply").read_bytes()


def moved_by(T, segment=0):
    return MapMoves({segment: T}, {})


def test_the_final_path_moves_with_later_loops_and_the_online_one_stays(tmp_path, monkeypatch):
    first, last = np.eye(4), np.eye(4)
    first[0, 3], last[1, 3] = 1.0, 2.0
    subject, images = Pipeline.from_config(CONFIG), frames(3)
    process = subject.process

    def with_a_loop(frame):
        moves = (moved_by(first),) if frame is images[2] else ()
        return replace(process(frame), moves=moves)

    monkeypatch.setattr(subject, "process", with_a_loop)
    monkeypatch.setattr(subject, "finish", lambda: (moved_by(last), moved_by(first, segment=5)))
    summary = run(images, subject, tmp_path)
    final, online = (read_tum(tmp_path / name)[1] for name in PATHS)
    shift = (final - online)[:, :3, 3]
    np.testing.assert_allclose(shift, [[1, 2, 0], [1, 2, 0], [0, 2, 0]], atol=1e-8)
    np.testing.assert_allclose([T for _, T in summary.path], final, atol=1e-8)


def test_what_was_before_a_reset_does_not_move_any_more(tmp_path, monkeypatch):
    shift = np.eye(4)
    shift[0, 3] = 1.0
    subject, picture = Pipeline.from_config(CONFIG), frames(1)[0].rgb
    monkeypatch.setattr(subject, "finish", lambda: (moved_by(shift),))
    run([Frame(stamp_s * 10**9, picture) for stamp_s in (100, 1, 2)], subject, tmp_path)
    final, online = (read_tum(tmp_path / name)[1] for name in PATHS)
    np.testing.assert_allclose((final - online)[:, 0, 3], [0, 1], atol=1e-8)
