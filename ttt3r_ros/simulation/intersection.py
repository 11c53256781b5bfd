# SPDX-License-Identifier: Apache-2.0
"""Which solid each ray meets first, and how far away. Colours are `renderer`'s.

Everything is done in inverse depth w = 1 / z. A ray from the camera is o + z d with d linear in the
image coordinates (x, y, 1), so a plane n . p = h is met at w = n . d / (h - n . o): linear in x and
y, no division for each pixel. A half-space n . p <= h holds for w >= that if the camera is inside
(h > n . o), for w <= that if it is outside; a convex solid is met where its least upper bound, if
that exceeds its greatest lower bound.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_FAR = 1e9
_NO_ZERO = 1e-6


class _Round(NamedTuple):
    """|q + z d| = r for P cylinders (in two dimensions) or balls (in three).

    w = (-q . d +- sqrt(r^2 |d|^2 - |q x d|^2)) / (|q|^2 - r^2). The cross product, linear in x and
    y like q . d, keeps the precision that the usual (q . d)^2 - |q|^2 |d|^2 would lose.
    """

    dot: Tensor  # [N, P, 3] coefficients of q . d
    cross: Tensor  # [N, P, 1 or 3, 3] of q x d
    squared_radius: Tensor  # [N, P, 1, 1]
    over: Tensor  # [N, P, 1, 1] the divisor


class Prepared(NamedTuple):
    """N cameras, each in its room: everything that does not depend on the pixel.

    Bounds of w are coefficients of (x, y, 1), three numbers each.
    """

    origin: Tensor  # [N, 3] cameras in the world
    rotation: Tensor  # [N, 3, 3] camera to world
    walls: Tensor  # [N, 6, 3] lower bounds by the room
    box_upper: Tensor  # [N, boxes, 3, 3]
    box_lower: Tensor  # [N, boxes, 6, 3]
    end_upper: Tensor  # [N, cylinders, 3] by a cylinder's top and bottom
    end_lower: Tensor  # [N, cylinders, 2, 3]
    drums: _Round
    balls: _Round


def prepare(
    centre: Tensor,
    half: Tensor,
    yaw: Tensor,
    T_world_camera: Tensor,
    counts: tuple[int, int],
) -> Prepared:
    """Prepare the pictures of N cameras.

    Args:
        centre: [N, P, 3] of the solids of each camera's room.
        half: [N, P, 3] their half extents.
        yaw: [N, P] radians.
        T_world_camera: [N, 4, 4], inside of solid 0 and outside of all others.
        counts: how many of the solids after solid 0 are boxes and cylinders; the rest are balls.
    """
    sin, cos, zero = yaw.sin(), yaw.cos(), torch.zeros_like(yaw)
    axes = torch.stack((cos, sin, zero, -sin, cos, zero, zero, zero, zero + 1), dim=-1)
    axes = axes.view(*yaw.shape, 3, 3)  # rows: the solid's own axes in the world
    origin, rotation = T_world_camera[:, :3, 3], T_world_camera[:, :3, :3]
    local = (axes @ (origin[:, None] - centre)[..., None])[..., 0]
    rays = axes @ rotation[:, None]  # [N, P, 3, 3]: direction in the solid's frame from (x, y, 1)
    # Of each pair of opposite faces the camera may be outside of the one on its own side.
    side = torch.where(local < 0, -1.0, 1.0)
    slack = _safe(half - local.abs())
    near = (side / slack)[..., None] * rays
    far = (-side / (half + local.abs()))[..., None] * rays
    outside = (slack < 0)[..., None]
    unbounded = F.pad(torch.full_like(near[..., :1], _FAR), (2, 0))
    upper = torch.where(outside, near, unbounded)
    lower = torch.stack((far, torch.where(outside, far, near)), dim=3)  # [N, P, 3, 2, 3]
    drums_from, balls_from = 1 + counts[0], 1 + sum(counts)
    box, drum = slice(1, drums_from), slice(drums_from, balls_from)
    ball = slice(balls_from, None)
    return Prepared(
        origin,
        rotation,
        lower[:, 0].flatten(1, 2),
        upper[:, box],
        lower[:, box].flatten(2, 3),
        upper[:, drum, 2],
        lower[:, drum, 2],
        _make_round(local[:, drum, :2], rays[:, drum, :2], half[:, drum, 0]),
        _make_round(local[:, ball], rays[:, ball], half[:, ball, 0]),
    )


def _make_round(local: Tensor, rays: Tensor, radius: Tensor) -> _Round:
    q, d = local[..., None], rays
    pairs = ((0, 1),) if local.shape[2] == 2 else ((0, 1), (1, 2), (2, 0))
    cross = [q[:, :, i] * d[:, :, j] - q[:, :, j] * d[:, :, i] for i, j in pairs]
    squared = radius.square()
    over = _safe(local.square().sum(dim=2) - squared)
    return _Round(
        (q * d).sum(dim=2),
        torch.stack(cross, dim=2),
        squared[..., None, None],
        over[..., None, None],
    )


def _safe(divisor: Tensor) -> Tensor:
    """Keep away from zero without changing the sign."""
    return torch.where(divisor < 0, divisor.clamp(max=-_NO_ZERO), divisor.clamp(min=_NO_ZERO))


def linear(coefficients: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Evaluate a x + b y + c over an image.

    Args:
        coefficients: [N, ..., 3].
        x: [N, W] of the columns.
        y: [N, H] of the rows.

    Returns:
        [N, ..., H, W].
    """
    a, b, c = coefficients.unsqueeze(-2).unbind(-1)  # [N, ..., 1]
    between = (1,) * (coefficients.ndim - 2)
    columns = a * x.view(len(x), *between, -1) + c
    return columns.unsqueeze(-2) + (b * y.view(len(y), *between, -1)).unsqueeze(-1)


def nearest(seen: Prepared, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Meet all solids with all rays.

    Args:
        seen: N cameras in their rooms.
        x: [N, W] image coordinates of the columns, (u - cx) / fx.
        y: [N, H] image coordinates of the rows, (v - cy) / fy.

    Returns:
        Inverse depth [N, H, W] and the number of the solid met [N, H, W] (int32).
    """
    wall = linear(seen.walls, x, y).amax(dim=1, keepdim=True)
    box = _met(linear(seen.box_upper, x, y).amin(dim=2), linear(seen.box_lower, x, y).amax(dim=2))
    direction = linear(seen.rotation, x, y).square()  # [N, 3, H, W]
    flat = direction[:, :1] + direction[:, 1:2]
    upper, lower = _round(seen.drums, flat, x, y)
    drum = _met(
        torch.minimum(upper, linear(seen.end_upper, x, y)),
        torch.maximum(lower, linear(seen.end_lower, x, y).amax(dim=2)),
    )
    ball = _met(*_round(seen.balls, flat + direction[:, 2:], x, y))
    met = torch.cat((wall, box, drum, ball), dim=1)
    w = met.amax(dim=1)
    # Numbers are int32 here and in shading: the compiler fails to vectorise narrower or mixed ones,
    # which costs it a factor of five; plain execution would be a tenth faster with uint8.
    number = torch.arange(met.shape[1], dtype=torch.int32, device=x.device)
    return w, ((met >= w[:, None]) * number[:, None, None]).amax(dim=1)


def _met(upper: Tensor, lower: Tensor) -> Tensor:
    """Where the bounds allow, the upper one; else the ray misses: far below the room's own w."""
    return upper + _FAR * (upper - lower).clamp(max=0)


def _round(solids: _Round, squared: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower bounds of w, [N, P, H, W] each; `squared` is |d|^2 [N, 1, H, W]."""
    root = solids.squared_radius * squared - linear(solids.cross, x, y).square().sum(dim=2)
    middle = linear(solids.dot, x, y) / -solids.over
    spread = root.clamp(min=0).sqrt() / solids.over
    # A camera under a hanging cylinder is within its circle, which then bounds w from below only.
    unbounded = torch.where(solids.over < 0, _FAR, 0.0)
    return middle + spread + unbounded + _FAR * root.clamp(max=0), middle - spread
