# SPDX-License-Identifier: Apache-2.0
"""Errors along the way against answers that are known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from plain_geometry import along_x

from ttt3r_ros.evaluation.metrics.drift import motion_errors, relative_errors, scale_drift


def test_motion_errors_are_by_length_and_only_of_lengths_that_the_path_has():
    truth = along_x(np.arange(0, 12.5, 0.5))
    errors = motion_errors(along_x(1.1 * truth[:, 0, 3]), truth)
    assert [(e.length_m, e.pairs) for e in errors] == [(1, 23), (2, 21), (5, 15), (10, 5)]
    assert [e.trans_percent for e in errors] == pytest.approx([10.0] * 4)
    assert motion_errors(truth[:2], truth[:2]) == ()


def test_tiny_and_half_turns_are_as_sure_as_others():
    still = along_x(np.zeros(5))
    angles = np.array([1e-9, 1e-3, 90.0, 179.9999999])
    turned = still.copy()
    for pose, angle in zip(turned[1:], np.radians(angles), strict=True):
        pose[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    first, others = np.zeros(4, int), np.arange(1, 5)
    metres, degrees = relative_errors(turned, still, first, others)
    assert degrees == pytest.approx(angles, rel=1e-9)
    assert metres == pytest.approx(np.zeros(4))


def test_a_scale_that_stays_does_not_drift_and_one_that_doubles_does():
    truth = along_x(np.linspace(0, 30, 301))
    steady = scale_drift(along_x(0.5 * truth[:, 0, 3]), truth)
    assert (steady.last_by_first, steady.log_spread) == pytest.approx((1.0, 0.0), abs=1e-9)
    assert [window.scale for window in steady.windows] == pytest.approx([2.0] * 20)
    assert steady.window_m == pytest.approx(1.5)
    half = np.where(truth[:, 0, 3] < 15, truth[:, 0, 3], 15 + 0.5 * (truth[:, 0, 3] - 15))
    drift = scale_drift(along_x(half), truth)
    assert drift.last_by_first == pytest.approx(2.0)
    assert drift.log_spread == pytest.approx(math.log(2) / 2, rel=1e-2)
    middles = [window.path_m for window in drift.windows]
    assert middles == pytest.approx(np.arange(0.75, 30, 1.5), abs=0.06)


def test_jitter_hardly_changes_the_scale():
    truth = along_x(np.linspace(0, 10, 1001))
    jittered = truth.copy()
    jittered[:, :3, 3] += np.random.default_rng(0).normal(0, 0.01, (1001, 3))
    scales = [window.scale for window in scale_drift(jittered, truth).windows]
    assert scales == pytest.approx([1.0] * 10, abs=0.02)
    steps = np.linalg.norm(np.diff(jittered[:, :3, 3], axis=0), axis=1).sum()
    assert steps > 20  # twice the length of the path


def test_there_is_no_scale_drift_on_a_short_path_or_of_an_estimate_that_stands():
    truth = along_x(np.linspace(0, 1.9, 20))
    assert scale_drift(truth, truth) is None
    longer = along_x(np.linspace(0, 5, 50))
    assert scale_drift(along_x(np.full(50, 7.0)), longer) is None
