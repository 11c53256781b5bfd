# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest

from ttt3r_ros.tracking.signals import appearance, similarity


def picture(seed=0, height=96, width=128):
    """Smooth shapes, as far as the eye reaches."""
    rough = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)


def alike(one, other):
    return similarity(appearance(one), appearance(other))


def test_a_picture_is_like_itself_brighter_or_darker_and_unlike_any_other():
    one = picture()
    assert alike(one, one) == pytest.approx(1.0, abs=1e-5)
    assert alike(one, one // 4 + 60) > 0.99
    assert alike(one, picture(1)) < 0.5


def test_a_picture_shifted_by_a_fifth_is_still_like_itself_and_by_half_it_is_not():
    wide = picture(width=256)
    left = wide[:, :128]
    assert alike(left, wide[:, 24:152]) > 0.9
    assert alike(left, wide[:, 64:192]) < 0.6


def test_the_order_of_two_pictures_makes_no_difference():
    assert alike(picture(2), picture(3)) == alike(picture(3), picture(2))


@pytest.mark.parametrize("size", [(512, 384), (128, 96), (96, 128), (512, 16), (16, 16)])
def test_every_size_is_looked_at(size):
    view = appearance(picture(height=64, width=64)[:: 64 // 16, :: 64 // 16].repeat(2, 0))
    assert view.contrast > 0
    shown = appearance(cv2.resize(picture(), size))
    assert similarity(shown, shown) == pytest.approx(1.0, abs=1e-5)


def test_numbers_do_not_depend_on_the_size_of_the_image():
    small, large = picture(), cv2.resize(picture(), (512, 384), interpolation=cv2.INTER_NEAREST)
    one, other = appearance(small), appearance(large)
    assert other.contrast == pytest.approx(one.contrast, rel=0.02)
    assert other.detail == pytest.approx(one.detail, rel=0.02)


def test_contrast_is_the_deviation_of_large_areas_and_noise_is_not_in_it():
    halves = np.full((96, 128, 3), 50, np.uint8)
    halves[:, 64:] = 150
    assert appearance(halves).contrast == pytest.approx(50.0)
    grain = np.random.default_rng(0).normal(128, 4, (384, 512, 3)).clip(0, 255).astype(np.uint8)
    assert appearance(grain).contrast < 0.5
    assert appearance(np.zeros((96, 128, 3), np.uint8)).contrast == 0


def test_smearing_sideways_takes_the_detail_across_and_hardly_that_downwards():
    sharp = appearance(picture())
    smeared = appearance(cv2.blur(picture(), (33, 1)))
    assert smeared.detail[0] < 0.5 * sharp.detail[0]
    assert smeared.detail[1] > 0.6 * sharp.detail[1]


def test_detail_does_not_depend_on_the_light():
    dim = appearance(picture() // 4)
    assert dim.detail == pytest.approx(appearance(picture()).detail, rel=0.02)
