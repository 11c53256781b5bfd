# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from ttt3r_ros.camera_info import CameraModel
from ttt3r_ros.geometry import Intrinsics

RGB = np.zeros((48, 64, 3), np.uint8)


def info(**changes):
    values = dict(
        width=64,
        height=48,
        d=[],
        k=[60.0, 0, 31, 0, 61.0, 23, 0, 0, 1],
        p=[50.0, 0, 30, 0, 0, 51.0, 22, 0, 0, 0, 1, 0],
    )
    return SimpleNamespace(**{**values, **changes})


def test_raw_images_have_k_and_rectified_ones_p():
    for topic, expected in (
        ("/camera/image_raw", Intrinsics(60, 61, 31, 23, 64, 48)),
        ("/camera/image_rect_color/compressed", Intrinsics(50, 51, 30, 22, 64, 48)),
    ):
        camera = CameraModel(topic)
        assert camera.intrinsics_of(RGB) is None
        camera.update(info())
        assert camera.intrinsics_of(RGB) == expected


def test_intrinsics_of_another_size_are_not_used_and_said_once(caplog):
    camera = CameraModel("image")
    camera.update(info(width=640))
    assert camera.intrinsics_of(RGB) is camera.intrinsics_of(RGB) is None
    assert caplog.text.count("camera_info: not used: is for 640x48, the images have 64x48") == 1
    camera.update(info())
    assert camera.intrinsics_of(RGB) is not None
    assert camera.intrinsics_of(RGB[::2, ::2]) is None  # an odd one out costs itself alone
    camera.update(info())
    assert camera.intrinsics_of(RGB) is not None


def test_a_camera_that_was_never_calibrated_has_none(caplog):
    camera = CameraModel("image")
    camera.update(info(k=[0.0] * 9))
    assert camera.intrinsics_of(RGB) is None
    assert "intrinsics.fx: must be positive, got 0.0" in caplog.text


def test_distortion_of_raw_images_is_told_once(caplog):
    for _ in range(2):
        CameraModel("image_rect").update(info(d=[0.1]))
    assert not caplog.text
    camera = CameraModel("image")
    for _ in range(2):
        camera.update(info(d=[0.1]))
    assert caplog.text.count("lens distortion is ignored") == 1
