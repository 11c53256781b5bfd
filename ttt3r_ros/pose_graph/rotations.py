# SPDX-License-Identifier: Apache-2.0
"""Rotations by the thousand: exponential, logarithm and Jacobian of stacks [N, 3, 3].

Formulas: Solà, Deray and Atchuthan, "A micro Lie theory for state estimation in robotics"
(arXiv:1812.01537), section IV and appendix B. Right Jacobians, as perturbations are on the right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_SMALL = 1e-4  # rad: below it series are exact to rounding


def hat(vectors: Array) -> Array:
    """The matrices [N, 3, 3] by which vectors [N, 3] are multiplied in cross products."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    rows = ((zero, -z, y), (z, zero, -x), (-y, x, zero))
    result: Array = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    return result


def exponential(vectors: Array) -> Array:
    """Rotations [N, 3, 3] about axis times angle [N, 3] in radians."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    small = angle < _SMALL
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 1 - angle**2 / 6, np.sin(safe) / safe)
    second = np.where(small, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    cross = hat(vectors)
    result: Array = np.eye(3) + first * cross + second * (cross @ cross)
    return result


def logarithm(rotations: Array) -> Array:
    """Axis times angle [N, 3], at most pi long, of rotations [N, 3, 3]; exact near 0 and pi."""
    wxyz = _quaternions(rotations)
    wxyz = np.where(wxyz[:, :1] < 0, -wxyz, wxyz)
    sine = np.linalg.norm(wxyz[:, 1:], axis=1, keepdims=True)  # of half the angle
    small = sine < _SMALL
    safe = np.where(small, 1.0, sine)
    scale = np.where(small, 2 + sine**2 / 3, 2 * np.arctan2(sine, wxyz[:, :1]) / safe)
    result: Array = scale * wxyz[:, 1:]
    return result


def inverse_right_jacobian(vectors: Array) -> Array:
    """How the logarithm [N, 3] of rotations changes with a perturbation on their right."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    small = angle < _SMALL
    safe = np.where(small, 1.0, angle)
    # 1/a² - (1 + cos a) / (2 a sin a), by half angles, which has no pole at pi.
    half = np.minimum(safe, np.pi) / 2
    factor = np.where(small, 1 / 12, (1 - half * np.cos(half) / np.sin(half)) / safe**2)
    cross = hat(vectors)
    result: Array = np.eye(3) + cross / 2 + factor * (cross @ cross)
    return result


def _quaternions(rotations: Array) -> Array:
    """(w, x, y, z) [N, 4], by whichever of four formulas divides by the most (Shepperd)."""
    m = rotations
    trace = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
    diagonal = np.stack((trace, m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]), axis=1)
    outer = np.empty((len(m), 4, 4))  # four times the products of the components
    outer[:, 0, 0] = 1 + trace
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        outer[:, 0, 1 + i] = outer[:, 1 + i, 0] = m[:, k, j] - m[:, j, k]
        outer[:, 1 + i, 1 + i] = 1 + 2 * m[:, i, i] - trace
        outer[:, 1 + i, 1 + j] = outer[:, 1 + j, 1 + i] = m[:, i, j] + m[:, j, i]
    best = outer[np.arange(len(m)), diagonal.argmax(axis=1)]
    result: Array = best / np.linalg.norm(best, axis=1, keepdims=True)
    return result
