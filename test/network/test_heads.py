# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import torch
from places import GOLDEN

from ttt3r_ros.network.heads import PoseHead, expand, points_and_confidence, pose_matrix


def test_pose_matrices_equal_the_recorded_ones():
    recorded = np.load(GOLDEN / "focal_and_pose.npz")
    poses = torch.from_numpy(recorded["pose7"])
    expected = torch.from_numpy(recorded["cam_to_world"])
    torch.testing.assert_close(pose_matrix(poses), expected, atol=1e-6, rtol=1e-6)


def test_a_pose_has_a_unit_quaternion_with_positive_real_part():
    torch.manual_seed(0)
    pose = PoseHead(8)(torch.randn(50, 8))
    torch.testing.assert_close(pose[:, 3:].norm(dim=-1), torch.ones(50))
    assert (pose[:, 3] >= 0).all()
    rotation = pose_matrix(pose)[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(50, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50))


def test_expanding_keeps_the_direction_and_makes_the_length_exponential():
    vectors = torch.tensor([[0.0, 3.0, 4.0], [0.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    length = np.expm1(5.0)
    expected = [[0, 0.6 * length, 0.8 * length], [0, 0, -np.expm1(1.0)], [0, 0, 0]]
    torch.testing.assert_close(expand(vectors), torch.tensor(expected, dtype=torch.float32))


def test_confidence_begins_at_one():
    _, confidence = points_and_confidence(torch.tensor([0.0, 0.0, 1.0, -50.0]).view(1, 1, 1, 4))
    assert confidence.item() == 1


def test_the_linear_head_puts_a_patch_channel_at_its_pixel(build):
    heads = build().downstream_head
    patches = torch.arange(2 * 3 * 4 * 64, dtype=torch.float32).view(1, 2, 3, 256)
    pixels = heads._to_pixels(patches)
    assert pixels.shape == (1, 16, 24, 4)
    for channel, i, j in ((0, 0, 0), (1, 0, 7), (2, 3, 5), (3, 7, 7)):
        expected = patches[0, 1, 2, channel * 64 + i * 8 + j]
        assert pixels[0, 8 + i, 16 + j, channel] == expected


def test_the_linear_head_mirrors_points_behind_the_camera(build, images):
    network = build(world_points_head=True)
    _, prediction = network.step(network.initial_state(), images[0])
    assert (prediction.points[..., 2] >= 0).all()
    assert (prediction.points_in_world[..., 2] < 0).any()
