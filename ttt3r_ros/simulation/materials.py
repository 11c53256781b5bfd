# SPDX-License-Identifier: Apache-2.0
"""What surfaces look like: a material for each face, solid and decal of a room, drawn by its role.

A material is a row of `COLUMNS` numbers: texture; tiles per metre in u and v; offset in tiles in u
and v; first colour (r, g, b); second colour less the first; glow, the least brightness. u and v are
coordinates in the solid's own frame: (x, y) on faces seen from above or below, (y, z) on faces
along x, (x, z) on those along y.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ttt3r_ros.simulation import clutter
from ttt3r_ros.simulation.draws import Draws
from ttt3r_ros.simulation.furniture import CYLINDERS, MIDDLE_KINDS, SPHERES, WALL_KINDS
from ttt3r_ros.simulation.textures import Atlas

COLUMNS = 12
FACES = ("wall", "wall", "wall", "wall", "floor", "ceiling")  # x-, x+, y-, y+


class _Role(NamedTuple):
    """What the materials of one use have in common; pairs are the ends of a range."""

    families: tuple[str, ...]
    tiles_per_m: tuple[float, float] = (0.6, 1.2)
    bright: tuple[float, float] = (0.6, 0.95)
    dark: tuple[float, float] = (0.15, 0.45)
    saturation: tuple[float, float] = (0.1, 0.7)
    glow: float = 0.0
    # From red at 0 over yellow, green, cyan, blue, magenta (1 to 5) to red at 6: the middle and the
    # spread. Hues near the middle are the commonest; indoors that is orange.
    hue: tuple[float, float] = (0.6, 3.0)


_MIXED = ("stripes", "dots", "checks", "marble", "blobs", "plaid")
_WALLS = ("stripes", "bricks", "noise", "blobs", "dots", "marble", "plaid", "tiles")
_FLOORS = ("planks", "parquet", "tiles", "checks", "plaid", "marble", "bricks")
_CEILINGS = ("planks", "tiles", "noise", "blobs")
_CLOTH = ("plaid", "stripes", "dots", "noise", "checks")
_ROLES = {
    "wall": _Role(_WALLS, (0.4, 0.8), (0.75, 1.0), (0.2, 0.5), (0.0, 0.4)),
    "floor": _Role(_FLOORS, (0.4, 0.8), (0.5, 0.9), (0.15, 0.4), (0.1, 0.6), hue=(0.6, 1.8)),
    "ceiling": _Role(_CEILINGS, (0.4, 0.7), (0.9, 1.0), (0.5, 0.7), (0.0, 0.2)),
    "skirting": _Role(("planks", "noise"), (0.5, 1.0), (0.5, 0.9), (0.1, 0.3), (0.1, 0.5)),
    "picture": _Role(("picture",), saturation=(0.4, 0.9)),
    "window": _Role(("window",), (1, 1), (0.95, 1), (0.4, 0.6), (0.2, 0.5), 0.9, (3.4, 0.6)),
    "door": _Role(("door",), saturation=(0.1, 0.6), hue=(0.6, 1.8)),
    "rug": _Role((*_MIXED, "picture"), saturation=(0.2, 0.8)),
    "panel": _Role(("tiles", "dots"), (1.0, 1.0), (0.95, 1.0), (0.7, 0.8), (0.0, 0.1), glow=1.0),
    "lamp": _Role(("stripes", "dots"), (1.0, 2.0), (0.95, 1.0), (0.5, 0.7), (0.1, 0.5), glow=0.85),
    "round": _Role(_MIXED, (1.0, 2.0)),
    "wood": _Role(("planks", "panels", "parquet"), (0.7, 1.4), hue=(0.6, 1.2)),
    "doors": _Role(("panels",), (0.6, 1.0)),
    "books": _Role(("books",), (0.6, 0.8), saturation=(0.3, 0.9)),
    "screen": _Role(("picture",), (0.9, 1.2), (0.6, 1.0), (0.0, 0.3)),
    "cloth": _Role(_CLOTH, (0.7, 1.5)),
    "crate": _Role(("planks", "checks", "tiles", "stripes"), (0.8, 1.5)),
}
_NUMBER = {name: number for number, name in enumerate(_ROLES)}
# The roles of both boxes of a piece of furniture.
_PIECES = {
    "wardrobe": ("doors", "crate"), "dresser": ("doors", "screen"), "bookcase": ("books", "doors"),
    "sofa": ("cloth", "cloth"), "bed": ("cloth", "wood"), "desk": ("wood", "books"),
    "chair": ("cloth", "wood"), "crates": ("crate", "crate"), "kitchen": ("doors", "doors"),
    "table": ("wood", "wood"), "stool": ("cloth", "screen"), "box": ("crate", "round"),
}  # fmt: skip
_THINGS = ("crate", "round", "books", "screen", "cloth", "doors", "picture", "wood")


def role_numbers(names: list[str] | tuple[str, ...]) -> Tensor:
    """[n] numbers of roles."""
    return torch.tensor([_NUMBER[name] for name in names])


def solid_roles(kind: Tensor) -> Tensor:
    """[R, PIECES] kinds of furniture -> [R, P] roles of all the furniture's solids."""
    wall, middle = (
        torch.stack([role_numbers(_PIECES[name]) for name in kinds])
        for kinds in (WALL_KINDS, MIDDLE_KINDS)
    )
    boxes = torch.cat((wall[kind[:, :-1]], middle[kind[:, -1:]]), dim=1).flatten(1)
    rounds = role_numbers(["lamp"] + ["round"] * (CYLINDERS + SPHERES - 1))
    return torch.cat((boxes, rounds.expand(len(kind), -1)), dim=1)


def clutter_roles(draws: Draws, kind: Tensor) -> Tensor:
    """[R, clutter.PIECES] kinds -> [R, P] roles of all solids; those of small things are drawn."""
    pieces = torch.stack([role_numbers(_PIECES[name]) for name in clutter.KINDS])[kind].flatten(1)
    things, rounds = clutter.THINGS, clutter.CYLINDERS - 1 + clutter.SPHERES
    roles = draws.choice(role_numbers(_THINGS), things + rounds)
    lamp = role_numbers(["lamp"]).expand(len(kind), 1)
    return torch.cat((pieces, roles[:, :things], lamp, roles[:, things:]), dim=1)


def paint_over(materials: Tensor, chosen: Tensor, texture: int) -> Tensor:
    """Give the first m materials [R, M, COLUMNS] that are chosen, [R, m], this texture."""
    painted = materials.clone()
    first = painted[:, : chosen.shape[1], 0]
    first[chosen] = float(texture)
    return painted


def draw_materials(draws: Draws, roles: Tensor, atlas: Atlas) -> Tensor:
    """A material for each place.

    Args:
        draws: the rooms' random numbers.
        roles: [R, M] role numbers, those of the room's own faces first.
        atlas: the textures to choose from.

    Returns:
        [R, M, COLUMNS].
    """
    shape = roles.shape[1]
    choices = [
        [texture for family in role.families for texture in atlas.families[family]]
        for role in _ROLES.values()
    ]
    count = torch.tensor([len(choice) for choice in choices])
    longest = int(count.max())
    padded = torch.tensor([choice + [0] * (longest - len(choice)) for choice in choices])
    texture = padded[roles, draws.uniform(0.0, count[roles], shape).long()]

    # [R, M, 4, 2] the ranges of tiles_per_m, bright, dark and saturation
    ranges = torch.tensor([role[1:5] for role in _ROLES.values()])[roles]
    low, high = ranges.unbind(-1)
    scale, bright, dark, _ = draws.uniform(low, high, shape, 4).unbind(-1)
    saturation = draws.uniform(low[..., 3:], high[..., 3:], shape, 2)
    value = torch.stack((bright, dark), dim=-1)
    value = torch.where(draws.chance(0.5, shape, 1), value, value.flip(-1))
    middle, spread = torch.tensor([role.hue for role in _ROLES.values()])[roles].unbind(-1)
    hue = middle[..., None] + spread[..., None] * draws.uniform(-1, 1, shape, 2) ** 3
    hue[..., 1] = torch.where(draws.chance(0.5, shape), hue[..., 0], hue[..., 1])
    pure = (((hue[..., None] + torch.tensor([0.0, 4.0, 2.0])) % 6 - 3).abs() - 1).clamp(0, 1)
    first, second = (value[..., None] * (1 - saturation[..., None] * (1 - pure))).unbind(2)
    look = torch.cat((texture[..., None], scale[..., None], scale[..., None]), dim=-1)
    paint = torch.cat((first, second - first), dim=-1)
    # Half of the rooms have the same paper on all walls.
    alike = draws.chance(0.5, 1, 1)
    for part in (look, paint):
        part[:, 1:4] = torch.where(alike, part[:, :1], part[:, 1:4])
    glow = torch.tensor([role.glow for role in _ROLES.values()])[roles]
    offset = draws.uniform(0.0, 1.0, shape, 2)
    return torch.cat((look, offset, paint, glow[..., None]), dim=-1)
