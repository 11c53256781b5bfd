# SPDX-License-Identifier: Apache-2.0
"""Depth errors against a slow plain twin and answers that are known beforehand."""

from __future__ import annotations

import math
from dataclasses import astuple

import cv2
import numpy as np
import pytest

from ttt3r_ros.camera.preprocessing import crop_transform
from ttt3r_ros.evaluation.metrics.depth import (
    DepthComparison,
    OtherViewError,
    depth_errors,
    resized,
    truth_window,
)
from ttt3r_ros.geometry import CropTransform

WHOLE = crop_transform(64, 48, 64)  # nothing is cut away


def pictures(count=3, seed=0):
    """Predicted and true depth of some images; a tenth of the truth is unknown."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.5, 4.0, (count, 48, 64)).astype(np.float32)
    predicted = (true * rng.uniform(0.2, 0.8, true.shape) + 0.3).astype(np.float32)
    true[rng.random(true.shape) < 0.05] = 0.0
    true[rng.random(true.shape) < 0.05] = np.nan
    return predicted, true


def compare(tmp_path, predicted, true, crop=WHOLE, **options):
    with DepthComparison(tmp_path, **options) as comparison:
        for p, g in zip(predicted, true, strict=True):
            comparison.add(p, g, crop)
        return comparison.report()


def plain_pairs(predicted, true):
    flat = zip(predicted.ravel().tolist(), true.ravel().tolist(), strict=True)
    return [(p, g) for p, g in flat if g > 0]


def plain_errors(pairs):
    """The definitions, pixel by pixel."""
    n = len(pairs)
    ratio = [max(max(p, 1e-5) / g, g / max(p, 1e-5)) for p, g in pairs]
    return (
        sum(abs(p - g) / g for p, g in pairs) / n,
        sum((p - g) ** 2 / g for p, g in pairs) / n,
        math.sqrt(sum((p - g) ** 2 for p, g in pairs) / n),
        math.sqrt(sum((math.log(max(p, 1e-5)) - math.log(g)) ** 2 for p, g in pairs) / n),
        *(sum(r < 1.25**k for r in ratio) / n for k in (1, 2, 3)),
    )


def plain_scale(pairs):
    s = sum(g for _, g in pairs) / sum(p for p, _ in pairs)
    for _ in range(10):
        weights = [1 / (abs(s * p - g) + 1e-8) for p, g in pairs]
        above = sum(w * p * g for w, (p, g) in zip(weights, pairs, strict=True))
        s = above / sum(w * p * p for w, (p, _) in zip(weights, pairs, strict=True))
    return s


def test_errors_are_those_of_the_plain_twin_over_all_images_together(tmp_path):
    predicted, true = pictures()
    report = compare(tmp_path, predicted, true)
    pairs = plain_pairs(predicted, true)
    scale = plain_scale(pairs)
    middle = float(np.median([g for _, g in pairs]))
    assert (report.images, report.pixels) == (3, len(pairs))
    assert astuple(report.metric) == pytest.approx(plain_errors(pairs))
    # The steps are sensitive: the order of a sum changes the tenth one.
    assert report.scale == pytest.approx(scale, rel=1e-3)
    scaled = plain_errors([(report.scale * p, g) for p, g in pairs])
    assert astuple(report.scaled) == pytest.approx(scaled)
    assert report.guess_m == middle
    guess = plain_errors([(report.guess_m, g) for _, g in pairs])
    assert astuple(report.guess) == pytest.approx(guess)


def test_errors_by_hand():
    errors = depth_errors(iter([np.array([[1.0, 3.0], [2.0, 2.0]]), np.array([[2.0], [2.0]])]))
    assert errors.abs_rel == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert errors.sq_rel == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert errors.rmse_m == pytest.approx(math.sqrt(2 / 3))
    assert errors.log_rmse == pytest.approx(math.hypot(math.log(2), math.log(1.5)) / math.sqrt(3))
    deltas = (errors.delta_1_25, errors.delta_1_25_2, errors.delta_1_25_3)
    assert deltas == pytest.approx((1 / 3, 2 / 3, 2 / 3))  # 1.5 is below 1.5625, 2 above 1.953


def test_a_prediction_in_another_unit_is_right_after_scaling(tmp_path):
    _, true = pictures()
    report = compare(tmp_path, np.nan_to_num(true) / 4, true)
    assert report.metric.abs_rel == pytest.approx(0.75)
    assert report.scale == pytest.approx(4)
    assert astuple(report.scaled) == pytest.approx((0, 0, 0, 0, 1, 1, 1), abs=1e-6)


def test_a_shifted_prediction_is_right_after_scale_and_shift(tmp_path):
    _, true = pictures()
    shifted = (np.nan_to_num(true) - 0.3) / 2
    report = compare(tmp_path, shifted, true)
    assert (report.shifted_scale, report.shift_m) == pytest.approx((2.0, 0.3), rel=1e-5)
    assert astuple(report.shifted) == pytest.approx((0, 0, 0, 0, 1, 1, 1), abs=1e-5)
    assert report.scaled.abs_rel > 0.01


def test_the_published_shift_does_not_go_farther_than_its_steps(tmp_path):
    true = np.linspace(1, 9, 48 * 64, dtype=np.float32).reshape(1, 48, 64)
    report = compare(tmp_path, true / 2 + 3, true, published_shift=True)
    best = compare(tmp_path, true / 2 + 3, true)
    assert (best.shifted_scale, best.shift_m) == pytest.approx((2.0, -6.0), rel=1e-5)
    start = 5.0 / 5.5  # of the medians
    assert 0.01 < report.shifted_scale - start < 0.32
    assert -0.32 < report.shift_m < -0.01


def test_a_truth_beyond_the_limit_is_left_out_and_predictions_are_clipped_once_aligned(tmp_path):
    true = np.full((1, 48, 64), 10.0, np.float32)
    true[0, 0] = 70.0
    true[0, 1] = 69.0
    predicted = true / 2
    predicted[0, 1] = 50.0
    report = compare(tmp_path, predicted, true, max_true_m=70.0, clip_m=70.0)
    assert report.pixels == 47 * 64
    assert report.scale == pytest.approx(2, rel=1e-3)
    assert report.metric.abs_rel == pytest.approx((46 * 0.5 + 19 / 69) / 47)
    assert report.scaled.abs_rel == pytest.approx(1 / 69 / 47, rel=1e-2)  # 100 m, clipped


def test_the_scale_is_that_of_most_pixels_whatever_the_others_say(tmp_path):
    true = np.full((1, 48, 64), 2.0, np.float32)
    predicted = np.full((1, 48, 64), 1.0, np.float32)
    predicted[0, :1] = 3.0
    assert compare(tmp_path, predicted, true).scale == pytest.approx(2, rel=1e-3)


def test_a_depth_behind_the_camera_is_far_off_and_no_number_is_left_out(tmp_path):
    true = np.full((1, 48, 64), 2.0, np.float32)
    predicted = true.copy()
    predicted[0, 0] = -2.0
    predicted[0, 1] = np.inf
    report = compare(tmp_path, predicted, true)
    assert (report.pixels, report.pixels_not_finite) == (47 * 64, 64)
    assert report.metric.abs_rel == pytest.approx(2 / 47)
    assert report.metric.delta_1_25_3 == pytest.approx(46 / 47)


def test_without_any_truth_there_is_no_report(tmp_path):
    assert compare(tmp_path, *np.zeros((2, 0, 48, 64), np.float32)) is None
    nothing = np.full((1, 48, 64), np.nan, np.float32)
    assert compare(tmp_path, np.ones_like(nothing), nothing) is None


def test_the_pixels_leave_no_file_behind(tmp_path):
    compare(tmp_path, *pictures())
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_is_cut_away_the_prediction_is_resized_as_published(tmp_path):
    predicted, _ = pictures(1)
    true = np.full((1, 96, 128), 2.0, np.float32)
    report = compare(tmp_path, predicted, true)
    twin = cv2.resize(predicted[0], (128, 96), interpolation=cv2.INTER_CUBIC)
    assert report.metric.abs_rel == pytest.approx(float(np.abs(twin / 2 - 1).mean()), rel=1e-6)
    np.testing.assert_array_equal(resized(predicted[0], (96, 128)), twin)


@pytest.mark.parametrize("size", [(640, 480), (500, 353), (353, 500), (300, 300)])
@pytest.mark.parametrize("truth", [1.0, 0.5, 1.7])
def test_the_window_of_the_truth_is_what_the_network_sees(size, truth):
    """A picture of its own coordinates, cropped as images are, agrees with the truth's window."""
    width, height = size
    crop = crop_transform(width, height, 128)
    shape = (round(truth * height), round(truth * width))
    rows, columns = truth_window(crop, shape)
    # Coordinates from 0 to 1 over the whole view, at the network's pixels and the truth's.
    for window, cut, long, scaled, own in (
        (columns, crop.left, crop.width, crop.scaled_width, shape[1]),
        (rows, crop.top, crop.height, crop.scaled_height, shape[0]),
    ):
        seen = (np.arange(long) + cut + 0.5) / scaled
        true = (np.arange(own)[window] + 0.5) / own
        here = resized(seen[None].astype(np.float32), (1, len(true)))[0]
        pixel = 1 / min(own, scaled)
        assert np.abs(here - true).max() < 0.75 * pixel


@pytest.mark.parametrize(
    ("rows", "window"),
    [
        (92, (7, 85)),  # 7.36 and 84.64 of them
        (94, (8, 86)),  # 7.52 and 86.48
        (100, (8, 92)),
    ],
)
def test_the_borders_of_a_crop_are_rounded_to_the_nearest_row_of_the_truth(rows, window):
    crop = CropTransform(100, 100, 100, 100, "crop", 100, 84)
    assert (crop.top, crop.top + crop.height) == (8, 92)
    seen, across = truth_window(crop, (rows, rows))
    assert ((seen.start, seen.stop), (across.start, across.stop)) == (window, (0, rows))


def test_a_crop_is_found_again_to_the_pixel_in_a_truth_of_the_scaled_size(tmp_path):
    crop = crop_transform(500, 353, 128)
    assert crop.top > 0
    true = np.random.default_rng(0).uniform(1, 3, (crop.scaled_height, 128)).astype(np.float32)
    predicted = true[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    report = compare(tmp_path, [predicted], [true], crop)
    assert report.pixels == predicted.size
    assert report.metric.abs_rel == 0


def test_a_truth_of_another_view_is_refused():
    with pytest.raises(OtherViewError, match="depth: 640x360 is not the view of 640x480 images"):
        truth_window(crop_transform(640, 480, 128), (360, 640))


def test_an_image_of_another_view_is_told_apart_and_leaves_the_others_as_they_are(tmp_path):
    predicted, true = pictures(2)
    with DepthComparison(tmp_path) as comparison:
        comparison.add(predicted[0], true[0], WHOLE)
        with pytest.raises(OtherViewError, match="64x40 is not the view of 64x48 images"):
            comparison.add(predicted[1], true[1, :40], WHOLE)
        report = comparison.report()
    assert report == compare(tmp_path, predicted[:1], true[:1])
