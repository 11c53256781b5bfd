# SPDX-License-Identifier: Apache-2.0
"""The tracker takes its scale from what is known beside the images."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tolerant import TOLERANT
from transforms3d.euler import euler2mat

from ttt3r_ros.config import Config, ConfigError, with_values
from ttt3r_ros.geometry import R_BODY_OPTICAL, inverse, transform
from ttt3r_ros.loading import Model
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import Frame

HEIGHT, WIDTH, FOCAL, CAMERA_HEIGHT_M = 96, 128, 96.0, 1.2
UNIT = 1 / 1.6  # of the network, in metres


def true_pose(index):
    """T_world_camera of a level camera above the floor z = 0, on an arc, at 0.5 m/s."""
    yaw = 0.02 * index
    rotation = euler2mat(0, 0, yaw) @ R_BODY_OPTICAL
    return transform(rotation, (2.5 * math.sin(yaw), 2.5 * (1 - math.cos(yaw)), CAMERA_HEIGHT_M))


def floor_and_wall():
    """Points [H, W, 3] in metres of a floor and, 4 m ahead, a wall."""
    v, u = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    x, y = (u - WIDTH // 2) / FOCAL, (v - HEIGHT // 2) / FOCAL
    depth = torch.where(y > 0.01, (CAMERA_HEIGHT_M / y.clamp(min=0.01)).clamp(max=4.0), 4.0)
    return torch.stack((x * depth, y * depth, depth), dim=-1)


class WrongUnit:
    """A network that knows the truth in another unit; a state is the index of its first image."""

    config = SimpleNamespace(patch_size=16)
    images = -1

    def __init__(self, jitter):
        self.jitter = jitter

    def initial_state(self):
        return None

    def encode(self, image):
        self.images += 1
        return self.images

    def advance(self, first, index, update=True):
        first = index if first is None else first
        pose = inverse(true_pose(first)) @ true_pose(index)
        pose[:3, 3] /= UNIT
        return first, Prediction(
            points=floor_and_wall()[None] / UNIT * (1 + self.jitter * (index % 3 - 1)),
            confidence=torch.full((1, HEIGHT, WIDTH), 3.0),
            pose=torch.zeros(1, 7),
            pose_matrix=torch.from_numpy(pose).float()[None],
            gain=torch.ones(1, 4),
        )


def run(images=60, *, odometry=True, jitter=0.0, **values):
    config = with_values(
        Config(process_all_images=True, preprocessing="fast"),
        {**TOLERANT, "recovery.keyframes": 0, **values},
    )
    tracker = Tracker(Model(WrongUnit(jitter), torch.device("cpu"), WIDTH, {}, ""), config)
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    start = transform(euler2mat(0, 0, 1.0), (5.0, -3.0, 0.0))  # the odometry's origin is its own
    return [
        tracker.step(
            Frame(
                i * 100_000_000,
                rgb,
                T_odometry_camera=start @ true_pose(i) if odometry else None,
            )
        )
        for i in range(images)
    ]


@pytest.mark.parametrize("interval", [0, 20])
def test_a_known_camera_height_makes_lengths_metric(interval):
    results = run(
        scale_source="camera_height",
        camera_height_m=CAMERA_HEIGHT_M,
        **{"segment.reset_interval": interval},
    )
    assert results[0].scale == 1.0 and math.isnan(results[0].scale_log_spread)
    last = results[-1]
    assert last.scale == pytest.approx(UNIT, rel=0.01)
    assert last.scale_log_spread < 0.02
    assert last.points[..., 2].max() == pytest.approx(4.0, rel=0.01)
    # Known after ten images, from the eleventh on.
    assert [result.scale for result in results[:10]] == [1.0] * 10
    moved = np.linalg.norm(inverse(results[30].T_odom_camera)[:3] @ last.T_odom_camera[:, 3])
    true = np.linalg.norm(inverse(true_pose(30))[:3] @ true_pose(59)[:, 3])
    assert moved == pytest.approx(true, rel=0.01)


@pytest.mark.parametrize("interval", [0, 8])
def test_the_robots_odometry_makes_lengths_metric(interval):
    results = run(images=90, scale_source="odom", **{"segment.reset_interval": interval})
    assert results[0].scale == 1.0
    assert results[-1].scale == pytest.approx(UNIT, rel=0.01)
    assert results[-1].scale_log_spread < 0.02


def test_scale_is_constant_within_a_segment_and_the_path_does_not_jump():
    results = run(images=90, scale_source="odom", **{"segment.reset_interval": 8})
    by_segment = {}
    for result in results:
        by_segment.setdefault(result.segment, set()).add(result.scale)
    assert all(len(scales) == 1 for scales in by_segment.values())
    places = np.array([result.T_odom_camera[:3, 3] for result in results])
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert steps.max() < 1.01 * 0.05 / UNIT


def test_without_odometry_the_scale_given_stays():
    results = run(odometry=False, scale_source="odom", scale=2.0)
    assert {result.scale for result in results} == {2.0}
    assert all(math.isnan(result.scale_log_spread) for result in results)


def test_a_spread_above_the_bound_is_not_trusted():
    results = run(
        scale_source="camera_height",
        camera_height_m=CAMERA_HEIGHT_M,
        jitter=0.1,
        scale_max_log_spread=0.05,
    )
    assert {result.scale for result in results} == {1.0}
    assert results[-1].scale_log_spread == pytest.approx(0.15, abs=0.05)


def test_a_camera_height_must_be_given():
    with pytest.raises(ConfigError, match="camera_height_m: must be above 0"):
        run(images=1, scale_source="camera_height")
