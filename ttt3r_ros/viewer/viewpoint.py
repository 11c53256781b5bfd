# SPDX-License-Identifier: Apache-2.0
"""From where a map is looked at so that all of it is seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Vector

_OUTLIERS = 2.0  # percent of the points on each side of an axis that need not be in the view
_SAMPLE = 100_000  # points are enough to find that out
_DIRECTION = np.array([-0.55, -0.35, 0.75])  # from behind of a robot that looked along +x
_DISTANCE = 0.85  # in diagonals of the box


class Bounds(NamedTuple):
    """The box [3] of nearly all points, in metres."""

    low: Vector
    high: Vector


class Viewpoint(NamedTuple):
    """Where the viewer is and where it looks, [3] in metres in the map."""

    position: Vector
    look_at: Vector


START = Viewpoint(np.array([-2.5, -1.0, 2.0]), np.array([1.5, 0.0, 0.0]))
"""Over the shoulder of a robot at the origin that looks along +x."""


def bounds(points: npt.NDArray[np.float32]) -> Bounds | None:
    """Return the box of nearly all points [N, 3]; None if there are none."""
    if not len(points):
        return None
    sample = points[:: max(1, len(points) // _SAMPLE)]
    low, high = np.percentile(sample, (_OUTLIERS, 100 - _OUTLIERS), axis=0)
    return Bounds(low, high)


def overview(box: Bounds) -> Viewpoint:
    """Return a place above and behind a box from which all of it is seen."""
    centre = (box.low + box.high) / 2
    diagonal = max(float(np.linalg.norm(box.high - box.low)), 1.0)
    away = _DIRECTION / np.linalg.norm(_DIRECTION)
    return Viewpoint(centre + _DISTANCE * diagonal * away, centre)
