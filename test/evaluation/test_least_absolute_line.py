# SPDX-License-Identifier: Apache-2.0
"""The line is the best of all, also where only a part of the pixels is held at once."""

from __future__ import annotations

import numpy as np
import pytest

from ttt3r_ros.evaluation.metrics import least_absolute_line as subject


def pixels(kind, count=20_000):
    rng = np.random.default_rng(1)
    g = rng.gamma(3, 1, count) + 0.1
    p = 0.5 * g * rng.lognormal(0, 0.2, count) + 0.1
    if kind == "rounded":  # many pixels on the same lines
        p, g = np.round(p, 1), np.round(g, 1)
    if kind == "outliers":
        p[::3] = rng.uniform(0, 50, len(p[::3]))
    return np.stack((p, g)).astype(np.float32).astype(np.float64)


def blocks_of(points):
    return lambda: np.array_split(points, 7, axis=1)


def error(points, s, t):
    return float(np.abs(s * points[0] + t - points[1]).sum())


@pytest.mark.parametrize("kind", ["noisy", "rounded", "outliers"])
@pytest.mark.parametrize("held", [1 << 19, 2000])
def test_no_other_line_is_better(monkeypatch, kind, held):
    monkeypatch.setattr(subject, "_HELD_AT_ONCE", held)
    points = pixels(kind)
    s, t = subject.least_absolute_line(blocks_of(points))
    least = error(points, s, t)
    for far in (1e-6, 1e-4, 1e-2):
        for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
            # A sum of that many has lost the last digits.
            other = error(points, s + far * np.cos(angle), t + far * np.sin(angle))
            assert other >= least * (1 - 1e-12)


def test_what_is_held_at_once_does_not_change_the_line(monkeypatch):
    points = pixels("noisy")
    whole = subject.least_absolute_line(blocks_of(points))
    monkeypatch.setattr(subject, "_HELD_AT_ONCE", 2000)
    assert subject.least_absolute_line(blocks_of(points)) == pytest.approx(whole, rel=1e-9)


def test_most_of_the_pixels_decide_whatever_the_others_say():
    points = pixels("noisy")
    points[1] = 2.0 * points[0] - 0.3
    points[1, ::3] = 100.0
    assert subject.least_absolute_line(blocks_of(points)) == pytest.approx((2.0, -0.3))


def test_one_depth_everywhere_still_has_a_best_line():
    points = pixels("noisy", 999)
    points[0] = 1.5
    s, t = subject.least_absolute_line(blocks_of(points))
    assert 1.5 * s + t == pytest.approx(np.median(points[1]))
