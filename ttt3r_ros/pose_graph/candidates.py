# SPDX-License-Identifier: Apache-2.0
"""Which keyframes are asked about an image: old ones that look alike, and two of known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ttt3r_ros.config import LoopConfig
from ttt3r_ros.geometry import Transform, inverse, rotation_vector
from ttt3r_ros.pose_graph.memory import LONG_AGO
from ttt3r_ros.relocalization.keyframes import Descriptor, Keyframe
from ttt3r_ros.types import TrackedView

# The way since a keyframe that is surely still in view, and since one whose place odometry knows.
_SUCCESSOR = (0.15, 0.6)
_PLACE_KNOWN = (1.0, 12.0)
_OUT_OF_VIEW = (1.5, 1.57)  # shares of the depth, and radians between optical axes


@dataclass(frozen=True, slots=True)
class Choice:
    """Keyframes to be tried."""

    # That may be the same place: by turns the most alike and the nearest by the map as it is.
    old: tuple[Keyframe, ...]
    known: tuple[Keyframe, ...]  # passed a moment ago: the right answer is known
    far: tuple[Keyframe, ...]  # looks elsewhere: any answer is wrong


def choose(
    view: TrackedView,
    keyframes: Sequence[Keyframe],
    descriptor: Descriptor,
    way_since: Mapping[int, float],
    config: LoopConfig,
    calibrate: bool,
) -> Choice:
    """Choose whom to ask about an image.

    Args:
        view: the image.
        keyframes: what is remembered; those of segments that the graph does not have are left out.
        descriptor: of the image.
        way_since: how far the camera has gone since each segment began, the oldest first.
        config: the settings.
        calibrate: choose some of known truth too.
    """
    known = [k for k in keyframes if k.segment in way_since]
    order = np.argsort(_apart_in_looks(known, descriptor), kind="stable")
    alike = [known[i] for i in order]  # the most alike first
    recent = _recent(way_since)
    old = [k for k in alike if k.segment not in recent and way_since[k.segment] >= config.min_path]
    near = sorted(old, key=lambda k: _apart_in_place(k, view))
    asked = _taking_turns(old, near, config.candidates)
    if not calibrate:
        return Choice(asked, (), ())
    successors = [k for k in known if _within(way_since[k.segment], _SUCCESSOR)]
    far = [
        k
        for k in alike
        if _within(way_since[k.segment], _PLACE_KNOWN)
        and _is_out_of_view(inverse(k.T_map_camera) @ view.T_map_camera, view.depth_m)
    ]
    return Choice(asked, tuple(successors[-1:]), tuple(far[:1]))


def _recent(way_since: Mapping[int, float]) -> set[int]:
    """The newest segment and the one before, unless that is of an earlier stream."""
    return {segment for segment in list(way_since)[-2:] if way_since[segment] < LONG_AGO}


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _taking_turns(
    one: Sequence[Keyframe], other: Sequence[Keyframe], count: int
) -> tuple[Keyframe, ...]:
    """The first of one, of the other, the second of one, and so on, none twice."""
    both = (keyframe for pair in zip(one, other, strict=True) for keyframe in pair)
    return tuple({id(keyframe): keyframe for keyframe in both}.values())[:count]


def _apart_in_place(keyframe: Keyframe, view: TrackedView) -> float:
    """How far apart two views are: shares of the depth and radians."""
    between = inverse(keyframe.T_map_camera) @ view.T_map_camera
    metres, radians = np.linalg.norm(between[:3, 3]), np.linalg.norm(rotation_vector(between))
    return float(metres / keyframe.depth_m + radians)


def _is_out_of_view(T_keyframe_camera: Transform, depth_m: float) -> bool:
    metres, radians = _OUT_OF_VIEW
    moved = float(np.linalg.norm(T_keyframe_camera[:3, 3])) / depth_m
    turned = float(np.arccos(np.clip(T_keyframe_camera[2, 2], -1, 1)))
    return moved > metres or turned > radians


def _apart_in_looks(
    keyframes: Sequence[Keyframe], descriptor: Descriptor
) -> npt.NDArray[np.float64]:
    kept = np.array([k.descriptor for k in keyframes]).reshape(-1, len(descriptor))
    apart: npt.NDArray[np.float64] = np.linalg.norm(kept - descriptor, axis=1)
    return apart
