# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transforms3d.euler import euler2mat

from ttt3r_ros.geometry import Intrinsics, transform
from ttt3r_ros.tracking.signals import SignalMeter

HEIGHT, WIDTH = 48, 64
LENS = Intrinsics(48.0, 48.0, 32.0, 24.0, WIDTH, HEIGHT)
CONFIDENCE = torch.full((HEIGHT, WIDTH), 2.0)


def wall(depth_m=2.0):
    row, column = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    ray = torch.stack(((column - 32) / 48, (row - 24) / 48, torch.ones(HEIGHT, WIDTH)), dim=-1)
    return depth_m * ray


def picture(seed):
    rough = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return rough.repeat(8, axis=0).repeat(8, axis=1)


def measure(meter, t_s, *, pose=None, rgb=None, depth_m=2.0, intrinsics=LENS):
    pose = np.eye(4) if pose is None else pose
    rgb = picture(0) if rgb is None else rgb
    return meter.measure(round(1e9 * t_s), rgb, pose, wall(depth_m), CONFIDENCE, 2.0, intrinsics)


def forward(z_m):
    return transform(np.eye(3), (0, 0, z_m))


def test_the_first_image_is_compared_with_nothing():
    signals = measure(SignalMeter(), 5.0)
    assert (signals.confidence, signals.repeated) == (2.0, False)
    assert signals.contrast > 10 and min(signals.detail) > 0
    for name in ("dt_s", "similarity", "disagreement", "share_seen"):
        assert getattr(signals, name) is None
    assert signals.translation_jump is signals.rotation_jump_rad is None


def test_an_approach_to_a_wall_agrees_with_its_depth_and_standing_still_does_not():
    meter = SignalMeter()
    measure(meter, 0.0)
    right = measure(meter, 0.1, pose=forward(0.2), depth_m=1.8)
    assert right.disagreement == pytest.approx(0.0, abs=1e-5)
    assert 0.7 < right.share_seen < 0.9  # (1.8 / 2)², and pixels half in view
    wrong = measure(meter, 0.2, pose=forward(0.2), depth_m=1.6)
    assert wrong.disagreement == pytest.approx(math.log(1.8 / 1.6), abs=1e-5)


def test_steady_motion_is_no_jump_however_uneven_the_stamps():
    meter = SignalMeter()
    for t_s in (0.0, 0.1, 0.4, 0.45, 1.0):
        pose = transform(euler2mat(0, 0.5 * t_s, 0), (0, 0, 0)) @ forward(0.0)
        pose[:3, 3] = 0.0
        signals = measure(meter, t_s, pose=pose)
    assert signals.rotation_jump_rad == pytest.approx(0.0, abs=1e-9)
    meter = SignalMeter()
    for t_s in (0.0, 0.1, 0.4, 0.45, 1.0):
        signals = measure(meter, t_s, pose=forward(0.3 * t_s))
    assert signals.translation_jump == pytest.approx(0.0, abs=1e-9)


def test_a_jump_is_told_as_an_angle_and_as_a_share_of_the_depth():
    meter = SignalMeter()
    measure(meter, 0.0)
    measure(meter, 0.1, pose=forward(0.1))
    signals = measure(meter, 0.2, pose=forward(0.5))  # 0.3 m more than expected at 2 m
    assert signals.translation_jump == pytest.approx(0.15)
    turned = transform(euler2mat(0, 0, 0.2), (0, 0, 0.9))
    assert measure(meter, 0.3, pose=turned).rotation_jump_rad == pytest.approx(0.2)


def test_the_same_picture_is_repeated_and_one_grey_level_makes_it_another():
    meter = SignalMeter()
    measure(meter, 0.0)
    assert measure(meter, 0.1).repeated
    other = picture(0)
    other[0, 0, 0] ^= 1
    assert not measure(meter, 0.2, rgb=other).repeated


def test_a_new_segment_forgets_the_pose_but_not_the_picture():
    meter = SignalMeter()
    for i in range(3):
        measure(meter, 0.1 * i)
    meter.new_segment()
    signals = measure(meter, 0.3, rgb=picture(1))
    assert signals.similarity < 0.6 and signals.dt_s == pytest.approx(0.1)
    assert signals.disagreement is signals.rotation_jump_rad is None
    signals = measure(meter, 0.4)
    assert signals.disagreement is not None and signals.rotation_jump_rad is None


def test_a_new_unit_of_length_is_no_jump_and_no_disagreement():
    meter = SignalMeter()
    measure(meter, 0.0)
    measure(meter, 0.1, pose=forward(0.2), depth_m=1.8)
    meter.unit_changed(3.0)
    signals = measure(meter, 0.2, pose=forward(0.8), depth_m=3 * 1.6)
    assert signals.disagreement == pytest.approx(0.0, abs=1e-5)
    assert signals.translation_jump == pytest.approx(0.0, abs=1e-9)


def test_after_a_reset_everything_is_as_at_first():
    meter = SignalMeter()
    first = measure(meter, 0.0)
    measure(meter, 0.1)
    meter.reset()
    assert measure(meter, 0.2) == first


def test_without_a_focal_length_depths_are_not_compared():
    meter = SignalMeter()
    for i in range(3):
        signals = measure(meter, 0.1 * i, intrinsics=None)
    assert signals.disagreement is signals.share_seen is signals.translation_jump is None
    assert signals.rotation_jump_rad == 0.0 and signals.similarity == pytest.approx(1.0, abs=1e-5)
