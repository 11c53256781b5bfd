# SPDX-License-Identifier: Apache-2.0
"""The metrics once more, from their definitions and in plain NumPy.

Slow, and by other ways where there are any. Alignment and distances are those that the package
itself uses where evo, which they are compared with, is not installed.
"""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np

from ttt3r_ros.evaluation.metrics import plain_errors


def associate(stamps_ns, true_stamps_ns, max_difference_s=0.01):
    """Pairs (place, true place): each stamp with the nearest true one."""
    pairs = []
    for i, stamp in enumerate(stamps_ns):
        apart = [abs(int(other) - int(stamp)) for other in true_stamps_ns]
        if min(apart) <= 1e9 * max_difference_s:
            pairs.append((i, apart.index(min(apart))))
    return pairs


def align(poses, truth, alignment):
    """Aligned poses and the scale."""
    return (poses, 1.0) if alignment == "none" else plain_errors.align(poses, truth, alignment)


def motion_error(a, b, true_a, true_b):
    """Of the motion from pose a to b: metres and degrees."""
    error = np.linalg.inv(np.linalg.inv(true_a) @ true_b) @ (np.linalg.inv(a) @ b)
    # |R - 1| is 2 sqrt(2) sin(angle / 2) in the Frobenius norm.
    half_sine = np.linalg.norm(error[:3, :3] - np.eye(3)) / math.sqrt(8)
    return float(np.linalg.norm(error[:3, 3])), math.degrees(2 * math.asin(min(1.0, half_sine)))


def motion_errors(poses, truth, pairs):
    """Metres [K] and degrees [K] of pairs of places."""
    found = [motion_error(poses[i], poses[j], truth[i], truth[j]) for i, j in pairs]
    return np.array(found).reshape(-1, 2).T


def root_mean_square(numbers):
    return math.sqrt(math.fsum(float(n) ** 2 for n in numbers) / len(numbers))


def neighbours(poses):
    return [(i, i + 1) for i in range(len(poses) - 1)]


def along(poses):
    """Metres travelled at each pose."""
    total = [0.0]
    for a, b in pairwise(poses):
        total.append(total[-1] + float(np.linalg.norm(b[:3, 3] - a[:3, 3])))
    return total


def motion_over(poses, truth, length_m):
    """Pairs, per cent and degrees per metre."""
    metres = along(truth)
    shares, turns = [], []
    for i in range(len(truth)):
        j = next((j for j in range(i, len(truth)) if metres[j] >= metres[i] + length_m), None)
        if j is not None:
            trans, rot = motion_error(poses[i], poses[j], truth[i], truth[j])
            shares.append(100 * trans / (metres[j] - metres[i]))
            turns.append(rot / (metres[j] - metres[i]))
    return len(shares), math.fsum(shares) / len(shares), math.fsum(turns) / len(turns)


def scales(poses, truth, count):
    """The scale in each of so many windows of equal length along the true path."""
    metres = along(truth)
    borders = [
        next(i for i, m in enumerate(metres) if m >= metres[-1] / count * k) for k in range(count)
    ]
    result = []
    for first, last in zip(borders, [*borders[1:], len(truth) - 1], strict=True):
        a, b = (given[first : last + 1, :3, 3] for given in (poses, truth))
        spreads = [((c - c.mean(axis=0)) ** 2).sum() for c in (a, b)]
        result.append(math.sqrt(spreads[1] / spreads[0]))
    return result


def revisits(truth, near_m, near_deg, away_m, away_deg, between_m):
    """Pairs (earlier, later) of images of the same place."""
    metres, n = along(truth), len(truth)

    def apart(i, j):
        cosine = float(np.clip(truth[i, :3, 2] @ truth[j, :3, 2], -1, 1))
        distance = float(np.linalg.norm(truth[i, :3, 3] - truth[j, :3, 3]))
        return distance, math.degrees(math.acos(cosine))

    table = [[apart(i, j) for j in range(n)] for i in range(n)]
    pairs = []
    for later in range(n):
        candidates = []
        for i in range(later):
            metre, degree = table[i][later]
            left = any(
                table[i][k][0] > away_m or table[i][k][1] > away_deg for k in range(i, later)
            )
            far = metres[later] - metres[i] >= between_m
            if left and far and metre < near_m and degree < near_deg:
                candidates.append((metre, i))
        if candidates:
            pairs.append((min(candidates)[1], later))
    return pairs


def depth_errors(p, g, clip_m=None):
    """All seven of pixels p and g [K]."""
    p = p if clip_m is None else np.where(p > clip_m, clip_m, p)
    positive = np.where(p < 1e-5, 1e-5, p)
    ratio = np.where(positive > g, positive / g, g / positive)
    return (
        np.mean(np.abs(p - g) / g),
        np.mean((p - g) * (p - g) / g),
        math.sqrt(np.mean((p - g) * (p - g))),
        math.sqrt(np.mean((np.log(positive) - np.log(g)) ** 2)),
        *(np.count_nonzero(ratio < limit) / len(g) for limit in (1.25, 1.5625, 1.953125)),
    )


def depth_scale(p, g):
    """Ten reweighted steps from the ratio of the means."""
    s = np.mean(g) / np.mean(p)
    for _ in range(10):
        w = 1 / (np.abs(s * p - g) + 1e-8)
        s = max(math.fsum(w * p * g) / math.fsum(w * p * p), 1e-3)
    return s


def depth_line_by_adam(p, g):
    """s and t after at most 1000 steps of Adam (Kingma and Ba 2015, algorithm 1)."""
    x = np.array([np.median(g) / np.median(p), 0.0])
    m, v, before = np.zeros(2), np.zeros(2), None
    for step in range(1, 1001):
        r = x[0] * p + x[1] - g
        loss = np.abs(r).sum()
        gradient = np.array([(np.sign(r) * p).sum(), np.sign(r).sum()])
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        x = x - 1e-4 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        if before is not None and abs(before - loss) < 1e-6:
            break
        before = loss
    return x


def depth_line(p, g):
    """The best of all lines through two of the pixels; one of them is the best of all lines."""
    best = (math.inf, 0.0, 0.0)
    for i, j in combinations(range(len(p)), 2):
        if p[i] != p[j]:
            s = (g[i] - g[j]) / (p[i] - p[j])
            t = g[i] - s * p[i]
            best = min(best, (float(np.abs(s * p + t - g).sum()), s, t))
    return best[1:]
