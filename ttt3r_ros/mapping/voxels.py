# SPDX-License-Identifier: Apache-2.0
"""What is kept of each voxel, as rows, and how two voxels become one.

Which voxel a point belongs to, and which voxels are kept, is the map's business.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

MOST_HITS = 100  # images that a voxel's mean follows, however often it has been seen

COLUMNS: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {  # type and shape of one voxel's
    "key": (torch.int64, ()),
    "mean": (torch.float32, (6,)),
    "weight": (torch.float32, ()),
    "lead": (torch.float32, ()),
    "hits": (torch.int32, ()),
    "seen": (torch.int32, ()),
    "segment": (torch.int32, ()),
}


@dataclass(frozen=True, slots=True)
class Voxels:
    """Rows of voxels, 52 bytes each.

    A voxel can hold points of several segments, of which one moves it. That is the one with the
    most weight in it, found as the weighted majority vote of Boyer and Moore: `lead` is by how
    much weight `segment` leads over all others. So a voxel moves with the segment that most of
    its mean comes from, and a look from elsewhere does not carry an old wall away. With two
    segments the vote is exact as long as nothing has faded.
    """

    key: Tensor  # [N] int64, the packed cell
    mean: Tensor  # [N, 6] x y z in metres, r g b from 0 to 255
    weight: Tensor  # [N] of the mean
    lead: Tensor  # [N] weight by which `segment` leads
    hits: Tensor  # [N] images that saw it, at most `MOST_HITS`, less those that saw through it
    seen: Tensor  # [N] count of images at the last that saw it
    segment: Tensor  # [N] that it moves with

    @classmethod
    def allocate(cls, size: int, device: torch.device) -> Voxels:
        """Make rows without values; on a CPU they take no memory until written."""
        return cls(
            **{
                name: torch.empty((size, *shape), dtype=dtype, device=device)
                for name, (dtype, shape) in COLUMNS.items()
            }
        )

    def columns(self) -> dict[str, Tensor]:
        """Return the tensors themselves by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __getitem__(self, rows: Tensor | slice) -> Voxels:
        return Voxels(**{name: column[rows] for name, column in self.columns().items()})

    def __setitem__(self, rows: Tensor | slice, new: Voxels) -> None:
        for name, column in self.columns().items():
            column[rows] = getattr(new, name)

    def fade(self, rows: Tensor) -> None:
        """Let old weight fade where a voxel has many hits, so that an old map still follows."""
        old = self.hits[rows] >= MOST_HITS
        self.weight[rows] *= torch.where(old, 1 - 1 / MOST_HITS, 1.0)

    def merge(self, rows: Tensor, new: Voxels) -> None:
        """Merge voxels [M] seen by other images into distinct rows [M] of the same keys."""
        weight = self.weight[rows] + new.weight
        mean = self.mean[rows]
        self.mean[rows] = mean + (new.mean - mean) * (new.weight / weight)[:, None]
        self.weight[rows] = weight
        segment, lead = self.segment[rows], self.lead[rows]
        lead = lead + torch.where(segment == new.segment, new.lead, -new.lead)
        self.segment[rows] = torch.where(lead < 0, new.segment, segment)
        self.lead[rows] = torch.minimum(lead.abs(), weight)
        self.hits[rows] = (self.hits[rows] + new.hits).clamp(max=MOST_HITS)
        self.seen[rows] = torch.maximum(self.seen[rows], new.seen)


def merge_equal_keys(voxels: Voxels) -> Voxels:
    """Merge voxels of one segment that have come to lie in the same cell; keys come out sorted.

    The same images have mostly seen them all, so the most hits and the most weight count and are
    not added up.
    """
    key, group = torch.unique(voxels.key, return_inverse=True)

    def most(values: Tensor) -> Tensor:
        return values.new_zeros(len(key)).scatter_reduce_(
            0, group, values, "amax", include_self=False
        )

    return Voxels(
        key=key,
        mean=weighted_mean(voxels.mean, voxels.weight, group, len(key)),
        weight=most(voxels.weight),
        lead=most(voxels.lead),
        hits=most(voxels.hits),
        seen=most(voxels.seen),
        segment=most(voxels.segment),
    )


def weighted_mean(values: Tensor, weights: Tensor, group: Tensor, groups: int) -> Tensor:
    """Return the weighted means [G, D] of values [N, D] with weights [N] by group [N]."""
    weight_sum = values.new_zeros(groups).index_add_(0, group, weights)
    value_sum = values.new_zeros(groups, values.shape[1])
    value_sum.index_add_(0, group, values * weights[:, None])
    return value_sum / weight_sum[:, None]
