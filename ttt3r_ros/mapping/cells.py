# SPDX-License-Identifier: Apache-2.0
"""The cells of the map's grid: keys of points, and cells for voxels that moved together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ttt3r_ros.mapping.grouping import group_equal

_BITS = 21  # of each axis in a key
_STEPS = (1 << 2 * _BITS, 1 << _BITS, 1)  # from a cell's key to that of the next one along x, y, z
_OFFSET = sum(step << (_BITS - 1) for step in _STEPS)
# Cells to either side, 52 km at 5 cm. A neighbour of the last one still has a key.
_MOST = (1 << (_BITS - 1)) - 1
# Edges of a voxel. Middles of cells that touch are at most the root of 3 apart; points that are
# nearer than half an edge are one point of the map.
_TOUCHING, _ONE_POINT = 1.75, 0.5
# The axes along which the cells around a point's own, on the point's side, are other ones.
_AROUND = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))


def keys_of(xyz: Tensor, voxel_size_m: float) -> tuple[Tensor, Tensor]:
    """Return keys [N] of points [3, N], and where they are any, bool [N]."""
    x, y, z = torch.floor(xyz / voxel_size_m)
    farthest = torch.maximum(torch.maximum(x.abs(), y.abs()), z.abs())
    inside = farthest < _MOST  # false for NaN too
    # Each axis counts from -2^20: the offset is one number for all three.
    key = x.long() * _STEPS[0] + y.long() * _STEPS[1] + z.long()
    return key + _OFFSET, inside


def keys_apart(
    keys: Tensor,
    cells: Tensor,
    before: Tensor,
    weight: Tensor,
    are_taken: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Give neighbours that have come to lie in the same cell cells of their own.

    A grid that is turned or shifted against itself has two of its points in some cells and none in
    as many others; merging these would leave a seventh fewer after each correction. So the
    heaviest keeps the cell. Of the others those that were its neighbours before go, the heavier
    ones first, to the nearest cell on their side that nobody is in. Who finds none stays, and so
    does who comes from elsewhere: that is a surface that stood in the map twice.

    Args:
        keys: int64 [N], of the cells that the voxels are in.
        cells: [3, N] their places, in edges of a voxel,
        before: [3, N] and those before they moved.
        weight: float [N], positive.
        are_taken: says of keys [M] which are those of voxels that have not moved, bool [M].

    Returns:
        The keys [N], some of them still equal, and which these are, bool [N].
    """
    group, count = _group(keys)
    keeper = _heaviest(weight, group, count)[group]
    touched = _squared_distance(before, before[:, keeper]) < _TOUCHING**2
    apart = _squared_distance(cells, cells[:, keeper]) >= _ONE_POINT**2
    rest = (touched & apart).nonzero()[:, 0]
    wanted = _nearest_around(keys[rest], cells[:, rest])  # [7, R]
    group, count = _group(torch.cat((keys, wanted.flatten())))
    taken = torch.zeros(count, dtype=torch.bool, device=keys.device)
    taken[group[: len(keys)]] = True
    taken[group[len(keys) :]] |= are_taken(wanted.flatten())
    places = group[len(keys) :].view_as(wanted)
    keys, group = keys.clone(), group[: len(keys)].clone()
    waits = torch.ones_like(rest, dtype=torch.bool)
    for key, place in zip(wanted, places, strict=True):
        free = (waits & ~taken[place]).nonzero()[:, 0]
        heaviest = _heaviest(weight[rest[free]], place[free], count)
        settled = free[heaviest[heaviest < len(free)]]
        keys[rest[settled]], group[rest[settled]] = key[settled], place[settled]
        taken[place[settled]] = True
        waits[settled] = False
    return keys, torch.bincount(group, minlength=count)[group] > 1


def _nearest_around(keys: Tensor, cells: Tensor) -> Tensor:
    """Return the keys [7, R] of the cells around places [3, R] in cells [R], the nearest first."""
    inside = cells - cells.floor()
    squared = torch.minimum(inside, 1 - inside).square()
    steps = torch.where(inside < 0.5, -1, 1) * torch.tensor(_STEPS, device=keys.device)[:, None]
    nearest = torch.stack([squared[list(axes)].sum(dim=0) for axes in _AROUND]).argsort(
        dim=0, stable=True
    )
    return keys + torch.stack([steps[list(axes)].sum(dim=0) for axes in _AROUND]).gather(0, nearest)


def _squared_distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().sum(dim=0)


def _group(keys: Tensor) -> tuple[Tensor, int]:
    distinct, group = group_equal(keys)
    return group, len(distinct)


def _heaviest(weight: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return the place [G] of each group's greatest weight, the first of several; none: N."""
    most = weight.new_zeros(groups).scatter_reduce_(0, group, weight, "amax")
    index = torch.arange(len(weight), device=weight.device)
    best = index.where(weight == most[group], len(weight))
    return index.new_full((groups,), len(weight)).scatter_reduce_(0, group, best, "amin")
