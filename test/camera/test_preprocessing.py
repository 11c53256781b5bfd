# SPDX-License-Identifier: Apache-2.0
"""From a camera's image to the network's: the published pixels, sizes and intrinsics."""

from __future__ import annotations

import hashlib
import json
import runpy
from functools import cache

import numpy as np
import pytest
import torch
from places import GOLDEN

from ttt3r_ros.camera.preprocessing import (
    FITS,
    METHODS,
    crop_transform,
    network_image,
    resize_and_crop,
    resize_mask,
    scale_on_device,
    to_network_input,
)
from ttt3r_ros.geometry import Intrinsics

CASES = json.loads((GOLDEN / "preprocess" / "cases.json").read_text())["cases"]
RECIPE = runpy.run_path(str(GOLDEN / "recipe.py"))


@cache
def smooth_image(tag, width, height):
    image = RECIPE["smooth_images"](tag, 1, height, width)[0]
    image.flags.writeable = False  # as the pixels of a message are
    return image


@cache
def samples():
    with np.load(GOLDEN / "preprocess" / "samples.npz") as data:
        return dict(data)


def case_image(case):
    return smooth_image(case["image_tag"], *case["in_wh"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_the_exact_path_gives_the_published_pixels(case):
    rgb, plan = resize_and_crop(case_image(case), case["size"], fit=case["mode"])
    assert [plan.width, plan.height] == case["out_wh"]
    channels_first = np.ascontiguousarray(rgb.transpose(2, 0, 1))
    assert np.array_equal(channels_first[:, ::23, ::29], samples()[case["key"]])
    assert hashlib.sha256(channels_first.tobytes()).hexdigest() == case["sha256_uint8_chw"]


def test_all_recorded_cases_are_there():
    assert len(CASES) == 36


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_the_fast_path_gives_nearly_the_same_pixels(case):
    image = case_image(case)
    fast, plan = resize_and_crop(image, case["size"], fit=case["mode"], method="fast")
    exact, exact_plan = resize_and_crop(image, case["size"], fit=case["mode"])
    assert plan == exact_plan
    difference = np.abs(fast.astype(int) - exact.astype(int))
    assert difference.mean() < 0.5
    assert difference.max() <= 4


@pytest.mark.parametrize(
    ("width", "height", "image_size", "expected"),
    [
        (640, 480, 512, (512, 384)),
        (480, 640, 512, (384, 512)),
        (1280, 720, 512, (512, 288)),
        (1241, 376, 512, (512, 144)),
        (1024, 436, 512, (512, 208)),
        (1296, 968, 512, (512, 368)),
        (400, 400, 512, (512, 384)),
        (640, 480, 224, (224, 224)),
        (480, 640, 224, (224, 224)),
        (333, 500, 224, (224, 224)),
        (640, 480, 128, (128, 96)),
        (1280, 720, 128, (128, 64)),
        (640, 480, 192, (192, 144)),
        (300, 300, 128, (128, 96)),
        (300, 300, 112, (112, 80)),
        (640, 480, 100, (96, 64)),
    ],
)
def test_the_size_of_the_networks_image(width, height, image_size, expected):
    plan = crop_transform(width, height, image_size)
    assert (plan.width, plan.height) == expected


def test_every_size_is_a_multiple_of_the_patch_and_within_the_scaled_image():
    for patch_size in (8, 14, 16):
        for image_size in (128, 200, 224, 512):
            for width, height in ((640, 480), (517, 389), (301, 300), (90, 161), (64, 64)):
                plan = crop_transform(width, height, image_size, patch_size=patch_size)
                assert plan.width % patch_size == plan.height % patch_size == 0
                assert plan.left >= 0 and plan.left + plan.width <= plan.scaled_width
                assert plan.top >= 0 and plan.top + plan.height <= plan.scaled_height


def test_an_image_of_the_right_size_passes_through_unchanged_but_is_copied():
    image = smooth_image("same", 128, 96)
    for method in ("exact", "fast"):
        rgb, _ = resize_and_crop(image, 128, method=method)
        assert np.array_equal(rgb, image)
        assert rgb.flags.writeable and rgb.flags.c_contiguous
        assert not np.shares_memory(rgb, image)


def test_a_view_into_a_larger_image_is_read_as_it_looks():
    flipped = smooth_image("flip", 160, 120)[::-1, ::-1]
    for method in ("exact", "fast"):
        expected, _ = resize_and_crop(np.ascontiguousarray(flipped), 128, method=method)
        rgb, _ = resize_and_crop(flipped, 128, method=method)
        assert np.array_equal(rgb, expected)


@pytest.mark.parametrize("fit", ["crop", "resize"])
@pytest.mark.parametrize(
    ("size", "image_size"), [((640, 480), 512), ((500, 333), 224), ((97, 65), 512), ((90, 90), 128)]
)
def test_intrinsics_follow_the_pixels(size, image_size, fit):
    """A coordinate ramp, resized and cropped, must show the source pixel the intrinsics imply."""
    width, height = size
    source = Intrinsics(400.0, 410.0, 0.5 * width + 3, 0.5 * height - 2, width, height)
    plan = crop_transform(width, height, image_size, fit=fit)
    result = plan.intrinsics(source)
    assert (result.width, result.height) == (plan.width, plan.height)

    def source_pixel(axis):
        ramp = np.arange(size[axis]) * 200.0 / size[axis]
        image = np.zeros((height, width, 3), np.uint8)
        image[:] = np.rint(ramp[None, :, None] if axis == 0 else ramp[:, None, None])
        rgb, _ = resize_and_crop(image, image_size, fit=fit)
        values = rgb[..., 0].mean(axis=axis) * size[axis] / 200.0
        inner = slice(len(values) // 8, -len(values) // 8)  # filters bend a ramp at its ends
        return np.arange(len(values))[inner], values[inner]

    for axis, (f, c, new_f, new_c) in enumerate(
        (
            (source.fx, source.cx, result.fx, result.cx),
            (source.fy, source.cy, result.fy, result.cy),
        )
    ):
        pixel, seen = source_pixel(axis)
        expected = (pixel - new_c) / new_f * f + c
        assert abs((seen - expected).mean()) < 0.02 * max(1.0, f / new_f)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(640, 480), (500, 353), (100, 75), (128, 96)])
def test_scaling_where_the_image_is_differs_by_a_grey_level_at_most(size, fit):
    rgb = smooth_image("device", *size) // 2 + 64  # no filter leaves the range of bytes here
    expected, plan = resize_and_crop(rgb, 128, fit=fit, method="fast")
    scaled = scale_on_device(torch.from_numpy(rgb), plan)
    assert scaled.dtype == torch.uint8 and scaled.is_contiguous()
    assert np.abs(scaled.numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_the_networks_image_is_what_was_cut_out_and_its_numbers(method):
    rgb = smooth_image("whole", 160, 120).copy()
    rgb.flags.writeable = False
    image = network_image(rgb, torch.device("cpu"), 128, method=method)
    expected, plan = resize_and_crop(rgb, 128, method=method)
    assert image.crop == plan
    assert np.array_equal(image.rgb, expected)
    torch.testing.assert_close(image.input, to_network_input(expected), rtol=0, atol=0)


@pytest.mark.parametrize("fit", FITS)
def test_a_mask_covers_what_the_image_shows_of_it(fit):
    mask = np.zeros((353, 500), bool)
    mask[100:200, 300:420] = True
    rgb = np.repeat(255 * mask[..., None].astype(np.uint8), 3, axis=2)
    pixels, plan = resize_and_crop(rgb, 128, fit=fit, method="fast")
    small = resize_mask(mask, plan)
    assert small.shape == pixels.shape[:2]
    assert small[pixels[..., 0] > 64].all()
    grown = small.sum() / (pixels[..., 0] > 127).sum()
    assert 1 <= grown < 1.2  # a rim of one pixel at most
    with pytest.raises(ValueError, match=r"mask: expected \[353, 500\], got \[500, 353\]"):
        resize_mask(mask.T, plan)


def test_the_centre_of_an_image_stays_the_centre():
    source = Intrinsics(500.0, 500.0, 319.5, 239.5, 640, 480)
    result = crop_transform(640, 480, 512).intrinsics(source)
    assert result == Intrinsics(400.0, 400.0, 255.5, 191.5, 512, 384)


def test_intrinsics_of_another_image_are_refused():
    with pytest.raises(ValueError, match="640x480 image, got 320x240"):
        crop_transform(640, 480, 512).intrinsics(Intrinsics(1.0, 1.0, 0.0, 0.0, 320, 240))


def test_pixels_become_numbers_from_minus_one_to_one():
    rgb = np.array([[[0, 51, 255], [102, 153, 204]]], np.uint8)
    rgb.flags.writeable = False
    tensor = to_network_input(rgb)
    assert tensor.shape == (1, 3, 1, 2)
    assert tensor.dtype == torch.float32 and tensor.is_contiguous()
    expected = (rgb.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    assert np.array_equal(tensor[0].permute(1, 2, 0).numpy(), expected)
    assert tensor[0, :, 0, 0].tolist() == pytest.approx([-1.0, -0.6, 1.0])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((48, 64, 3), np.float32), r"uint8 \[H, W, 3\], got float32 \[48, 64, 3\]"),
        (np.zeros((48, 64), np.uint8), r"got uint8 \[48, 64\]"),
        (np.zeros((48, 64, 4), np.uint8), r"got uint8 \[48, 64, 4\]"),
        (np.zeros((0, 64, 3), np.uint8), "must have pixels, got 64x0"),
        (np.zeros((10, 640, 3), np.uint8), "640x10 becomes 512x8, less than one patch of 16x16"),
    ],
)
@pytest.mark.parametrize("method", ["exact", "fast"])
def test_an_image_that_cannot_be_used_is_named(image, said, method):
    with pytest.raises(ValueError, match=said):
        resize_and_crop(image, 512, method=method)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"fit": "stretch"}, "fit: must be one of .*got 'stretch'"),
        ({"method": "quick"}, "method: must be one of .*got 'quick'"),
        ({"image_size": 8}, "image_size: must be at least 16, got 8"),
    ],
)
def test_an_argument_that_does_not_exist_is_named(arguments, said):
    with pytest.raises(ValueError, match=said):
        resize_and_crop(np.zeros((48, 64, 3), np.uint8), **{"image_size": 64, **arguments})
