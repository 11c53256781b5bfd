# SPDX-License-Identifier: Apache-2.0
"""Loops beside the truth: which of them are right, and where they are in the picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ttt3r_ros.evaluation.map_view import RGB, Link
from ttt3r_ros.geometry import Transform, inverse, orthonormal, rotation_vector
from ttt3r_ros.pose_graph.exchange import LoopCounts
from ttt3r_ros.pose_graph.graph import Edge

RIGHT = (0.3, 10.0)  # metres and degrees that a right loop is off at most
WRONG = (0.5, 20.0)  # and beyond which it is of another place
_BELIEVED: RGB = (0, 158, 115)  # of Okabe and Ito
_THROWN_OUT: RGB = (150, 150, 150)
_FALSE: RGB = (213, 94, 0)  # believed, but wrong


@dataclass(frozen=True, slots=True)
class JudgedLoop:
    """A loop of the graph; its errors are NaN where an end has no true pose."""

    first_ns: int  # stamp of the keyframe
    second_ns: int  # of the image that was recognised
    error_m: float
    error_deg: float
    is_believed: bool

    @property
    def is_right(self) -> bool:
        """Whether it is near the truth."""
        return self.error_m <= RIGHT[0] and self.error_deg <= RIGHT[1]

    @property
    def is_wrong(self) -> bool:
        """Whether it is of another place."""
        return self.error_m > WRONG[0] or self.error_deg > WRONG[1]


def judge_loops(loops: Iterable[Edge], true_poses: Mapping[int, Transform]) -> list[JudgedLoop]:
    """Compare what loops say with the truth.

    Args:
        loops: of a pose graph; those that are of no images are left out.
        true_poses: [4, 4] of the camera in the world, by stamp in nanoseconds.
    """
    judged = []
    for loop in loops:
        first_ns, second_ns = loop.first.stamp_ns, loop.second.stamp_ns
        if first_ns is None or second_ns is None:
            continue
        error = np.full(2, np.nan)
        if first_ns in true_poses and second_ns in true_poses:
            true = inverse(true_poses[first_ns]) @ true_poses[second_ns]
            off = inverse(true) @ loop.T_first_second
            turned_rad = np.linalg.norm(rotation_vector(orthonormal(off)))
            error[:] = np.linalg.norm(off[:3, 3]), np.degrees(turned_rad)
        judged.append(
            JudgedLoop(first_ns, second_ns, float(error[0]), float(error[1]), loop.is_believed)
        )
    return judged


def loop_metrics(counts: LoopCounts, judged: Iterable[JudgedLoop]) -> dict[str, Any]:
    """Return what `report.json` says of loops; right and wrong are null without any truth."""
    loops = list(judged)
    believed = [loop for loop in loops if loop.is_believed]
    known = any(np.isfinite(loop.error_m) for loop in loops)
    return {
        **asdict(counts),
        "believed": len(believed),
        "believed_right": sum(loop.is_right for loop in believed) if known else None,
        "believed_wrong": sum(loop.is_wrong for loop in believed) if known else None,
        "thrown_out": len(loops) - len(believed),
        "thrown_out_right": sum(loop.is_right for loop in loops if not loop.is_believed)
        if known
        else None,
        "thrown_out_wrong": sum(loop.is_wrong for loop in loops if not loop.is_believed)
        if known
        else None,
    }


def loop_lines(
    loops: Iterable[JudgedLoop], path: Sequence[tuple[int, Transform]], T_truth_map: Transform
) -> list[Link]:
    """Return lines between the places of each loop, those that matter most last.

    Args:
        loops: judged.
        path: stamps and T_map_camera; of stamps that come again the last one counts.
        T_truth_map: the similarity [4, 4] to the frame of the lines.
    """
    places = {stamp_ns: T_truth_map @ T_map_camera[:, 3] for stamp_ns, T_map_camera in path}
    lines = [
        (np.stack((places[loop.first_ns], places[loop.second_ns]))[:, :3], _colour(loop))
        for loop in loops
        if loop.first_ns in places and loop.second_ns in places
    ]
    order = (_THROWN_OUT, _BELIEVED, _FALSE)
    return sorted(lines, key=lambda line: order.index(line[1]))


def _colour(loop: JudgedLoop) -> RGB:
    if not loop.is_believed:
        return _THROWN_OUT
    return _FALSE if loop.is_wrong else _BELIEVED
