# SPDX-License-Identifier: Apache-2.0
"""Points that OpenCV projects through a lens come to where a pinhole camera puts them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ttt3r_ros.camera.rectification import Rectification

WIDTH, HEIGHT = 160, 120
K = np.array([[100.0, 0, 80.3], [0, 105.0, 58.1], [0, 0, 1]])
P = np.array([[80.0, 0, 78.0], [0, 82.0, 61.0], [0, 0, 1]])
SLIGHTLY_TURNED = cv2.Rodrigues(np.array([0.02, -0.03, 0.01]))[0]
LENSES = {
    "barrel": ("plumb_bob", [-0.28, 0.09, 0.002, -0.001, 0.0]),
    "four coefficients": ("plumb_bob", [0.12, -0.05, 0.0, 0.001]),
    "rational": ("rational_polynomial", [0.4, -0.2, 0.001, 0.0, 0.05, 0.7, -0.1, 0.02]),
    "thin prism": ("rational_polynomial", [-0.2, 0.05, 0, 0, 0, 0, 0, 0, 0.01, 0, -0.01, 0]),
    "fisheye": ("equidistant", [-0.02, 0.004, -0.001, 0.0]),
}
POINTS = np.array([(x, y, 1.0) for x in (-0.5, -0.2, 0.25, 0.5) for y in (-0.4, 0.1, 0.35)]) * 3


def project(model, d, points):
    """Pixels [N, 2] of points [N, 3] through a lens, by OpenCV."""
    d, zero = np.array(d), np.zeros(3)
    if model == "equidistant":
        return cv2.fisheye.projectPoints(points[:, None], zero, zero, K, d)[0][:, 0]
    return cv2.projectPoints(points, zero, zero, K, d)[0][:, 0]


def spot(pixel):
    """A picture with a round spot around a pixel."""
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    grey = 250 * np.exp(-((column - pixel[0]) ** 2 + (row - pixel[1]) ** 2) / (2 * 1.3**2))
    return np.repeat(grey[..., None], 3, axis=2).round().astype(np.uint8)


def centre(picture):
    """The centre of mass [2] of a spot."""
    weight = picture[..., 0].astype(float)
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    return np.array([(weight * column).sum(), (weight * row).sum()]) / weight.sum()


@pytest.mark.parametrize("R", [np.eye(3), SLIGHTLY_TURNED], ids=["monocular", "stereo"])
@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
def test_points_seen_through_a_lens_come_to_where_a_pinhole_puts_them(lens, R):
    rectification = Rectification(*lens, K, R, P, WIDTH, HEIGHT)
    for point, seen in zip(POINTS, project(*lens, POINTS), strict=True):
        x, y, z = R @ point
        expected = (P[0, 0] * x / z + P[0, 2], P[1, 1] * y / z + P[1, 2])
        found = centre(rectification.image(spot(seen)))
        np.testing.assert_allclose(found, expected, atol=0.15)
    moved = np.abs(project(*lens, POINTS) - (POINTS / 3 @ P.T)[:, :2]).max()
    assert moved > 5  # pixels: there was something to undo


def test_pictures_are_those_of_the_calls_that_image_proc_makes():
    raw = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    model, d = LENSES["barrel"]
    maps = cv2.initUndistortRectifyMap(K, np.array(d), np.eye(3), P, (WIDTH, HEIGHT), cv2.CV_16SC2)
    picture = Rectification(model, d, K, np.eye(3), P, WIDTH, HEIGHT).image(raw)
    np.testing.assert_array_equal(picture, cv2.remap(raw, *maps, cv2.INTER_LINEAR))


@pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
def test_what_the_raw_picture_does_not_show_is_masked_and_nothing_else(lens):
    wide = np.array([[40.0, 0, 80], [0, 40, 60], [0, 0, 1]])
    outside = Rectification(*lens, K, np.eye(3), wide, WIDTH, HEIGHT).outside
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(column - 80) / 40, (row - 60) / 40, np.ones((HEIGHT, WIDTH))], -1)
    seen = project(*lens, rays.reshape(-1, 3)).reshape(HEIGHT, WIDTH, 2)
    depth = [np.minimum(seen[..., i], n - 1 - seen[..., i]) for i, n in ((0, WIDTH), (1, HEIGHT))]
    inside = np.minimum(*depth)  # pixels from the raw picture's border
    assert outside[inside < -0.1].all() and outside.mean() > 0.2
    near = np.hypot(rays[..., 0], rays[..., 1]) < 0.6
    assert not outside[near & (inside > 0.1)].any()


def test_where_the_polynomial_folds_the_picture_over_itself_nothing_is_believed():
    lens = ("plumb_bob", [-0.4, 0.0, 0.0, 0.0, 0.0])  # r (1 - 0.4 r^2) grows up to r = 0.913
    wide = np.array([[50.0, 0, 80], [0, 50, 60], [0, 0, 1]])
    outside = Rectification(*lens, K, np.eye(3), wide, WIDTH, HEIGHT).outside
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    radius = np.hypot((column - 80) / 50, (row - 60) / 50)
    assert outside[radius > 0.92].all() and not outside[radius < 0.5].any()


def test_a_lens_whose_picture_fills_the_pinholes_masks_nothing():
    lens = ("plumb_bob", [-0.2, 0.03, 0.0, 0.0, 0.0])
    near = np.array([[130.0, 0, 80], [0, 130, 60], [0, 0, 1]])
    assert Rectification(*lens, K, np.eye(3), near, WIDTH, HEIGHT).outside is None


def test_masks_follow_the_picture():
    model, d = LENSES["barrel"]
    rectification = Rectification(model, d, K, np.eye(3), P, WIDTH, HEIGHT)
    point = np.array([[0.3, -0.25, 1.0]])
    raw = spot(project(model, d, point)[0])
    mask = rectification.mask(raw[..., 0] > 60)
    picture = rectification.image(raw)[..., 0]
    assert mask[picture > 80].all() and not mask[(picture < 40) & ~rectification.outside].any()


@pytest.mark.parametrize("scale", [1, 2, 0.5])
def test_depth_of_the_raw_picture_comes_to_the_same_place_at_any_size(scale):
    model, d = LENSES["barrel"]
    rectification = Rectification(model, d, K, np.eye(3), P, WIDTH, HEIGHT)
    point = np.array([[0.3, -0.25, 1.0]])
    u, v = project(model, d, point)[0]
    height, width = round(scale * HEIGHT), round(scale * WIDTH)
    row, column = np.mgrid[:height, :width]
    there = np.hypot(column - (u + 0.5) * scale + 0.5, row - (v + 0.5) * scale + 0.5) < 4
    depth = rectification.depth(np.where(there, 2.0, 5.0).astype(np.float32))
    assert set(np.unique(depth[np.isfinite(depth)])) == {2.0, 5.0}  # nothing between them
    found = np.argwhere(depth == 2.0).mean(axis=0)[::-1]
    expected = (P @ point[0])[:2]
    np.testing.assert_allclose(found, (expected + 0.5) * scale - 0.5, atol=0.7)
    outside = rectification.outside
    if scale == 1:
        np.testing.assert_array_equal(np.isnan(depth), outside)
    assert np.isnan(depth).mean() == pytest.approx(outside.mean(), abs=0.02)


@pytest.mark.parametrize(
    ("model", "d", "reason"),
    [
        ("omnidirectional", [0.1] * 4, "distortion_model: 'omnidirectional' is not one of plumb_"),
        ("", [0.1] * 5, "distortion_model: '' is not one of"),
        ("plumb_bob", [0.1, 0.2], r"d: plumb_bob has 4 or 5 or .* coefficients, got \[0.1, 0.2\]"),
        ("equidistant", [0.1] * 5, "d: equidistant has 4 finite coefficients"),
        ("plumb_bob", [float("nan"), 0, 0, 0, 0], "finite coefficients"),
    ],
)
def test_a_lens_that_is_not_understood_is_named(model, d, reason):
    with pytest.raises(ValueError, match=reason):
        Rectification(model, d, K, np.eye(3), P, WIDTH, HEIGHT)
