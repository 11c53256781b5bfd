# SPDX-License-Identifier: Apache-2.0
"""All metrics equal those of the plain twin to 1e-9, on trajectories and depth maps that are fixed.

Where the twin needs every pair of pixels the maps are small.
"""

from __future__ import annotations

from dataclasses import astuple
from itertools import pairwise

import numpy as np
import plain_metrics as plain
import pytest
from transforms3d.euler import euler2mat

from ttt3r_ros.camera.preprocessing import crop_transform
from ttt3r_ros.evaluation.metrics import plain_errors, revisits
from ttt3r_ros.evaluation.metrics.depth import DepthComparison
from ttt3r_ros.evaluation.metrics.drift import MOST_WINDOWS, scale_drift
from ttt3r_ros.evaluation.metrics.trajectory import ALIGNMENTS, align, trajectory_errors
from ttt3r_ros.geometry import transform
from ttt3r_ros.recordings.pose_track import nearest

TIGHT = {"rel": 1e-9, "abs": 1e-12}
WHOLE = crop_transform(64, 48, 64)  # nothing is cut away


def laps(seed, count=300):
    """Two rounds of a robot, and what a tracker with drift, noise and another scale makes of it."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 2.1, count)
    places = np.stack((2 * np.cos(2 * np.pi * t), 1.5 * np.sin(2 * np.pi * t), 0.1 * t), axis=1)
    places += rng.normal(0, 0.01, places.shape)
    # Optical axes: z looks along the path.
    truth = [
        transform(euler2mat(-np.pi / 2, 0, 2 * np.pi * a + rng.normal(0, 0.02)), p)
        for a, p in zip(t, places, strict=True)
    ]
    found = [transform(euler2mat(0.3, -0.8, 1.9), (3.0, -2.0, 1.0)) @ truth[0]]
    for a, b in pairwise(truth):
        step = np.linalg.inv(a) @ b
        turn = euler2mat(*rng.normal(0.0005, 0.004, 3))
        growing = 0.6 * (1 + 0.4 * len(found) / count)
        found.append(found[-1] @ transform(turn @ step[:3, :3], growing * step[:3, 3]))
    return np.array(found), np.array(truth)


@pytest.fixture(params=[0, 1], scope="module")
def paths(request):
    return laps(request.param)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_ate_and_rpe_after_every_alignment_are_the_twins(paths, alignment):
    poses, truth = paths
    errors = trajectory_errors(poses, truth).by_alignment[alignment]
    aligned, scale = plain.align(poses, truth, alignment)
    ate = plain_errors.position_errors(aligned, truth)
    trans, rot = plain.motion_errors(aligned, truth, plain.neighbours(truth))
    assert astuple(errors)[:-1] == pytest.approx(
        (
            scale,
            plain.root_mean_square(ate),
            ate.mean(),
            np.median(ate),
            ate.max(),
            plain.root_mean_square(trans),
            plain.root_mean_square(rot),
        ),
        **TIGHT,
    )
    assert errors.reason is None
    for found, twin in zip(
        plain_errors.neighbour_errors(aligned, truth), (trans, rot), strict=True
    ):
        assert found == pytest.approx(twin, **TIGHT)
    path = align(poses, truth, alignment)
    np.testing.assert_allclose(path.poses, aligned, rtol=0, atol=1e-9)
    assert path.scale == errors.scale


def test_motion_over_lengths_of_the_path_is_the_twins(paths):
    poses, truth = paths
    errors = trajectory_errors(poses, truth)
    assert [found.length_m for found in errors.motion] == [1, 2, 5, 10, 20]
    for found in errors.motion:
        twin = plain.motion_over(poses, truth, found.length_m)
        assert astuple(found)[1:] == pytest.approx(twin, **TIGHT)


def test_the_scale_along_the_path_is_the_twins(paths):
    poses, truth = paths
    drift = scale_drift(poses, truth)
    scales = plain.scales(poses, truth, MOST_WINDOWS)
    assert [window.scale for window in drift.windows] == pytest.approx(scales, **TIGHT)
    assert drift.last_by_first == pytest.approx(scales[-1] / scales[0], **TIGHT)
    assert drift.log_spread == pytest.approx(float(np.log(scales).std()), **TIGHT)


def test_revisits_and_their_errors_are_the_twins(paths):
    poses, truth = paths
    m = revisits
    limits = (m.NEAR_M, m.NEAR_DEG, m.AWAY_M, m.AWAY_DEG, m.BETWEEN_M)
    pairs = plain.revisits(truth, *limits)
    assert len(pairs) > 100  # the second round
    assert [*zip(*(places.tolist() for places in m.find_revisits(truth)), strict=True)] == pairs
    errors = trajectory_errors(poses, truth).revisits
    scaled, _ = plain.align(poses, truth, "sim3")
    trans, rot = plain.motion_errors(poses, truth, pairs)
    scaled_trans, _ = plain.motion_errors(scaled, truth, pairs)
    metres = plain.along(truth)
    assert astuple(errors)[2:] == pytest.approx(
        (
            np.median([metres[b] - metres[a] for a, b in pairs]),
            np.median(trans),
            plain.root_mean_square(trans),
            np.median(scaled_trans),
            plain.root_mean_square(scaled_trans),
            np.median(rot),
            plain.root_mean_square(rot),
        ),
        **TIGHT,
    )


@pytest.mark.parametrize(("count", "true_count"), [(200, 333), (333, 200), (250, 250)])
@pytest.mark.parametrize("limit_s", [0.01, 0.02])
def test_association_is_the_twins(count, true_count, limit_s):
    rng = np.random.default_rng(count)
    start = 1_700_000_000_000_000_000
    stamps, true_stamps = (
        np.sort(start + rng.choice(10_000_000_000, size, replace=False))
        for size in (count, true_count)
    )
    here, there = nearest(stamps, true_stamps, round(1e9 * limit_s))
    assert [*zip(here, there, strict=True)] == plain.associate(stamps, true_stamps, limit_s)
    assert 50 < len(here) < count


def maps(seed, known):
    """Predicted and true depth of three images; of the truth that share is known."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.5, 80.0, (3, 48, 64)).astype(np.float32)
    predicted = 0.4 * true + 1.5 + rng.laplace(0, 0.8, true.shape)
    true[rng.random(true.shape) > known] = 0.0
    true[0, :3] = np.nan
    return predicted.astype(np.float32), true


def pixels(predicted, true, max_true_m=np.inf):
    known = np.nan_to_num(true) > 0
    known &= np.where(known, true, 0) < max_true_m
    return predicted[known].astype(np.float64), true[known].astype(np.float64)


def compare(folder, predicted, true, **options):
    with DepthComparison(folder, **options) as comparison:
        for p, g in zip(predicted, true, strict=True):
            comparison.add(p, g, WHOLE)
        return comparison.report()


@pytest.mark.parametrize("limits", [{}, {"max_true_m": 70.0}, {"max_true_m": 70.0, "clip_m": 65.0}])
@pytest.mark.parametrize("published_shift", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_depth_errors_with_every_alignment_are_the_twins(tmp_path, limits, published_shift, seed):
    predicted, true = maps(seed, known=0.015)
    report = compare(tmp_path, predicted, true, published_shift=published_shift, **limits)
    p, g = pixels(predicted, true, limits.get("max_true_m", np.inf))
    clip_m = limits.get("clip_m")
    scale = plain.depth_scale(p, g)
    s, t = plain.depth_line_by_adam(p, g) if published_shift else plain.depth_line(p, g)
    assert report.pixels == len(p)
    assert report.scale == pytest.approx(scale, **TIGHT)
    assert (report.shifted_scale, report.shift_m) == pytest.approx((s, t), **TIGHT)
    assert report.guess_m == np.median(g)
    for found, aligned in (
        (report.metric, p),
        (report.scaled, scale * p),
        (report.shifted, s * p + t),
        (report.guess, np.full_like(p, np.median(g))),
    ):
        assert astuple(found) == pytest.approx(plain.depth_errors(aligned, g, clip_m), **TIGHT)


def test_errors_of_larger_maps_with_what_was_fitted_to_them_are_the_twins(tmp_path):
    predicted, true = maps(2, known=0.8)
    report = compare(tmp_path, predicted, true)
    p, g = pixels(predicted, true)
    for found, aligned in (
        (report.metric, p),
        (report.scaled, report.scale * p),
        (report.shifted, report.shifted_scale * p + report.shift_m),
    ):
        assert astuple(found) == pytest.approx(plain.depth_errors(aligned, g), **TIGHT)
