# SPDX-License-Identifier: Apache-2.0
"""What a simulated camera sees, with the faults of a real one."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from plain_geometry import BALL, BOX, image_rays, plain_depth

from ttt3r_ros.config import ConfigError
from ttt3r_ros.simulation import make_rooms, make_trajectory, render
from ttt3r_ros.simulation.furniture import LOW_TOP
from ttt3r_ros.simulation.movers import Movers
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import MOST_MOVING, SceneOptions

PLAIN = SceneOptions(seed=11, width=48, height=36)


def scene(**options):
    return Scene(replace(PLAIN, **options))


def grey(view):
    return view.rgb.double() / 255


def test_a_plain_scene_is_the_renderers_picture_from_the_path():
    subject = scene(style="handheld", loop_s=9.0)
    view = subject.view(2.5)
    rooms = make_rooms(11)
    poses = make_trajectory(11, rooms, "handheld", 9.0).pose(torch.tensor([2.5]))
    expected = render(rooms, poses, subject.lens, 36, 48)
    assert torch.equal(view.rgb, (255 * expected.rgb[0, 0]).round().byte())
    assert torch.equal(view.depth_m, expected.depth_m[0, 0])
    assert torch.equal(view.T_world_camera, poses[0, 0].double())
    assert subject.lens == (36.0, 36.0, 23.5, 17.5)


def test_the_same_moment_is_the_same_picture_whatever_was_asked_before():
    options = {"noise": 0.05, "exposure": 0.3, "moving": 2, "blur_s": 0.02}
    first, second = scene(**options), scene(**options)
    first.view(0.0)
    assert torch.equal(first.view(1.0).rgb, second.view(1.0).rgb)
    assert not torch.equal(first.view(1.1).rgb, second.view(1.0).rgb)


def test_noise_has_the_deviation_asked_for_and_leaves_the_truth_alone():
    plain, noisy = scene().view(1.0), scene(noise=0.05).view(1.0)
    inside = (grey(plain) > 0.25) & (grey(plain) < 0.75)  # five deviations from either end
    assert float((grey(noisy) - grey(plain))[inside].std()) == pytest.approx(0.05, rel=0.1)
    assert torch.equal(noisy.depth_m, plain.depth_m)


def test_exposure_multiplies_the_picture_by_a_slow_gain():
    subject = scene(exposure=0.4)
    gains = [subject.gain(0.1 * i) for i in range(81)]
    assert max(gains) == pytest.approx(math.exp(0.4), rel=0.01)
    assert min(gains) == pytest.approx(math.exp(-0.4), rel=0.01)
    assert gains[0] == pytest.approx(gains[80])
    assert max(abs(math.log(b / a)) for a, b in pairwise(gains)) < 0.04
    for t in (0.0, 3.0):
        expected = (grey(scene().view(t)) * subject.gain(t)).clamp(max=1)
        torch.testing.assert_close(grey(subject.view(t)), expected, atol=0.005, rtol=0)


def test_blur_is_the_mean_over_the_time_the_shutter_is_open_around_the_stamp():
    blurred = scene(blur_s=0.18).view(1.0)
    moments = [grey(scene().view(1.0 + 0.02 * i)) for i in range(-4, 5)]
    torch.testing.assert_close(grey(blurred), sum(moments) / 9, atol=0.005, rtol=0)
    sharp = scene().view(1.0)
    assert not torch.equal(blurred.rgb, sharp.rgb)
    torch.testing.assert_close(blurred.depth_m, sharp.depth_m)
    assert torch.equal(blurred.T_world_camera, sharp.T_world_camera)


def test_seen_by_a_camera_that_stands_still_only_the_movers_change():
    room = make_rooms(8)
    times = torch.tensor([0.0, 0.5])
    poses = make_trajectory(8, room).pose(torch.tensor([0.0])).expand(2, 1, 4, 4)
    before, after = render(Movers(8, room, 2).at(times), poses, scene().lens, 36, 48).rgb
    changed = (before - after).abs().amax(dim=-1) > 0.01
    assert 5 < int(changed.sum()) < changed.numel() / 4


@pytest.mark.parametrize("seed", range(4))
def test_movers_stay_on_the_floor_below_every_camera_and_inside_the_room(seed):
    room = make_rooms(seed)
    movers = Movers(seed, room, MOST_MOVING)
    times = torch.linspace(0, 60, 200)
    rooms = movers.at(times)
    centre, half = rooms.solid_centre[:, movers.solids], rooms.solid_half[:, movers.solids]
    torch.testing.assert_close(centre[..., 2], half[..., 2])  # they stand on the floor
    assert float((centre + half)[..., 2].max()) < LOW_TOP
    reach = room.solid_half[0, 0, :2] - half[..., :2].norm(dim=-1, keepdim=True)
    assert bool((centre[..., :2].abs() < reach).all())
    speed = centre.diff(dim=0).norm(dim=-1) / float(times[1])
    assert 0.02 < float(speed.max()) < 2.0
    others = [i for i in range(room.solid_centre.shape[1]) if i not in movers.solids]
    assert torch.equal(
        rooms.solid_centre[:, others], room.solid_centre[:, others].expand(200, -1, -1)
    )


def test_movers_are_balls_and_boxes_in_turn():
    movers = Movers(0, make_rooms(0), MOST_MOVING)
    assert [solid >= BALL for solid in movers.solids] == [True, False, True, False]
    assert all(solid >= BOX for solid in movers.solids)
    assert len({*movers.solids}) == MOST_MOVING
    assert Movers(0, make_rooms(0), 1).solids == movers.solids[:1]


def test_the_depth_of_things_that_move_is_exact():
    subject = scene(seed=8, moving=MOST_MOVING)
    movers = Movers(8, make_rooms(8), MOST_MOVING)
    seen = 0
    for t in (0.0, 1.5, 3.0):
        view = subject.view(t)
        room = movers.at(torch.tensor([t]))
        rays = image_rays(subject.lens, 36, 48)
        twin = plain_depth(room, view.T_world_camera, rays)
        close = (view.depth_m - twin).abs() < 1e-3 * twin
        assert float(close.double().mean()) > 0.995  # at edges either side may be met
        seen += int((scene(seed=8).view(t).depth_m != view.depth_m).sum())
    assert seen > 100  # pixels of the movers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed: must be 0 to"),
        ({"noise": -0.1}, "noise: must be 0 to 1, got -0.1"),
        ({"blur_s": math.nan}, "blur_s: must be 0 to 1, got nan"),
        ({"moving": 5}, "moving: must be 0 to 4, got 5"),
        ({"style": "drone"}, "style: must be one of"),
        ({"loop_s": 0.0}, "loop_s: must be above 0, got 0.0"),
        ({"width": 0}, "width: must be 1 to"),
        ({"distortion": (-3.0, 0.0)}, "distortion: -3, 0 fold the image"),
    ],
)
def test_options_out_of_bounds_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        scene(**options)
