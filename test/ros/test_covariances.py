# SPDX-License-Identifier: Apache-2.0
"""Covariances of the camera reach the base and the map."""

from __future__ import annotations

import numpy as np
import torch
from transforms3d.euler import euler2mat

from ttt3r_ros.camera.preprocessing import crop_transform
from ttt3r_ros.geometry import transform
from ttt3r_ros.ros.conversions import map_pose_message, odometry_message
from ttt3r_ros.ros.transforms import Extrinsics
from ttt3r_ros.types import FrameResult, TrackingState

AHEAD_M = 2.0


def result(variances, T_map_odom, map_variances=(0,) * 6):
    return FrameResult(
        stamp_ns=0,
        frame_id="camera",
        state=TrackingState.TRACKING,
        reason="",
        T_odom_camera=transform(np.eye(3), (AHEAD_M, 0, 0)),
        T_map_odom=T_map_odom,
        is_localized=True,
        pose_covariance=np.diag(variances).astype(float),
        map_pose_covariance=np.diag(map_variances).astype(float),
        twist_covariance=np.diag(variances).astype(float),
        points=torch.zeros(1, 1, 3),
        confidence=torch.ones(1, 1),
        outside_fov=None,
        mask=None,
        pixels=torch.zeros(48, 64, 3, dtype=torch.uint8),
        rgb=np.zeros((48, 64, 3), np.uint8),
        crop=crop_transform(64, 48, 64),
        intrinsics=None,
        segment=0,
        boundary_reason="",
        resets=0,
        images_since_reset=2,
        mean_gain=1.0,
        median_confidence=2.0,
        scale=1.0,
        scale_log_spread=float("nan"),
        step_s=0.0,
    )


MOUNT = Extrinsics("base", transform(np.eye(3), (AHEAD_M, 0, 0)), np.eye(4), is_published=True)


def matrix(covariance):
    return np.reshape(covariance, (6, 6))


def test_a_turning_camera_makes_the_base_behind_it_uncertain_sideways():
    yaw = odometry_message(result([0, 0, 0, 0, 0, 0.01], np.eye(4)), MOUNT, None, "odom")
    for covariance in (yaw.pose.covariance, yaw.twist.covariance):
        found = matrix(covariance)
        np.testing.assert_allclose(found.diagonal(), [0, 0.01 * AHEAD_M**2, 0, 0, 0, 0.01])
    # Where the camera turns left, the base behind it is swung to the right.
    assert matrix(yaw.pose.covariance)[1, 5] < 0


def test_a_pose_in_the_map_has_the_maps_own_covariance():
    T_map_odom = transform(euler2mat(0, 0, np.pi / 2), (3.0, 4.0, 0.0))
    shown = result([9] * 6, T_map_odom, map_variances=[1, 2, 3, 0, 0, 0.01])
    message = map_pose_message(shown, MOUNT, "map")
    # The camera is 2 m ahead of the base, which in the map is along y.
    expected = [1 + 0.01 * AHEAD_M**2, 2, 3, 0, 0, 0.01]
    np.testing.assert_allclose(matrix(message.pose.covariance).diagonal(), expected)
    p = message.pose.pose.position
    np.testing.assert_allclose((p.x, p.y, p.z), (3.0, 4.0, 0.0), atol=1e-12)
