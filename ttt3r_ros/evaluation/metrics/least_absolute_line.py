# SPDX-License-Identifier: Apache-2.0
"""The straight line with the least sum of absolute errors, of more points than fit in memory.

A point is a predicted depth p and a true depth g; nothing here depends on that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Pairs = npt.NDArray[np.float64]  # [2, K] of K pixels, metres
Blocks = Callable[[], Iterable[Pairs]]  # all of them anew with each call
Floats = npt.NDArray[np.float64]

_STEPS = 25
_SHARPER = 0.36  # by which the limit of the weights shrinks with each; to 1e-11 of the mean truth
_HELD_AT_ONCE = 1 << 19  # pixels; with fewer, more rounds are needed
_ROUNDS = 50  # of looking around, where five are usual
_TURNS = 50  # where ten are usual
_POWERS = 1100  # of two; no number is smaller or larger
_ROUNDED = 1e-12  # share of the largest term of a sum that may be its rounding
_FAR = 1e6
_LEAST_FALL = 1e-9  # of the sum of errors in a round


def least_absolute_line(blocks: Blocks) -> tuple[float, float]:
    """Return the s and t with the least sum of |s p + t - g| there is.

    The line that suits some of the pixels, evenly taken, is near it. Around that only pixels near
    the line can change their sign; the sum over all others is linear, so its slope is enough, and
    the rest is solved in memory, exactly. Since the whole sum is convex, the least one around is
    the least one of all.

    Where thousands of pixels are on one line but for their rounding, that line is all there is to
    find, and it is found to the rounding.
    """
    count = sum(points.shape[1] for points in blocks())
    some = np.concatenate([points[:, :: -(-count // _HELD_AT_ONCE)] for points in blocks()], axis=1)
    line = _least(_Around(some, np.zeros(2), np.inf, (0.0, 0.0), 0.0), np.zeros(2))
    total_m = np.inf
    for _ in range(_ROUNDS):
        around = _look_around(blocks, line)
        if not around.near.size or around.total_m > (1 - _LEAST_FALL) * total_m:
            break
        total_m = around.total_m
        step = _least(around, line) - line
        change_m = max(abs(step[0] * p + step[1]) for p in around.range_m)
        share = min(1.0, around.reach_m / change_m) if change_m > 0 else 1.0
        line = line + share * step
        if share == 1.0:
            break
    return float(line[0]), float(line[1])


class _Around(NamedTuple):
    """The sum of absolute errors, as it is while no error changes by more than `reach_m`."""

    near: Pairs  # pixels whose error is below that
    slope: Floats  # [2], of the sum over the other pixels, by s and t
    reach_m: float
    range_m: tuple[float, float]  # least and largest p of all pixels
    total_m: float  # the sum itself, of all pixels


def _look_around(blocks: Blocks, line: Floats) -> _Around:
    counts = np.zeros(2 * _POWERS + 1, np.int64)  # of errors below each power of two
    total_m, least, most = 0.0, np.inf, -np.inf
    for p, g in blocks():
        errors = np.abs(line[0] * p + line[1] - g)
        powers = np.where(errors > 0, np.frexp(errors)[1], -_POWERS)
        counts += np.bincount(powers.clip(-_POWERS, _POWERS) + _POWERS, minlength=len(counts))
        least, most = min(least, float(p.min())), max(most, float(p.max()))
        total_m += float(errors.sum())
    place = int(np.searchsorted(counts.cumsum(), _HELD_AT_ONCE, side="right"))
    reach_m = 2.0 ** (place - 1 - _POWERS) if place < len(counts) else np.inf
    near, slope = [], np.zeros(2)
    for p, g in blocks():
        errors = line[0] * p + line[1] - g
        far = np.abs(errors) >= reach_m
        signs = np.sign(errors[far])
        slope += (signs @ p[far], signs.sum())
        near.append(np.stack((p[~far], g[~far])))
    return _Around(np.concatenate(near, axis=1), slope, reach_m, (least, most), total_m)


def _sum(around: _Around, line: Floats) -> float:
    p, g = around.near
    return float(np.abs(line[0] * p + line[1] - g).sum() + around.slope @ line)


def _least(around: _Around, line: Floats) -> Floats:
    """Return the least point of that sum, or one far below `line` if it has none."""
    near = _reweighted(around)
    return _descend(around, near if _sum(around, near) < _sum(around, line) else line)


def _reweighted(around: _Around) -> Floats:
    """Return a point near the least one, by least squares that are reweighted again and again."""
    p, g = around.near
    line: Floats = np.zeros(2)
    weights, mean = np.ones_like(p), g.mean()
    for step in range(_STEPS):
        weighted = weights * p
        rows = (weighted @ p, weighted.sum()), (weighted.sum(), weights.sum())
        right = np.array((weighted @ g, weights @ g)) - (around.slope if step else 0.0)
        # Any line of least squares will do where p is constant.
        line = np.asarray(np.linalg.lstsq(rows, right, rcond=None)[0])
        # The weights become sharp little by little, or the first pixel on the line would hold it.
        weights = 1 / np.maximum(np.abs(line[0] * p + line[1] - g), mean * _SHARPER**step)
    return line


def _descend(around: _Around, line: Floats) -> Floats:
    """Return the least point of that sum, or one far below if it has none.

    In the plane of s and t each pixel is the line on which its error is zero, and between these
    lines the sum is linear. So a point is the least one if no way along a pixel's line through it
    leads down, nor one along the axes, and the least point on a way is on the line of a pixel.
    """
    (p, g), slope = around.near, around.slope
    for _ in range(_TURNS):
        errors = line[0] * p + line[1] - g
        on = np.abs(errors) <= _ROUNDED * (np.abs(line[0] * p) + abs(line[1]) + g)
        signs = np.where(on, 0.0, np.sign(errors))
        steepness = slope + np.array((signs @ p, signs.sum()))
        ways = np.array([(0.0, 1.0), (1.0, 0.0), *((1.0, -own) for own in np.unique(p[on]))])
        ways = np.concatenate((ways, -ways))
        kinks = _kinks(ways, p[on])
        rises = ways @ steepness + kinks
        best = int(rises.argmin())
        if rises[best] >= -_ROUNDED * (np.abs(p).sum() + len(p) + np.abs(slope).sum()):
            break
        line = line + _least_on_way(ways[best], around, errors) * ways[best]
    return line


def _kinks(ways: Floats, p: Floats) -> Floats:
    """Return the sum of |ds p + dt| over pixels p for each way (ds, dt)."""
    ordered = np.sort(p)
    sums = np.concatenate(([0.0], ordered.cumsum()))
    flat = ways[:, 0] == 0
    middle = -ways[:, 1] / np.where(flat, 1.0, ways[:, 0])
    below = np.searchsorted(ordered, middle)
    along = middle * (2 * below - len(p)) + sums[-1] - 2 * sums[below]
    return np.asarray(np.where(flat, np.abs(ways[:, 1]) * len(p), np.abs(ways[:, 0]) * along))


def _least_on_way(way: Floats, around: _Around, errors: Floats) -> float:
    """Return how far to go."""
    rates = way[0] * around.near[0] + way[1]
    moving = rates != 0
    rates, stops = rates[moving], -errors[moving] / rates[moving]
    order = np.argsort(stops)
    rises = way @ around.slope - np.abs(rates).sum() + 2 * np.abs(rates[order]).cumsum()
    place = int(np.searchsorted(rises, 0.0))
    return float(stops[order[place]]) if place < len(order) else _FAR
