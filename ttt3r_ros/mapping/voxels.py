# SPDX-License-Identifier: Apache-2.0
"""What is kept of each voxel, as rows, and how two voxels become one.

Which voxel a point belongs to, and which voxels are kept, is the map's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ttt3r_ros.geometry import Vector
from ttt3r_ros.mapping.grouping import group_equal, weighted_mean

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
        columns = self.columns().items()
        if isinstance(rows, slice):
            return Voxels(**{name: column[rows] for name, column in columns})
        # Not column[rows]: for the rows of an image that takes three times as long.
        return Voxels(**{name: column.index_select(0, rows) for name, column in columns})

    def __setitem__(self, rows: Tensor | slice, new: Voxels) -> None:
        for name, column in self.columns().items():
            if isinstance(rows, slice):
                column[rows] = getattr(new, name)
            else:
                column.index_copy_(0, rows, getattr(new, name))

    def fade(self, rows: Tensor) -> None:
        """Let the weight of rows [N] with many hits fade, so that an old map still follows."""
        old = rows[self.hits.index_select(0, rows) >= MOST_HITS]
        self.weight[old] *= 1 - 1 / MOST_HITS

    def merge(self, rows: Tensor, new: Voxels) -> None:
        """Merge voxels [M] seen by other images into distinct rows [M] of the same keys."""
        old = self[rows]
        weight = old.weight + new.weight
        lead = old.lead + torch.where(old.segment == new.segment, new.lead, -new.lead)
        self[rows] = Voxels(
            key=old.key,
            mean=old.mean.lerp(new.mean, (new.weight / weight)[:, None]),
            weight=weight,
            lead=torch.minimum(lead.abs(), weight),
            hits=(old.hits + new.hits).clamp(max=MOST_HITS),
            seen=torch.maximum(old.seen, new.seen),
            segment=torch.where(lead < 0, new.segment, old.segment),
        )


def merge_within_segments(voxels: Voxels) -> Voxels:
    """Merge voxels of the same segment that have come to lie in the same cell.

    The same images have mostly seen them all, so the most hits and the most weight count and are
    not added up.
    """
    _, cell = group_equal(voxels.key)
    segment = voxels.segment.long()
    low, high = segment.aminmax() if len(segment) else (segment.new_zeros(()),) * 2
    pairs, group = group_equal(cell * (high - low + 1) + segment - low)

    def most(values: Tensor) -> Tensor:
        return values.new_zeros(len(pairs)).scatter_reduce_(
            0, group, values, "amax", include_self=False
        )

    return Voxels(
        key=most(voxels.key),
        mean=weighted_mean(voxels.mean.unbind(dim=1), voxels.weight, group, len(pairs))[0],
        weight=most(voxels.weight),
        lead=most(voxels.lead),
        hits=most(voxels.hits),
        seen=most(voxels.seen),
        segment=most(voxels.segment),
    )


def check_map_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors can be those of a map, see `VoxelMap.to_tensors`.

    Raises:
        ValueError: an entry is missing, unknown, or of the wrong shape or type; the message names
            it.
    """
    count = len(tensors["key"]) if "key" in tensors else 0
    expected = {name: (dtype, (count, *shape)) for name, (dtype, shape) in COLUMNS.items()}
    expected |= {"images": (torch.int64, ()), "voxel_size_m": (torch.float64, ())}
    if tensors.keys() != expected.keys():
        raise ValueError(f"map: expected {sorted(expected)}, got {sorted(tensors)}")
    for name, (dtype, shape) in expected.items():
        found = tensors[name]
        if found.shape != shape or found.dtype != dtype:
            raise ValueError(
                f"{name}: expected {dtype} {list(shape)}, got {found.dtype} {list(found.shape)}"
            )
    key = tensors["key"]
    if (key < 0).any() or (key.sort().values.diff() == 0).any():
        raise ValueError("key: expected distinct numbers that are not negative")


_HALF_AGE = 100  # images unseen that halve a voxel's score
_HALF_DISTANCE = 200  # voxel edges from the camera that halve a voxel's score: 10 m at 5 cm


def eviction_score(
    voxels: Voxels, rows: Tensor | slice, images: int, camera: Vector | None, voxel_size_m: float
) -> Tensor:
    """Return the score [M] of rows [M]; when the map is full, the lowest go first.

        hits / ((1 + images unseen / 100) (1 + distance from the camera / 200 voxel edges))

    `hits` is at most 100. Noise, seen once or twice, goes before walls; of walls those go that
    were left behind long ago and far away. A wall with 100 hits is worth more than a newcomer for
    10 000 images, and noise is worth half of a newcomer after 100.

    Args:
        voxels: the whole map's.
        rows: of the voxels to judge.
        images: count of images so far.
        camera: [3], in metres in the map's frame; None: distance does not count.
        voxel_size_m: edge of a voxel in metres.
    """
    result: Tensor = voxels.hits[rows] / (1 + (images - voxels.seen[rows]) / _HALF_AGE)
    if camera is not None:
        eye = torch.as_tensor(camera, dtype=torch.float32, device=result.device)
        distance = (voxels.mean[rows, :3] - eye).square().sum(dim=1).sqrt()
        result = result / (1 + distance / (_HALF_DISTANCE * voxel_size_m))
    return result
