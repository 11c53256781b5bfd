# SPDX-License-Identifier: Apache-2.0
"""The colour of what a ray meets: its material, texture and light. Geometry is `intersection`'s."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ttt3r_ros.simulation.intersection import Prepared, linear
from ttt3r_ros.simulation.materials import FACES
from ttt3r_ros.simulation.room import Rooms
from ttt3r_ros.simulation.textures import Atlas


class Look(NamedTuple):
    """What the rooms of N cameras look like, as shading needs it."""

    solids: Tensor  # [N, P, 13] centre, half extents, cosine and sine of the yaw, traits
    materials: Tensor  # [N, M, COLUMNS]
    decal_centre: Tensor  # [N, D, 3]
    decal_half: Tensor  # [N, D, 3]
    light: Tensor  # [N, 8] position, power, ambient
    pixel: Tensor  # [N] width of a pixel at z = 1
    atlas: Atlas


def make_look(rooms: Rooms, focal: Tensor) -> Look:
    """Prepare the pictures of N cameras from their N rooms and focal lengths [N] in pixels."""
    yaw = rooms.solid_yaw[..., None]
    solids = (rooms.solid_centre, rooms.solid_half, yaw.cos(), yaw.sin(), rooms.solid_traits)
    return Look(
        torch.cat(solids, dim=2),
        rooms.materials,
        (rooms.decal_low + rooms.decal_high) / 2,
        (rooms.decal_high - rooms.decal_low) / 2,
        torch.cat((rooms.light_m, rooms.power[:, None], rooms.ambient), dim=1),
        1 / focal,
        rooms.atlas,
    )


def shade(look: Look, seen: Prepared, x: Tensor, y: Tensor, depth: Tensor, solid: Tensor) -> Tensor:
    """Colours of what the rays meet.

    Args:
        look: of the cameras' N rooms.
        seen: the N cameras.
        x: [N, W] image coordinates of the columns.
        y: [N, H] image coordinates of the rows.
        depth: [N, H, W] metres.
        solid: [N, H, W] (int32) number of the solid met.

    Returns:
        [N, H, W, 3] in [0, 1].
    """
    ray = linear(seen.rotation, x, y)  # [N, 3, H, W]
    point = seen.origin[..., None, None] + depth[:, None] * ray
    spot = _spot(look, point, solid)
    material = _rows(look.materials, _material(look, point, solid, spot.face))
    texture, scale_u, scale_v, start_u, start_v, *paint, glow = material

    # A pixel covers z / f across and, seen at an angle, more along: the geometric mean of both.
    grazing = (spot.normal * ray).sum(dim=1).abs() * ray.square().sum(dim=1).rsqrt()
    covered = look.pixel[:, None, None] * depth * (grazing + 0.05).rsqrt()
    texels = look.atlas.size * torch.maximum(scale_u, scale_v) * covered
    u, v = spot.across * scale_u + start_u, spot.along * scale_v + start_v
    mix, brightness = look.atlas.sample(texture, u, v, texels)

    shine = torch.maximum(_light(look, point, spot.normal) * spot.openness, glow) * brightness
    colours = zip(paint[:3], paint[3:], strict=True)
    rgb = torch.stack([(first + mix * change) * shine for first, change in colours], dim=-1)
    return rgb.clamp(0, 1)


class _Spot(NamedTuple):
    """Where on a solid points are."""

    normal: Tensor  # [N, 3, H, W] towards the camera's side of the surface, in the world
    across: Tensor  # [N, H, W] metres: u and
    along: Tensor  # [N, H, W] v of the face, before the material's scale
    face: Tensor  # [N, H, W] (int32) of a box: x-, x+, y-, y+, z-, z+
    openness: Tensor  # [N, H, W] 1, less towards edges


def _spot(look: Look, point: Tensor, solid: Tensor) -> _Spot:
    cx, cy, cz, hx, hy, hz, cos, sin, room, drum, ball, dark, dark_width = _rows(look.solids, solid)
    # The point in the solid's own frame, and as fractions of its half extents.
    from_x, from_y, local_z = point[:, 0] - cx, point[:, 1] - cy, point[:, 2] - cz
    local_x, local_y = cos * from_x + sin * from_y, cos * from_y - sin * from_x
    qx, qy, qz = local_x / hx, local_y / hy, local_z / hz
    ax, ay, az = qx.abs(), qy.abs(), qz.abs()

    # The greatest fraction tells the face, a cylinder's wall being one face.
    side = torch.lerp(torch.maximum(ax, ay), (qx * qx + qy * qy).sqrt(), drum)
    on_z, x_first = az > side, ax > ay
    on_x, on_y = x_first & ~on_z, ~x_first & ~on_z
    positive = torch.where(on_z, qz, torch.where(on_x, qx, qy)) > 0
    face = 4 * on_z.int() + 2 * on_y.int() + positive.int()

    curved = torch.where(on_z, ball, ball + drum)
    nx = torch.lerp(on_x * qx.sign(), qx, curved)
    ny = torch.lerp(on_y * qy.sign(), qy, curved)
    nz = torch.lerp(on_z * qz.sign(), qz * ball, curved)
    outward = torch.stack((cos * nx - sin * ny, sin * nx + cos * ny, nz), dim=1)

    to_x, to_y, to_z = (1 - ax) * hx, (1 - ay) * hy, (1 - az) * hz
    to_edge = torch.where(on_z, torch.minimum(to_x, to_y), torch.where(on_x, to_y, to_x))
    to_edge = torch.where(on_z, to_edge, torch.minimum(to_edge, to_z))
    return _Spot(
        normal=outward * (1 - 2 * room)[:, None],
        across=torch.where(on_x, local_y, local_x),
        along=torch.where(on_z, local_y, local_z),
        face=face,
        openness=1 - dark / (1 + to_edge / dark_width).square(),
    )


def _light(look: Look, point: Tensor, normal: Tensor) -> Tensor:
    """Brightness [N, H, W]: light from everywhere, more from some sides, and the lamp's."""
    light = look.light[..., None, None]
    to_lamp = light[:, 0:3] - point
    power, ambient, slope = light[:, 3], light[:, 4], light[:, 5:8]
    squared = to_lamp.square().sum(dim=1)
    facing = (normal * to_lamp).sum(dim=1).clamp(min=0) * squared.rsqrt()
    return ambient + (slope * normal).sum(dim=1) + power * facing / (1 + squared / 8)


def _material(look: Look, point: Tensor, solid: Tensor, face: Tensor) -> Tensor:
    """Number of the material [N, H, W] (int32): a decal's, else a face's or the solid's."""
    off = (point[:, None] - look.decal_centre[..., None, None]).abs()  # [N, D, 3, H, W]
    inside = (off - look.decal_half[..., None, None]).amax(dim=2) <= 0
    number = torch.arange(1, inside.shape[1] + 1, dtype=torch.int32, device=point.device)
    decal = (inside * number[:, None, None]).amax(dim=1)  # 0: none
    decals_from = look.materials.shape[1] - inside.shape[1]
    bare = torch.where(decal > 0, decals_from - 1 + decal, face)
    return torch.where(solid > 0, len(FACES) - 1 + solid, bare)


def _rows(table: Tensor, index: Tensor) -> tuple[Tensor, ...]:
    """Row index[n] of table[n], column by column: [N, K, C] and [N, H, W] -> C times [N, H, W]."""
    images, rows, columns = table.shape
    start = torch.arange(images, device=index.device) * rows
    where = (index + start[:, None, None]).flatten()
    chosen = table.flatten(0, 1).t().contiguous().index_select(1, where)
    return chosen.view(columns, *index.shape).unbind(0)
