# SPDX-License-Identifier: Apache-2.0
"""The accumulating map: one weighted mean point and colour per voxel, bounded in number.

Voxels lie in dense rows and are found through a hash table, so the cost of an image depends on its
own voxels, not on the map's. Elsewhere: what a row holds (`voxels`), the table (`voxel_table`),
which voxels go when the map is full (`eviction_score`) and which are seen through (`carving`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ttt3r_ros.geometry import Intrinsics, Transform, Vector
from ttt3r_ros.mapping.carving import is_free_space
from ttt3r_ros.mapping.cells import keys_apart, keys_of
from ttt3r_ros.mapping.grouping import (
    check_similarities,
    group_equal,
    group_sum,
    transform_each,
    weighted_mean,
)
from ttt3r_ros.mapping.voxel_table import SLOTS_PER_ROW, VoxelTable
from ttt3r_ros.mapping.voxels import (
    COLUMNS,
    Voxels,
    check_map_tensors,
    eviction_score,
    merge_within_segments,
)

_SAMPLED = 8  # voxels looked at for each one that is forgotten
_LEAST_SAMPLE = 8192  # voxels: below this the calls cost more than the work
_BATCHES = 256  # a full map makes room for 1/256 of itself at once, not for every newcomer
_CARVED = 1 << 17  # rows looked at by `carve`, in turns


@dataclass(frozen=True, slots=True)
class MapCloud:
    """A copy of the map's points on the host."""

    values: npt.NDArray[np.float32]  # [N, 6] x y z in metres in the map's frame, r g b to 255
    counts: npt.NDArray[np.int32]  # [N] images that saw it, see `Voxels.hits`

    @property
    def points(self) -> npt.NDArray[np.float32]:
        """Metres in the map's frame, [N, 3]."""
        return self.values[:, :3]

    @property
    def colours(self) -> npt.NDArray[np.uint8]:
        """RGB, [N, 3]."""
        return self.values[:, 3:].round().astype(np.uint8)


class VoxelMap:
    """Merges points into voxels.

    Each image counts once for a voxel, with the mean position, colour and weight of its points
    there. All memory, 60 bytes for each of `max_points`, is reserved at the start.

    When newcomers find no room, those with the lowest `eviction_score` of a random sample go.
    The sample keeps the work in proportion to the newcomers; sorting the whole of a full map of
    2 million would hold up the camera for a second. A map of up to 8192 voxels is its own sample.
    """

    def __init__(
        self, voxel_size_m: float, max_points: int, device: torch.device | str = "cpu"
    ) -> None:
        """Make an empty map.

        Args:
            voxel_size_m: edge of a voxel in metres.
            max_points: number of voxels kept at most.
            device: where the map lives and `insert` expects its tensors.
        """
        self._voxel_size = voxel_size_m
        self._max_points = max_points
        self._device = torch.device(device)
        self._images = 0
        self._revision = 0
        self._count = 0
        self._carve_cursor = 0
        self._camera: Vector | None = None  # [3] metres in the map's frame
        self._voxels = Voxels.allocate(max_points, self._device)
        self._table = VoxelTable(self._voxels.key)

    def __len__(self) -> int:
        return self._count

    def clear(self) -> None:
        """Take everything out; the memory stays reserved."""
        self._images = self._count = self._carve_cursor = 0
        self._camera = None
        self._table.clear()
        self._revision += 1

    @property
    def images(self) -> int:
        """Number of images inserted."""
        return self._images

    @property
    def revision(self) -> int:
        """A number that changes whenever the map does."""
        return self._revision

    @property
    def nbytes(self) -> int:
        """Memory reserved on the device; it never grows."""
        return self._table.nbytes + sum(c.nbytes for c in self._voxels.columns().values())

    def insert(
        self,
        points: Tensor,
        colours: Tensor,
        weights: Tensor,
        segment: int = 0,
        camera: Vector | None = None,
    ) -> None:
        """Merge one image's points.

        Args:
            points: float [N, 3], metres in the map's frame; those that are not finite or
                farther than 2^20 voxels from the origin are left out.
            colours: [N, 3], RGB, 0 to 255.
            weights: float [N]; only their ratios matter. Points whose weight is not finite and
                positive are left out.
            segment: that the image belongs to, see `move`.
            camera: [3], where it was taken, metres in the map's frame. None: as the one before.

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
        self._revision += 1
        self._camera = self._camera if camera is None else camera
        # Columns in rows: everything below is faster along them than across.
        xyz = torch.stack(points.unbind(dim=1))
        keys, inside = keys_of(xyz, self._voxel_size)
        inside &= (weights > 0) & (weights < math.inf)
        if not inside.all():
            rows = inside.nonzero()[:, 0]
            keys, xyz, colours, weights = keys[rows], xyz[:, rows], colours[rows], weights[rows]
        weights = weights.to(points.dtype)
        keys, voxel = group_equal(keys)
        columns = (*xyz, *colours.unbind(dim=1))
        mean, weight = weighted_mean(columns, weights, voxel, len(keys))
        weight = weight / group_sum(torch.ones_like(weights), voxel, len(keys))
        new = Voxels(
            key=keys,
            mean=mean,
            weight=weight,
            lead=weight,
            hits=keys.new_ones(len(keys), dtype=torch.int32),
            seen=keys.new_full((len(keys),), self._images, dtype=torch.int32),
            segment=keys.new_full((len(keys),), segment, dtype=torch.int32),
        )
        self._merge(new, fading=True)

    def move(self, T_by_segment: Mapping[int, Transform]) -> None:
        """Move the voxels of segments and merge them into the grid where they come to lie.

        Where they meet voxels of other segments, hits and weights add up. What gets farther than
        2^20 voxels from the origin is left out. Segments that are corrected together belong into
        one call: they meet where they come to lie, not on the way.

        Args:
            T_by_segment: for segments as given to `insert`, float64 [4, 4], from where things are
                to where they shall be; the rotation may be multiplied by a scale. Points of a
                segment in voxels where another one has more weight stay with that one.

        Raises:
            ValueError: a transform is none; nothing has moved.
        """
        check_similarities(T_by_segment)
        if not T_by_segment:
            return
        self._revision += 1
        alone, voxels = self._take(T_by_segment)
        self._merge(alone)
        if not len(voxels.key):
            return
        # Those of several segments in one cell are merged one after the other.
        order = torch.argsort(voxels.key, stable=True)
        key = voxels.key[order]
        first = torch.searchsorted(key, key)  # of the same cell
        turn = torch.arange(len(key), device=self._device) - first
        for now in range(int(turn.max()) + 1):
            self._merge(voxels[order[turn == now]])

    def take_in(self, other: VoxelMap) -> None:
        """Merge another map, as if its images had come after this one's.

        Args:
            other: of the same voxel size and device, its segments of other numbers; it stays.
        """
        voxels = other._voxels[: other._count]
        before, self._images = self._images, self._images + other._images
        self._merge(replace(voxels, seen=voxels.seen + before))
        self._revision += 1

    def relabel(self, numbers: Mapping[int, int]) -> None:
        """Let the voxels of some segments belong to others from now on, as given for each."""
        if not numbers:
            return
        segment = self._voxels.segment[: self._count]
        old = torch.tensor(sorted(numbers), dtype=segment.dtype, device=segment.device)
        new = old.new_tensor([numbers[number] for number in sorted(numbers)])
        place = torch.searchsorted(old, segment).clamp(max=len(old) - 1)
        segment.copy_(torch.where(old[place] == segment, new[place], segment))

    def carve(
        self, depth: Tensor, intrinsics: Intrinsics, T_map_camera: Transform, margin: float = 0.05
    ) -> None:
        """Take a hit from voxels that a camera sees through; those without any go.

        One call looks at 131 072 voxels at most and the next one goes on from there, so in a map
        of 2 million each is looked at by every 16th image. Voxels of the last image inserted are
        left alone.

        Args:
            depth: float [H, W], metres along z; NaN or 0 where it is not known surely.
            intrinsics: of `depth`.
            T_map_camera: pose of the camera's optical frame.
            margin: share of the depth that a voxel must at least be in front of it, beside a
                voxel's edge. What stands on a floor is seen through in front of that floor down
                to this share of the camera's height, so a wide margin leaves most of it.

        Raises:
            ValueError: `depth` is not of the size that the intrinsics tell.
        """
        rows = slice(self._carve_cursor, min(self._carve_cursor + _CARVED, self._count))
        self._carve_cursor = rows.stop if rows.stop < self._count else 0
        voxels = self._voxels
        through = is_free_space(
            voxels.mean[rows, :3], depth, intrinsics, T_map_camera, margin, self._voxel_size
        )
        through &= voxels.seen[rows] != self._images
        voxels.hits[rows] -= through.int()
        gone = (voxels.hits[rows] <= 0).nonzero()[:, 0]
        if len(gone):
            self._remove(gone + rows.start)
        self._revision += 1

    def cloud(self, min_hits: int = 1, max_points: int | None = None) -> MapCloud:
        """Return a copy of the points of voxels with enough hits, in no particular order.

        Args:
            min_hits: images that must have seen a voxel.
            max_points: where there are more, only every second, third, ... of them: neighbours
                are seen by the same images and stand together, so all places are thinned alike.
        """
        mean, hits = self._voxels.mean[: self._count], self._voxels.hits[: self._count]
        if min_hits > 1:
            shown = hits >= min_hits
            mean, hits = mean[shown], hits[shown]
        step = 1 if max_points is None else max(1, -(-len(mean) // max_points))
        # All that tracking has to wait for is this copy.
        return MapCloud(*(v[::step].to("cpu", copy=True).numpy() for v in (mean, hits)))

    def to_tensors(self) -> dict[str, Tensor]:
        """Return a copy of all that the map is on the host; `from_tensors` reads it back.

        Beside one row per voxel there are `images` and `voxel_size_m`.
        """
        tensors = {
            name: column[: self._count].to("cpu", copy=True)
            for name, column in self._voxels.columns().items()
        }
        tensors["images"] = torch.tensor(self._images)
        tensors["voxel_size_m"] = torch.tensor(self._voxel_size, dtype=torch.float64)
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
        result = cls(float(tensors["voxel_size_m"]), max_points, device)
        result._images = int(tensors["images"])
        voxels = Voxels(**{name: tensors[name].to(device) for name in COLUMNS})
        if len(voxels.key) > max_points:
            useful = result._score(voxels, slice(None))
            voxels = voxels[useful.topk(max_points, sorted=False).indices]
        result._append(voxels)
        return result

    def _take(self, T_by_segment: Mapping[int, Transform]) -> tuple[Voxels, Voxels]:
        """Take the segments' voxels out of the map and return them as they shall be put back.

        Returns:
            Those that have a cell for themselves, and those that share one with others. The latter
            are in the order of the segments; one segment has one voxel in a cell.
        """
        segments = np.array(list(T_by_segment))
        ordered = torch.from_numpy(np.sort(segments)).to(self._device, torch.int32)
        number = torch.from_numpy(np.argsort(segments)).to(self._device)  # of the ordered ones
        owner = self._voxels.segment[: self._count]
        place = torch.searchsorted(ordered, owner).clamp(max=len(ordered) - 1)
        rows = (ordered[place] == owner).nonzero()[:, 0]
        voxels, which = self._voxels[rows], number[place[rows]]
        self._remove(rows)
        points = transform_each(voxels.mean[:, :3], which, list(T_by_segment.values()))
        keys, inside = keys_of(points.T, self._voxel_size)
        mean = torch.cat([points, voxels.mean[:, 3:]], dim=1)
        rows = inside.nonzero()[:, 0]
        before = voxels.mean[rows, :3].T / self._voxel_size
        moved = replace(voxels, key=keys, mean=mean)[rows]
        cells = moved.mean[:, :3].T / self._voxel_size
        keys, are_shared = keys_apart(moved.key, cells, before, moved.weight, self._table.has)
        moved = replace(moved, key=keys)
        shared = merge_within_segments(moved[are_shared.nonzero()[:, 0]])
        place = torch.searchsorted(ordered, shared.segment)
        alone = moved[(~are_shared).nonzero()[:, 0]]
        return alone, shared[torch.argsort(number[place], stable=True)]

    def _merge(self, new: Voxels, fading: bool = False) -> None:
        """Merge voxels [M] of distinct keys into those of the map, or append them.

        Those that are there come first: being seen just now, they survive making room.
        """
        rows = self._table.rows(new.key)
        known, fresh = (rows >= 0).nonzero()[:, 0], (rows < 0).nonzero()[:, 0]
        rows = rows[known]
        if fading:
            self._voxels.fade(rows)
        self._voxels.merge(rows, new[known])
        if not len(fresh):
            return
        new = new[fresh]
        if len(fresh) > self._max_points:
            new = new[new.weight.topk(self._max_points, sorted=False).indices]
        self._make_room(len(new.key))
        self._append(new)

    def _append(self, new: Voxels) -> None:
        begin, end = self._count, self._count + len(new.key)
        self._voxels[begin:end] = new
        self._table.add(torch.arange(begin, end, device=self._device))
        self._count = end  # last of all: without memory for the above they are not there

    def _make_room(self, added: int) -> None:
        excess = self._count + added - self._max_points
        if excess <= 0:
            return
        excess = min(max(excess, self._max_points // _BATCHES), self._count)
        while excess > 0:
            sampled = max(_LEAST_SAMPLE, _SAMPLED * excess)
            rows = self._table.next_sample(SLOTS_PER_ROW * sampled)
            useful = self._score(self._voxels, rows)
            least = useful.topk(min(excess, len(rows)), largest=False, sorted=False).indices
            self._remove(rows[least])
            excess -= len(least)

    def _score(self, voxels: Voxels, rows: Tensor | slice) -> Tensor:
        return eviction_score(voxels, rows, self._images, self._camera, self._voxel_size)

    def _remove(self, rows: Tensor) -> None:
        """Take distinct rows out; the last rows take their places."""
        count = self._count - len(rows)
        if count < len(rows):  # to begin anew with what stays takes less
            stays = torch.ones(self._count, dtype=torch.bool, device=self._device)
            stays[rows] = False
            kept = self._voxels[stays.nonzero()[:, 0]]
            self._count = 0
            self._table.clear()
            self._append(kept)
            return
        self._table.remove(rows)
        tail = torch.ones(len(rows), dtype=torch.bool, device=self._device)
        tail[rows[rows >= count] - count] = False
        last, holes = tail.nonzero()[:, 0] + count, rows[rows < count]
        self._table.renumber(last, holes)
        self._voxels[holes] = self._voxels[last]
        self._count = count
