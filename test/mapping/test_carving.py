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
        (0, 0, 2.78),  # not clearly in front: 5 % and a voxel
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


ROOM = ((-2.0, -1.3, -1.0), (2.0, 1.2, 4.0))  # corners; y points down, the floor is at 1.2
LENS = Intrinsics(40.0, 40.0, 31.5, 23.5, 64, 48)
POLE = ((0.8, 0.0, 2.4), (0.84, 1.2, 2.44))  # two thirds of a pixel thick


def true_depth(pose, boxes):
    """Return the depth [H, W] of the room and boxes in it from inside of the room."""
    v, u = np.mgrid[: LENS.height, : LENS.width]
    rays = np.stack(((u - LENS.cx) / LENS.fx, (v - LENS.cy) / LENS.fy), -1)
    rays = np.dstack((rays, np.ones(u.shape))) @ pose[:3, :3].T

    def met(corners):
        to = (np.array(corners)[:, None, None] - pose[:3, 3]) / (rays + 1e-9)
        return to.min(axis=0).max(axis=-1), to.max(axis=0).min(axis=-1)  # where in, where out

    depth = met(ROOM)[1]
    for box in boxes:
        enters, leaves = met(box)
        depth = np.where((enters < leaves) & (enters > 0), np.minimum(depth, enters), depth)
    return depth


def film(box_passes, carve, noise=0.0):
    """Return a map's points [N, 3] after a box has passed the camera, and has gone.

    The camera looks around and goes from side to side. Depth errs by `noise` times its value, in
    patches of 8 x 8 pixels, that of each third image for three images.
    """
    rng, voxel_map = np.random.default_rng(0), VoxelMap(0.05, 100_000)
    for i in range(120):
        angle = 0.3 * np.sin(i / 7)
        c, s = np.cos(angle), np.sin(angle)
        pose = transform([[c, 0, s], [0, 1, 0], [-s, 0, c]], [0.5 * np.sin(i / 11), 0, 0])
        x = 0.04 * i - 1.6
        passing = [((x, 0.7, 1.8), (x + 0.3, 1.2, 2.2))] if box_passes and i < 80 else []
        depth = true_depth(pose, [POLE, *passing])
        if i % 3 == 0:
            error = np.kron(rng.normal(0, noise, (6, 8)), np.ones((8, 8)))
        depth = depth * np.exp(error)
        v, u = np.mgrid[: LENS.height, : LENS.width]
        points = np.stack(((u - LENS.cx) / LENS.fx, (v - LENS.cy) / LENS.fy,
                           np.ones(u.shape)), -1) * depth[..., None]  # fmt: skip
        points = np.float32(points.reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3])
        if carve:
            voxel_map.carve(torch.from_numpy(depth).float(), LENS, pose)
        insert(voxel_map, points, np.zeros((len(points), 3), int), np.ones(len(points), "f4"))
    return voxel_map.cloud().points


def off_the_room(points):
    """Count points farther than 10 cm from room and pole."""
    low, high = np.array(ROOM)
    inside = np.minimum(points - low, high - points).min(axis=1)
    low, high = np.array(POLE)
    outside = np.linalg.norm(np.maximum(0, np.maximum(low - points, points - high)), axis=1)
    return int(((inside > 0.1) & (outside > 0.1)).sum())


def test_a_box_that_passes_leaves_no_trail():
    trail = off_the_room(film(box_passes=True, carve=False))
    assert trail > 500
    assert off_the_room(film(box_passes=True, carve=True)) < 0.01 * trail


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_walls_floor_and_a_thin_pole_stay(noise):
    room = film(box_passes=False, carve=False)
    carved = torch.from_numpy(film(box_passes=True, carve=True, noise=noise))
    low, high = np.array(POLE)
    pole = room[((room > low - 0.01) & (room < high + 0.01)).all(axis=1)]
    assert len(pole) > 10
    for points, share in ((room[::5], 0.99), (pole, 1.0)):
        distances = torch.cdist(torch.from_numpy(points), carved).amin(dim=1)
        assert (distances < 0.05).double().mean() >= share
