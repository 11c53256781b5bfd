# SPDX-License-Identifier: Apache-2.0
"""What lies flat on a room's own faces: skirtings, pictures, windows, doors, a rug, a bright panel.

Decals change the material, not the depth. Which material a role gets is decided in `materials`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt3r_ros.simulation.draws import Draws
from ttt3r_ros.simulation.materials import role_numbers

# Decals: a skirting along each wall; what hangs at the places of each wall; rug; ceiling panel.
SKIRTINGS, _PLACES = 4, 3
_DECAL_KINDS = ("picture", "window", "door")
# Widths, heights and heights of the middle above the floor, from ... to in metres.
_DECAL_SIZES = torch.tensor(
    [
        [[0.5, 1.4], [0.4, 1.0], [1.3, 1.7]],
        [[0.8, 1.3], [0.9, 1.2], [1.4, 1.5]],
        [[0.8, 0.9], [1.9, 2.0], [1.0, 1.0]],
    ]
)
_FLAT = 0.005  # metres that a decal reaches off its face, against rounding


def place_decals(draws: Draws, half: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decorate rooms.

    Args:
        draws: the rooms' random numbers.
        half: [R, 3] half extents of the rooms.

    Returns:
        Low and high corners [R, D, 3] and roles [R, D] of the decals.
    """
    shape = (4, _PLACES)
    chance = draws.uniform(0.0, 1.0, *shape)
    more_often = torch.tensor([0.75, 0.4, 0.75])
    kind = (chance > more_often).long() + (chance > 0.5 + 0.5 * more_often).long()
    ranges = _DECAL_SIZES[kind]
    width, height, z = draws.uniform(ranges[..., 0], ranges[..., 1], *shape, 3).unbind(-1)
    length = half[:, [1, 1, 0, 0], None]  # half of each wall's
    room = 2 / _PLACES * length
    width = torch.minimum(width, room - 0.1)
    place = (torch.arange(_PLACES) - (_PLACES - 1) / 2) * room
    along = place + draws.uniform(-0.5, 0.5, *shape) * (room - 0.1 - width)
    hanging = _on_walls(half, along, z, width / 2, height / 2)

    tall = draws.uniform(0.04, 0.07, 1, 1).expand(-1, 4, 1)
    skirting = _on_walls(half, length * 0, tall, length, tall)

    rug_half = draws.uniform(0.3, 0.6, 2) * half[:, :2]
    panel_half = draws.uniform(0.2, 0.5, 2)
    on_floor = F.pad(draws.uniform(-0.3, 0.3, 2) * half[:, :2], (0, 1))
    on_ceiling = F.pad(half[:, 2:] * 2, (2, 0))
    centre = torch.cat((skirting[0], hanging[0], on_floor[:, None], on_ceiling[:, None]), dim=1)
    flat = torch.stack((F.pad(rug_half, (0, 1)), F.pad(panel_half, (0, 1))), dim=1)
    extent = torch.cat((skirting[1], hanging[1], flat), dim=1) + _FLAT
    decal_roles = torch.cat(
        (
            role_numbers(["skirting"]).expand(len(half), SKIRTINGS),
            role_numbers(_DECAL_KINDS)[kind].flatten(1),
            role_numbers(["rug", "panel"]).expand(len(half), 2),
        ),
        dim=1,
    )
    return centre - extent, centre + extent, decal_roles


def _on_walls(
    half: Tensor, along: Tensor, z: Tensor, half_width: Tensor, half_height: Tensor
) -> tuple[Tensor, Tensor]:
    """Centres and half extents [R, 4n, 3] of n rectangles on each wall, from [R, 4, n] each."""
    wall = half[:, [0, 0, 1, 1], None] * torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])

    def in_the_room(normal: Tensor, tangent: Tensor, up: Tensor) -> Tensor:
        on_x, on_y = torch.stack((normal, tangent, up), -1), torch.stack((tangent, normal, up), -1)
        return torch.cat((on_x[:, :2], on_y[:, 2:]), dim=1).flatten(1, 2)

    return (
        in_the_room(wall.expand_as(along), along, z),
        in_the_room(torch.zeros_like(along), half_width, half_height),
    )


def shown_once(low: Tensor, high: Tensor, half: Tensor) -> Tensor:
    """Scales and offsets [R, D - skirtings, 4] that spread one tile over each decal."""
    hanging = 2 * _PLACES
    u_axis = torch.tensor([1] * hanging + [0] * hanging + [0, 0])
    v_axis = torch.tensor([2] * 2 * hanging + [1, 1])
    origin = F.pad(half[:, None, 2:], (2, 0))  # solid coordinates count from the middle
    decal = torch.arange(len(u_axis)) + SKIRTINGS
    scale = torch.stack([1 / (high - low)[:, decal, axis] for axis in (u_axis, v_axis)], dim=-1)
    start = torch.stack([(low - origin)[:, decal, axis] for axis in (u_axis, v_axis)], dim=-1)
    return torch.cat((scale, -start * scale), dim=-1)
