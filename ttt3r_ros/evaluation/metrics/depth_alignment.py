# SPDX-License-Identifier: Apache-2.0
"""What predicted depth is multiplied with, and shifted by, to come near the true one.

Each function goes over the pixels of a whole sequence several times and keeps only sums, so memory
does not grow with the sequence. p is the predicted and g the true depth. The procedures here are
those of the published evaluations; the line of least absolute errors is in `least_absolute_line`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

Pairs = npt.NDArray[np.float64]  # [2, K] predicted and true depth of K pixels, metres
Images = Callable[[], Iterable[Pairs]]  # all images anew with each call
Floats = npt.NDArray[np.float64]

LEAST_SCALE = 1e-3
_SCALE_STEPS = 10
_WEIGHT_LIMIT = 1e-8  # keeps the weight of a pixel without error finite

_ADAM_STEPS = 1000
_ADAM_RATE = 1e-4
_ADAM_BETAS = (0.9, 0.999)
_ADAM_EPSILON = 1e-8
_ADAM_LEAST_CHANGE = 1e-6  # of the loss


def published_scale(images: Images) -> float:
    """Return the s that brings s p near g: least absolute errors by ten reweighted squares.

    The steps are those of the published evaluations, and so is their number. They have not come to
    an end then: a pixel that a step happens to meet weighs as much as thousands of others, so with
    thousands of noisy pixels the rounding of sums decides the tenth step from its fourth digit on.
    """
    sums = sum(pairs.sum(axis=1) for pairs in images())
    scale = float(sums[1] / sums[0]) if sums[0] > 0 else LEAST_SCALE
    for _ in range(_SCALE_STEPS):
        above = below = 0.0
        for p, g in images():
            weighted = p / (np.abs(scale * p - g) + _WEIGHT_LIMIT)
            above += float(weighted @ g)
            below += float(weighted @ p)
        scale = max(above / below, LEAST_SCALE) if below > 0 else LEAST_SCALE
    return scale


def published_line(images: Images) -> tuple[float, float]:
    """Return s and t of s p + t as the published evaluations find them: by Adam.

    s begins at the median of g by the median of p, t at 0, and at most 1000 steps at a rate of
    1e-4 descend the sum of |s p + t - g|. Adam's steps are about as long as the rate, at most 3.2
    times, so both numbers move by 0.1 or 0.2 at most in practice, whether the sum is least there or
    not. Every step goes over all pixels.
    """
    below = median(images, 0)
    line = np.array((median(images, 1) / below if below > 0 else LEAST_SCALE, 0.0))
    loss_before = np.inf
    first, second = np.zeros(2), np.zeros(2)  # moments of the gradient
    for step in range(1, _ADAM_STEPS + 1):
        loss, gradient = 0.0, np.zeros(2)
        for p, g in images():
            residuals = line[0] * p + line[1] - g
            signs = np.sign(residuals)
            loss += float(np.abs(residuals).sum())
            gradient += (signs @ p, signs.sum())
        first += (1 - _ADAM_BETAS[0]) * (gradient - first)
        second += (1 - _ADAM_BETAS[1]) * (gradient**2 - second)
        root = np.sqrt(second / (1 - _ADAM_BETAS[1] ** step)) + _ADAM_EPSILON
        line -= _ADAM_RATE * first / (1 - _ADAM_BETAS[0] ** step) / root
        if abs(loss_before - loss) < _ADAM_LEAST_CHANGE:
            break
        loss_before = loss
    return float(line[0]), float(line[1])


def median(images: Images, which: int) -> float:
    """Return the median of p (0) or of g (1) over all images, whose numbers are float32's.

    The bits of float32 numbers are in their order, so the middle one is found by counting, the
    upper 16 bits first.
    """
    count = sum(pairs.shape[1] for pairs in images())
    middle = {(count - 1) // 2, count // 2}
    return sum(_ranked(images, which, rank) for rank in middle) / len(middle)


def _ranked(images: Images, which: int, rank: int) -> float:
    """Return the number that so many others are below or equal to."""
    upper = 0
    for shift in (16, 0):
        counts = np.zeros(1 << 16, np.int64)
        for pairs in images():
            keys = _ordered_bits(pairs[which])
            if not shift:
                keys = keys[keys >> 16 == upper]
            counts += np.bincount((keys >> shift) & 0xFFFF, minlength=1 << 16)
        sums = counts.cumsum()
        place = int(np.searchsorted(sums, rank, side="right"))
        rank -= int(sums[place] - counts[place])
        if shift:
            upper = place
    key = np.uint32(upper << 16 | place)
    bits = key ^ np.uint32(0x80000000) if key >> 31 else ~key
    return float(np.array(bits).view(np.float32))


def _ordered_bits(numbers: Floats) -> npt.NDArray[np.uint32]:
    bits = numbers.astype(np.float32).view(np.uint32)
    negative = bits >> 31 == 1
    return np.where(negative, ~bits, bits | np.uint32(0x80000000))
