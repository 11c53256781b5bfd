# SPDX-License-Identifier: Apache-2.0
"""A robot in one room, or carried from one into another that may look like it and back again.

    one       a room
    other     a room, another one, and the first again
    alike     the other has the same wallpaper, furniture and pictures, which are elsewhere
    mirrored  the other is the first in a mirror

Between two rooms nothing is seen for some seconds. Each has a world of its own, far from the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.streams import RATE_HZ, Pictures, Studio
from ttt3r_ros.geometry import Transform, orthonormal
from ttt3r_ros.simulation import Rooms
from ttt3r_ros.simulation.decals import SKIRTINGS, shown_once

PLACES = ("one", "other", "alike", "mirrored")
_CARRIED_S = 3.0
_APART_M = 1000.0  # worlds
_OTHER_SEED = 500_000  # is added to a room's
_MIRROR_Y = np.diag([1.0, -1.0, 1.0, 1.0])  # of the world
_MIRROR_X = np.diag([-1.0, 1.0, 1.0, 1.0])  # of the camera


class Seen(NamedTuple):
    """One image of the stream, with its truth."""

    stamp_ns: int
    rgb: Pictures  # [H, W, 3]
    depth_m: np.ndarray  # [H, W]
    T_world_camera: Transform
    room: int  # 0 or 1


@dataclass(frozen=True, slots=True)
class _Room:
    studio: Studio
    number: int
    is_mirrored: bool = False

    def film(self, first: int, images: int) -> Iterator[tuple[Pictures, np.ndarray, Transform]]:
        """Pictures, depth and poses of so many images from number `first` on."""
        for shot in self.studio.film(images, first=first):
            T = orthonormal(shot.T_world_camera[0].numpy())
            rgb, depth_m = shot.rgb[0].numpy(), shot.depth_m[0].double().numpy()
            if self.is_mirrored:
                rgb, depth_m = np.ascontiguousarray(rgb[:, ::-1]), depth_m[:, ::-1]
                T = _MIRROR_Y @ T @ _MIRROR_X
            T[0, 3] += self.number * _APART_M
            yield rgb, depth_m, T


def stream(seed: int, width: int, images: int, places: str) -> Iterator[Seen]:
    """Yield so many images at `RATE_HZ`, a third of them in each of three rooms if there are two.

    Args:
        seed: of the first room; paths are others at each visit.
        width: of the pictures, which are three quarters as high.
        images: of all rooms together.
        places: one of `PLACES`.
    """
    first, other = Studio(seed, width), seed + _OTHER_SEED
    if places == "one":
        visits = [_Room(first, 0)]
    else:
        second = {
            "other": Studio(other, width),
            "alike": Studio(other, width, rooms=_rearranged(first.rooms)),
            "mirrored": Studio(other, width, rooms=first.rooms),
        }[places]
        visits = [_Room(first, 0), _Room(second, 1, places == "mirrored"), _Room(first, 0)]
    each = -(-images // len(visits))
    stamp_s = 1.0
    for number, room in enumerate(visits):
        count = min(each, images - number * each)
        for rgb, depth_m, T in room.film(number * each, count):
            yield Seen(round(stamp_s * 1e9), rgb, depth_m, T, room.number)
            stamp_s += 1 / RATE_HZ
        stamp_s += _CARRIED_S


def _rearranged(rooms: Rooms) -> Rooms:
    """The same walls, wallpaper, furniture and pictures, but standing and hanging elsewhere.

    Furniture and lamp are where a mirror of x would show them, what is on the walls where one of y
    would; nothing itself is mirrored.
    """
    x, y = torch.tensor([-1.0, 1.0, 1.0]), torch.tensor([1.0, -1.0, 1.0])
    low, high = _ordered(rooms.decal_low * y, rooms.decal_high * y)
    free_low, free_high = _ordered(rooms.free_low * x, rooms.free_high * x)
    materials = rooms.materials.clone()
    on_walls = slice(SKIRTINGS - low.shape[1], None)
    materials[:, on_walls, 1:5] = shown_once(low, high, rooms.size / 2)
    return replace(
        rooms,
        solid_centre=rooms.solid_centre * x,
        solid_yaw=-rooms.solid_yaw,
        decal_low=low,
        decal_high=high,
        materials=materials,
        light_m=rooms.light_m * x,
        free_low=free_low,
        free_high=free_high,
    )


def _ordered(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    return torch.minimum(one, other), torch.maximum(one, other)
