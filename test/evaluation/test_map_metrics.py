# SPDX-License-Identifier: Apache-2.0
"""Errors of maps against made-up walls, simulated rooms and bags, whose surface is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ttt3r_ros.evaluation.metrics.depth import OtherViewError
from ttt3r_ros.evaluation.metrics.map import (
    Neighbours,
    Surface,
    estimated_normals,
    map_errors,
    off_surface,
)
from ttt3r_ros.evaluation.metrics.true_surface import (
    SurfaceSamples,
    depth_points,
    room_distance,
    surface_of_room,
    surface_of_stream,
)
from ttt3r_ros.geometry import Intrinsics, inverse, optical_extrinsics
from ttt3r_ros.recordings.bag_truth import BagTruth
from ttt3r_ros.recordings.recording import Truth
from ttt3r_ros.recordings.simulated_bag import write_simulated_bag
from ttt3r_ros.simulation import make_rooms, make_trajectory, render
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions
from ttt3r_ros.types import EvaluationError

RANDOM = np.random.default_rng(0)
LENS = Intrinsics(48.0, 48.0, 31.5, 23.5, 64, 48)
SEED = 950_000


def wall(spacing=0.05, x=0.0, width=2.0, height=2.0):
    """Points of a wall in the plane at x, [N, 3]."""
    y, z = np.meshgrid(np.arange(0, width, spacing), np.arange(0, height, spacing))
    return np.column_stack((np.full(y.size, x), y.ravel(), z.ravel()))


def moved(points, x=0.0, y=0.0, z=0.0):
    return points + np.array((x, y, z))


def surface(*walls):
    points = np.concatenate(walls or [wall(0.02)])
    return Surface(points, np.tile([1.0, 0.0, 0.0], (len(points), 1)))


@pytest.fixture(scope="module")
def room():
    """A room, true depth images of it and their poses."""
    rooms = make_rooms(SEED)
    times = torch.arange(0, 20, 2.0, dtype=torch.float64)
    poses = make_trajectory(SEED, rooms, loop_s=20.0).pose(times)
    lens = (LENS.fx, LENS.fy, LENS.cx, LENS.cy)
    depth_m = render(rooms, poses, lens, LENS.height, LENS.width).depth_m
    return rooms, depth_m[0].numpy(), poses[0].double().numpy()


def seen(room):
    samples = SurfaceSamples()
    for depth_m, T_world_camera in zip(*room[1:], strict=True):
        samples.add(depth_points(depth_m, LENS, T_world_camera))
    return samples


def test_neighbours_are_those_of_trying_all():
    points, queries = RANDOM.uniform(-3, 3, (800, 3)), RANDOM.uniform(-4, 4, (60, 3))
    apart = np.linalg.norm(points - queries[:, None], axis=2)
    distances, places = Neighbours(points).nearest(queries, 5)
    np.testing.assert_allclose(distances, np.sort(apart)[:, :5])
    np.testing.assert_array_equal(places, np.argsort(apart)[:, :5])
    for query, row in zip(queries, apart, strict=True):
        found = Neighbours(points).within(query, 1.0)
        assert sorted(found) == sorted(np.flatnonzero(row < 1.0))


def test_nothing_is_within_reach_of_a_place_far_away():
    assert len(Neighbours(wall()).within(np.array([9.0, 0.0, 0.0]), 1.0)) == 0


def test_a_perfect_map_has_no_errors():
    truth = surface()
    errors = map_errors(truth.points, truth)
    assert errors.accuracy_m == errors.completeness_m == errors.chamfer_m == 0
    assert errors.normal_consistency == pytest.approx(1)
    assert [(s.precision, s.recall, s.f_score) for s in errors.scores] == [(1, 1, 1)] * 2
    assert errors.off_surface == errors.doubled == 0


def test_distances_are_means_and_chamfer_is_the_mean_of_both():
    """Half of the wall is missing, and what is there stands 7 cm before it."""
    errors = map_errors(wall(0.02, x=0.07, width=1.0), surface())
    assert errors.accuracy_m == pytest.approx(0.07)
    beyond = np.maximum(wall(0.02)[:, 1] - 0.98, 0)
    assert errors.completeness_m == pytest.approx(np.hypot(beyond, 0.07).mean())
    assert errors.chamfer_m == pytest.approx((errors.accuracy_m + errors.completeness_m) / 2)


def test_scores_are_shares_below_the_threshold():
    """A whole wall, and as many points 8 cm before its half."""
    half = wall(0.02, width=1.0)
    points = np.concatenate((half, moved(half, 0.08)))
    near, far = map_errors(points, surface()).scores
    assert (near.threshold_m, near.precision) == (0.05, 0.5)
    assert near.recall == pytest.approx((wall(0.02)[:, 1] < 0.98 + 0.05 - 1e-9).mean())
    assert near.f_score == pytest.approx(2 * 0.5 * near.recall / (0.5 + near.recall))
    assert (far.threshold_m, far.precision) == (0.1, 1.0)


def test_a_map_that_is_nowhere_near_scores_nothing():
    errors = map_errors(wall(x=5.0), surface())
    assert [(s.precision, s.recall, s.f_score) for s in errors.scores] == [(0, 0, 0)] * 2
    assert np.isnan(errors.off_surface) and np.isnan(errors.doubled)


def test_exact_distances_take_the_place_of_those_to_samples():
    truth = surface(wall())
    points = moved(truth.points, y=0.01, z=0.01)  # in the wall, between its samples
    assert map_errors(points, truth).accuracy_m == pytest.approx(0.01 * 2**0.5)
    assert map_errors(points, truth, distances_m=np.zeros(len(points))).accuracy_m == 0


@pytest.mark.parametrize("degrees", [0, 30, 60, 90])
def test_normal_consistency_is_the_cosine_between_surfaces(degrees):
    angle = np.radians(degrees)
    truth = surface()
    truth.normals[:] = np.cos(angle), np.sin(angle), 0
    errors = map_errors(truth.points, truth)
    assert errors.normal_consistency == pytest.approx(np.cos(angle), abs=1e-6)


def test_normals_are_those_of_the_planes_points_lie_in():
    points = np.concatenate((wall(), moved(wall()[:, [1, 0, 2]], x=3)))
    normals = np.abs(estimated_normals(points))
    expected = np.repeat(np.eye(3)[:2], len(points) // 2, axis=0)
    np.testing.assert_allclose(normals, expected, atol=1e-6)


@pytest.mark.parametrize("apart_m", [0.1, 0.15, 0.2, 0.3, 0.45])
def test_a_wall_that_stands_twice_is_doubled_everywhere(apart_m):
    errors = map_errors(np.concatenate((wall(), wall(x=apart_m))), surface())
    assert errors.doubled == 1
    assert errors.off_surface == 0.5


def test_a_third_wall_makes_no_difference_to_what_is_doubled():
    points = np.concatenate([wall(x=x) for x in (0.0, 0.2, -0.2)])
    errors = map_errors(points, surface())
    assert errors.doubled == 1
    assert errors.off_surface == pytest.approx(2 / 3)


def test_a_wall_that_stands_twice_in_part_is_doubled_in_part():
    errors = map_errors(np.concatenate((wall(), wall(x=0.2, width=1.0))), surface())
    assert errors.doubled == pytest.approx(0.5, abs=0.1)  # patches at the end reach over it
    assert errors.off_surface == pytest.approx(1 / 3)


def test_a_displaced_or_thick_wall_is_off_the_surface_but_not_doubled():
    displaced = map_errors(wall(x=0.12), surface())
    assert (displaced.doubled, displaced.off_surface) == (0, 1)
    thick = wall(0.025)
    thick[:, 0] = RANDOM.uniform(-0.1, 0.1, len(thick))
    errors = map_errors(thick, surface())
    assert errors.doubled <= 0.1
    assert errors.off_surface == pytest.approx(0.5, abs=0.05)


def test_noise_of_two_centimetres_and_a_few_strays_double_nothing():
    strays = RANDOM.uniform((-0.5, 0, 0), (0.5, 2, 2), (80, 3))
    points = np.concatenate((wall(), strays))
    points[:, 0] += 0.02 * RANDOM.standard_normal(len(points))
    assert map_errors(points, surface()).doubled == 0


def test_a_true_second_surface_is_no_second_layer():
    """A wardrobe's front 30 cm before the wall, both in the map; then a ghost between them."""
    truth = surface(wall(0.02), wall(0.02, x=0.3))
    points = np.concatenate((wall(), wall(x=0.3)))
    assert map_errors(points, truth).doubled == map_errors(points, truth).off_surface == 0
    assert map_errors(np.concatenate((points, wall(x=0.15))), truth).doubled == 1


def test_points_farther_than_half_a_metre_are_no_ghosts():
    assert off_surface(np.array([0.0, 0.04, 0.06, 0.49, 0.51, 3.0])) == 0.5


@pytest.mark.parametrize("points", [np.empty((0, 3)), np.full((2, 3), np.nan), np.zeros((2, 2))])
def test_maps_that_cannot_be_compared_are_refused(points):
    with pytest.raises(EvaluationError, match="points"):
        map_errors(points, surface())


def test_distances_of_other_points_are_refused():
    with pytest.raises(EvaluationError, match=r"distances_m: expected \[1600\], got \(3,\)"):
        map_errors(wall(), surface(), distances_m=np.zeros(3))


def test_true_depth_lies_on_the_rooms_surface(room):
    distances = room_distance(room[0], seen(room).points())
    assert np.abs(distances).max() < 1e-5


def test_free_space_is_as_wide_as_the_distance_says(room):
    rooms, depth_m, poses = room
    samples = Neighbours(seen(room).points())
    for share in (0.3, 0.8, 0.98):  # of the way from the camera to the surface
        points = depth_points(share * depth_m[0], LENS, poses[0])
        distance, nearest = room_distance(rooms, points), samples.nearest(points)[0][:, 0]
        assert (distance > 0).all()
        assert (distance < nearest + 1e-5).all()  # what was not seen may be nearer
    assert np.median(nearest - distance) < 0.02


def test_behind_a_surface_the_distance_is_negative(room):
    rooms, depth_m, poses = room
    ray = np.linalg.norm(depth_points(depth_m[0], LENS, np.eye(4)), axis=1)
    behind = depth_points(1.001 * depth_m[0], LENS, poses[0])
    distance = room_distance(rooms, behind)
    assert (distance < 0).mean() > 0.99  # but where rays graze an edge
    assert (distance > -0.001 * ray - 1e-5).all()


def test_a_rooms_normals_face_the_cameras(room):
    rooms, depth_m, poses = room
    one = (rooms, depth_m[:1], poses[:1])
    truth = surface_of_room(rooms, seen(one))
    np.testing.assert_allclose(np.linalg.norm(truth.normals, axis=1), 1)
    towards = poses[0, :3, 3] - truth.points
    assert ((towards * truth.normals).sum(axis=1) > 0).mean() > 0.99  # but on edges


def test_only_one_room_has_a_distance():
    with pytest.raises(EvaluationError, match="expected one, got 2"):
        room_distance(make_rooms([1, 2]), np.zeros((1, 3)))


def test_samples_keep_one_point_of_each_cell_however_often_it_is_seen():
    samples = SurfaceSamples(0.1)
    for _ in range(3):
        samples.add(np.array([[0.01, 0, 0], [0.02, 0, 0], [-0.01, 0, 0], [0.11, 0, 0]]))
    assert samples.points().tolist() == [[0.01, 0, 0], [-0.01, 0, 0], [0.11, 0, 0]]


def test_thinning_on_the_way_changes_nothing(room, monkeypatch):
    whole = seen(room).points()
    monkeypatch.setattr("ttt3r_ros.evaluation.metrics.true_surface._AT_ONCE", 500)
    np.testing.assert_array_equal(seen(room).points(), whole)


def test_points_of_a_depth_image_of_another_size_are_of_the_same_view():
    T = optical_extrinsics((1.0, 2.0, 0.5, 0.1, 0.2, 0.3))
    small = depth_points(np.full((24, 32), 2.0), LENS, T)
    large = depth_points(np.full((48, 64), 2.0), LENS, T)
    np.testing.assert_allclose(small.mean(axis=0), large.mean(axis=0), atol=1e-9)
    local = (small - T[:3, 3]) @ inverse(T)[:3, :3].T
    np.testing.assert_allclose(local[0], [2 * (0.5 - 31.5) / 48, 2 * (0.5 - 23.5) / 48, 2])


def test_unknown_depth_has_no_points():
    depth_m = np.array([[1.0, np.nan], [0.0, np.inf]])
    assert len(depth_points(depth_m, Intrinsics(1, 1, 0, 0, 2, 2), np.eye(4))) == 1


def test_a_bags_surface_is_that_of_its_room(tmp_path):
    scene = Scene(SceneOptions(seed=SEED, width=64, height=48))
    write_simulated_bag(tmp_path / "bag", scene, range(4), 10.0)
    stamps = [1_700_000_000_000_000_000 + i * 100_000_000 for i in range(4)]
    with BagTruth(tmp_path / "bag") as truth:
        found = surface_of_stream([0, *stamps], truth, Intrinsics(*scene.lens, 64, 48))
    rooms = make_rooms(SEED)
    assert np.abs(room_distance(rooms, found.points)).max() < 1e-5
    samples = SurfaceSamples()
    samples.add(found.points)
    exact = surface_of_room(rooms, samples)
    assert np.abs((found.normals * exact.normals).sum(axis=1)).mean() > 0.9
    with (
        BagTruth(tmp_path / "bag") as truth,
        pytest.raises(EvaluationError, match="no image has both"),
    ):
        surface_of_stream([0], truth, Intrinsics(*scene.lens, 64, 48))


FAR = np.array((5e6, -4e6, 1e6))  # as maps of the earth have it


def test_a_map_far_from_the_origin_has_the_same_errors():
    points = np.concatenate((wall(0.02, x=0.01), wall(x=0.2, width=1.0)))
    here = map_errors(points, surface())
    there = map_errors(points + FAR, Surface(surface().points + FAR, surface().normals))
    assert there.accuracy_m == pytest.approx(here.accuracy_m, abs=1e-6)
    assert there.completeness_m == pytest.approx(here.completeness_m, abs=1e-6)
    assert there.normal_consistency == pytest.approx(here.normal_consistency, abs=1e-3)
    assert there.scores[0].f_score == pytest.approx(here.scores[0].f_score)
    assert there.doubled == pytest.approx(here.doubled, abs=0.05)


def test_samples_far_from_the_origin_are_thinned_as_those_near_it():
    points = np.random.default_rng(1).uniform(0, 1, (20_000, 3))
    near, far = SurfaceSamples(0.125), SurfaceSamples(0.125)
    near.add(points)
    far.add(points + FAR)
    np.testing.assert_allclose(far.points() - FAR, near.points(), atol=1e-8)
    assert len(near.points()) == 8**3


class PlainTruth(Truth):
    """One image at the origin."""

    pose_source = depth_source = "made up"

    def __init__(self, depth_m):
        self.depth_m = depth_m

    def poses(self, stamps_ns):
        return [0], [np.eye(4)]

    def depth(self, stamp_ns):
        return self.depth_m

    def close(self):
        pass


def test_far_depth_is_no_part_of_the_surface():
    depth_m = np.full((48, 64), 2.0, np.float32)
    depth_m[:10] = 65.0
    depth_m[:5] = 1e10  # the sky
    found = surface_of_stream([0], PlainTruth(depth_m), LENS)
    assert set(np.round(found.points[:, 2])) == {2.0, 65.0}
    found = surface_of_stream([0], PlainTruth(depth_m), LENS, max_depth_m=65.0)
    assert set(np.round(found.points[:, 2])) == {2.0}


def test_depth_of_another_view_shows_no_surface():
    with pytest.raises(OtherViewError, match="64x64 is not the view of 64x48 images"):
        surface_of_stream([0], PlainTruth(np.ones((64, 64), np.float32)), LENS)
