# SPDX-License-Identifier: Apache-2.0
"""Trajectory errors against answers that are known beforehand."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import plain_metrics
import pytest
from places import ROOT
from transforms3d.euler import euler2mat

from ttt3r_ros.evaluation.metrics.trajectory import (
    ALIGNMENTS,
    NoAlignmentError,
    align,
    trajectory_errors,
)
from ttt3r_ros.geometry import transform
from ttt3r_ros.types import EvaluationError


def spiral(count=60):
    """A camera that turns while it rises along a helix."""
    t = np.linspace(0, 6, count)
    places = np.stack((np.cos(t), 1.5 * np.sin(t), 0.2 * t), axis=1)
    return [transform(euler2mat(0.1 * a, 0.2, 0.5 * a), p) for a, p in zip(t, places, strict=True)]


def moved(poses, T, scale=1.0):
    """The poses as told from another origin in another unit."""
    result = [T @ pose for pose in poses]
    for pose in result:
        pose[:3, 3] *= scale
    return result


ELSEWHERE = transform(euler2mat(0.4, -1.0, 2.0), (3.0, -2.0, 1.0))


def test_a_trajectory_told_from_elsewhere_has_no_errors():
    errors = trajectory_errors(moved(spiral(), ELSEWHERE), spiral())
    assert errors.poses == 60
    assert errors.by_alignment["se3"].ate_rmse_m == pytest.approx(0, abs=1e-9)
    assert errors.by_alignment["none"].rpe_trans_rmse_m == pytest.approx(0, abs=1e-9)
    assert errors.by_alignment["none"].rpe_rot_rmse_deg == pytest.approx(0, abs=1e-5)
    assert errors.by_alignment["sim3"].scale == pytest.approx(1)


def test_a_trajectory_in_another_unit_has_an_error_that_only_sim3_takes_away():
    truth = spiral()
    errors = trajectory_errors(moved(truth, ELSEWHERE, scale=0.5), truth)
    places = np.array([pose[:3, 3] for pose in truth])
    about_mean = np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1).mean())
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert errors.by_alignment["se3"].ate_rmse_m == pytest.approx(0.5 * about_mean)
    assert errors.guess_ate_rmse_m == pytest.approx(about_mean)
    assert errors.by_alignment["sim3"].ate_rmse_m == pytest.approx(0, abs=1e-9)
    assert errors.by_alignment["sim3"].scale == pytest.approx(2)
    assert errors.by_alignment["none"].rpe_trans_rmse_m == pytest.approx(
        0.5 * math.sqrt((steps**2).mean())
    )
    assert errors.by_alignment["sim3"].rpe_trans_rmse_m == pytest.approx(0, abs=1e-9)
    assert errors.path_length_m == pytest.approx(steps.sum())


def test_one_wrong_step_is_in_the_relative_errors_once():
    truth = spiral(11)
    slip = transform(euler2mat(0, 0, math.radians(9.0)), (0.3, 0.0, 0.4))
    estimate = [pose if i < 6 else truth[5] @ slip @ np.linalg.inv(truth[5]) @ pose
                for i, pose in enumerate(truth)]  # fmt: skip
    errors = trajectory_errors(estimate, truth)
    assert errors.by_alignment["none"].rpe_rot_rmse_deg == pytest.approx(9.0 / math.sqrt(10))
    relative = np.linalg.inv(truth[5]) @ truth[6]
    wrong = np.linalg.norm((slip @ relative - relative)[:3, 3])
    assert errors.by_alignment["none"].rpe_trans_rmse_m == pytest.approx(wrong / math.sqrt(10))
    assert errors.by_alignment["se3"].ate_rmse_m > 0.01


def test_known_noise_is_found_but_for_what_the_alignment_takes():
    truth = spiral(2000)
    noise = np.random.default_rng(0).normal(0, 0.02, (2000, 3))
    estimate = [transform(T[:3, :3], T[:3, 3] + n) for T, n in zip(truth, noise, strict=True)]
    errors = trajectory_errors(moved(estimate, ELSEWHERE), truth)
    assert errors.by_alignment["se3"].ate_rmse_m == pytest.approx(0.02 * math.sqrt(3), rel=0.05)


def test_the_guess_is_a_camera_that_stands_at_the_mean_position():
    truth = [transform(np.eye(3), (x, y, 0.0)) for x, y in ((0, 0), (4, 0), (4, 2), (0, 2))]
    assert trajectory_errors(truth, truth).guess_ate_rmse_m == pytest.approx(math.sqrt(5))


def test_a_path_in_one_plane_is_aligned_by_a_rotation_and_never_mirrored():
    t = np.linspace(0, 6, 40)
    flat = np.stack((np.cos(t), 1.5 * np.sin(t), 0 * t), axis=1)
    truth = [transform(euler2mat(0, 0, 0.5 * a), p) for a, p in zip(t, flat, strict=True)]
    estimate = moved(truth, ELSEWHERE, scale=0.5)
    errors = trajectory_errors(estimate, truth).by_alignment
    assert {name: found.reason for name, found in errors.items()} == dict.fromkeys(ALIGNMENTS)
    assert errors["sim3"].ate_rmse_m == pytest.approx(0, abs=1e-9)
    for name in ("sim3", "se3"):
        path = align(estimate, truth, name)
        by_horn, scale = plain_metrics.align(np.array(estimate), np.array(truth), name)
        np.testing.assert_allclose(path.poses, by_horn, atol=1e-9)
        assert path.scale == pytest.approx(scale)
        assert all(np.linalg.det(T[:3, :3]) > 0 for T in path.poses)


def test_where_no_alignment_is_the_best_there_is_none_but_the_rest_is_known():
    line = [transform(np.eye(3), (0.1 * i, 0.0, 0.0)) for i in range(5)]
    errors = trajectory_errors(line, line)
    found = errors.by_alignment
    assert (found["se3"].ate_rmse_m, found["sim3"].rpe_trans_rmse_m) == (None, None)
    assert found["none"].rpe_trans_rmse_m == 0
    assert errors.path_length_m == pytest.approx(0.4)
    single = trajectory_errors(line[:1], line[:1])
    still = single.by_alignment["none"]
    assert (still.rpe_trans_rmse_m, still.rpe_rot_rmse_deg) == (None, None)
    assert single.path_length_m == 0


def test_the_reason_is_said_where_there_is_no_alignment():
    slope = np.array((1.0, 2.0, 3.0)) / 7  # whose rounding is no second direction
    line = [transform(np.eye(3), i * slope) for i in range(50)]
    for poses, truth, reason in (
        (line, spiral(50), "positions: the estimated ones are on one line"),
        (spiral(50), line, "positions: the true ones are on one line"),
        (spiral(2), spiral(2), "positions: at least 3 are needed, got 2"),
    ):
        errors = trajectory_errors(poses, truth).by_alignment
        assert [*errors] == [*ALIGNMENTS]
        for alignment in ("sim3", "se3", "scale"):
            assert errors[alignment].reason == reason
            assert errors[alignment].ate_rmse_m is None
            with pytest.raises(NoAlignmentError, match=reason):
                align(poses, truth, alignment)
        assert errors["none"].reason is None
        assert errors["none"].ate_rmse_m is not None


def test_each_alignment_takes_away_what_it_may_change_and_no_more():
    truth = spiral()
    turned = [T @ transform(euler2mat(0, 0, 0.1), (0, 0, 0)) for T in truth]
    elsewhere, shrunk = moved(truth, ELSEWHERE), moved(truth, np.eye(4), scale=0.5)
    right = {
        name: [
            alignment
            for alignment, found in trajectory_errors(poses, truth).by_alignment.items()
            if found.ate_rmse_m < 1e-9
        ]
        for name, poses in {
            "turned": turned,
            "elsewhere": elsewhere,
            "shrunk": shrunk,
            "both": moved(truth, ELSEWHERE, scale=0.5),
        }.items()
    }
    assert right == {
        "turned": ["sim3", "se3", "scale", "none"],  # only its rotations are wrong
        "elsewhere": ["sim3", "se3"],
        "shrunk": ["sim3", "scale"],
        "both": ["sim3"],
    }
    path = align(moved(truth, ELSEWHERE, scale=0.5), truth, "sim3")
    np.testing.assert_allclose(path.poses, truth, atol=1e-9)
    assert path.scale == pytest.approx(2)


def test_an_alignment_that_there_is_not_is_refused():
    with pytest.raises(EvaluationError, match="expected sim3, se3, scale, none, got 'sim2'"):
        align(spiral(), spiral(), "sim2")


def test_rotations_that_a_file_has_rounded_are_taken_and_what_is_no_pose_is_refused():
    truth = spiral()
    rounded = [np.round(T, 4) for T in truth]
    assert trajectory_errors(rounded, truth).by_alignment["none"].rpe_rot_rmse_deg < 0.02
    for wrong in (np.full((4, 4), -np.inf), np.diag((1.0, 1.0, -1.0, 1.0)), 2 * np.eye(4)):
        poses = [*truth[:7], wrong, *truth[8:]]
        with pytest.raises(EvaluationError, match="true poses: number 7 is not a rotation"):
            trajectory_errors(truth, poses)


@pytest.mark.parametrize(("count", "true_count"), [(3, 4), (0, 0)])
def test_poses_that_do_not_pair_are_refused(count, true_count):
    with pytest.raises(EvaluationError, match="poses: expected as many as true ones"):
        trajectory_errors(spiral()[:count], spiral()[:true_count])


def test_using_evo_writes_nothing_to_the_home_folder_and_loads_no_plotting(tmp_path):
    code = """
import sys, numpy as np
from ttt3r_ros.evaluation.metrics.trajectory import trajectory_errors
trajectory_errors(np.eye(4)[None], np.eye(4)[None])
print({"matplotlib", "seaborn", "pandas", "evo.tools", "evo.tools.settings"} & {*sys.modules})
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("set()", 0), done.stderr
    assert list(tmp_path.iterdir()) == []
