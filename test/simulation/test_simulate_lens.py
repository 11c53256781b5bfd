# SPDX-License-Identifier: Apache-2.0
"""Pictures through a distorting lens."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from ttt3r_ros.simulation import make_rooms, make_trajectory, render
from ttt3r_ros.simulation.lens import render_distorted, undistort

WIDTH, HEIGHT = 20, 14
LENS = (15.0, 16.0, 9.0, 7.0)
ROOMS = make_rooms([3, 4])
POSES = make_trajectory([3, 4], ROOMS).pose(torch.tensor([0.0, 2.0]))  # [2, 2, 4, 4]


@pytest.mark.parametrize("distortion", [(-0.25, 0.06), (0.1, -0.02), (0.0, 0.05)])
def test_undistorting_is_the_inverse_of_the_model_and_agrees_with_opencv(distortion):
    u, v = np.meshgrid(np.linspace(-0.7, 0.7, 9), np.linspace(-0.5, 0.5, 7))
    x, y = undistort(torch.from_numpy(u), torch.from_numpy(v), *distortion)
    squared = x**2 + y**2
    stretch = 1 + distortion[0] * squared + distortion[1] * squared**2
    np.testing.assert_allclose(x * stretch, u, atol=1e-12)
    np.testing.assert_allclose(y * stretch, v, atol=1e-12)
    points = np.stack((x.numpy(), y.numpy(), np.ones_like(u)), axis=-1).reshape(-1, 3)
    seen, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), np.eye(3), np.array([*distortion, 0, 0, 0])
    )
    np.testing.assert_allclose(seen[:, 0], np.stack((u, v), -1).reshape(-1, 2), atol=1e-9)


def test_without_distortion_the_picture_is_the_renderers():
    plain = render(ROOMS, POSES, LENS, HEIGHT, WIDTH)
    seen = render_distorted(ROOMS, POSES, LENS, (0.0, 0.0), HEIGHT, WIDTH)
    assert seen.rgb.shape == (2, 2, HEIGHT, WIDTH, 3)
    torch.testing.assert_close(seen.rgb, plain.rgb, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.depth_m, plain.depth_m, atol=1e-5, rtol=1e-5)


def test_a_pixel_shows_what_lies_on_its_undistorted_ray():
    distortion = (-0.25, 0.06)
    seen = render_distorted(ROOMS, POSES, LENS, distortion, HEIGHT, WIDTH)
    fx, fy, cx, cy = LENS
    for u, v in ((0, 0), (19, 13), (3, 12), (9, 7)):
        ray = torch.tensor([(u - cx) / fx, (v - cy) / fy], dtype=torch.float64)
        x, y = undistort(ray[0], ray[1], *distortion)
        # A pinhole camera with the pixel that looks along this ray at its place (2, 1).
        here = (fx, fy, 2 - fx * float(x), 1 - fy * float(y))
        pinhole = render(ROOMS, POSES, here, 3, 4)
        torch.testing.assert_close(
            seen.depth_m[..., v, u], pinhole.depth_m[..., 1, 2], atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(
            seen.rgb[..., v, u, :], pinhole.rgb[..., 1, 2, :], atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("distortion", [(-1.0, 0.0), (0.0, -0.8), (0.5, -1.0)])
def test_a_lens_that_folds_the_image_is_refused(distortion):
    with pytest.raises(ValueError, match=r"distortion: .* fold the image over itself"):
        render_distorted(ROOMS, POSES, LENS, distortion, HEIGHT, WIDTH)
