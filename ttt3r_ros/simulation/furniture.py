# SPDX-License-Identifier: Apache-2.0
"""Which pieces of furniture stand where in a room, and the space they leave free. No materials.

Placement needs no trial and error: each piece has its own stretch of wall, and what the pieces
reach into the room bounds the space that stays free.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ttt3r_ros.simulation.draws import Draws

# Two pieces along each of the walls y = -Ly/2 and +Ly/2, one along each of x = -Lx/2 and +Lx/2;
# the last piece stands low in the middle. A piece is two boxes.
WALL_PIECES, PARTS = 6, 2
PIECES = WALL_PIECES + 1
BOXES, CYLINDERS, SPHERES = PIECES * PARTS, 3, 2
# Metres. No piece reaches further into the room, so pieces at the x walls keep that far from both
# corners; beside them is the place of a cylinder, which reaches less.
DEEPEST, CYLINDER_PLACE, CYLINDER_REACH = 1.05, 0.5, 0.6
# Nothing that the camera may pass over is higher than this, nothing over it lower (metres).
LOW_TOP, HIGH_BOTTOM = 0.6, 1.95

# A piece's width along the wall, depth and height from ... to in metres; then for each of its two
# boxes from ... to along the wall, away from it and up, as fractions of width, depth and height.
WALL_KINDS = {
    "wardrobe": (0.8, 1.5, 0.45, 0.60, 1.7, 2.1, 0, 1, 0, 1, 0, 1, 0.2, 0.7, 0.1, 0.9, 1, 1.12),
    "dresser": (0.8, 1.5, 0.40, 0.50, 0.7, 1.0, 0, 1, 0, 1, 0, 1, 0.2, 0.8, 0.4, 0.5, 1, 1.6),
    "bookcase": (0.7, 1.4, 0.30, 0.40, 1.4, 2.0, 0, 1, 0, 0.75, 0, 1, 0, 1, 0, 1, 0, 0.3),
    "sofa": (1.2, 1.7, 0.70, 0.80, 0.8, 0.9, 0, 1, 0, 1, 0, 0.5, 0, 1, 0, 0.28, 0, 1),
    "bed": (1.3, 1.7, 0.70, 0.80, 0.8, 1.0, 0, 1, 0, 1, 0, 0.5, 0, 0.05, 0, 1, 0, 1),
    "desk": (1.0, 1.5, 0.50, 0.65, 0.7, 0.8, 0, 1, 0, 1, 0.93, 1, 0.1, 0.9, 0.3, 0.5, 0, 0.93),
    "chair": (0.4, 0.5, 0.40, 0.50, 0.8, 1.0, 0, 1, 0, 1, 0, 0.5, 0, 1, 0, 0.14, 0.5, 1),
    "crates": (0.5, 1.0, 0.40, 0.60, 0.7, 1.2, 0, 1, 0, 1, 0, 0.6, 0.1, 0.8, 0.1, 0.9, 0.6, 1),
    "kitchen": (1.2, 1.7, 0.50, 0.60, 0.8, 0.9, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0.6, 1.7, 2.4),
}
MIDDLE_KINDS = {
    "table": (0.7, 1.1, 0.50, 0.70, 0.35, 0.5, 0, 1, 0, 1, 0.85, 1, 0.3, 0.7, 0.3, 0.7, 0, 0.85),
    "stool": (0.6, 0.9, 0.50, 0.80, 0.3, 0.4, 0, 1, 0, 1, 0, 1, 0.2, 0.6, 0.3, 0.8, 1, 1.4),
    "box": (0.4, 0.7, 0.40, 0.60, 0.3, 0.55, 0, 1, 0, 1, 0, 1, 0.3, 0.7, 0.3, 0.7, 0.9, 1.05),
}


class Furniture(NamedTuple):
    """The P solids of R rooms: BOXES, then CYLINDERS, then SPHERES.

    Room coordinates: metres, z up, origin in the middle of the floor.
    """

    centre: Tensor  # [R, P, 3]
    half: Tensor  # [R, P, 3] half extents in the solid's own frame; radii where it is round
    yaw: Tensor  # [R, P]
    kind: Tensor  # [R, PIECES] place in WALL_KINDS; of the last piece in MIDDLE_KINDS
    free_low: Tensor  # [R, 2] x and y between which no solid lies between LOW_TOP and HIGH_BOTTOM
    free_high: Tensor  # [R, 2]


def place_furniture(draws: Draws, size: Tensor) -> Furniture:
    """Furnish rooms.

    Args:
        draws: the rooms' random numbers.
        size: [R, 3] extents of the rooms in x, y and z.
    """
    kind = torch.cat(
        (
            draws.choice(torch.arange(len(WALL_KINDS)), WALL_PIECES),
            draws.choice(torch.arange(len(MIDDLE_KINDS)), 1),
        ),
        dim=1,
    )
    shape = torch.cat(
        (
            torch.tensor(list(WALL_KINDS.values()))[kind[:, :-1]],
            torch.tensor(list(MIDDLE_KINDS.values()))[kind[:, -1:]],
        ),
        dim=1,
    )  # [R, PIECES, 18]
    box_centre, box_half, box_yaw, reach = _boxes(draws, size, shape)
    round_centre, round_half = _rounds(draws, size)
    return Furniture(
        torch.cat((box_centre, round_centre), dim=1),
        torch.cat((box_half, round_half), dim=1),
        torch.nn.functional.pad(box_yaw, (0, CYLINDERS + SPHERES)),
        kind,
        reach[:, [2, 0]] - size[:, :2] / 2,
        size[:, :2] / 2 - reach[:, [3, 1]],
    )


def _boxes(draws: Draws, size: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The boxes' centres, half extents and yaw, and how far walls y-, y+, x-, x+ are covered."""
    # Each piece's stretch, along the wall as seen by somebody with the wall in the back.
    long, short = size[:, :1] / 2, size[:, 1:2] / 2 - DEEPEST
    zero = torch.zeros_like(long)
    begin = torch.cat((-long, zero, -long, zero, -short, -short, zero - 1), dim=1)
    cut = short - CYLINDER_PLACE
    end = torch.cat((zero, long, zero, long, cut, cut, zero + 1), dim=1)

    ranges = shape[..., :6].reshape(-1, PIECES, 3, 2)
    extent = draws.uniform(ranges[..., 0], ranges[..., 1], PIECES, 3)  # width, depth, height
    turn = draws.uniform(-0.1, 0.1, PIECES) * draws.chance(0.5, PIECES)
    turn[:, -1] = draws.uniform(-1.6, 1.6)
    sin, cos = turn.sin().abs(), turn.cos()
    play = 0.05
    longest = (end - begin - 2 * play - extent[..., 1] * sin) / cos
    longest[:, -1] = torch.inf
    extent[..., 0] = torch.minimum(extent[..., 0], longest)
    width = extent[..., 0] * cos + extent[..., 1] * sin
    depth = extent[..., 1] * cos + extent[..., 0] * sin
    along = draws.uniform(begin + width / 2 + play, end - width / 2 - play, PIECES)
    gap = draws.uniform(0.02, 0.06, PIECES)

    inward = torch.tensor([[0.0, 1], [0, 1], [0, -1], [0, -1], [1, 0], [-1, 0]])
    tangent = torch.stack((inward[:, 1], -inward[:, 0]), dim=1)
    wall = size[:, [1, 1, 1, 1, 0, 0]] / 2 - (gap + depth / 2)[:, :-1]
    ground = along[:, :-1, None] * tangent - wall[..., None] * inward
    middle = draws.uniform(-0.2, 0.2, 1, 2) * size[:, None, :2]
    ground = torch.cat((ground, middle), dim=1)  # [R, PIECES, 2]
    facing = torch.cat((torch.atan2(tangent[:, 1], tangent[:, 0]), torch.zeros(1)))
    yaw = facing + turn

    fractions = shape[..., 6:].reshape(-1, PIECES, PARTS, 3, 2)
    fractions = fractions - torch.tensor([[0.5], [0.5], [0.0]])
    low, high = (fractions * extent[:, :, None, :, None]).unbind(-1)  # [R, PIECES, PARTS, 3]
    offset, half = (low + high) / 2, (high - low) / 2
    sin, cos = yaw.sin()[..., None], yaw.cos()[..., None]
    centre = torch.stack(
        (
            ground[..., :1] + cos * offset[..., 0] - sin * offset[..., 1],
            ground[..., 1:] + sin * offset[..., 0] + cos * offset[..., 1],
            offset[..., 2],
        ),
        dim=-1,
    )
    # An absent piece waits under the floor, where every ray meets the floor first.
    present = torch.cat((draws.chance(0.95, WALL_PIECES), draws.chance(0.7, 1)), dim=1)
    centre[..., 2] -= 5.0 * ~present[..., None]

    tall = (centre + half)[..., 2].amax(dim=2) > LOW_TOP
    covered = ((gap + depth) * tall)[:, :-1]
    across = torch.maximum(covered[:, 0:4:2], covered[:, 1:4:2])
    reach = torch.cat((across, covered[:, 4:].clamp(min=CYLINDER_REACH)), dim=1)  # [R, 4]
    return (
        centre.flatten(1, 2),
        half.flatten(1, 2),
        yaw[..., None].expand(-1, -1, PARTS).flatten(1, 2),
        reach,
    )


def _rounds(draws: Draws, size: Tensor) -> tuple[Tensor, Tensor]:
    """Centres and half extents of a hanging lamp, two standing cylinders and two balls.

    The first ball lies on the first standing cylinder (a plant, a lamp), the second on the floor.
    """
    hanging, thickness = draws.uniform(0.08, 0.3), draws.uniform(0.06, 0.2)
    lamp = torch.cat((0.15 * draws.uniform(-1, 1, 2) * size[:, :2], size[:, 2:]), dim=1)
    lamp[:, 2] -= hanging / 2
    lamp_half = torch.stack((thickness, thickness, hanging / 2), dim=1)

    radius = draws.uniform(0.1, 0.2, 2)
    height = draws.uniform(0.3, 1.3, 2)
    place = size[:, 1:2] / 2 - DEEPEST - CYLINDER_PLACE / 2
    side = torch.tensor([-1.0, 1.0])
    # With the wall in the back, the place beyond the piece's stretch is at -y for x- and +y for x+.
    standing = torch.stack(
        (side * (size[:, :1] / 2 - 0.05 - radius), side * place.expand(-1, 2), height / 2), dim=2
    )
    standing_half = torch.stack((radius, radius, height / 2), dim=2)

    ball = draws.uniform(0.1, 0.25, 2)
    ball[:, 0] = torch.minimum(ball[:, 0], radius[:, 0] + 0.05)
    on_top = standing[:, 0].clone()
    on_top[:, 2] = height[:, 0] + 0.8 * ball[:, 0]
    on_floor = torch.cat((0.25 * draws.uniform(-1, 1, 2) * size[:, :2], ball[:, 1:]), dim=1)
    return (
        torch.cat((lamp[:, None], standing, on_top[:, None], on_floor[:, None]), dim=1),
        torch.cat((lamp_half[:, None], standing_half, ball[..., None].expand(-1, -1, 3)), dim=1),
    )
