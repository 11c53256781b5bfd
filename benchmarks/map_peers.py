# SPDX-License-Identifier: Apache-2.0
"""What `bench_map.py` compares the map with: Open3D's and KISS-ICP's maps."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.map_images import (
    FAR_M,
    VOXEL_M,
    Cells,
    Cloud,
    Image,
    cells_of,
    centres,
    parts,
)

ROOM_CELLS = 300_000  # more than an image has points and the room cells


class PeerMissing(RuntimeError):
    """A library to compare with cannot be used here; the message says what to do."""


class HashMapOfPoints:
    """Sums of points by voxel in Open3D's hash map."""

    def __init__(self, capacity: int) -> None:
        """Make an empty one with all the memory that it will need."""
        self._core = open3d().core
        self._map = self._hash_map(capacity, columns=7)

    def fill(self, cells: Cells) -> None:
        """Add the cells."""
        for part in parts(cells):
            self._map.activate(self._core.Tensor(part.astype(np.int32)))

    def insert(self, image: Image) -> None:
        """Add each point, its colour and 1."""
        values = torch.empty(len(image.points), 7)
        values[:, :3], values[:, 3:6], values[:, 6] = image.points, image.colours, 1.0
        self._add(self._map, cells_of(image.points), values)

    def cloud(self) -> Cloud:
        """Return the means of voxels that have points."""
        rows = torch.from_numpy(self._map.active_buf_indices().numpy()).long()
        sums = self._values(self._map)[rows].double().numpy()
        sums = sums[sums[:, 6] > 0]
        return sums[:, :3] / sums[:, 6:], sums[:, 3:6] / sums[:, 6:]

    def _hash_map(self, capacity: int, columns: int) -> Any:
        core = self._core
        result = core.HashMap(capacity, core.int32, (3,), (core.float32,), ((columns,),))
        self._values(result).zero_()
        return result

    def _values(self, hash_map: Any) -> Tensor:
        """Return its buffer [rows, columns] as torch sees it."""
        return torch.from_numpy(hash_map.value_tensor().numpy())

    def _add(self, hash_map: Any, cells: Tensor, values: Tensor) -> None:
        keys = self._core.Tensor.from_numpy(cells.numpy())
        hash_map.activate(keys)
        rows, _ = hash_map.find(keys)
        self._values(hash_map).index_add_(0, torch.from_numpy(rows.numpy()), values)


class HashMapOfImages(HashMapOfPoints):
    """Sums of images' means by voxel: one hash map for the image, one for all."""

    def insert(self, image: Image) -> None:
        """Add up what lies in a voxel, and add what that is for each point to the map."""
        values = torch.empty(len(image.points), 8)
        values[:, :3], values[:, 3:6], values[:, 6] = image.points, image.colours, 1.0
        values *= image.weights[:, None]
        values[:, 7] = 1.0
        one = self._hash_map(len(values), columns=8)  # it has no way to be emptied
        self._add(one, cells_of(image.points), values)
        rows = torch.from_numpy(one.active_buf_indices().numpy()).long()
        cells = torch.from_numpy(one.key_tensor().numpy()).index_select(0, rows)
        sums = self._values(one).index_select(0, rows)
        self._add(self._map, cells, sums[:, :7] / sums[:, 7:])


class DownsampledCloud:
    """One cloud, thinned with every image."""

    def __init__(self) -> None:
        """Make an empty one."""
        self._core = open3d().core
        self._new = open3d().t.geometry.PointCloud
        self._cloud: Any = None

    def fill(self, cells: Cells) -> None:
        """Put one point into each voxel."""
        points = torch.from_numpy(centres(cells))
        self._cloud = self._of(points, torch.full_like(points, 128))

    def insert(self, image: Image) -> None:
        """Append the points and thin the whole."""
        new = self._of(image.points, image.colours.float())
        whole = new if self._cloud is None else self._cloud.append(new)
        self._cloud = whole.voxel_down_sample(VOXEL_M)

    def cloud(self) -> Cloud:
        """Return the means."""
        points, colours = self._cloud.point.positions, self._cloud.point.colors
        return points.numpy().astype(np.float64), colours.numpy().astype(np.float64)

    def _of(self, points: Tensor, colours: Tensor) -> Any:
        cloud = self._new(self._core.Tensor.from_numpy(points.numpy()))
        cloud.point.colors = self._core.Tensor.from_numpy(colours.numpy())
        return cloud


class DistanceGrid:
    """Open3D's truncated signed distances."""

    def __init__(self, edge: int, truncation: float, blocks: int) -> None:
        """Make an empty one of blocks of `edge`^3 voxels, truncated at so many voxels."""
        self._edge, self._truncation = edge, truncation
        self._core, self._image = open3d().core, open3d().t.geometry.Image
        kind = self._core.float32
        self.grid = open3d().t.geometry.VoxelBlockGrid(
            ("tsdf", "weight", "color"), (kind,) * 3, ((1), (1), (3)), VOXEL_M, edge, blocks
        )

    def fill(self, cells: Cells) -> None:
        """Make the blocks of the cells."""
        for part in parts(np.unique(cells // self._edge, axis=0)):
            self.grid.hashmap().activate(self._core.Tensor(part.astype(np.int32)))

    def insert(self, image: Image) -> None:
        """Integrate depth and colour."""
        tensor = self._core.Tensor
        depth = self._image(tensor.from_numpy(image.depth_m.numpy()))
        colour = self._image(tensor.from_numpy(image.rgb.numpy()))
        lens, T_camera_world = (
            tensor(image.lens.matrix()),
            tensor(np.linalg.inv(image.T_world_camera)),
        )
        pinhole, limits = (lens, T_camera_world), (1.0, FAR_M, self._truncation)
        blocks = self.grid.compute_unique_block_coordinates(depth, *pinhole, *limits)
        self.grid.integrate(blocks, depth, colour, *pinhole, *limits)


class KissPoints:
    """KISS-ICP's map of points."""

    def __init__(self) -> None:
        """Make an empty one that forgets nothing."""
        module = _library("kiss_icp.mapping", "KISS-ICP")
        self.map = module.VoxelHashMap(VOXEL_M, max_distance=1e9, max_points_per_voxel=20)

    def fill(self, cells: Cells) -> None:
        """Put one point into each voxel."""
        self.map.add_points(centres(cells).astype(np.float64))

    def insert(self, image: Image) -> None:
        """Add the points; it wants them in double precision."""
        self.map.add_points(image.points.double().numpy())


def open3d() -> Any:
    """Return Open3D's module.

    Raises:
        PeerMissing: it is not there, or a system library that it needs.
    """
    # Its wheel needs the system's libusb without saying so; this one brings it along.
    with contextlib.suppress(ImportError):
        path = importlib.import_module("libusb_package").get_library_path()
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    module = _library("open3d", "Open3D")
    module.utility.set_max_threads(torch.get_num_threads())
    return module


def _library(name: str, title: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise PeerMissing(
            f"{title} cannot be used here: {error}\nInstall what this is compared with, "
            "pip install 'ttt3r_ros[benchmark]', or leave it out with --without-peers"
        ) from error


SAME_WORK = "Open3D HashMap"
# By name how to make one for a map of so many voxels.
PEERS: dict[str, Callable[[int], Any]] = {
    SAME_WORK: lambda voxels: HashMapOfImages(voxels + ROOM_CELLS),
    "Open3D HashMap, points": lambda voxels: HashMapOfPoints(voxels + ROOM_CELLS),
    "Open3D PointCloud": lambda voxels: DownsampledCloud(),
    "Open3D VoxelBlockGrid": lambda voxels: DistanceGrid(16, 8.0, voxels // 140 + 2_000),
    "Open3D VoxelBlockGrid, leanest": lambda voxels: DistanceGrid(8, 2.0, voxels // 45 + 5_000),
    "KISS-ICP VoxelHashMap": lambda voxels: KissPoints(),
}
