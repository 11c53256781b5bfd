# SPDX-License-Identifier: Apache-2.0
"""What is said and drawn of the demonstration; its errors are those of every evaluation."""

from __future__ import annotations

import re

import numpy as np
import pytest
from transforms3d.euler import euler2mat

from ttt3r_ros.clients import demo_picture
from ttt3r_ros.clients.demo_picture import draw_picture
from ttt3r_ros.clients.demo_report import accuracy, compared_poses, demo_text
from ttt3r_ros.clients.live_evaluation import LiveResult
from ttt3r_ros.evaluation.collector import Collector, Heard, compare, series_of
from ttt3r_ros.evaluation.report.data import DepthExample, SequenceReport
from ttt3r_ros.geometry import inverse, optical_extrinsics, transform
from ttt3r_ros.recordings.pose_track import PoseTrack
from ttt3r_ros.recordings.recording import Truth
from ttt3r_ros.types import TrackingState

PERIOD_NS = 100_000_000
TURN = euler2mat(0, 0, 0.7)
T_WORLD_ODOM = transform(TURN, (3.0, -2.0, 1.2))
RGB = (200, 30, 90)


class Poses(Truth):
    """True poses by stamp."""

    pose_source, depth_source = "poses", ""

    def __init__(self, poses):
        self._track = PoseTrack("poses", ((PERIOD_NS * i, T) for i, T in enumerate(poses)))

    def poses(self, stamps_ns):
        return self._track.near(stamps_ns)

    def depth(self, stamp_ns):
        return None

    def close(self):
        pass


def walk(steps=5):
    """Poses of a camera that goes 1 m along x in each step, on a curve, and looks ahead."""
    return [
        transform(np.eye(3), (step, 0.1 * step**2, 0.0)) @ optical_extrinsics()
        for step in range(steps)
    ]


def wander(steps=40, error_m=0.0):
    """Poses along a knot, each a little beside it."""
    t = np.linspace(0, 6, steps)
    path = np.stack([np.sin(2 * t), 2 * np.sin(t) ** 2, 0.1 * np.cos(3 * t)], axis=1)
    path += np.random.default_rng(3).normal(0, 1, path.shape) * error_m
    return [transform(TURN, position) @ optical_extrinsics() for position in path]


def result(estimated, true, *, before=None, depth=True, note="", views=0, depth_m=2.0, cloud=None):
    """What came of a demonstration; `before`: the poses before loops were closed, if any were."""
    online = Collector()
    for i, T in enumerate(before or estimated):
        heard = Heard(PERIOD_NS * i, T, TrackingState.TRACKING, 0, 0.5, 2.0, 1.0, 0.03)
        online.add(heard, i + 1)
    collected = online.with_poses({PERIOD_NS * i: T for i, T in enumerate(estimated)})
    comparison = compare(collected, Poses(true), "se3")
    metrics = {
        "trajectory_online": before and compare(online, Poses(true), "se3").metrics,
        "note": note,
        "trajectory": comparison.metrics,
        "depth": None,
        "map": None,
        "images": len(estimated),
        "images_sent": len(true),
        "runtime": {"images_per_second": 9.5, "step_ms_p50": 30.0},
    }
    if depth:
        alignments = {"metric": {"abs_rel": 0.123}}
        metrics["depth"] = {"pixels": 80, "pixels_not_finite": 20, "alignments": alignments}
    pictures = (
        np.full((240, 320, 3), RGB, np.uint8),
        np.full((240, 320), depth_m, np.float32),
        np.full((240, 320), 2.0, np.float32),
    )
    examples = [DepthExample(PERIOD_NS * i, *pictures) for i in range(views)]
    series = series_of(collected, comparison)
    report = SequenceReport("ttt3r_node", "live", metrics, series, examples)
    return LiveResult(report, online, collected, comparison, cloud)


def said(of, what):
    return float(next(v for name, v in accuracy(of).items() if what in name).split()[0])


def test_the_same_path_in_another_world_has_no_error():
    same = result(wander(), [T_WORLD_ODOM @ T for T in wander()])
    assert said(same, "(ATE)") == said(same, "frame of the first camera") == 0
    length_m = said(same, "length of the true path")
    assert said(same, "length of the estimated path") == length_m > 5


def test_the_position_error_is_a_share_of_that_of_a_camera_that_never_moves():
    crude = result(wander(error_m=0.3), wander())
    ate_m, resting_m = said(crude, "(ATE)"), said(crude, "the same for a camera")
    assert 0.2 < ate_m < resting_m
    assert said(crude, "ratio of the two") == pytest.approx(ate_m / resting_m, abs=0.01)
    # With the first cameras laid on each other, the first one's own error counts for all.
    assert said(crude, "frame of the first camera") > ate_m


def test_both_paths_are_told_where_loops_were_closed():
    mended = result(wander(error_m=0.1), wander(), before=wander(error_m=0.4), views=1)
    was_m, is_m = said(mended, "that the robot had"), said(mended, "(ATE)")
    assert 0 < 2 * is_m < was_m
    picture = draw_picture(mended, "", voxel_m=0.05)
    plain = draw_picture(result(wander(error_m=0.1), wander(), views=1), "", voxel_m=0.05)
    for colour in (demo_picture.ONLINE, demo_picture.ESTIMATED, demo_picture.TRUE):
        assert (picture == colour).all(axis=2).sum() > 100
    assert not (plain == demo_picture.ONLINE).all(axis=2).any()


def test_a_camera_that_is_said_never_to_move_has_the_error_of_one_and_no_alignment():
    still = result([walk()[0]] * 5, walk())
    assert said(still, "frame of the first camera") == said(still, "that for a camera") > 2
    assert said(still, "ratio of these two") == 1
    assert accuracy(still)["position error (ATE), RMSE after a rigid alignment"].startswith("none")
    assert said(still, "length of the estimated path") == 0


def test_only_images_with_both_poses_are_compared():
    poses, true = compared_poses(result(walk(), walk(3)))
    np.testing.assert_allclose(poses, true)
    assert poses.shape == (3, 4, 4)


def test_the_report_says_first_what_must_be_said_of_the_weights():
    text = demo_text(result(wander(), wander(), note="made of *cheese*"), seed=1_234_567)
    places = [text.index(part) for part in (r"made of \*cheese\*", "picture.png", "| 0.123 |")]
    assert places == sorted(places)
    assert "| pixels with a depth | 80 % |" in text
    assert re.search(r"\| step, p50 .* \| 30.0 \|", text)
    assert "this room is number 1,234,567." in text
    without = demo_text(result(wander(), wander(), depth=False), seed=1)
    assert "Note" not in without
    assert "none: no depth was known" in without


def test_the_picture_shows_the_images_as_they_are():
    shown = result(wander(), wander(), views=demo_picture.VIEWS)
    picture = draw_picture(shown, "", voxel_m=0.05)
    assert (picture == RGB).all(axis=2).sum() == demo_picture.VIEWS * 192 * 144
    assert len(draw_picture(shown, "made of cheese", voxel_m=0.05)) > len(picture)


@pytest.mark.parametrize("parts", [{"depth_m": np.nan}, {"depth": False}])
def test_the_picture_of_a_short_demonstration_shows_what_there_is(parts):
    picture = draw_picture(result(walk(2), walk(2), views=2, **parts), "", voxel_m=0.05)
    assert (picture == RGB).all(axis=2).sum() == 2 * 192 * 144


@pytest.mark.parametrize("axes", [[0, 1, 2], [1, 0, 2]])
@pytest.mark.parametrize("pitch", [0.0, 0.2])
def test_the_map_is_drawn_level_upright_and_wide_wherever_the_first_camera_looks(axes, pitch):
    """Two high walls along the room's longer side; odom is turned by 0.7 rad and pitched."""
    side, height = np.linspace(-2, 2, 100), np.linspace(-1, 0.5, 40)
    walls = np.array([(x, y, z) for x in (-1.0, 1.0) for y in side for z in height])[:, axes]
    T_odom_world = transform(euler2mat(0, pitch, 0.7, "rxyz"), (0.3, 0.2, 0.0))
    points = (walls @ T_odom_world[:3, :3].T + T_odom_world[:3, 3]).astype(np.float32)
    cloud = (points, np.full(points.shape, (255, 0, 255), np.uint8))
    true = [inverse(T_odom_world) @ T for T in wander()]
    picture = draw_picture(result(wander(), true, views=5, cloud=cloud), "", voxel_m=0.05)
    red, green, blue = picture.astype(int).transpose(2, 0, 1)
    rows = np.flatnonzero(((red > 120) & (green < 60) & (blue > 120)).any(axis=1))
    assert 0 < len(rows) < 60  # two thin level lines


def test_without_a_view_there_is_no_picture():
    with pytest.raises(ValueError, match="no image"):
        draw_picture(result(walk(), walk()), "", voxel_m=0.05)
