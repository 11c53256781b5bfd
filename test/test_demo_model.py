# SPDX-License-Identifier: Apache-2.0
"""The shipped model from end to end, without ROS, in a room that it has never seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from unseen_room import (
    CONFIG,
    IMAGES,
    LEAST_MAP_WITHIN,
    MAP_WITHIN_M,
    MOST_ABS_REL,
    MOST_ABS_REL_OF_A_CONSTANT,
    MOST_ATE_OF_A_RESTING_CAMERA,
    MOST_SEAM,
    PERIOD_NS,
    Film,
    abs_rel,
    ate_of_a_resting_camera,
    film,
)

from ttt3r_ros.geometry import inverse, optical_extrinsics
from ttt3r_ros.loading import load_model
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.types import Frame


@dataclass(frozen=True, repr=False)
class Run:
    """What the pipeline made of the film."""

    film: Film
    poses: np.ndarray  # [N, 4, 4] T_odom_camera
    depth_m: np.ndarray  # [N, h, w] of all pixels, trusted or not
    true_m: np.ndarray  # [N, h, w]
    map_points: np.ndarray  # [M, 3] in odom
    patch_size: int


@pytest.fixture(scope="module")
def run() -> Run:
    filmed = film()
    model = load_model(CONFIG)
    pipeline = Pipeline(model, CONFIG)
    results = [
        pipeline.process(Frame(i * PERIOD_NS, rgb, filmed.camera))
        for i, rgb in enumerate(filmed.rgb)
    ]
    return Run(
        filmed,
        np.stack([result.T_odom_camera for result in results]),
        np.stack([result.points[..., 2].numpy() for result in results]),
        filmed.depth_seen(results[0].intrinsics),
        np.asarray(pipeline.map.cloud().points, np.float64),
        model.network.config.patch_size,
    )


def jumps(depth_m: np.ndarray, patch_size: int) -> tuple[float, float]:
    """Mean jump from pixel to pixel across the borders of patches, and inside of them."""
    across, inside = [], []
    for axis in (1, 2):
        jump = np.moveaxis(np.abs(np.diff(depth_m, axis=axis)), axis, 0)
        border = np.arange(1, len(jump) + 1) % patch_size == 0
        across.append(jump[border].ravel())
        inside.append(jump[~border].ravel())
    return float(np.concatenate(across).mean()), float(np.concatenate(inside).mean())


def surfaces(filmed: Film) -> np.ndarray:
    """Points [K, 3] in the world on everything seen, some 5 cm from one another."""
    row, column = np.mgrid[0:240:2, 0:320:2]
    camera = filmed.camera
    rays = np.stack(
        [(column - camera.cx) / camera.fx, (row - camera.cy) / camera.fy, np.ones(row.shape)], -1
    )
    points = [
        (rays * depth[::2, ::2, None]).reshape(-1, 3) @ T[:3, :3].T + T[:3, 3]
        for depth, T in zip(filmed.depth_m[::4], filmed.poses[::4], strict=True)
    ]
    return np.unique(np.round(np.concatenate(points) / 0.05), axis=0) * 0.05


def test_every_image_gets_a_pose_and_a_depth_in_every_pixel(run):
    assert len(run.poses) == len(run.depth_m) == IMAGES
    assert np.isfinite(run.poses).all()
    assert np.isfinite(run.depth_m).all()


def test_depth_is_metric_and_near_the_truth(run):
    error = abs_rel(run.depth_m, run.true_m)
    assert error < MOST_ABS_REL


def test_the_best_constant_depth_is_clearly_worse(run):
    """The median of all true depths, which nobody knows who has not seen them."""
    constant = np.full_like(run.true_m, np.nanmedian(run.true_m))
    share = abs_rel(run.depth_m, run.true_m) / abs_rel(constant, run.true_m)
    assert share < MOST_ABS_REL_OF_A_CONSTANT


def test_the_path_is_nearer_to_the_true_one_than_a_camera_that_never_moves(run):
    share = ate_of_a_resting_camera(run.poses, run.film.poses)
    assert share < MOST_ATE_OF_A_RESTING_CAMERA


def test_most_of_the_map_lies_on_true_surfaces(run):
    """As the node publishes it, nothing aligned but the first camera."""
    T_world_odom = run.film.poses[0] @ inverse(optical_extrinsics())
    assert len(run.map_points) > 10_000
    points = run.map_points[::20] @ T_world_odom[:3, :3].T + T_world_odom[:3, 3]
    true = torch.from_numpy(surfaces(run.film)).float()
    parts = torch.from_numpy(points).float().split(1000)
    distance_m = torch.cat([torch.cdist(part, true).amin(dim=1) for part in parts])
    share = float((distance_m < MAP_WITHIN_M).float().mean())
    assert share > LEAST_MAP_WITHIN


def test_patches_show_no_seams(run):
    across, inside = jumps(run.depth_m[::8], run.patch_size)
    assert across < MOST_SEAM * inside


def test_the_measure_of_seams_tells_a_depth_with_seams_from_the_true_one(run):
    across, inside = jumps(run.true_m[::8], run.patch_size)
    assert across < MOST_SEAM * inside
    rng = np.random.default_rng(0)
    count, height, width = run.true_m[::8].shape
    shape = (count, height // run.patch_size, width // run.patch_size)
    steps = np.kron(rng.normal(1, 0.05, shape), np.ones((1, run.patch_size, run.patch_size)))
    across, inside = jumps(run.true_m[::8] * steps, run.patch_size)
    assert across > MOST_SEAM * inside
