# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from dictionary_map import SIZE, DictionaryMap, assert_same, insert, random_image

from ttt3r_ros.geometry import inverse, transform, transform_from_quaternion
from ttt3r_ros.mapping.voxel_map import VoxelMap

COLOURS, ONE = np.zeros((1, 3), int), np.ones(1, np.float32)


def similarity(scale, translation):
    T = transform_from_quaternion(translation, (0.97, 0.1, -0.1, 0.2))
    T[:3, :3] *= scale
    return T


def turn(angle):
    """About z."""
    return transform_from_quaternion((0, 0, 0), (np.cos(angle / 2), 0, 0, np.sin(angle / 2)))


def see(voxel_map, x, segment, times=1):
    for _ in range(times):
        insert(voxel_map, np.float32([[x, 0.05, 0.05]]), COLOURS, ONE, segment=segment)


@pytest.mark.parametrize("scale", [1.0, 0.7, 1.4])
def test_moved_segments_equal_those_of_a_dictionary(scale):
    rng = np.random.default_rng(1)
    voxel_map, twin = VoxelMap(SIZE, 10_000), DictionaryMap(10_000)
    for i in range(12):
        image = random_image(rng, 150, spread=0.4)
        insert(voxel_map, *image, segment=i // 2 % 3)
        twin.insert(*image, segment=i // 2 % 3)
        if i % 4 == 3:
            T = similarity(scale, rng.normal(0, 0.2, 3))
            voxel_map.move({1: T})
            twin.move({1: T})
            assert_same(voxel_map, twin)
            other = similarity(scale, rng.normal(0, 0.2, 3))
            voxel_map.move({2: other, 0: T})
            twin.move({2: other, 0: T})
            assert_same(voxel_map, twin)


def test_points_that_lie_apart_move_as_they_are_and_come_back():
    rng = np.random.default_rng(2)
    grid = np.stack(np.meshgrid(*[np.arange(6)] * 3), -1).reshape(-1, 3)
    points = (0.4 * grid + rng.uniform(0.01, 0.09, grid.shape)).astype(np.float32)
    voxel_map = VoxelMap(SIZE, 1000)
    insert(voxel_map, points, 40 * grid, np.ones(len(grid), np.float32), segment=4)
    T = similarity(1.0, (1.0, -2.0, 0.5))
    voxel_map.move({4: T})
    expected = points @ T[:3, :3].T + T[:3, 3]
    by_colour = np.lexsort(voxel_map.cloud().colours.T), np.lexsort(40 * grid.T)
    np.testing.assert_allclose(
        voxel_map.cloud().points[by_colour[0]], expected[by_colour[1]], atol=1e-5
    )
    voxel_map.move({4: inverse(T)})
    order = np.lexsort(voxel_map.cloud().colours.T)
    np.testing.assert_allclose(voxel_map.cloud().points[order], points[by_colour[1]], atol=1e-5)


def test_other_segments_stay():
    voxel_map = VoxelMap(SIZE, 1000)
    see(voxel_map, 0.05, segment=1)
    see(voxel_map, 1.05, segment=2)
    before = voxel_map.revision
    voxel_map.move({3: transform(np.eye(3), (5, 0, 0))})
    np.testing.assert_allclose(sorted(voxel_map.cloud().points[:, 0]), [0.05, 1.05], atol=1e-6)
    voxel_map.move({2: transform(np.eye(3), (5, 0, 0))})
    assert voxel_map.revision != before
    np.testing.assert_allclose(sorted(voxel_map.cloud().points[:, 0]), [0.05, 6.05], atol=1e-6)


def test_where_segments_meet_means_and_hits_come_together():
    voxel_map = VoxelMap(SIZE, 1000)
    see(voxel_map, 0.02, segment=1, times=3)
    see(voxel_map, 1.06, segment=2)
    voxel_map.move({2: transform(np.eye(3), (-1, 0, 0))})
    assert len(voxel_map) == 1
    np.testing.assert_allclose(voxel_map.cloud(min_hits=4).points, [[0.03, 0.05, 0.05]], atol=1e-6)


def test_segments_that_move_together_do_not_meet_on_the_way():
    voxel_map = VoxelMap(SIZE, 1000)
    see(voxel_map, 0.05, segment=1)
    see(voxel_map, 1.05, segment=2)
    T = transform(np.eye(3), (1, 0, 0))
    voxel_map.move({1: T, 2: T})
    np.testing.assert_allclose(sorted(voxel_map.cloud().points[:, 0]), [1.05, 2.05], atol=1e-6)


def test_voxels_of_one_segment_that_meet_do_not_get_more_hits():
    voxel_map = VoxelMap(SIZE, 1000)
    see(voxel_map, 0.05, segment=1)
    see(voxel_map, 0.15, segment=1, times=2)
    voxel_map.move({1: np.diag([0.4, 0.4, 0.4, 1.0])})
    assert [len(voxel_map.cloud(hits).points) for hits in (1, 2, 3)] == [1, 1, 0]


def test_a_surface_keeps_its_points_however_often_it_is_moved():
    rng = np.random.default_rng(3)
    u, v = np.meshgrid(np.arange(60), np.arange(60))
    wall = np.stack((0.1 * u + 0.05, 0.1 * v + 0.05, np.full(u.shape, 0.05)), -1).reshape(-1, 3)
    voxel_map = VoxelMap(SIZE, 10_000)
    weights = rng.uniform(1, 2, len(wall)).astype(np.float32)
    of_first = rng.permutation(len(wall)) < len(wall) // 2  # here and there
    for segment, some in ((1, of_first), (2, ~of_first)):
        image = wall[some].astype(np.float32), np.zeros((some.sum(), 3), int), weights[some]
        insert(voxel_map, *image, segment=segment)
    assert len(voxel_map) == 3600
    for _ in range(20):
        T = similarity(1.0, rng.normal(0, 0.05, 3))
        voxel_map.move({1: T, 2: T})
    assert len(voxel_map) > 0.95 * 3600


def test_a_wall_that_stood_there_twice_becomes_one():
    rng = np.random.default_rng(4)
    u, v = np.meshgrid(np.arange(30), np.arange(30))
    wall = np.stack((0.1 * u + 0.05, 0.1 * v + 0.05, np.full(u.shape, 0.05)), -1).reshape(-1, 3)
    voxel_map = VoxelMap(SIZE, 10_000)
    for segment, off in ((1, 0.0), (2, 0.5)):
        points = (wall + np.array([0, 0, off])).astype(np.float32)
        image = points, np.zeros(points.shape, int), rng.uniform(1, 2, len(wall)).astype(np.float32)
        insert(voxel_map, *image, segment=segment)
    assert len(voxel_map) == 1800
    still = transform(np.eye(3), (0.02, 0.02, 0.0))
    voxel_map.move({1: still, 2: transform(np.eye(3), (0.02, 0.02, -0.49))})
    assert len(voxel_map) == 900


def test_a_wall_that_stands_is_not_mixed_with_one_that_comes_to_lie_before_it():
    rng = np.random.default_rng(5)
    u, v = np.meshgrid(np.arange(40), np.arange(40))
    wall = np.stack((0.1 * u + 0.05, 0.1 * v + 0.05, np.full(u.shape, 0.05)), -1).reshape(-1, 3)
    voxel_map = VoxelMap(SIZE, 10_000)
    for segment, off, grey in ((1, 0.0, 200), (2, 2.0, 100)):
        points = (wall + np.array([0, 0, off])).astype(np.float32)
        weights = rng.uniform(1, 2, len(wall)).astype(np.float32)
        insert(voxel_map, points, np.full(points.shape, grey), weights, segment=segment)
    voxel_map.move({2: transform(np.diag([1.0, 1, 1]), (0.04, 0.03, -1.9)) @ turn(0.4)})
    cloud = voxel_map.cloud()
    standing = cloud.points[(cloud.colours == 200).all(axis=1)]
    assert len(standing) == 1600
    np.testing.assert_allclose(standing[:, 2], 0.05, atol=1e-6)


def test_what_both_maps_have_survives_where_there_is_no_room_for_all():
    one, other = VoxelMap(SIZE, 1000), VoxelMap(SIZE, 1000)

    def row(y):
        places = np.float32([[0.1 * x + 0.05, y, 0.05] for x in range(500)])
        return places, np.zeros(places.shape, int), np.ones(500, np.float32)

    for _ in range(20):
        insert(one, *row(0.05), segment=1)
        insert(one, *row(1.05), segment=1)
    for _ in range(30):
        insert(other, *row(0.05), segment=2)
    insert(other, *row(2.05), segment=2)
    one.take_in(other)
    kept = np.round(one.cloud().points[:, 1], 2)
    assert (kept == 0.05).sum() == 500


def test_a_voxel_moves_with_the_segment_that_has_most_weight_in_it():
    voxel_map = VoxelMap(SIZE, 1000)
    see(voxel_map, 0.05, segment=1, times=3)
    see(voxel_map, 0.05, segment=2, times=2)
    assert voxel_map.to_tensors()["segment"].tolist() == [1]
    see(voxel_map, 0.05, segment=2, times=2)
    assert voxel_map.to_tensors()["segment"].tolist() == [2]


def test_what_is_moved_out_of_the_grid_is_left_out():
    voxel_map = VoxelMap(SIZE, 1000)
    see(voxel_map, 0.05, segment=1)
    voxel_map.move({1: transform(np.eye(3), (1e9, 0, 0))})
    assert len(voxel_map) == 0
    see(voxel_map, 0.05, segment=1)
    assert len(voxel_map) == 1


@pytest.mark.parametrize(
    "T",
    [
        np.eye(3),
        np.diag([1.0, 1, -1, 1]),
        np.diag([1.0, 1, 2, 1]),
        np.diag([1.0, 1, 1, 2]),
        np.diag([0.0, 0, 0, 1]),
        transform(np.eye(3), (np.nan, 0, 0)),
    ],
)
def test_what_is_no_rotation_with_scale_is_named_and_changes_nothing(T):
    voxel_map = VoxelMap(SIZE, 1000)
    see(voxel_map, 0.05, segment=1)
    before = voxel_map.to_tensors()
    with pytest.raises(
        ValueError, match="T of segment 1: expected a rotation, scale and translation"
    ):
        voxel_map.move({1: T})
    assert all(torch.equal(v, before[name]) for name, v in voxel_map.to_tensors().items())


def test_segments_with_another_number_move_as_that_one():
    voxel_map = VoxelMap(SIZE, 1000)
    for segment in range(4):
        see(voxel_map, 0.05 + segment, segment)
    voxel_map.relabel({3: 1, 0: 2})
    voxel_map.relabel({})
    voxel_map.move({1: transform(np.eye(3), (0.0, 10.0, 0.0))})
    assert {(round(x, 2), round(y, 2)) for x, y, _ in voxel_map.cloud().points.tolist()} == {
        (0.05, 0.05),
        (1.05, 10.05),
        (2.05, 0.05),
        (3.05, 10.05),
    }
    voxel_map.move({2: transform(np.eye(3), (0.0, 5.0, 0.0))})
    assert sorted(round(y, 2) for _, y, _ in voxel_map.cloud().points.tolist()) == [
        5.05,
        5.05,
        10.05,
        10.05,
    ]


def test_a_map_that_is_taken_in_counts_as_if_its_images_had_come_after():
    generator = torch.Generator().manual_seed(3)
    images = [torch.rand(400, 3, generator=generator) for _ in range(6)]
    whole, first, second = (VoxelMap(0.1, 10_000) for _ in range(3))
    for i, points in enumerate(images):
        for part in (whole, first if i < 3 else second):
            part.insert(points, 255 * points, 1 + points[:, 0], segment=i // 3)
    first.take_in(second)
    assert (first.images, len(first)) == (whole.images, len(whole))
    (found, expected) = (by_key(part) for part in (first, whole))
    for name in ("key", "hits", "seen"):
        assert torch.equal(found[name], expected[name]), name
    for name in ("mean", "weight"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)
    assert len(second) > 0 and second.images == 3  # as it was


def by_key(voxels):
    tensors = voxels.to_tensors()
    order = tensors["key"].argsort()
    return {name: tensors[name][order] for name in ("key", "mean", "weight", "hits", "seen")}
