# SPDX-License-Identifier: Apache-2.0
"""Depths against closed forms and a plain twin, colours against other views of the same points."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from plain_geometry import BALL, BOX, CYLINDER, camera, image_rays, plain_depth, room_with

from ttt3r_ros.simulation import add_noise, make_rooms, make_trajectory, render

HEIGHT, WIDTH = 48, 64
INTRINSICS = (50.0, 52.0, 31.3, 23.6)


def depth_of(room, pose, intrinsics=INTRINSICS, height=HEIGHT, width=WIDTH):
    return render(room, pose, intrinsics, height, width).depth_m[0, 0].double()


def furnished(seeds, frames=3, step_s=7.0):
    rooms = make_rooms(seeds)
    poses = make_trajectory(seeds, rooms, "handheld").pose(torch.arange(frames) * step_s)
    return rooms, poses


def test_a_wall_seen_frontally_is_equally_far_everywhere():
    room = room_with((6.0, 6.0, 6.0), {})
    depth = depth_of(room, camera((0.75, 0.2, 3.0)), (100.0, 100.0, 31.5, 23.5))
    torch.testing.assert_close(depth, torch.full_like(depth, 3.0 - 0.75), rtol=1e-6, atol=0)


def test_a_corner_seen_along_its_diagonal_falls_off_to_both_sides_as_two_planes_do():
    room = room_with((4.0, 4.0, 200.0), {})
    depth = depth_of(room, camera((0.0, 0.0, 100.0), yaw=math.pi / 4))
    x = image_rays(INTRINSICS, HEIGHT, WIDTH)[..., 0]
    # A wall 2 m away at 45 degrees to the axis: z (1 + |x|) / sqrt(2) = 2.
    torch.testing.assert_close(depth, 2 * math.sqrt(2) / (1 + x.abs()), rtol=1e-6, atol=0)


def test_a_ball_straight_ahead_has_its_closed_form_depth_and_outline():
    distance, radius = 2.0, 0.4
    room = room_with((8.0, 8.0, 4.0), {BALL: ((2.0, 0.0, 2.0), (radius,) * 3, 0.0)})
    depth = depth_of(room, camera((0.0, 0.0, 2.0)))
    squared = image_rays(INTRINSICS, HEIGHT, WIDTH).square().sum(-1)
    root = distance**2 - squared * (distance**2 - radius**2)
    seen = depth < 3.0
    assert torch.equal(seen, root > 0)
    expected = (distance - root[seen].sqrt()) / squared[seen]
    torch.testing.assert_close(depth[seen], expected, rtol=1e-5, atol=0)


def test_a_cylinder_shows_its_curved_wall_from_the_side_and_a_flat_end_from_below():
    radius = 0.3
    room = room_with((8.0, 8.0, 4.0), {CYLINDER: ((2.0, 0.0, 2.0), (radius, radius, 0.5), 0.0)})
    x = image_rays(INTRINSICS, HEIGHT, WIDTH)[24, :, 0]
    row = depth_of(room, camera((0.0, 0.0, 2.0)))[24]
    seen = row < 3.0
    root = 4 - (1 + x**2) * (4 - radius**2)
    assert torch.equal(seen, root > 0)
    expected = (2 - root[seen].sqrt()) / (1 + x[seen] ** 2)
    torch.testing.assert_close(row[seen], expected, rtol=1e-5, atol=0)

    upwards = camera((2.0, 0.0, 0.5), pitch=-math.pi / 2)
    depth, rays = depth_of(room, upwards), image_rays(INTRINSICS, HEIGHT, WIDTH)
    end = rays[..., :2].norm(dim=-1) < radius
    assert end.any()
    torch.testing.assert_close(depth[end], torch.ones_like(depth[end]), rtol=1e-6, atol=0)
    torch.testing.assert_close(depth[~end], torch.full_like(depth[~end], 3.5), rtol=1e-6, atol=0)


def test_a_box_turned_by_45_degrees_shows_its_edge_nearest():
    turned = {BOX: ((2.0, 0.0, 2.0), (0.5, 0.5, 0.5), math.pi / 4)}
    room = room_with((8.0, 8.0, 4.0), turned)
    row = depth_of(room, camera((0.0, 0.0, 2.0)))[24]
    x = image_rays(INTRINSICS, HEIGHT, WIDTH)[24, :, 0].abs()
    edge = 2 - math.sqrt(0.5)
    # Faces recede by as much as they go sideways, until the corner half a diagonal away.
    inside = x < math.sqrt(0.5) / 2
    torch.testing.assert_close(row[inside], edge / (1 - x[inside]), rtol=1e-6, atol=0)
    assert (row[~inside] > 3.0).all()


def test_depths_of_furnished_rooms_equal_those_of_the_plain_twin():
    rooms, poses = furnished(range(6))
    depth = render(rooms, poses, INTRINSICS, HEIGHT, WIDTH).depth_m
    rays = image_rays(INTRINSICS, HEIGHT, WIDTH)
    agree = []
    for r in range(len(rooms)):
        for f in range(poses.shape[1]):
            plain = plain_depth(rooms[r : r + 1], poses[r, f], rays)
            agree.append(((depth[r, f] - plain).abs() < 2e-5 * plain).double().mean())
    # Rays along an outline may fall to either side of it.
    assert torch.stack(agree).mean() > 0.9995
    assert min(agree) > 0.998


def reprojected(seed):
    """Random points of a first view, and what a second view shows in exactly their directions."""
    room, poses = furnished([seed], frames=2, step_s=3.0)
    first = render(room, poses[:, :1], INTRINSICS, HEIGHT, WIDTH)
    rays = image_rays(INTRINSICS, HEIGHT, WIDTH).float()
    camera_points = (rays * first.depth_m[0, 0][..., None]).reshape(-1, 3)
    world = camera_points @ poses[0, 0, :3, :3].T + poses[0, 0, :3, 3]
    second = (world - poses[0, 1, :3, 3]) @ poses[0, 1, :3, :3]
    ahead = second[:, 2] > 0.3
    x, y, z = second[ahead].unbind(-1)
    x, y = x / z, y / z
    fx, fy = INTRINSICS[:2]
    # One picture of one pixel for each point, its principal point such that it looks there.
    lens = torch.stack((torch.full_like(x, fx), torch.full_like(x, fy), -x * fx, -y * fy), dim=-1)
    views = render(room, poses[:, 1:].expand(1, len(x), 4, 4), lens[None], 1, 1)
    colours = first.rgb[0, 0].reshape(-1, 3)[ahead]
    return z, views.depth_m.reshape(-1), colours, views.rgb.reshape(-1, 3)


@pytest.mark.parametrize("seed", range(4))
def test_a_second_view_sees_the_points_of_the_first_or_something_in_front_of_them(seed):
    z, depth, colours, again = reprojected(seed)
    assert (depth < z + 1e-4).double().mean() > 0.999  # an outline may be just missed
    same = (depth - z).abs() < 1e-3
    assert same.sum() > 300
    both = torch.stack((colours[same].flatten(), again[same].flatten()))
    assert torch.corrcoef(both)[0, 1] > 0.95


def lit_from_the_left(number, half, yaw=0.0):
    """White without texture, a solid 2 m ahead, brightness 0.5 + 0.1 n_x + 0.3 n_y; and depth."""
    room = room_with((8.0, 8.0, 4.0), {number: ((2.0, 0.0, 2.0), half, yaw)})
    white = torch.zeros_like(room.materials)
    white[..., 5:8] = 1.0
    room = replace(
        room,
        atlas=replace(room.atlas, image=torch.ones_like(room.atlas.image)),
        materials=white,
        power=torch.zeros(1),
        ambient=torch.tensor([[0.5, 0.1, 0.3, 0.0]]),
    )
    seen = render(room, camera((0.0, 0.0, 2.0)), INTRINSICS, HEIGHT, WIDTH)
    return seen.rgb[0, 0, ..., 0].double(), seen.depth_m[0, 0].double()


def test_each_face_of_a_turned_box_is_lit_by_its_own_normal_and_darker_at_its_edges():
    bright, depth = lit_from_the_left(BOX, (0.5, 0.5, 0.5), math.radians(60))
    # Straight ahead is the edge at 60 + 135 degrees; to its left the face of normal 150 degrees.
    x = image_rays(INTRINSICS, HEIGHT, WIDTH)[..., 0]
    edge = 2 + math.sqrt(0.5) * math.cos(math.radians(195))
    at_edge = -math.sqrt(0.5) * math.sin(math.radians(195)) / edge
    inside = depth < 2.6
    for side, angle in ((x < at_edge - 0.1, 150), (x > at_edge + 0.03, 240)):
        expected = 0.5 + 0.1 * math.cos(math.radians(angle)) + 0.3 * math.sin(math.radians(angle))
        face = bright[inside & side]
        assert len(face) > 20
        assert face.max() == pytest.approx(expected, abs=0.005)
        assert face.median() == pytest.approx(expected, abs=0.02)
        assert face.min() < expected - 0.02


@pytest.mark.parametrize("number", [CYLINDER, BALL])
def test_round_solids_are_lit_by_the_normal_at_every_point(number):
    radius = 0.6
    bright, depth = lit_from_the_left(number, (radius,) * 3)
    rays = image_rays(INTRINSICS, HEIGHT, WIDTH)
    inside = depth < 2.2
    normal_x, normal_y = (depth[inside] - 2) / radius, -(rays[..., 0] * depth)[inside] / radius
    assert inside.sum() > 200
    torch.testing.assert_close(
        bright[inside], 0.5 + 0.1 * normal_x + 0.3 * normal_y, rtol=0, atol=1e-4
    )


def test_walls_are_lit_by_normals_that_point_into_the_room():
    bright, depth = lit_from_the_left(BALL, (0.1,) * 3)
    ahead = (depth > 3.99) & (depth < 4.01)
    assert bright[ahead].max() == pytest.approx(
        0.5 - 0.1, abs=0.01
    )  # a little of the corners' darkness


def test_floors_and_ceilings_vary_in_both_directions():
    for pitch in (math.pi / 2, -math.pi / 2):
        varies = []
        for seed in range(8):
            room = replace(make_rooms(seed), solid_centre=room_with((6, 6, 3), {}).solid_centre)
            rgb = render(room, camera((0.0, 0.0, 1.5), pitch=pitch), INTRINSICS, HEIGHT, WIDTH).rgb
            grey = rgb[0, 0].mean(-1)
            varies.append((grey.diff(dim=0).abs().mean(), grey.diff(dim=1).abs().mean()))
        assert torch.tensor(varies).median(dim=0).values.min() > 0.01


def test_the_same_seed_gives_the_same_picture_and_another_seed_another():
    pose = camera((0.0, 0.0, 1.2), yaw=0.5)
    first, again, other = (
        render(make_rooms(seed), pose, INTRINSICS, HEIGHT, WIDTH) for seed in (7, 7, 8)
    )
    assert torch.equal(first.rgb, again.rgb) and torch.equal(first.depth_m, again.depth_m)
    assert (first.rgb - other.rgb).abs().mean() > 0.05
    assert (first.depth_m - other.depth_m).abs().mean() > 0.05


def test_a_batch_of_rooms_and_frames_equals_its_pictures_one_by_one():
    rooms, poses = furnished([3, 4])
    together = render(rooms, poses, INTRINSICS, HEIGHT, WIDTH)
    for r, seed in enumerate((3, 4)):
        for f in range(poses.shape[1]):
            alone = render(make_rooms(seed), poses[r : r + 1, f : f + 1], INTRINSICS, HEIGHT, WIDTH)
            torch.testing.assert_close(together.depth_m[r, f], alone.depth_m[0, 0])
            torch.testing.assert_close(together.rgb[r, f], alone.rgb[0, 0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("rays", [100, 5000, 10**9])
def test_the_size_of_chunks_does_not_change_the_picture(rays):
    rooms, poses = furnished([1, 2])
    expected = render(rooms, poses, INTRINSICS, HEIGHT, WIDTH)
    got = render(rooms, poses, INTRINSICS, HEIGHT, WIDTH, rays_per_chunk=rays)
    torch.testing.assert_close(got.depth_m, expected.depth_m)
    torch.testing.assert_close(got.rgb, expected.rgb, rtol=0, atol=1e-3)


def test_moving_the_principal_point_by_whole_pixels_moves_the_picture_as_far():
    room, poses = furnished([5], frames=1)
    fx, fy, cx, cy = INTRINSICS
    depth = depth_of(room, poses)
    moved = depth_of(room, poses, (fx, fy, cx + 3, cy + 2))
    same = (moved[2:, 3:] - depth[:-2, :-3]).abs() < 1e-4
    assert same.double().mean() > 0.998


def test_each_frame_may_have_its_own_intrinsics():
    rooms, poses = furnished([1, 2], frames=2)
    fx, fy, cx, cy = INTRINSICS
    lens = torch.tensor([[INTRINSICS, (2 * fx, fy, cx, cy)], [(fx, 2 * fy, cx, cy), INTRINSICS]])
    together = render(rooms, poses, lens, HEIGHT, WIDTH).depth_m
    for r in range(2):
        for f in range(2):
            alone = render(rooms[r : r + 1], poses[r : r + 1, f : f + 1], lens[r, f], HEIGHT, WIDTH)
            torch.testing.assert_close(together[r, f], alone.depth_m[0, 0])


def test_supersampled_colours_are_means_of_a_larger_picture_and_depth_is_not():
    rooms, poses = furnished([1, 2])
    fx, fy, cx, cy = INTRINSICS
    small = render(rooms, poses, INTRINSICS, HEIGHT, WIDTH, supersampling=2)
    # Pixel u of the small picture covers the pixels 2u and 2u + 1 of the large one.
    doubled = (2 * fx, 2 * fy, 2 * cx + 0.5, 2 * cy + 0.5)
    large = render(rooms, poses, doubled, 2 * HEIGHT, 2 * WIDTH).rgb
    means = large.view(2, 3, HEIGHT, 2, WIDTH, 2, 3).mean((3, 5))
    assert ((small.rgb - means).abs() < 1e-3).double().mean() > 0.999
    assert torch.equal(small.depth_m, render(rooms, poses, INTRINSICS, HEIGHT, WIDTH).depth_m)


def test_rendering_compiles_to_one_graph_that_serves_other_rooms_too():
    compiled = torch.compile(render, backend="eager", fullgraph=True, dynamic=False)
    lens = torch.tensor(INTRINSICS)
    for seeds, stance in (([1, 2], "default"), ([3, 4], "fail_on_recompile")):
        rooms, poses = furnished(seeds)
        with torch.compiler.set_stance(stance):
            got = compiled(rooms, poses, lens, HEIGHT, WIDTH)
        expected = render(rooms, poses, lens, HEIGHT, WIDTH)
        torch.testing.assert_close(got.depth_m, expected.depth_m)
        torch.testing.assert_close(got.rgb, expected.rgb, rtol=0, atol=1e-3)


def test_pictures_have_texture_wherever_one_looks():
    rooms, poses = furnished(range(20), frames=4)
    rgb = render(rooms, poses, (90.0, 90.0, 63.5, 47.5), 96, 128).rgb
    assert rgb.min() >= 0 and rgb.max() <= 1
    grey = rgb.mean(-1).reshape(-1, 6, 16, 8, 16).transpose(2, 3).flatten(-2)
    contrast = grey.std(-1)  # of every 16x16 patch
    assert (contrast > 0.01).double().mean() > 0.98
    assert rgb.mean() > 0.3


def test_noise_is_of_the_given_strength_and_repeats_with_its_generator():
    grey = torch.full((50, 50, 3), 0.5)
    noisy = add_noise(grey, 0.05, torch.Generator().manual_seed(1))
    assert torch.equal(noisy, add_noise(grey, 0.05, torch.Generator().manual_seed(1)))
    assert 0.045 < float((noisy - grey).std()) < 0.055
    bright = add_noise(torch.ones(1000), 0.5, torch.Generator().manual_seed(1))
    assert bright.max() == 1 and bright.min() >= 0


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 4, 4), r"\[1, 4, 4\]"), ((2, 1, 4, 4), "2 of 1 rooms")]
)
def test_poses_that_do_not_fit_the_rooms_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        render(make_rooms(0), torch.eye(4).expand(shape), INTRINSICS, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", ["supersampling", "rays_per_chunk", "height", "width"])
def test_pictures_of_nothing_are_refused(name):
    size = {"height": HEIGHT, "width": WIDTH, name: 0}
    with pytest.raises(ValueError, match=f"{name}: must be at least 1, got 0"):
        render(make_rooms(0), camera((0, 0, 1)), INTRINSICS, **size)


def test_incomplete_intrinsics_are_refused():
    with pytest.raises(ValueError, match=r"intrinsics.*\[3\]"):
        render(make_rooms(0), camera((0, 0, 1)), INTRINSICS[:3], HEIGHT, WIDTH)
