# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from dictionary_map import SIZE, DictionaryMap, assert_same, insert, random_image

from ttt3r_ros.mapping import voxel_map as subject
from ttt3r_ros.mapping.voxel_map import VoxelMap


def test_the_map_equals_a_dictionary_of_voxels():
    rng = np.random.default_rng(0)
    voxel_map, twin = VoxelMap(SIZE, 100_000), DictionaryMap(100_000)
    for i in range(20):
        image = random_image(rng)
        insert(voxel_map, *image, segment=i % 3)
        twin.insert(*image, segment=i % 3)
    assert len(voxel_map) > 2048
    assert_same(voxel_map, twin)


def test_a_full_map_equals_a_dictionary_of_voxels():
    rng = np.random.default_rng(6)
    voxel_map, twin = VoxelMap(SIZE, 600), DictionaryMap(600)
    for i in range(30):
        camera = np.array([0.1 * i, 0, 0])
        image = random_image(rng, 100, at=camera)
        insert(voxel_map, *image, segment=i // 10, camera=camera)
        twin.insert(*image, segment=i // 10, camera=camera)
        assert_same(voxel_map, twin)
    assert 580 < len(voxel_map) <= 600


def test_a_map_that_looks_at_samples_keeps_its_bound_and_what_was_seen_often(monkeypatch):
    monkeypatch.setattr(subject, "_LEAST_SAMPLE", 16)
    rng = np.random.default_rng(7)
    voxel_map = VoxelMap(SIZE, 2000)
    wall = random_image(rng, 500)
    for _ in range(20):
        insert(voxel_map, *wall)
    for _ in range(200):
        insert(voxel_map, *random_image(rng, 30, spread=5.0))
        assert len(voxel_map) <= 2000
    assert len(voxel_map) > 1900
    hits = voxel_map.to_tensors()["hits"]
    assert (hits >= 20).sum() > 0.97 * len(np.unique(np.floor(wall[0] / SIZE), axis=0))


def test_an_image_with_more_voxels_than_the_map_may_have_leaves_its_heaviest():
    voxel_map = VoxelMap(SIZE, 1000)
    insert(voxel_map, *random_image(np.random.default_rng(8), 100, at=(50, 0, 0)))
    points = np.float32([[0.1 * i + 0.05, 0.05, 0.05] for i in range(1500)])
    weights = np.linspace(1, 2, 1500, dtype=np.float32)
    insert(voxel_map, points, np.zeros((1500, 3), int), weights)
    assert len(voxel_map) == 1000
    np.testing.assert_allclose(np.sort(voxel_map.cloud().points[:, 0]), points[500:, 0], atol=1e-5)


def test_a_stored_voxel_takes_at_most_64_bytes_with_its_share_of_the_table():
    voxel_map = VoxelMap(SIZE, 2000)
    before = voxel_map.nbytes
    for i in range(10):
        insert(voxel_map, *random_image(np.random.default_rng(i), 500, spread=3.0))
    assert voxel_map.nbytes == before and len(voxel_map) > 1900
    assert before <= 64 * 2000


def test_newcomers_are_shown_when_they_have_been_seen_often_enough():
    voxel_map = VoxelMap(SIZE, 1000)
    points = np.float32([[0.05, 0.05, 0.05], [1.05, 0.05, 0.05]])
    for n in (2, 2, 1):
        insert(voxel_map, points[:n], np.full((n, 3), 7), np.ones(n, np.float32))
    assert [len(voxel_map.cloud(hits).points) for hits in (1, 2, 3, 4)] == [2, 2, 1, 0]
    np.testing.assert_allclose(voxel_map.cloud(3).points, points[:1])
    assert len(voxel_map) == 2


def test_a_copy_tells_how_many_images_saw_each_of_its_points():
    voxel_map = VoxelMap(SIZE, 1000)
    points = np.float32([[0.05 + i, 0.05, 0.05] for i in range(4)])
    for n in (4, 3, 2, 1):
        insert(voxel_map, points[:n], np.full((n, 3), 7), np.ones(n, np.float32))
    for least, most in ((1, None), (2, None), (2, 2)):
        cloud = voxel_map.cloud(least, most)
        np.testing.assert_array_equal(cloud.counts, 4 - np.floor(cloud.points[:, 0]))
    assert sorted(voxel_map.cloud().counts) == [1, 2, 3, 4]


def test_a_copy_is_thinned_alike_everywhere_and_never_above_its_bound():
    x, y = np.meshgrid(np.arange(40), np.arange(50))
    wall = np.column_stack([x.ravel(), y.ravel(), 0 * x.ravel()]).astype(np.float32) + 0.5
    voxel_map = VoxelMap(1.0, 10_000)
    voxel_map.insert(torch.from_numpy(wall), torch.zeros(2000, 3), torch.ones(2000))
    for most, expected in ((3000, 2000), (2000, 2000), (1999, 1000), (700, 667), (10, 10), (1, 1)):
        assert len(voxel_map.cloud(max_points=most).points) == expected
    thinned = voxel_map.cloud(max_points=700).points
    counts, _, _ = np.histogram2d(
        thinned[:, 0], thinned[:, 1], bins=(range(0, 41, 10), range(0, 51, 10))
    )
    assert counts.min() >= 30 and counts.max() <= 37  # of 100 in each part
    assert len(voxel_map.cloud(min_hits=2, max_points=10).points) == 0


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
        for voxel_map in (one, other):
            insert(voxel_map, *image, segment=1, camera=np.array([5.0, 0, 0]))
        assert one.images == other.images
        ours, theirs = one.to_tensors(), other.to_tensors()
        order, their_order = ours["key"].argsort(), theirs["key"].argsort()
        for name in ("key", "mean", "weight", "lead", "hits", "seen", "segment"):
            assert torch.equal(ours[name][order], theirs[name][their_order]), name


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
    assert len(small) == 1000 and (small.to_tensors()["hits"] >= 3).sum() > 800
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


def test_a_map_that_was_cleared_is_as_a_new_one_in_the_same_memory():
    points, colours = torch.rand(500, 3), torch.rand(500, 3) * 255
    subject, new = VoxelMap(0.05, 1000), VoxelMap(0.05, 1000)
    subject.insert(points + 1, colours, torch.ones(500))
    before, reserved = subject.revision, subject.nbytes
    subject.clear()
    assert len(subject) == subject.images == 0 and len(subject.cloud().points) == 0
    assert subject.revision > before and subject.nbytes == reserved
    for one in (subject, new):
        one.insert(points, colours, torch.ones(500))
    expected = new.to_tensors()
    for name, tensor in subject.to_tensors().items():
        assert torch.equal(tensor, expected[name]), name


def forgotten_of_two_walls(voxel_map, **placed):
    """Which of two walls, the older one near (0, 0, 0), a full map forgets for a third."""
    rng = np.random.default_rng(9)
    walls = [random_image(rng, 500, spread=0.5, at=(x, 0, 0)) for x in (0, 20, 40)]
    insert(voxel_map, *walls[0], **placed)
    insert(voxel_map, *walls[1])
    insert(voxel_map, *walls[2])
    x = voxel_map.cloud().points[:, 0]
    near, far = ((abs(x - at) < 5).sum() for at in (0, 20))
    return "near" if near < far else "far"


def test_a_camera_stays_in_its_place_until_another_one_is_said():
    assert forgotten_of_two_walls(VoxelMap(SIZE, 1000)) == "near"  # it is older
    assert forgotten_of_two_walls(VoxelMap(SIZE, 1000), camera=np.zeros(3)) == "far"


def test_a_cleared_map_knows_of_no_camera():
    voxel_map = VoxelMap(SIZE, 1000)
    insert(voxel_map, *random_image(np.random.default_rng(10), 100), camera=np.zeros(3))
    voxel_map.clear()
    assert forgotten_of_two_walls(voxel_map) == "near"
