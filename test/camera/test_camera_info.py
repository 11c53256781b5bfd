# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ttt3r_ros.camera.camera_info import CameraModel
from ttt3r_ros.geometry import Intrinsics

RGB = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
BARREL = dict(distortion_model="plumb_bob", d=[-0.25, 0.06, 0.001, 0.0, 0.0])
CROPPED = SimpleNamespace(x_offset=8, y_offset=4, width=40, height=32)


def info(**changes):
    values = dict(
        width=64,
        height=48,
        distortion_model="plumb_bob",
        d=[],
        k=[60.0, 0, 31, 0, 61.0, 23, 0, 0, 1],
        r=[1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        p=[50.0, 0, 30, 0, 0, 51.0, 22, 0, 0, 0, 1, 0],
        binning_x=0,
        binning_y=0,
        roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    )
    return SimpleNamespace(**{**values, **changes})


def applied(message, rgb=RGB, mask=None, topic="image"):
    camera = CameraModel(topic)
    camera.update(message)
    return camera.apply(rgb, mask)


def rectified(rgb, K, P, d=BARREL["d"]):
    """What image_proc makes of an image."""
    K, P = (np.array([[m[0], 0, m[2]], [0, m[1], m[3]], [0, 0, 1]], float) for m in (K, P))
    size = rgb.shape[1::-1]
    maps = cv2.initUndistortRectifyMap(K, np.array(d), np.eye(3), P, size, cv2.CV_16SC2)
    return cv2.remap(rgb, *maps, cv2.INTER_LINEAR)


def test_raw_images_have_k_and_rectified_ones_p():
    for topic, expected in (
        ("/camera/image_raw", Intrinsics(60, 61, 31, 23, 64, 48)),
        ("/camera/image_rect_color/compressed", Intrinsics(50, 51, 30, 22, 64, 48)),
    ):
        camera = CameraModel(topic)
        assert camera.apply(RGB).intrinsics is None
        camera.update(info())
        assert camera.apply(RGB).intrinsics == expected


def test_distorted_images_become_those_of_p():
    frame = applied(info(**BARREL))
    assert frame.intrinsics == Intrinsics(50, 51, 30, 22, 64, 48)
    np.testing.assert_array_equal(frame.rgb, rectified(RGB, (60, 61, 31, 23), (50, 51, 30, 22)))
    assert frame.mask is None
    assert frame.outside_fov.any() and not frame.outside_fov[12:36, 16:48].any()
    assert frame.rgb[frame.outside_fov].mean() < RGB.mean() / 2


def test_a_camera_info_with_a_coefficient_that_is_no_number_is_told_once(caplog):
    camera = CameraModel("image")
    for _ in range(2):
        camera.update(info(**{**BARREL, "d": [float("nan"), 0.1, 0.0, 0.0, 0.0]}))
    assert caplog.text.count("camera_info: images are used with their distortion") == 1
    assert "finite coefficients, got [nan" in caplog.text


@pytest.mark.parametrize("size", [(2**31, 2**31), (20_000, 20_000)])
def test_no_map_is_made_for_images_that_have_not_come(size, caplog, monkeypatch):
    made = []
    monkeypatch.setattr("ttt3r_ros.camera.camera_info.Rectification", lambda *a: made.append(a))
    width, height = size
    k = [width, 0, width / 2, 0, width, height / 2, 0, 0, 1]
    frame = applied(info(width=width, height=height, **BARREL, k=k, p=[0.0] * 12))
    assert frame.rgb is RGB and not made
    assert f"not used: is for {width}x{height}, the images have 64x48" in caplog.text


def test_images_too_large_for_maps_are_used_as_they_are(caplog, monkeypatch):
    monkeypatch.setattr("ttt3r_ros.camera.rectification.MAX_PIXELS", 1000)
    camera = CameraModel("image")
    camera.update(info(**BARREL))
    for _ in range(2):
        frame = camera.apply(RGB)
        assert frame.rgb is RGB and frame.intrinsics == Intrinsics(60, 61, 31, 23, 64, 48)
    assert caplog.text.count("64x48: at most 1000 pixels can be rectified") == 1


def test_a_size_that_opencv_cannot_rectify_is_one_warning(caplog):
    camera = CameraModel("image")
    wide = np.zeros((600, 40_000, 3), np.uint8)
    k = [14_000.0, 0, 20_000, 0, 7_000, 300, 0, 0, 1]
    for _ in range(2):
        camera.update(info(width=40_000, height=600, **BARREL, k=k, p=[0.0] * 12))
        assert camera.apply(wide).rgb is wide
    assert caplog.text.count("are used with their distortion: 40000x600: ") == 1


IDENTITY = [1.0, 0, 0, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(k=IDENTITY), "K: a field of view of 17"),
        (dict(k=[60.0, 0, 0.5, 0, 60, 0.5, 0, 0, 1]), "K: cx must be inside the image"),
        (dict(k=[60.0, 0, 31, 0, 1, 23, 0, 0, 1]), "K: fx / fy must be within 0.5 and 2"),
        (dict(k=[60.0, 0, 31, 0, -60, 23, 0, 0, 1]), "K: fx and fy must be positive"),
        (dict(k=[3.6, 0, 320, 0, 3.6, 240, 0, 0, 1], width=640, height=480), "K: a field of view"),
        (dict(k=[2000.0, 0, 31, 0, 2000, 23, 0, 0, 1]), "K: a field of view of 1.8 degrees"),
        (dict(k=[float("nan")] * 9), "K: fx and fy must be positive, all finite"),
        (dict(**BARREL, r=[float("nan")] * 9), "R: is no rotation"),
        (dict(**BARREL, r=[-1.0, 0, 0, 0, 1, 0, 0, 0, 1]), "R: is no rotation"),
        (dict(**BARREL, p=[1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]), "P: a field of view of 17"),
        (dict(**BARREL, r=[0.0, 0, -1, 0, 1, 0, 1, 0, 0]), "P: 100% of its picture are not in"),
    ],
)
def test_a_calibration_that_cannot_be_is_named_once_and_not_used(changes, reason, caplog):
    camera = CameraModel("image")
    for i in range(3):  # a bit different each time
        changed = info(**changes)
        changed.k = [*changed.k[:8], 1.0 + i]
        camera.update(changed)
        rgb = np.zeros((changed.height, changed.width, 3), np.uint8)
        frame = camera.apply(rgb)
        assert frame.rgb is rgb and frame.intrinsics is None
    assert len(caplog.records) == 1 and f"camera_info: not used: {reason}" in caplog.text


def test_a_region_may_leave_out_the_principal_point(caplog):
    corner = SimpleNamespace(x_offset=40, y_offset=30, width=24, height=18)
    frame = applied(info(roi=corner), RGB[:18, :24])
    assert frame.intrinsics == Intrinsics(60, 61, -9, -7, 24, 18) and not caplog.text


def test_zeros_beyond_what_a_model_has_are_nothing(caplog):
    lens = dict(distortion_model="equidistant", k=[25.0, 0, 31, 0, 25, 23, 0, 0, 1], p=[0.0] * 12)
    four = applied(info(**lens, d=[0.1, 0.01, 0.0, 0.0]))
    five = applied(info(**lens, d=[0.1, 0.01, 0.0, 0.0, 0.0]))
    np.testing.assert_array_equal(four.rgb, five.rgb)
    assert five.rgb is not RGB and not caplog.text


def test_a_good_p_without_k_is_used(caplog):
    assert applied(info(k=[0.0] * 9)).intrinsics == Intrinsics(50, 51, 30, 22, 64, 48)
    assert not caplog.text
    frame = applied(info(k=[0.0] * 9, **BARREL))
    assert frame.rgb is RGB and frame.intrinsics == Intrinsics(50, 51, 30, 22, 64, 48)
    assert "images are used with their distortion: K: is empty" in caplog.text


def test_a_second_wrong_size_is_said_too(caplog):
    camera = CameraModel("image")
    for width in (640, 320, 640):
        camera.update(info(width=width, k=[200.0, 0, 100, 0, 200, 23, 0, 0, 1]))
        assert camera.apply(RGB).intrinsics is None
    assert [r.getMessage().count("is for") for r in caplog.records] == [1, 1]


def test_depth_of_a_turned_lens_is_along_the_axis_of_the_rectified_image():
    R = cv2.Rodrigues(np.array([0.15, -0.2, 0.05]))[0]
    camera = CameraModel("image")
    camera.update(info(**BARREL, r=R.flatten()))
    K, P = np.reshape(info().k, (3, 3)), np.reshape(info().p, (3, 4))[:, :3]
    for point in np.array([(-0.6, -0.5, 3.0), (0.1, 0.2, 3.0), (0.9, 0.7, 3.0)]):
        u, v = cv2.projectPoints(point, np.zeros(3), np.zeros(3), K, np.array(BARREL["d"]))[0][0, 0]
        row, column = np.mgrid[:48, :64]
        raw_m = np.where(np.hypot(column - u, row - v) < 3, 3.0, 9.0).astype(np.float32)
        x, y, z = R @ point
        column, row = (P @ (x / z, y / z, 1)).round().astype(int)[:2]
        assert abs(z - 3.0) > 0.04
        assert camera.apply_to_depth(raw_m)[row, column] == pytest.approx(z, rel=0.01)


def test_without_p_distorted_images_keep_k():
    frame = applied(info(**BARREL, p=[0.0] * 12, r=[0.0] * 9))
    assert frame.intrinsics == Intrinsics(60, 61, 31, 23, 64, 48)
    np.testing.assert_array_equal(frame.rgb, rectified(RGB, (60, 61, 31, 23), (60, 61, 31, 23)))


@pytest.mark.parametrize("topic", ["image_rect", "/c/image_rect_color/compressed"])
def test_rectified_images_are_left_alone(topic, caplog):
    frame = applied(info(**BARREL), topic=topic)
    assert frame.rgb is RGB and frame.mask is None and not caplog.text
    assert frame.intrinsics == Intrinsics(50, 51, 30, 22, 64, 48)


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant", "something new", ""])
def test_without_distortion_images_are_not_touched(model, caplog):
    frame = applied(info(distortion_model=model, d=[0.0] * 5))
    assert frame.rgb is RGB and frame.mask is None and not caplog.text
    assert frame.intrinsics == Intrinsics(60, 61, 31, 23, 64, 48)


def test_masks_of_raw_images_are_rectified_with_them():
    mask = np.zeros((48, 64), bool)
    mask[:, :32] = True
    frame = applied(info(**BARREL), mask=mask)
    assert (frame.mask | frame.outside_fov)[:, :28].all() and not frame.mask[:, 34:].any()
    np.testing.assert_array_equal(frame.outside_fov, applied(info(**BARREL)).outside_fov)


@pytest.mark.parametrize("topic", ["image", "image_rect"])
def test_binning_and_region_belong_to_the_images(topic):
    K, P = (60, 61, 31, 23), (50, 51, 30, 22)
    for changes, adjust, rgb in (
        (dict(roi=CROPPED), lambda f, g, x, y: (f, g, x - 8, y - 4), RGB[:32, :40]),
        (
            dict(binning_x=2, binning_y=4),
            lambda f, g, x, y: (f / 2, g / 4, x / 2, y / 4),
            RGB[:12, :32],
        ),
        (
            dict(roi=CROPPED, binning_x=2, binning_y=2),
            lambda f, g, x, y: (f / 2, g / 2, (x - 8) / 2, (y - 4) / 2),
            RGB[:16, :20],
        ),
    ):
        frame = applied(info(**BARREL, **changes), rgb, topic=topic)
        assert frame.intrinsics == Intrinsics(*adjust(*P), rgb.shape[1], rgb.shape[0])
        if topic == "image":
            np.testing.assert_array_equal(frame.rgb, rectified(rgb, adjust(*K), adjust(*P)))


def test_a_new_calibration_is_used_from_then_on():
    camera = CameraModel("image")
    camera.update(info(**BARREL))
    first = camera.apply(RGB)
    camera.update(info())
    assert camera.apply(RGB).rgb is RGB
    camera.update(info(**BARREL))
    np.testing.assert_array_equal(camera.apply(RGB).rgb, first.rgb)


def test_a_camera_info_of_another_size_is_not_used_and_said_once(caplog):
    camera = CameraModel("image")
    camera.update(info(width=128, **BARREL))
    for _ in range(2):
        frame = camera.apply(RGB)
        assert frame.intrinsics is None and frame.rgb is RGB
    assert caplog.text.count("camera_info: not used: is for 128x48, the images have 64x48") == 1
    camera.update(info())
    assert camera.apply(RGB).intrinsics is not None
    small = np.ascontiguousarray(RGB[::2, ::2])
    assert camera.apply(small).intrinsics is None  # an odd one out costs itself alone
    camera.update(info())
    assert camera.apply(RGB).intrinsics is not None


def test_a_camera_that_was_never_calibrated_has_none(caplog):
    assert applied(info(k=[0.0] * 9, p=[0.0] * 12)).intrinsics is None
    assert "intrinsics.fx: must be positive, got 0.0" in caplog.text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(distortion_model="omni"), "distortion_model: 'omni' is not one of plumb_bob, ratio"),
        (dict(d=[0.1, 0.2]), "d: plumb_bob has 4 or 5 or 8 or 12 or 14 finite coefficients"),
    ],
)
def test_a_lens_that_is_not_understood_is_named_once_and_left_in(changes, reason, caplog):
    camera = CameraModel("image")
    for _ in range(2):
        camera.update(info(**{**BARREL, **changes}))
    frame = camera.apply(RGB)
    assert frame.rgb is RGB and frame.intrinsics == Intrinsics(60, 61, 31, 23, 64, 48)
    assert caplog.text.count("camera_info: images are used with their distortion") == 1
    assert reason in caplog.text
