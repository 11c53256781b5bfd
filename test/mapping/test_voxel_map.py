# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ttt3r_ros.mapping.voxel_map import VoxelMap

SIZE = 0.1


class DictionaryMap:
    """The same map as plain Python: slow, obvious."""

    def __init__(self, max_points: int) -> None:
        self.voxels: dict[tuple[int, ...], dict] = {}
        self.max_points = max_points
        self.images = 0

    def insert(self, points, colours, weights) -> None:
        self.images += 1
        seen: dict[tuple[int, ...], list[int]] = {}
        for i, point in enumerate(points):
            if np.isfinite(point).all():
                seen.setdefault(tuple(math.floor(c / np.float32(SIZE)) for c in point), []).append(
                    i
                )
        for cell in sorted(seen):
            i = seen[cell]
            values = np.concatenate([points[i], colours[i]], axis=1).astype(np.float64)
            mean = (values * weights[i, None]).sum(0) / weights[i].sum()
            weight = weights[i].mean()
            voxel = self.voxels.setdefault(cell, dict(mean=np.zeros(6), weight=0.0, hits=0))
            total = voxel["weight"] * (1 if voxel["hits"] < 100 else 0.99) + weight
            voxel["mean"] = voxel["mean"] + (mean - voxel["mean"]) * weight / total
            voxel["weight"] = total
            voxel["hits"] += 1
            voxel["seen"] = self.images
        if len(self.voxels) > self.max_points:
            useful = sorted(
                self.voxels,
                key=lambda c: -self.voxels[c]["hits"] / (1 + self.images - self.voxels[c]["seen"]),
            )
            kept = set(useful[: int(0.9 * self.max_points)])
            self.voxels = {c: v for c, v in self.voxels.items() if c in kept}


def random_image(rng, n=400, spread=1.0):
    points = rng.normal(0, spread, (n, 3)).astype(np.float32)
    return points, rng.integers(0, 256, (n, 3)), rng.uniform(0.5, 5, n).astype(np.float32)


def insert(voxel_map, points, colours, weights) -> None:
    voxel_map.insert(*(torch.from_numpy(a) for a in (points, colours, weights)))


def test_the_map_equals_a_dictionary_of_voxels():
    rng = np.random.default_rng(0)
    voxel_map, twin = VoxelMap(SIZE, 100_000), DictionaryMap(100_000)
    for _ in range(20):
        image = random_image(rng)
        insert(voxel_map, *image)
        twin.insert(*image)
    cloud = voxel_map.cloud()
    assert len(voxel_map) == len(twin.voxels) > 2048  # rows and table have grown on the way
    expected = np.array([v["mean"] for v in twin.voxels.values()])
    np.testing.assert_allclose(cloud.points, expected[:, :3], atol=1e-5)
    np.testing.assert_allclose(cloud.colours, expected[:, 3:], atol=0.51)


def test_an_old_voxel_still_follows_its_surface():
    voxel_map, twin = VoxelMap(SIZE, 1000), DictionaryMap(1000)
    colours, weights = np.zeros((1, 3), int), np.float32([2.5])
    for i in range(400):
        point = np.float32([[0.01 if i < 300 else 0.09, 0.05, 0.05]])
        insert(voxel_map, point, colours, weights)
        twin.insert(point, colours, weights)
    x = voxel_map.cloud().points[0, 0]
    assert x == pytest.approx(next(iter(twin.voxels.values()))["mean"][0], abs=1e-5)
    assert 0.06 < x < 0.09  # by 1 - exp(-1); without forgetting it would be at 0.03


def test_a_full_map_forgets_what_was_seen_seldom_and_long_ago():
    rng = np.random.default_rng(1)
    wall, noise, new = (random_image(rng, 300) for _ in range(3))
    voxel_map = VoxelMap(SIZE, 1000)
    insert(voxel_map, *noise)
    for _ in range(30):
        insert(voxel_map, *wall)
    for _ in range(3):
        insert(voxel_map, *random_image(rng, 300))
    insert(voxel_map, *new)
    assert len(voxel_map) <= 1000 < 5 * 300  # it has forgotten something

    def kept(image):
        cells = {tuple(c) for c in np.floor(voxel_map.cloud().points / SIZE).astype(int)}
        return np.mean([tuple(np.floor(p / SIZE).astype(int)) in cells for p in image[0]])

    assert kept(wall) > 0.97  # a mean on a voxel's border may round into the neighbour
    assert kept(new) > 0.97
    assert kept(noise) < 0.5


def test_the_bound_holds_and_forgotten_rows_start_afresh():
    rng = np.random.default_rng(2)
    voxel_map = VoxelMap(SIZE, 1000)
    for _ in range(30):
        insert(voxel_map, *random_image(rng, 700, spread=3.0))
        assert len(voxel_map) <= 1000
    points = np.full((1, 3), 50.05, np.float32)
    insert(voxel_map, points, np.array([[10, 20, 30]]), np.ones(1, np.float32))
    cloud = voxel_map.cloud()
    np.testing.assert_allclose(cloud.points[-1], points[0], atol=1e-5)
    np.testing.assert_array_equal(cloud.colours[-1], [10, 20, 30])


def test_heavier_points_pull_the_mean_and_an_image_counts_once():
    voxel_map = VoxelMap(1.0, 1000)
    points = np.array([[0.1, 0.5, 0.5], [0.9, 0.5, 0.5]], np.float32)
    insert(voxel_map, points, np.array([[0, 0, 0], [100, 100, 100]]), np.float32([1, 3]))
    np.testing.assert_allclose(voxel_map.cloud().points, [[0.7, 0.5, 0.5]], atol=1e-6)
    np.testing.assert_array_equal(voxel_map.cloud().colours, [[75, 75, 75]])
    insert(voxel_map, points[:1], np.zeros((1, 3), int), np.float32([2]))
    np.testing.assert_allclose(voxel_map.cloud().points, [[0.4, 0.5, 0.5]], atol=1e-6)


def test_points_that_are_nowhere_are_left_out():
    voxel_map = VoxelMap(SIZE, 1000)
    points = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [1e9, 0, 0], [0, 0, 0]], np.float32)
    insert(voxel_map, points, np.zeros((4, 3), int), np.ones(4, np.float32))
    assert len(voxel_map) == 1
    insert(voxel_map, points[:2], np.zeros((2, 3), int), np.ones(2, np.float32))
    assert len(voxel_map) == 1


@pytest.mark.parametrize("weight", [np.inf, np.nan, 0.0, -1.0])
def test_a_weight_that_is_none_cannot_ruin_a_voxel(weight):
    voxel_map = VoxelMap(SIZE, 1000)
    point = np.full((1, 3), 0.05, np.float32)
    insert(voxel_map, point, np.zeros((1, 3), int), np.float32([weight]))
    assert len(voxel_map) == 0
    insert(voxel_map, point, np.zeros((1, 3), int), np.float32([1]))
    np.testing.assert_allclose(voxel_map.cloud().points, point)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"weights \[N\], got \[4, 3\], \[4, 3\], \[3\]"):
        VoxelMap(SIZE, 1000).insert(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(3))


def test_a_map_from_its_tensors_goes_on_as_the_map_itself():
    rng = np.random.default_rng(3)
    one = VoxelMap(SIZE, 1500)
    for _ in range(6):
        insert(one, *random_image(rng))
    other = VoxelMap.from_tensors(one.to_tensors(), 1500)
    np.testing.assert_array_equal(one.cloud().points, other.cloud().points)
    for _ in range(6):  # the map gets full on the way
        image = random_image(rng)
        insert(one, *image)
        insert(other, *image)
        assert len(one) == len(other) and one.images == other.images
        np.testing.assert_allclose(one.cloud().points, other.cloud().points, atol=1e-6)


def test_the_tensors_of_a_map_are_a_copy_and_an_empty_map_has_some_too():
    voxel_map = VoxelMap(SIZE, 1000)
    insert(voxel_map, *random_image(np.random.default_rng(4)))
    tensors = voxel_map.to_tensors()
    tensors["mean"].zero_()
    assert np.abs(voxel_map.cloud().points).max() > 0.5
    assert len(VoxelMap.from_tensors(VoxelMap(SIZE, 1000).to_tensors(), 1000)) == 0


def test_a_map_with_more_voxels_than_it_may_have_keeps_the_most_useful():
    rng = np.random.default_rng(5)
    wall, noise = random_image(rng, 900), random_image(rng, 900)
    voxel_map = VoxelMap(SIZE, 10_000)
    insert(voxel_map, *noise)
    for _ in range(3):
        insert(voxel_map, *wall)
    small = VoxelMap.from_tensors(voxel_map.to_tensors(), 1000)
    assert len(small) == 900
    insert(small, *random_image(rng, 50))
    assert len(small) <= 1000


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("mean", torch.zeros(3, 5), r"mean: expected torch.float32 \[3, 6\], got .* \[3, 5\]"),
        ("hits", torch.zeros(3), r"hits: expected torch.int32 \[3\], got torch.float32 \[3\]"),
        ("key", torch.tensor([1, 1, 2]), "key: expected distinct"),
        ("key", torch.tensor([1, -1, 2]), "key: .* not negative"),
        ("rows", torch.zeros(3), "map: expected .*'key'.*got .*'rows'"),
    ],
)
def test_tensors_that_are_no_map_are_named(name, tensor, message):
    voxel_map = VoxelMap(SIZE, 1000)
    points = np.float32([[0.05, 0, 0], [1.05, 0, 0], [2.05, 0, 0]])
    insert(voxel_map, points, np.zeros((3, 3), int), np.ones(3, np.float32))
    with pytest.raises(ValueError, match=message):
        VoxelMap.from_tensors({**voxel_map.to_tensors(), name: tensor}, 1000)
