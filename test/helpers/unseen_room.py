# SPDX-License-Identifier: Apache-2.0
"""A room that the shipped model has never seen, and how near to it the model has to come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ttt3r_ros.config import Config
from ttt3r_ros.evaluation.metrics.trajectory import trajectory_errors
from ttt3r_ros.geometry import Intrinsics, orthonormal
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions

# Training and the choice of settings use seeds below 1 000 000. The room was fixed before the
# model's errors in it were known.
SEED, IMAGES, PERIOD_NS = 1_000_123, 64, 100_000_000
CONFIG = Config(device="cpu", process_all_images=True)  # without a checkpoint: the shipped model

# Bounds. Behind them what was measured: all 64 images; in brackets the first 32.
MOST_ABS_REL = 0.12  # 0.081 (0.060)
MOST_ABS_REL_OF_A_CONSTANT = 0.7  # share of the error of the best constant depth: 0.51 (0.37)
MOST_ATE_OF_A_RESTING_CAMERA = 0.35  # share: 0.12 (0.19)
MAP_WITHIN_M, LEAST_MAP_WITHIN = 0.3, 0.7  # distance from true surfaces, share of points: 0.87
MOST_SEAM = 2.5  # times the jump inside a patch: 1.93; the true depth has 1.11, visible seams 6.7
LEAST_KNOWN = 0.8  # share of pixels that are trusted


@dataclass(frozen=True, repr=False)
class Film:
    """What the camera saw, at 10 Hz."""

    rgb: np.ndarray  # [N, 240, 320, 3]
    depth_m: np.ndarray  # [N, 240, 320]
    poses: np.ndarray  # [N, 4, 4] T_world_camera
    camera: Intrinsics

    def depth_seen(self, seen: Intrinsics) -> np.ndarray:
        """The true depth along the rays of the network's images, [N, h, w]."""
        return np.stack([along_rays(depth, self.camera, seen) for depth in self.depth_m])


def film(images: int = IMAGES) -> Film:
    scene = Scene(SceneOptions(seed=SEED))
    views = [scene.view(i * PERIOD_NS / 1e9) for i in range(images)]
    return Film(
        np.stack([view.rgb.numpy() for view in views]),
        np.stack([view.depth_m.numpy() for view in views]),
        np.stack([orthonormal(view.T_world_camera.numpy()) for view in views]),
        Intrinsics(*scene.lens, 320, 240),
    )


def abs_rel(depth_m: np.ndarray, true_m: np.ndarray) -> float:
    """Mean of |d - true| / true over all pixels whose depth is known."""
    known = np.isfinite(depth_m) & np.isfinite(true_m)
    return float(np.mean(np.abs(depth_m - true_m)[known] / true_m[known]))


def ate_of_a_resting_camera(poses: np.ndarray, true_poses: np.ndarray) -> float:
    """ATE as a share of that of a camera that never moves, both after a rigid alignment."""
    errors = trajectory_errors(poses, true_poses)
    ate_m = errors.by_alignment["se3"].ate_rmse_m
    assert ate_m is not None
    return ate_m / errors.guess_ate_rmse_m


def along_rays(true_m: np.ndarray, camera: Intrinsics, seen: Intrinsics) -> np.ndarray:
    """Return the true depth along the rays of a smaller image, NaN beyond the larger one's edges.

    Args:
        true_m: [H, W].
        camera: intrinsics of `true_m`.
        seen: intrinsics of the result [h, w], of the same camera at another size.
    """
    u = np.rint((np.arange(seen.width) - seen.cx) / seen.fx * camera.fx + camera.cx).astype(int)
    v = np.rint((np.arange(seen.height) - seen.cy) / seen.fy * camera.fy + camera.cy).astype(int)
    inside = np.outer((v >= 0) & (v < camera.height), (u >= 0) & (u < camera.width))
    nearest = true_m[np.ix_(v.clip(0, camera.height - 1), u.clip(0, camera.width - 1))]
    return np.where(inside, nearest, np.float32(np.nan))
