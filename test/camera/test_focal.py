# SPDX-License-Identifier: Apache-2.0
"""The focal length from points, and the intrinsics that a stream amounts to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from places import GOLDEN

from ttt3r_ros.camera.focal import FocalEstimator, robust_focal
from ttt3r_ros.geometry import Intrinsics

WIDTH, HEIGHT = 128, 96


def pinhole_points(focal, seed=0, width=WIDTH, height=HEIGHT):
    """What a camera with the principal point in the middle sees of a rough wall."""
    generator = torch.Generator().manual_seed(seed)
    depth = 2 + torch.rand(height, width, generator=generator)
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = (column - (width - 1) / 2) / focal, (row - (height - 1) / 2) / focal
    return torch.stack((x * depth, y * depth, depth), dim=-1)


def focal_of(points, confidence=None, **more):
    confidence = torch.full(points.shape[:2], 2.0) if confidence is None else confidence
    return robust_focal(points, confidence, **{"min_confidence": 1.5, **more})


def test_one_point_near_the_camera_does_no_harm():
    with np.load(GOLDEN / "focal_and_pose.npz") as golden:
        points = torch.from_numpy(golden["points"][3])
    # Made with the principal point at (W // 2, H // 2), half a pixel off the middle.
    assert focal_of(points) == pytest.approx(60.0, rel=0.01)


@pytest.mark.parametrize("focal", [30.0, 100.0, 900.0])
def test_clean_points_give_the_focal_length(focal):
    points = pinhole_points(focal)
    assert focal_of(points) == pytest.approx(focal, rel=1e-4)


def test_noise_on_points_does_not_pull_the_focal_length_to_one_side():
    for seed in range(5):
        points = pinhole_points(100.0, seed)
        generator = torch.Generator().manual_seed(seed)
        points += 0.1 * torch.randn(points.shape, generator=generator)
        assert focal_of(points) == pytest.approx(100.0, rel=0.02)


def test_a_third_of_wild_points_does_no_harm():
    points = pinhole_points(100.0)
    generator = torch.Generator().manual_seed(1)
    wild = torch.rand(points.shape[:2], generator=generator) < 0.33
    points[wild] = 5 * torch.randn((int(wild.sum()), 3), generator=generator)
    assert focal_of(points) == pytest.approx(100.0, rel=0.03)


def test_points_without_confidence_do_not_count():
    points = pinhole_points(100.0)
    confidence = torch.full(points.shape[:2], 2.0)
    points[:, :80] = pinhole_points(40.0)[:, :80]
    assert focal_of(points, confidence) < 60
    confidence[:, :80] = 1.1
    assert focal_of(points, confidence) == pytest.approx(100.0, rel=1e-3)


def test_points_that_are_no_numbers_or_behind_the_camera_do_not_count():
    points = pinhole_points(100.0)
    points[:20] = torch.nan
    points[20:30] = torch.inf
    points[30:40, :, 2] = 0.0
    points[40:50] *= -1.0
    points[50:60, :, 2] = 1e-9
    assert focal_of(points) == pytest.approx(100.0, rel=1e-3)


def test_small_depths_count_where_the_floor_allows():
    points = 0.01 * pinhole_points(100.0)
    assert focal_of(points) is None
    assert focal_of(points, min_depth=0.001) == pytest.approx(100.0, rel=1e-3)


def test_nothing_is_said_without_enough_good_points():
    points = pinhole_points(100.0)
    confidence = torch.ones(points.shape[:2])
    assert focal_of(points, confidence) is None
    confidence[0, :60] = 2.0
    assert focal_of(points, confidence) is None
    confidence[0] = 2.0
    assert focal_of(points, confidence) == pytest.approx(100.0, rel=1e-3)
    assert focal_of(torch.full_like(points, torch.nan)) is None
    assert focal_of(torch.zeros_like(points)) is None


def test_nothing_is_said_of_points_that_fit_no_camera():
    generator = torch.Generator().manual_seed(2)
    points = torch.rand((HEIGHT, WIDTH, 3), generator=generator) + 0.1
    assert focal_of(points - torch.tensor([0.6, 0.6, 0.0])) is None
    mirrored = pinhole_points(100.0) * torch.tensor([-1.0, -1.0, 1.0])
    assert focal_of(mirrored) is None


def test_a_large_image_is_sampled_and_a_small_one_is_not():
    assert focal_of(pinhole_points(500.0, width=512, height=384)) == pytest.approx(500.0, rel=1e-4)
    assert focal_of(pinhole_points(20.0, width=16, height=16)) == pytest.approx(20.0, rel=1e-4)


def test_wrong_shapes_are_named():
    points = pinhole_points(100.0)
    with pytest.raises(ValueError, match=r"points: expected \[H, W, 3\]"):
        robust_focal(points[0], torch.ones(128, 3), min_confidence=1.0)
    with pytest.raises(ValueError, match=r"confidence: expected \[96, 128\], got \[96, 127\]"):
        robust_focal(points, torch.ones(96, 127), min_confidence=1.0)


def test_intrinsics_are_the_median_focal_length_around_the_middle_of_the_image():
    subject = FocalEstimator()
    assert subject.intrinsics(None, 128, 96) is None
    for focal in (90.0, None, 100.0, 500.0):
        subject.add(focal)
    assert subject.intrinsics(None, 128, 96) == Intrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)
    assert subject.intrinsics(110.0, 64, 64).fx == 105.0  # of the image itself, too
    assert subject.intrinsics(None, 64, 64) == Intrinsics(100.0, 100.0, 31.5, 31.5, 64, 64)
    subject.clear()
    assert subject.intrinsics(None, 128, 96) is None
