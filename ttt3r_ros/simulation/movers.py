# SPDX-License-Identifier: Apache-2.0
"""Things that move through a room: balls and boxes on the floor, on paths in closed form.

They are solids that the room has anyway, so that pictures and depth need nothing new. All stay
below where cameras are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ttt3r_ros.simulation.draws import Draws
from ttt3r_ros.simulation.furniture import BOXES, CYLINDERS
from ttt3r_ros.simulation.room import Rooms
from ttt3r_ros.simulation.scene_options import MOST_MOVING

_PURPOSE, _NUMBERS = 3, 60
_BALL = 1 + BOXES + CYLINDERS
# Balls and the two parts of the piece in the middle, in turn; all else has its place at a wall.
_SOLIDS = (_BALL + 1, BOXES, _BALL, BOXES - 1)
_RADIUS_M, _SIDE_M, _HALF_HEIGHT_M = (0.15, 0.28), (0.12, 0.25), (0.15, 0.29)
_RATE = (0.25, 0.7)  # rad/s of the waves: up to 0.7 m/s in a reach of 1 m
_LEAST_REACH_M = 0.1


class Movers:
    """A number of things that move through one room."""

    def __init__(self, seed: int, room: Rooms, count: int) -> None:
        """Draw them and their paths.

        Args:
            seed: decides on everything, together with the room.
            room: a single one.
            count: 0 to `MOST_MOVING`.

        Raises:
            ValueError: another count, or not one room.
        """
        if not 0 <= count <= MOST_MOVING:
            raise ValueError(f"moving: must be 0 to {MOST_MOVING}, got {count}")
        if len(room) != 1:
            raise ValueError(f"room: expected one, got {len(room)}")
        draws = Draws(seed, _PURPOSE, _NUMBERS)
        self._room = room
        self.solids = list(_SOLIDS[:count])
        radius = draws.uniform(*_RADIUS_M, MOST_MOVING, 1).expand(-1, -1, 3)[0]  # [MOST_MOVING, 3]
        sides, height = (
            draws.uniform(*_SIDE_M, MOST_MOVING, 2),
            draws.uniform(*_HALF_HEIGHT_M, MOST_MOVING, 1),
        )
        box = torch.cat((sides, height), dim=2)[0]
        is_ball = torch.tensor([[solid >= _BALL] for solid in _SOLIDS])
        self._half = torch.where(is_ball, radius, box)[:count]  # [count, 3]
        self._rate = draws.uniform(*_RATE, MOST_MOVING, 3)[0, :count]  # of x, y and yaw
        self._phase = draws.uniform(-math.pi, math.pi, MOST_MOVING, 2)[0, :count]
        low, high = room.free_low[0, :2].cpu(), room.free_high[0, :2].cpu()
        self._middle = (low + high) / 2
        widest = self._half[:, :2].norm(dim=1, keepdim=True)
        self._reach = ((high - low) / 2 - widest).clamp(min=_LEAST_REACH_M)  # [count, 2]

    def at(self, t_s: Tensor) -> Rooms:
        """Return the room as it is at these times [F]: F rooms."""
        rooms = self._room[torch.zeros(len(t_s), dtype=torch.long)]
        if not self.solids:
            return rooms
        t = t_s.double().cpu()[:, None, None]
        wave = (self._rate[:, :2] * t + self._phase).sin()
        place = torch.empty(len(t_s), len(self.solids), 3)
        place[..., :2] = self._middle + self._reach * wave
        place[..., 2] = self._half[:, 2]  # on the floor
        centre, half, yaw = (
            rooms.solid_centre.clone(),
            rooms.solid_half.clone(),
            rooms.solid_yaw.clone(),
        )
        centre[:, self.solids] = place.to(centre)
        half[:, self.solids] = self._half.to(half)
        yaw[:, self.solids] = (self._rate[:, 2] * t[..., 0]).to(yaw)
        return replace(rooms, solid_centre=centre, solid_half=half, solid_yaw=yaw)
