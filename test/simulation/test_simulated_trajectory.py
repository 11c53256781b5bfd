# SPDX-License-Identifier: Apache-2.0
"""Camera paths keep clear of everything, look across rooms, and may be asked for any time."""

from __future__ import annotations

import pytest
import torch
from plain_geometry import clearance

from ttt3r_ros.simulation import make_cluttered_rooms, make_rooms, make_trajectory, render
from ttt3r_ros.simulation.camera_path import MARGIN_M

SEEDS = range(100)
STYLES = ("robot", "handheld")


@pytest.mark.parametrize("style", STYLES)
def test_cameras_keep_their_margin_from_every_surface(style):
    rooms = make_rooms(SEEDS)
    paths = make_trajectory(SEEDS, rooms, style)
    places = paths.pose(torch.linspace(0, 600, 500))[..., :3, 3]
    for r in range(len(rooms)):
        assert clearance(rooms[r : r + 1], places[r]).min() > MARGIN_M - 1e-4


@pytest.mark.parametrize("style", ["free", "wheeled"])
def test_cameras_stay_in_the_space_that_cluttered_rooms_leave_free(style):
    rooms = make_cluttered_rooms(SEEDS)
    poses = make_trajectory(SEEDS, rooms, style).pose(torch.linspace(0, 600, 500))
    places = poses[..., :3, 3]
    margin = torch.tensor([0.2, 0.2, 0.0]) - 1e-4
    assert (places > rooms.free_low[:, None] + margin).all()
    assert (places < rooms.free_high[:, None] - margin).all()
    depth = render(rooms, poses[:, :3], (46.0, 46.0, 31.5, 23.5), 48, 64).depth_m.flatten(2)
    nearest = depth.quantile(0.05, dim=-1)
    assert (nearest < 1.0).double().mean() > 0.3  # things stand near, which tidy rooms lack
    assert (depth.median(-1).values > 0.6).double().mean() > 0.95


def test_hands_and_drones_go_sideways_and_up_and_wheels_turn_their_camera_to_any_side():
    rooms, t = make_cluttered_rooms(SEEDS), torch.arange(600) * 0.1
    for style in ("free", "wheeled"):
        poses = make_trajectory(SEEDS, rooms, style).pose(t).double()
        step = poses[..., :3, 3].diff(dim=1)
        sideways = (step * poses[:, :-1, :3, 0]).sum(-1).abs() / step.norm(dim=-1)
        assert 0.3 < (sideways > 0.7).double().mean() < 0.7
        rise = step[..., 2].abs().mean() / step.norm(dim=-1).mean()
        assert (rise > 0.1) == (style == "free")


@pytest.mark.parametrize("style", STYLES)
def test_cameras_look_across_the_room_and_never_stand_before_a_surface(style):
    rooms = make_rooms(SEEDS)
    poses = make_trajectory(SEEDS, rooms, style).pose(torch.arange(5) * 13.0)
    depth = render(rooms, poses, (46.0, 46.0, 31.5, 23.5), 48, 64).depth_m.flatten(2)
    assert depth.min() > 0.15
    assert (depth.median(-1).values > 1.2).double().mean() > 0.95


def test_poses_are_rigid_and_upright_with_the_optical_axis_near_the_horizon():
    rooms = make_rooms(SEEDS)
    for style, tilt in zip(STYLES, (0.25, 0.55), strict=True):
        poses = make_trajectory(SEEDS, rooms, style).pose(torch.linspace(0, 60, 50))
        rotation = poses[..., :3, :3].double()
        identity = torch.eye(3, dtype=torch.float64).expand_as(rotation)
        torch.testing.assert_close(rotation @ rotation.mT, identity, rtol=0, atol=1e-6)
        torch.testing.assert_close(torch.linalg.det(rotation), torch.ones_like(rotation[..., 0, 0]))
        assert (poses[..., 2, 1] < -0.8).all()  # the image's down is the world's down
        assert (poses[..., 2, 2].abs() < tilt).all()
        assert torch.equal(poses[..., 3, :], torch.tensor([0.0, 0, 0, 1]).expand(len(rooms), 50, 4))


def test_robots_keep_their_height_and_hands_do_not():
    rooms, t = make_rooms(SEEDS), torch.linspace(0, 60, 200)
    robot, hand = (make_trajectory(SEEDS, rooms, s).pose(t)[..., 2, 3] for s in STYLES)
    assert robot.min() > 1.1 and robot.max() < 1.3
    assert (robot.amax(1) - robot.amin(1)).max() < 0.025
    assert (hand.amax(1) - hand.amin(1)).min() > 0.05


@pytest.mark.parametrize("style", STYLES)
def test_cameras_move_at_walking_pace_and_turn_no_faster_than_pictures_can_follow(style):
    poses = make_trajectory(SEEDS, make_rooms(SEEDS), style).pose(torch.arange(1200) * 0.05)
    speed = poses[..., :3, 3].diff(dim=1).norm(dim=-1) / 0.05
    assert speed.mean(1).min() > 0.05 and speed.mean(1).max() < 0.6
    assert speed.max() < 1.2
    forward = poses[..., :3, 2]
    turned = torch.linalg.cross(forward[:, 1:], forward[:, :-1]).norm(dim=-1).asin() / 0.05
    assert turned.max() < 1.8
    assert turned.mean(1).min() < 0.12 < 0.3 < turned.mean(1).max()  # slow and fast ones


def test_robots_go_where_they_look_and_hands_go_anywhere():
    rooms, t = make_rooms(SEEDS), torch.arange(600) * 0.1
    shares = []
    for style in STYLES:
        poses = make_trajectory(SEEDS, rooms, style).pose(t).double()
        step = poses[..., :2, 3].diff(dim=1)
        forward = (step * poses[:, :-1, :2, 2]).sum(-1) / step.norm(dim=-1)
        shares.append((forward > 0.9).double().mean())
    assert shares[0] == 1.0 and shares[1] < 0.5


def test_a_robots_loop_has_no_place_where_it_turns_on_the_spot():
    paths = make_trajectory(SEEDS, make_rooms(SEEDS), loop_s=40.0)
    t = torch.arange(0, 40, 0.05)
    step = paths.pose(t)[..., :3, 3].diff(dim=1).norm(dim=-1)
    assert (step.amin(1) / step.mean(1)).min() > 0.1


def test_a_loop_ends_where_and_as_it_began():
    rooms = make_rooms(SEEDS)
    loops = make_trajectory(SEEDS, rooms, "handheld", loop_s=30.0)
    t = torch.linspace(0, 5, 20)
    torch.testing.assert_close(loops.pose(t + 30.0), loops.pose(t), rtol=0, atol=1e-4)
    halfway = loops.pose(torch.tensor([0.0, 15.0]))[..., :3, 3].diff(dim=1).norm(dim=-1)
    assert halfway.median() > 0.3


def test_any_time_may_be_asked_for_alone():
    rooms = make_rooms([1, 2])
    paths = make_trajectory([8, 9], rooms)
    t = torch.tensor([0.0, 12.5, 3600.0, 1e5], dtype=torch.float64)
    together = paths.pose(t)
    for f in range(len(t)):
        torch.testing.assert_close(paths.pose(t[f : f + 1])[:, 0], together[:, f])
    own = paths.pose(torch.stack((t, t.flip(0))))
    torch.testing.assert_close(own[0], together[0])
    torch.testing.assert_close(own[1], together[1].flip(0))


def test_a_path_depends_on_its_seed_and_room_alone():
    t = torch.linspace(0, 20, 5)
    batch = make_trajectory([4, 5], make_rooms([1, 2])).pose(t)
    alone = make_trajectory(5, make_rooms(2)).pose(t)
    torch.testing.assert_close(batch[1:], alone)
    assert (make_trajectory(6, make_rooms(2)).pose(t) - alone).abs().max() > 0.1


@pytest.mark.parametrize(
    ("seeds", "arguments", "message"),
    [
        (0, {"style": "drone"}, "style.*handheld.*robot.*drone"),
        (0, {"loop_s": 0.0}, "loop_s.*0.0"),
        ([0, 1], {}, "seeds: 2 given for 1 rooms"),
    ],
)
def test_paths_that_cannot_be_drawn_are_refused(seeds, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_trajectory(seeds, make_rooms(0), **arguments)
