# SPDX-License-Identifier: Apache-2.0
"""Rooms, halls and corridors full of things, and the space that a camera may use in them.

Unlike in `furniture` pieces stand anywhere and things lie on them, as near as half a metre. Nothing
is tried and rejected: what would reach into the camera's space is moved out of it, sideways, or
made as low as that space begins.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ttt3r_ros.simulation.draws import Draws
from ttt3r_ros.simulation.furniture import MIDDLE_KINDS, PARTS, WALL_KINDS

# Pieces stand at a wall or anywhere; each is two boxes. Things lie on pieces or on the floor.
AT_WALLS, ANYWHERE = 5, 4
PIECES = AT_WALLS + ANYWHERE
THINGS = 12  # boxes beside those of the pieces
BOXES, CYLINDERS, SPHERES = PIECES * PARTS + THINGS, 6, 5  # the first cylinder hangs as a lamp

# Extents in x, y and z from ... to in metres; each row is as likely as any other.
_ROOM = (2.6, 6.0, 2.6, 6.0, 2.3, 3.0)
_HALL = (6.0, 14.0, 6.0, 14.0, 2.8, 5.0)
_CORRIDOR = (5.0, 14.0, 1.7, 2.6, 2.2, 3.0)
_SIZES = torch.tensor([_ROOM, _ROOM, _ROOM, _ROOM, _HALL, _HALL, _CORRIDOR, _CORRIDOR])
# Where the camera's space begins above the floor, from ... to in metres, and how high it is.
_BOTTOMS = torch.tensor([(0.1, 0.5), (0.75, 1.2), (0.9, 1.5), (1.2, 2.0)])
_SPACE_HEIGHT, _UNDER_CEILING = (0.2, 0.9), 0.15
# Shares of half of the room that the space leaves at each wall; its least and greatest half width.
_WALL_SHARE, _NARROWEST, _WIDEST = (0.15, 0.55), 0.3, 2.5
# As the kinds of `furniture`: width, depth and height, then the shares of both boxes.
_TABLES = {
    "table": (0.7, 1.8, 0.6, 1.0, 0.68, 0.78, 0, 1, 0, 1, 0.93, 1, 0.42, 0.58, 0.4, 0.6, 0, 0.93),
    "chair": (0.4, 0.5, 0.40, 0.50, 0.8, 1.0, 0, 1, 0, 1, 0.42, 0.5, 0, 1, 0, 0.14, 0.42, 1),
    "stool": (0.3, 0.5, 0.30, 0.50, 0.4, 0.7, 0, 1, 0, 1, 0.9, 1, 0.3, 0.7, 0.3, 0.7, 0, 0.9),
    "box": (0.2, 0.7, 0.20, 0.60, 0.2, 0.9, 0, 1, 0, 1, 0, 1, 0.3, 0.7, 0.3, 0.7, 0.9, 1.05),
}
KINDS = {**WALL_KINDS, **MIDDLE_KINDS, **_TABLES}
_WALL_CHOICE = torch.tensor([list(KINDS).index(name) for name in WALL_KINDS])
_OPEN_CHOICE = torch.tensor([list(KINDS).index(name) for name in [*_TABLES, "table", "chair"]])
_ON_A_PIECE = 0.65
_THING_HALF, _THING_HEIGHT = (0.03, 0.17), (0.02, 0.2)  # metres; half of the height
_BALL_RADIUS = (0.03, 0.14)


class Clutter(NamedTuple):
    """The solids of R rooms: BOXES, then CYLINDERS, then SPHERES; coordinates as `Furniture`."""

    centre: Tensor  # [R, P, 3]
    half: Tensor  # [R, P, 3]
    yaw: Tensor  # [R, P]
    kind: Tensor  # [R, PIECES] places in KINDS
    free_low: Tensor  # [R, 3] corners of the camera's space,
    free_high: Tensor  # [R, 3] into which no solid reaches


def draw_sizes(draws: Draws) -> Tensor:
    """Extents of rooms, [R, 3] metres."""
    ranges = draws.choice(_SIZES)
    return draws.uniform(ranges[:, ::2], ranges[:, 1::2], 3)


def place_clutter(draws: Draws, size: Tensor) -> Clutter:
    """Fill rooms.

    Args:
        draws: the rooms' random numbers.
        size: [R, 3] extents of the rooms in x, y and z.
    """
    low, high = _camera_space(draws, size)
    kind = torch.cat(
        (draws.choice(_WALL_CHOICE, AT_WALLS), draws.choice(_OPEN_CHOICE, ANYWHERE)), 1
    )
    shape = torch.tensor(list(KINDS.values()))[kind]  # [R, PIECES, 18]
    extent = draws.uniform(shape[..., 0:6:2], shape[..., 1:6:2], PIECES, 3)
    ground, yaw = _stand(draws, size, extent)
    fractions = shape[..., 6:].reshape(-1, PIECES, PARTS, 3, 2)
    fractions = fractions - torch.tensor([[0.5], [0.5], [0.0]])
    part_low, part_high = (fractions * extent[:, :, None, :, None]).unbind(-1)
    offset, half = (part_low + part_high) / 2, (part_high - part_low) / 2
    top = (offset + half)[..., 2].amax(dim=2)  # [R, PIECES]
    ground = _aside(
        ground, _bounds(extent[..., :2] / 2, yaw), torch.zeros_like(top), top, low, high
    )
    turned = _turned(offset[..., :2], yaw[..., None])
    centre = torch.cat((ground[:, :, None] + turned, offset[..., 2:]), dim=-1)
    things = _things(draws, size, centre[:, :, 0], half[:, :, 0], yaw, low, high)
    boxes, cylinders, balls = THINGS, CYLINDERS - 1, SPHERES
    lamp_centre, lamp_half = _lamp(draws, size, high)
    thing_centre, thing_half = things
    return Clutter(
        centre=torch.cat(
            (centre.flatten(1, 2), thing_centre[:, :boxes], lamp_centre, thing_centre[:, boxes:]), 1
        ),
        half=torch.cat(
            (half.flatten(1, 2), thing_half[:, :boxes], lamp_half, thing_half[:, boxes:]), 1
        ),
        yaw=torch.cat(
            (
                yaw.repeat_interleave(PARTS, dim=1),
                draws.uniform(-1.6, 1.6, boxes),
                torch.zeros(len(size), 1 + cylinders + balls),
            ),
            dim=1,
        ),
        kind=kind,
        free_low=low,
        free_high=high,
    )


def _camera_space(draws: Draws, size: Tensor) -> tuple[Tensor, Tensor]:
    """Low and high corners [R, 3]."""
    half = size[:, :2] / 2
    extent = (half * (1 - draws.uniform(*_WALL_SHARE, 2))).clamp(_NARROWEST, _WIDEST)
    middle = draws.uniform(-0.8, 0.8, 2) * (half - extent - 0.1).clamp(min=0)
    bottoms = draws.choice(_BOTTOMS)
    highest = size[:, 2] - _UNDER_CEILING
    bottom = torch.minimum(draws.uniform(bottoms[:, 0], bottoms[:, 1]), highest - _SPACE_HEIGHT[0])
    top = torch.minimum(bottom + draws.uniform(*_SPACE_HEIGHT), highest)
    return (
        torch.cat((middle - extent, bottom[:, None]), dim=1),
        torch.cat((middle + extent, top[:, None]), dim=1),
    )


def _stand(draws: Draws, size: Tensor, extent: Tensor) -> tuple[Tensor, Tensor]:
    """Where pieces of extents [R, PIECES, 3] stand, [R, PIECES, 2], and their yaw."""
    wall = draws.choice(torch.arange(4), AT_WALLS)  # x-, x+, y-, y+
    inward = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])[wall]
    tangent = torch.stack((inward[..., 1], -inward[..., 0]), dim=-1)
    gap = draws.uniform(0.0, 0.1, AT_WALLS, 1) + extent[:, :AT_WALLS, 1:2] / 2
    along = draws.uniform(-0.5, 0.5, AT_WALLS, 1)
    half = size[:, None, :2] / 2
    # Where the wall is, less what the piece needs, along one axis; anywhere along the other.
    ground = tangent * along * 2 * half + inward * (gap - (inward.abs() * half).sum(-1, True))
    yaw = torch.atan2(tangent[..., 1], tangent[..., 0]) + draws.uniform(-0.1, 0.1, AT_WALLS)
    anywhere = draws.uniform(-0.48, 0.48, ANYWHERE, 2) * size[:, None, :2]
    yaw = torch.cat((yaw, draws.uniform(-3.1, 3.1, ANYWHERE)), dim=1)
    return torch.cat((ground, anywhere), dim=1), yaw


def _things(
    draws: Draws, size: Tensor, centre: Tensor, half: Tensor, yaw: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Centres and half extents [R, n, 3] of boxes, cylinders and balls on pieces or the floor.

    Args:
        draws: the rooms' random numbers.
        size: [R, 3] of the rooms.
        centre: [R, PIECES, 3] of each piece's first box.
        half: [R, PIECES, 3] its half extents.
        yaw: [R, PIECES].
        low: [R, 3] of the camera's space.
        high: [R, 3].
    """
    count = THINGS + CYLINDERS - 1 + SPHERES
    piece = draws.choice(torch.arange(PIECES), count)
    at = piece[..., None].expand(-1, -1, 3)
    support, reach = centre.gather(1, at), half.gather(1, at)
    offset = _turned(draws.uniform(-0.85, 0.85, count, 2) * reach[..., :2], yaw.gather(1, piece))
    on_floor = draws.uniform(-0.48, 0.48, count, 2) * size[:, None, :2]
    on_piece = draws.chance(_ON_A_PIECE, count)
    ground = torch.where(on_piece[..., None], support[..., :2] + offset, on_floor)
    base = torch.where(on_piece, support[..., 2] + reach[..., 2], 0.0)
    extent = draws.uniform(*_THING_HALF, count, 3)
    extent[..., 2] = draws.uniform(*_THING_HEIGHT, count)
    extent[:, THINGS:, 1] = extent[:, THINGS:, 0]
    ball = draws.uniform(*_BALL_RADIUS, SPHERES, 1)
    # As low as the space of the camera above it begins, unless it stands inside of its height.
    below = (low[:, None, 2] - base - 0.01) / 2
    limit = torch.where(below > 0.01, below, torch.inf)
    extent[..., 2] = torch.minimum(extent[..., 2], limit)
    extent[:, -SPHERES:] = torch.minimum(ball, limit[:, -SPHERES:, None])
    wide = torch.linalg.vector_norm(extent[..., :2], dim=-1, keepdim=True).expand(-1, -1, 2)
    top = base + 2 * extent[..., 2]
    ground = _aside(ground, wide, base, top, low, high)
    return torch.cat((ground, (base + extent[..., 2])[..., None]), dim=-1), extent


def _lamp(draws: Draws, size: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and half extents [R, 1, 3] of a lamp that hangs above the camera's space."""
    length = torch.minimum(draws.uniform(0.05, 0.4), size[:, 2] - high[:, 2] - 0.05)
    radius = draws.uniform(0.06, 0.25)
    place = torch.cat((draws.uniform(-0.3, 0.3, 2) * size[:, :2], size[:, 2:]), dim=1)
    place[:, 2] -= length / 2
    return place[:, None], torch.stack((radius, radius, length / 2), dim=1)[:, None]


def _turned(offset: Tensor, yaw: Tensor) -> Tensor:
    """Vectors [..., 2] turned by yaw [...], broadcast."""
    sin, cos = yaw.sin(), yaw.cos()
    x, y = offset.unbind(-1)
    return torch.stack((cos * x - sin * y, sin * x + cos * y), dim=-1)


def _bounds(half: Tensor, yaw: Tensor) -> Tensor:
    """Half extents along x and y of rectangles [..., 2] turned by yaw [...]."""
    sin, cos = yaw.sin().abs(), yaw.cos().abs()
    return torch.stack(
        (cos * half[..., 0] + sin * half[..., 1], sin * half[..., 0] + cos * half[..., 1]), dim=-1
    )


def _aside(
    ground: Tensor, half: Tensor, bottom: Tensor, top: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """Places [R, n, 2], moved along x or y, whichever is shorter, out of the camera's space.

    Args:
        ground: [R, n, 2] middles.
        half: [R, n, 2] half extents along x and y.
        bottom: [R, n] heights from which
        top: [R, n] to which they reach.
        low: [R, 3] of the space.
        high: [R, 3].
    """
    middle, extent = (low + high)[:, None, :2] / 2, (high - low)[:, None, :2] / 2
    off = ground - middle
    depth = extent + half - off.abs()  # [R, n, 2] how far inside
    inside = (depth > 0).all(dim=-1) & (top > low[:, None, 2]) & (bottom < high[:, None, 2])
    shorter = torch.nn.functional.one_hot(depth.argmin(dim=-1), 2)
    side = torch.where(off < 0, -1.0, 1.0)
    return ground + side * depth * shorter * inside[..., None]
