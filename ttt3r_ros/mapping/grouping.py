# SPDX-License-Identifier: Apache-2.0
"""Equal keys become groups, and what belongs to a group becomes one value.

Written for the points of an image, several of which lie in each voxel: grouping them by a scratch
hash table takes half of the time of sorting them, and sums of columns half of that of rows. Which
keys the map already has is asked elsewhere (`voxel_table`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ttt3r_ros.geometry import Transform

_ROUNDING = 1e-5  # of a rotation's entries
_HASH_FACTOR = -7046029254386353131  # 2^64 / golden ratio as a signed integer (Knuth, TAOCP 6.4)


def digest(keys: Tensor, bits: int) -> Tensor:
    """Return numbers [N] from 0 to 2^bits - 1 that all bits of the keys [N] have a share in."""
    product = keys * _HASH_FACTOR
    product = (product ^ (product >> 32)) * _HASH_FACTOR  # once is not enough for walls
    return (product >> (64 - bits)) & ((1 << bits) - 1)


def group_equal(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Find groups of equal keys.

    Args:
        keys: int64 [N]. Where equal ones follow each other, as those of neighbouring pixels do,
            it takes less time.

    Returns:
        The distinct keys [G] and the group [N] of each key. The groups are in no particular order;
        on the CPU it is always the same, on CUDA it depends on which of several writes comes last.
    """
    keys, run = torch.unique_consecutive(keys, return_inverse=True)
    bits = (2 * len(keys)).bit_length()  # two to four slots for each key
    slots = digest(keys, bits)
    table = keys.new_empty(1 << bits)
    index = waiting = torch.arange(len(keys), device=keys.device)
    example, wanted = torch.empty_like(index), keys
    while len(waiting):
        # Of several keys after one slot one write stays. Equal keys read the same one back; the
        # others try again among themselves, fewer each time.
        found = table.scatter_(0, slots, waiting).gather(0, slots)
        example.scatter_(0, waiting, found)
        left = (keys.gather(0, found) != wanted).nonzero()[:, 0]
        slots, waiting, wanted = (some.gather(0, left) for some in (slots, waiting, wanted))
    examples = (example == index).nonzero()[:, 0]
    number = index.scatter(0, examples, index[: len(examples)])
    return keys.gather(0, examples), number.gather(0, example).gather(0, run)


def group_sum(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return the sums [G] of values [N] by group [N]."""
    return values.new_zeros(groups).scatter_add_(0, group, values)


def weighted_mean(
    columns: Sequence[Tensor], weights: Tensor, group: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    """Return the weighted means [G, D] of D columns [N], and the sums [G] of the weights [N]."""
    weight_sum = group_sum(weights, group, groups)
    sums = [group_sum(column * weights, group, groups) for column in columns]
    return torch.stack(sums, dim=1) / weight_sum[:, None], weight_sum


def transform_points(points: Tensor, T: Transform) -> Tensor:
    """Move points [N, 3] by a rigid or similarity transform [4, 4]: T · p, [N, 3].

    Not by a matrix product: a GPU may round its factors to the 10 bits of TF32, by a switch that
    is one for all threads. On a CPU this takes 0.8 of the product's time besides.
    """
    columns = torch.as_tensor(T[:3].T.copy(), dtype=points.dtype, device=points.device)  # [4, 3]
    moved = torch.addcmul(columns[3], points[:, :1], columns[0])
    return moved.addcmul_(points[:, 1:2], columns[1]).addcmul_(points[:, 2:], columns[2])


def transform_each(points: Tensor, which: Tensor, Ts: Sequence[Transform]) -> Tensor:
    """Move points [N, 3], each by one of S transforms [4, 4], whose number is in `which` [N]."""
    columns = torch.from_numpy(np.stack([T[:3].T for T in Ts])).to(points)  # [S, 4, 3]
    moved = torch.addcmul(columns[:, 3][which], points[:, :1], columns[:, 0][which])
    moved.addcmul_(points[:, 1:2], columns[:, 1][which])
    return moved.addcmul_(points[:, 2:], columns[:, 2][which])


def check_similarities(T_by_segment: Mapping[int, Transform]) -> None:
    """Raise a ValueError that names the first segment whose T is no similarity [4, 4]."""
    wrong = [segment for segment, T in T_by_segment.items() if T.shape != (4, 4)]
    if T_by_segment and not wrong:
        Ts = np.array([*T_by_segment.values()])
        linear = np.where(np.isfinite(Ts).all(axis=(1, 2), keepdims=True), Ts, 0.0)[:, :3, :3]
        square = linear @ linear.transpose(0, 2, 1)  # the squared scale times the identity
        scale = np.trace(square, axis1=1, axis2=2)[:, None, None] / 3
        good = (np.abs(square - scale * np.eye(3)) <= _ROUNDING * scale).all(axis=(1, 2))
        good &= (np.linalg.det(linear) > 0) & (Ts[:, 3] == (0, 0, 0, 1)).all(axis=1)
        wrong = [segment for segment, fine in zip(T_by_segment, good, strict=True) if not fine]
    for segment in wrong:
        raise ValueError(
            f"T of segment {segment}: expected a rotation, scale and translation [4, 4], "
            f"got {T_by_segment[segment].tolist()}"
        )
