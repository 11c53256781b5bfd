# SPDX-License-Identifier: Apache-2.0
"""Coming back: what counts as that, and how wrong it is."""

from __future__ import annotations

import numpy as np
import pytest
from transforms3d.euler import euler2mat

from ttt3r_ros.evaluation.metrics.revisits import find_revisits, revisit_errors
from ttt3r_ros.geometry import transform


def cameras(places, headings_deg):
    """Cameras that look level; heading 0 looks along x."""
    optical = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    return np.array(
        [
            transform(euler2mat(0, 0, np.radians(heading)) @ optical, (x, y, 0.0))
            for (x, y), heading in zip(places, headings_deg, strict=True)
        ]
    )


def square(rounds=2, side=2.0, turn_deg=0.0):
    """Round a square, a tenth of a metre at a time, always looking along x."""
    t = np.arange(0, 4 * side * rounds, 0.1) % (4 * side)
    edge, rest = np.divmod(np.round(t, 6), side)
    x = np.select([edge == 0, edge == 1, edge == 2], [rest, side, side - rest], 0.0)
    y = np.select([edge == 0, edge == 1, edge == 2], [0.0, rest, side], side - rest)
    return cameras(zip(x, y, strict=True), np.linspace(0, turn_deg, len(t)))


def test_every_image_of_a_second_round_sees_the_place_of_the_first_again():
    earlier, later = find_revisits(square())
    places = later[later >= 80]
    assert places.tolist() == [*range(80, 160)]
    # Before that, only the last of the first round come near its beginning.
    assert later.min() >= 77
    assert (later - earlier)[later >= 80].tolist() == [80] * 80


def test_staying_and_a_glance_aside_are_no_coming_back():
    places = np.random.default_rng(0).uniform(-0.1, 0.1, (200, 2))  # many metres of path
    assert len(find_revisits(cameras(places, np.zeros(200)))[0]) == 0
    glance = np.concatenate((np.linspace(0, 90, 20), np.linspace(90, 0, 20)))
    assert len(find_revisits(cameras(np.zeros((40, 2)), glance))[0]) == 0
    assert revisit_errors(square(1)[:40], square(1)[:40], 1.0) is None


def test_looking_elsewhere_from_the_same_place_is_no_coming_back():
    assert len(find_revisits(square(turn_deg=180.0))[0]) == 0  # 90 degrees from round to round


def test_one_that_forgets_lands_beside_the_place_by_the_drift_in_between():
    truth = square()
    drift = truth.copy()
    drift[:, 2, 3] += 0.01 * np.arange(len(truth))
    errors = revisit_errors(drift, truth, None)
    assert errors.trans_median_m == pytest.approx(0.8)
    assert errors.path_between_m == pytest.approx(8.0)
    assert (errors.rot_median_deg, errors.rot_rmse_deg) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert (errors.trans_sim3_median_m, errors.trans_sim3_rmse_m) == (None, None)
    closed = truth.copy()
    closed[:, 2, 3] += 0.3 * np.sin(np.pi * np.arange(len(truth)) / 40)  # wrong, but back again
    assert revisit_errors(closed, truth, None).trans_median_m == pytest.approx(0.0, abs=1e-9)


def test_the_errors_after_sim3_are_those_of_scaled_poses():
    truth = square()
    half = truth.copy()
    half[:, :3, 3] = 0.5 * truth[:, :3, 3] + np.arange(len(truth))[:, None] * (0, 0, 0.001)
    errors = revisit_errors(half, truth, 2.0)
    assert errors.trans_sim3_median_m == pytest.approx(0.16)
    assert errors.trans_median_m == pytest.approx(0.08)


def test_visits_are_unbroken_runs():
    """Three rings that have one point in common."""
    t = np.linspace(0, 2 * np.pi, 80)
    ring = np.stack((1 - np.cos(t), np.sin(t)), axis=1)
    turns = [euler2mat(0, 0, angle)[:2, :2] for angle in (0, 2 * np.pi / 3, 4 * np.pi / 3)]
    places = np.concatenate([ring @ turn.T for turn in turns])
    poses = cameras(places, np.zeros(len(places)))
    errors = revisit_errors(poses, poses, 1.0)
    assert errors.visits == 3  # the end of each ring, with the beginning of the next one
    assert errors.trans_rmse_m == pytest.approx(0.0, abs=1e-12)
