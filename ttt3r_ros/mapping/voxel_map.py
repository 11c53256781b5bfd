# SPDX-License-Identifier: Apache-2.0
"""The accumulating map: one weighted mean point and colour per voxel, bounded in number.

Voxels lie in dense rows; an open-addressing hash table, vectorised over all voxels of an image,
finds a voxel's row. The cost of an image depends on its own voxels, not on the map's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_CELL_BITS = 21  # of each axis in a key: 2^20 voxels to either side, 52 km at 5 cm
_EMPTY = -1  # no key is negative
_HASH_FACTOR = -7046029254386353131  # 2^64 / golden ratio as a signed integer (Knuth, TAOCP 6.4)
_MEMORY = 100  # images that a voxel's mean follows, however often it has been seen
_KEPT_WHEN_FULL = 0.9  # share of `max_points`; the next images then find room
_ROWS: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {  # type and shape of one voxel's
    "key": (torch.int64, ()),
    "mean": (torch.float32, (6,)),
    "weight": (torch.float32, ()),
    "hits": (torch.int32, ()),
    "seen": (torch.int32, ()),
}


@dataclass(frozen=True, slots=True)
class MapCloud:
    """A copy of the map's points on the host."""

    points: npt.NDArray[np.float32]  # [N, 3] metres in the map's frame
    colours: npt.NDArray[np.uint8]  # [N, 3] RGB


class VoxelMap:
    """Merges points into voxels.

    Each image counts once for a voxel, with the mean position, colour and weight of its points
    there. When more than `max_points` voxels exist, those with the least
    hits / (1 + images since last seen) go, so that noise seen once goes before old walls.
    """

    def __init__(
        self, voxel_size: float, max_points: int, device: torch.device | str = "cpu"
    ) -> None:
        """Make an empty map.

        Args:
            voxel_size: edge of a voxel in metres.
            max_points: number of voxels kept at most.
            device: where the map lives and `insert` expects its tensors.
        """
        self._voxel_size = voxel_size
        self._max_points = max_points
        self._device = torch.device(device)
        self._images = 0
        self._count = 0
        self._allocate_rows(1024)
        self._allocate_table(4096)

    def __len__(self) -> int:
        return self._count

    @property
    def images(self) -> int:
        """Number of images inserted; changes whenever the map does."""
        return self._images

    def insert(self, points: Tensor, colours: Tensor, weights: Tensor) -> None:
        """Merge one image's points.

        Args:
            points: float [N, 3], metres in the map's frame; those that are not finite or
                farther than 2^20 voxels from the origin are left out.
            colours: [N, 3], RGB, 0 to 255.
            weights: float [N]; only their ratios matter. Points whose weight is not finite and
                positive are left out.

        Raises:
            ValueError: the shapes do not belong together.
        """
        n = len(points)
        if points.shape != (n, 3) or colours.shape != (n, 3) or weights.shape != (n,):
            raise ValueError(
                "expected points [N, 3], colours [N, 3], weights [N], got "
                f"{list(points.shape)}, {list(colours.shape)}, {list(weights.shape)}"
            )
        self._images += 1
        cells = torch.floor(points / self._voxel_size)
        inside = (cells.abs() < 1 << (_CELL_BITS - 1)).all(dim=1)  # false for NaN too
        inside &= weights.isfinite() & (weights > 0)
        keys, voxel = torch.unique(_pack(cells[inside].long()), return_inverse=True)
        if not len(keys):
            return
        mean, weight = _reduce(
            torch.cat([points[inside], colours[inside].to(points.dtype)], dim=1),
            weights[inside].to(points.dtype),
            voxel,
            len(keys),
        )
        self._reserve(len(keys))
        rows = self._rows_of(keys)
        # Beyond the memory's length old weight fades, so that an old map still follows.
        fading = torch.where(self._hits[rows] < _MEMORY, 1.0, 1 - 1 / _MEMORY)
        total = self._weight[rows] * fading + weight
        self._mean[rows] += (mean - self._mean[rows]) * (weight / total)[:, None]
        self._weight[rows] = total
        self._hits[rows] += 1
        self._seen[rows] = self._images
        if self._count > self._max_points:
            self._forget_least_useful()

    def cloud(self) -> MapCloud:
        """Return a copy of all points; the order is that of first sight."""
        mean = self._mean[: self._count]
        colours = mean[:, 3:].round().to(torch.uint8)
        return MapCloud(mean[:, :3].cpu().numpy().copy(), colours.cpu().numpy())

    def to_tensors(self) -> dict[str, Tensor]:
        """Return a copy of all that the map is on the host; `from_tensors` reads it back.

        Beside one row per voxel, in the order of first sight, there are `images` and `voxel_size`.
        """
        tensors = {}
        for name in _ROWS:
            tensors[name] = getattr(self, f"_{name}")[: self._count].to("cpu", copy=True)
        tensors["images"] = torch.tensor(self._images)
        tensors["voxel_size"] = torch.tensor(self._voxel_size, dtype=torch.float64)
        return tensors

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], max_points: int, device: torch.device | str = "cpu"
    ) -> VoxelMap:
        """Return the map that `to_tensors` described; it goes on as that one would have.

        Args:
            tensors: from `to_tensors`.
            max_points: as for a new map; the least useful voxels beyond it are left out.
            device: as for a new map.

        Raises:
            ValueError: as `check_map_tensors`.
        """
        check_map_tensors(tensors)
        count = len(tensors["key"])
        result = cls(float(tensors["voxel_size"]), max_points, device)
        result._images = int(tensors["images"])
        result._reserve(count)
        for name in _ROWS:
            getattr(result, f"_{name}")[:count] = tensors[name].to(device)
        result._count = count
        result._index_rows()
        if count > max_points:
            result._forget_least_useful()
        return result

    def _rows_of(self, keys: Tensor) -> Tensor:
        """Return the rows [M] of distinct keys [M], appending rows for new ones."""
        slots = self._slots_of(keys)
        rows = self._row_at[slots]
        new = rows == _EMPTY
        added = int(new.sum())
        rows[new] = torch.arange(self._count, self._count + added, device=self._device)
        self._row_at[slots] = rows
        self._key[rows[new]] = keys[new]
        self._count += added
        return rows

    def _slots_of(self, keys: Tensor) -> Tensor:
        """Find the table slots of distinct keys [M], claiming empty ones: linear probing."""
        mask = len(self._key_at) - 1
        slots = ((keys * _HASH_FACTOR) >> 32) & mask
        pending = torch.arange(len(keys), device=self._device)
        while len(pending):
            slot, key = slots[pending], keys[pending]
            empty = self._key_at[slot] == _EMPTY
            # Of several keys after one slot one write stays; the others read it back and go on.
            self._key_at[slot[empty]] = key[empty]
            pending = pending[self._key_at[slot] != key]
            slots[pending] = (slots[pending] + 1) & mask
        return slots

    def _reserve(self, added: int) -> None:
        """Make room for `added` more voxels; the table stays at most half full."""
        needed = self._count + added
        if needed > len(self._key):
            old = (self._key, self._mean, self._weight, self._hits, self._seen)
            self._allocate_rows(max(needed, 2 * len(self._key)))
            new = (self._key, self._mean, self._weight, self._hits, self._seen)
            for source, target in zip(old, new, strict=True):
                target[: self._count] = source[: self._count]
        if 2 * needed > len(self._key_at):
            self._allocate_table(2 * needed)
            self._index_rows()

    def _forget_least_useful(self) -> None:
        age = self._images - self._seen[: self._count]
        usefulness = self._hits[: self._count] / (1 + age)
        kept = torch.topk(usefulness, int(_KEPT_WHEN_FULL * self._max_points), sorted=False).indices
        kept = kept.sort().values
        self._count = len(kept)
        for values in (self._key, self._mean, self._weight, self._hits, self._seen):
            values[: self._count] = values[kept]
        self._weight[self._count :] = 0  # rows given out again start from nothing
        self._hits[self._count :] = 0
        self._allocate_table(len(self._key_at))
        self._index_rows()

    def _index_rows(self) -> None:
        rows = torch.arange(self._count, device=self._device)
        self._row_at[self._slots_of(self._key[: self._count])] = rows

    def _allocate_rows(self, size: int) -> None:
        self._key = torch.full((size,), _EMPTY, dtype=torch.int64, device=self._device)
        self._mean = torch.zeros((size, 6), device=self._device)  # x y z in metres, r g b
        self._weight = torch.zeros(size, device=self._device)
        self._hits = torch.zeros(size, dtype=torch.int32, device=self._device)
        self._seen = torch.zeros(size, dtype=torch.int32, device=self._device)

    def _allocate_table(self, size: int) -> None:
        size = 1 << (size - 1).bit_length()
        self._key_at = torch.full((size,), _EMPTY, dtype=torch.int64, device=self._device)
        self._row_at = torch.full((size,), _EMPTY, dtype=torch.int64, device=self._device)


def check_map_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors can be those of a map, see `VoxelMap.to_tensors`.

    Raises:
        ValueError: an entry is missing, unknown, or of the wrong shape or type; the message names
            it.
    """
    count = len(tensors["key"]) if "key" in tensors else 0
    expected = {name: (dtype, (count, *shape)) for name, (dtype, shape) in _ROWS.items()}
    expected |= {"images": (torch.int64, ()), "voxel_size": (torch.float64, ())}
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


def _pack(cells: Tensor) -> Tensor:
    """Join integer cells [N, 3] into keys [N]."""
    x, y, z = (cells + (1 << (_CELL_BITS - 1))).unbind(dim=1)
    return (x << 2 * _CELL_BITS) | (y << _CELL_BITS) | z


def _reduce(values: Tensor, weights: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return weighted means [G, D] of values [N, D] and mean weights [G] by group [N]."""
    weight_sum = values.new_zeros(groups).index_add_(0, group, weights)
    value_sum = values.new_zeros(groups, values.shape[1])
    value_sum.index_add_(0, group, values * weights[:, None])
    return value_sum / weight_sum[:, None], weight_sum / torch.bincount(group, minlength=groups)
