# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from dictionary_map import SIZE, DictionaryMap, assert_same, insert, random_image

from ttt3r_ros.geometry import Intrinsics, transform
from ttt3r_ros.mapping import voxel_map as subject
from ttt3r_ros.mapping.voxel_map import VoxelMap

INTRINSICS = Intrinsics(20.0, 20.0, 15.5, 11.5, 32, 24)
AT_ORIGIN = np.eye(4)
WALL = torch.full((24, 32), 3.0)


def map_with(points, hits=1):
    """Return a map of points [N, 3] seen so often, and by no means in the last image."""
    voxel_map = VoxelMap(SIZE, 1000)
    points = np.float32(points)
    for _ in range(hits):
        insert(voxel_map, points, np.zeros((len(points), 3), int), np.ones(len(points), "f4"))
    insert(voxel_map, np.zeros((0, 3), "f4"), np.zeros((0, 3), int), np.zeros(0, "f4"))
    return voxel_map


def test_carving_equals_that_of_a_dictionary():
    rng = np.random.default_rng(0)
    voxel_map, twin = VoxelMap(SIZE, 5000), DictionaryMap(5000)
    removed = 0
    for _ in range(10):
        image = random_image(rng, 200, spread=0.7, at=(0, 0, 2))
        insert(voxel_map, *image)
        twin.insert(*image)
        depth = np.float32(rng.uniform(2, 4) + rng.uniform(0, 0.2, (24, 32)))
        depth[rng.random(depth.shape) < 0.02] = rng.choice([0.0, np.nan])
        angle = rng.normal(0, 0.2)
        c, s = np.cos(angle), np.sin(angle)
        pose = transform([[c, 0, s], [0, 1, 0], [-s, 0, c]], rng.normal(0, 0.2, 3))
        removed += len(voxel_map)
        voxel_map.carve(torch.from_numpy(depth), INTRINSICS, pose)
        removed -= len(voxel_map)
        twin.carve(depth, INTRINSICS, pose)
        assert_same(voxel_map, twin)
    assert removed > 100


def test_what_is_seen_through_loses_a_hit_each_time_and_goes_at_none():
    voxel_map = map_with([[0, 0, 1.0]], hits=3)
    for left in (2, 1):
        voxel_map.carve(WALL, INTRINSICS, AT_ORIGIN)
        assert voxel_map.to_tensors()["hits"].tolist() == [left]
    before = voxel_map.revision
    voxel_map.carve(WALL, INTRINSICS, AT_ORIGIN)
    assert len(voxel_map) == 0 and voxel_map.revision != before
    voxel_map.carve(WALL, INTRINSICS, AT_ORIGIN)


@pytest.mark.parametrize(
    "point",
    [
        (0, 0, 3.0),  # the wall itself
        (0, 0, 2.3),  # not clearly in front: 20 % and two voxels
        (0, 0, 4.0),
        (0, 0, 0.1),  # at the lens
        (0, 0, -1.0),
        (2.0, 0, 1.0),  # out of view
        (0, -2.0, 1.0),
    ],
)
def test_what_is_not_seen_through_stays(point):
    voxel_map = map_with([point])
    voxel_map.carve(WALL, INTRINSICS, AT_ORIGIN)
    assert len(voxel_map) == 1


@pytest.mark.parametrize("depth", [0.0, -1.0, np.nan, 1.0])
@pytest.mark.parametrize("pixel", [(12, 16), (11, 15), (13, 17)])
def test_nothing_is_taken_beside_a_pixel_that_does_not_see_through(depth, pixel):
    image = WALL.clone()
    image[pixel] = depth
    voxel_map = map_with([[0.02, 0.02, 1.0]])  # at column 15.9, row 11.9
    voxel_map.carve(image, INTRINSICS, AT_ORIGIN)
    assert len(voxel_map) == 1


def test_voxels_take_turns(monkeypatch):
    monkeypatch.setattr(subject, "_CARVED", 10)
    points = [[0.2 * i - 0.5, 0.2 * k - 0.4, 1.05] for i in range(6) for k in range(5)]
    voxel_map = map_with(points, hits=2)
    for looked_at in (10, 20, 30):
        voxel_map.carve(WALL, INTRINSICS, AT_ORIGIN)
        assert (voxel_map.to_tensors()["hits"] == 1).sum() == looked_at
    for _ in range(6):
        voxel_map.carve(WALL, INTRINSICS, AT_ORIGIN)
    assert len(voxel_map) == 0


def test_a_depth_image_of_another_size_is_named():
    with pytest.raises(ValueError, match=r"depth: expected \[24, 32\], got \[24, 31\]"):
        VoxelMap(SIZE, 1000).carve(WALL[:, :31], INTRINSICS, AT_ORIGIN)


def test_voxels_of_the_last_image_stay():
    voxel_map = VoxelMap(SIZE, 1000)
    insert(voxel_map, np.float32([[0, 0, 1]]), np.zeros((1, 3), int), np.ones(1, "f4"))
    voxel_map.carve(WALL, INTRINSICS, AT_ORIGIN)
    assert len(voxel_map) == 1
