# SPDX-License-Identifier: Apache-2.0
"""Procedural rooms: extents, solids, decals, materials and light, endless by seed.

Where furniture stands is decided in `furniture`, where decals hang in `decals`, what surfaces look
like in `materials`; pictures of a room are made by `renderer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt3r_ros.simulation import clutter
from ttt3r_ros.simulation.decals import SKIRTINGS, place_decals, shown_once
from ttt3r_ros.simulation.draws import Draws
from ttt3r_ros.simulation.furniture import (
    BOXES,
    CYLINDERS,
    HIGH_BOTTOM,
    LOW_TOP,
    SPHERES,
    place_furniture,
)
from ttt3r_ros.simulation.materials import (
    FACES,
    clutter_roles,
    draw_materials,
    paint_over,
    role_numbers,
    solid_roles,
)
from ttt3r_ros.simulation.textures import PLAIN, Atlas, plain_atlas, shared_atlas

_PURPOSE, _NUMBERS_PER_ROOM = 1, 1500
_CLUTTERED_PURPOSE, _NUMBERS_PER_CLUTTERED = 7, 2500
# Darkness and width (metres) of edges: a room's corners, the rims of furniture, no edge at all.
_ROOM_EDGE, _BOX_EDGE, _ROUND_EDGE = (0.45, 0.25), (0.3, 0.02), (0.0, 1.0)
_PAINTED = 0.35  # share of a cluttered room's surfaces that have no pattern


def _traits(boxes: int, cylinders: int, spheres: int) -> Tensor:
    return torch.tensor(
        [(1.0, 0.0, 0.0, *_ROOM_EDGE)]
        + [(0.0, 0.0, 0.0, *_BOX_EDGE)] * boxes
        + [(0.0, 1.0, 0.0, *_ROUND_EDGE)] * cylinders
        + [(0.0, 0.0, 1.0, *_ROUND_EDGE)] * spheres
    )


@dataclass(frozen=True, slots=True)
class Rooms:
    """A batch of R closed rooms.

    World coordinates: metres, x forward, y left, z up, origin in the middle of the floor. Solid 0
    is the room itself, seen from inside; the others are the furniture's. Materials are those of
    the room's faces (x-, x+, y-, y+, floor, ceiling), of the furniture's solids and of the decals.
    """

    solid_centre: Tensor  # [R, P, 3]
    solid_half: Tensor  # [R, P, 3] half extents in the solid's own frame; radii where it is round
    solid_yaw: Tensor  # [R, P] radians about z
    solid_traits: Tensor  # [R, P, 5] room, cylinder, ball (0 or 1); darkness and width of edges
    decal_low: Tensor  # [R, D, 3] corners; the room's own faces in between have the decal's
    decal_high: Tensor  # [R, D, 3] material, of several decals the last one's
    materials: Tensor  # [R, M, COLUMNS] see `materials`
    light_m: Tensor  # [R, 3] where the lamp is
    power: Tensor  # [R] brightness of a near surface that faces the lamp
    ambient: Tensor  # [R, 4] brightness everywhere, and its change along the normal's x, y and z
    free_low: Tensor  # [R, 3] corners of a space
    free_high: Tensor  # [R, 3] that no solid reaches into
    atlas: Atlas
    counts: tuple[int, int] = (BOXES, CYLINDERS)  # of the solids after the room; the rest are balls

    def __len__(self) -> int:
        return len(self.solid_centre)

    @property
    def size(self) -> Tensor:
        """[R, 3] extents in metres."""
        return 2 * self.solid_half[:, 0]

    def __getitem__(self, index: slice | Tensor) -> Rooms:
        """The rooms at these places of the batch."""
        rows = {name: row[index] for name, row in self._rows().items()}
        return Rooms(atlas=self.atlas, counts=self.counts, **rows)

    def to(self, device: torch.device | str) -> Rooms:
        """The same rooms on another device."""
        rows = {name: row.to(device) for name, row in self._rows().items()}
        return Rooms(atlas=self.atlas.to(device), counts=self.counts, **rows)

    def _rows(self) -> dict[str, Tensor]:
        """What has a row for each room, by name."""
        names = [f.name for f in fields(self) if f.name not in ("atlas", "counts")]
        return {name: getattr(self, name) for name in names}


def make_rooms(
    seeds: int | Sequence[int], device: torch.device | str = "cpu", atlas: Atlas | None = None
) -> Rooms:
    """Draw rooms of 3.6 to 7 m by 3.6 to 7 m, 2.4 to 3 m high.

    Args:
        seeds: one or several; a room depends on its own seed alone, and is the same everywhere.
        device: where the rooms shall be.
        atlas: textures to use; without one, the shared one.

    Raises:
        ValueError: no seed, or a negative one.
    """
    draws = Draws(seeds, _PURPOSE, _NUMBERS_PER_ROOM)
    atlas = atlas or shared_atlas(str(device))
    size = torch.cat((draws.uniform(3.6, 7.0, 2), draws.uniform(2.4, 3.0, 1)), dim=1)
    half = size / 2
    furniture = place_furniture(draws, size)
    low, high, decal_roles = place_decals(draws, half)
    roles = (role_numbers(FACES).expand(len(size), -1), solid_roles(furniture.kind), decal_roles)
    materials = draw_materials(draws, torch.cat(roles, dim=1), atlas)
    materials[:, -low.shape[1] + SKIRTINGS :, 1:5] = shown_once(low, high, half)
    light = draws.uniform(-0.25, 0.25, 3) * size
    light[:, 2] = size[:, 2] - draws.uniform(0.3, 0.5)
    free_z = torch.tensor([LOW_TOP, HIGH_BOTTOM]).expand(len(size), 2)
    return Rooms(
        solid_centre=torch.cat((F.pad(half[:, None, 2:], (2, 0)), furniture.centre), dim=1),
        solid_half=torch.cat((half[:, None], furniture.half), dim=1),
        solid_yaw=F.pad(furniture.yaw, (1, 0)),
        solid_traits=_traits(BOXES, CYLINDERS, SPHERES).expand(len(size), -1, -1),
        decal_low=low,
        decal_high=high,
        materials=materials,
        light_m=light,
        power=draws.uniform(0.6, 1.0),
        ambient=torch.cat((draws.uniform(0.75, 0.95, 1), draws.uniform(-0.12, 0.12, 3)), dim=1),
        free_low=torch.cat((furniture.free_low, free_z[:, :1]), dim=1),
        free_high=torch.cat((furniture.free_high, free_z[:, 1:]), dim=1),
        atlas=atlas,
    ).to(device)


def make_cluttered_rooms(
    seeds: int | Sequence[int], device: torch.device | str = "cpu", atlas: Atlas | None = None
) -> Rooms:
    """Draw rooms, halls and corridors of 1.7 to 14 m, 2.2 to 5 m high, full of things.

    The space left free may begin at 0.1 to 2 m above the floor; pieces and things stand beside it
    and below it. Beside the patterns of `make_rooms` surfaces may have none, and light varies more.

    Args:
        seeds: as `make_rooms`; rooms of the same seed have nothing in common with those.
        device: where the rooms shall be.
        atlas: textures to use, one of them plain; without one, the shared one.

    Raises:
        ValueError: no seed, or a negative one.
    """
    draws = Draws(seeds, _CLUTTERED_PURPOSE, _NUMBERS_PER_CLUTTERED)
    atlas = atlas or plain_atlas(str(device))
    size = clutter.draw_sizes(draws)
    half = size / 2
    full = clutter.place_clutter(draws, size)
    low, high, decal_roles = place_decals(draws, half)
    solids = clutter_roles(draws, full.kind)
    roles = torch.cat((role_numbers(FACES).expand(len(size), -1), solids, decal_roles), dim=1)
    materials = draw_materials(draws, roles, atlas)
    plain = draws.chance(_PAINTED, len(FACES) + solids.shape[1])
    materials = paint_over(materials, plain, atlas.families[PLAIN][0])
    materials[:, -low.shape[1] + SKIRTINGS :, 1:5] = shown_once(low, high, half)
    light = draws.uniform(-0.4, 0.4, 3) * size
    light[:, 2] = size[:, 2] - draws.uniform(0.2, 0.6)
    counts = (clutter.BOXES, clutter.CYLINDERS)
    return Rooms(
        solid_centre=torch.cat((F.pad(half[:, None, 2:], (2, 0)), full.centre), dim=1),
        solid_half=torch.cat((half[:, None], full.half), dim=1),
        solid_yaw=F.pad(full.yaw, (1, 0)),
        solid_traits=_traits(*counts, clutter.SPHERES).expand(len(size), -1, -1),
        decal_low=low,
        decal_high=high,
        materials=materials,
        light_m=light,
        power=draws.uniform(0.3, 1.3),
        ambient=torch.cat((draws.uniform(0.4, 0.95, 1), draws.uniform(-0.25, 0.25, 3)), dim=1),
        free_low=full.free_low,
        free_high=full.free_high,
        atlas=atlas,
        counts=counts,
    ).to(device)
