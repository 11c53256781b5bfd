# SPDX-License-Identifier: Apache-2.0
"""Segments with forced differences are tied together as if there were none."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tolerant import TOLERANT
from transforms3d.euler import euler2mat

from ttt3r_ros.config import Config, with_values
from ttt3r_ros.geometry import inverse, optical_extrinsics, rotation_vector, transform
from ttt3r_ros.loading import Model
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.tracking.segment_scale import boundary_scale
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import Frame

HEIGHT, WIDTH = 96, 128
INTERVAL, IMAGES = 5, 18
SCALES = (1.0, 1.3, 0.7, 1.1)  # of the segments, beside what is true
OFFSETS = (
    np.eye(4),
    transform(euler2mat(0.1, -0.2, 0.3), (0.2, -0.1, 0.4)),
    transform(euler2mat(-0.3, 0.1, 0.0), (-0.5, 0.0, 0.1)),
    transform(euler2mat(0.0, 0.4, 0.1), (0.1, 0.1, 0.1)),
)


def true_pose(index):
    """T_world_camera of an image: a curve that also turns."""
    t = 0.1 * index
    return transform(euler2mat(0.05 * t, 0.4 * t, 0.02), (np.sin(t), 0.1 * t, t))


def depth_of(index, generator):
    """Depth [H, W] with errors of 5 %, and where it is wrong altogether, a fifth of the pixels."""
    v, u = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    depth = 2.5 + torch.sin(0.1 * u + 0.2 * index) + 0.5 * torch.cos(0.08 * v)
    depth = depth * torch.exp(0.05 * torch.randn(depth.shape, generator=generator))
    wrong = torch.rand(depth.shape, generator=generator) < 0.2
    return torch.where(wrong, depth * 2.5, depth), wrong


def prediction_of(pose, depth, confidence):
    points = torch.stack((torch.zeros_like(depth), torch.zeros_like(depth), depth), dim=-1)
    return Prediction(
        points=points[None],
        confidence=confidence[None],
        pose=torch.zeros(1, 7),
        pose_matrix=torch.from_numpy(pose).float()[None],
        gain=torch.ones(1, 4),
        points_in_world=None,
        confidence_in_world=None,
    )


class ForcedNetwork:
    """Knows the truth, and tells it in every segment in another scale and from another frame.

    A state is (the segment's number, the index of its first image or none).
    """

    config = SimpleNamespace(patch_size=16)

    def __init__(self, unusable=()):
        self.images = -1
        self.states = -1
        self.unusable = unusable  # segments whose first answer is not finite
        self.generator = torch.Generator().manual_seed(0)

    def initial_state(self):
        self.states += 1
        return (self.states - 1, None)  # the tracker makes one more in its constructor's reset

    def encode(self, image):
        self.images += 1
        return self.images

    def advance(self, state, index, update=True):
        number, first = state
        first = index if first is None else first
        k = min(max(number, 0), len(SCALES) - 1)
        pose = OFFSETS[k] @ inverse(true_pose(first)) @ true_pose(index)
        pose[:3, 3] *= SCALES[k]
        if number in self.unusable and first == index:
            pose = pose * np.nan
        depth, wrong = depth_of(index, self.generator)
        confidence = torch.where(wrong, 1.5, 4.0)
        return (number, first), prediction_of(pose, SCALES[k] * depth, confidence)


def run(network=None, **values):
    config = with_values(
        Config(process_all_images=True, preprocessing="fast"),
        {
            "segment.reset_interval": INTERVAL,
            "segment.scale_from": "boundary",
            **TOLERANT,
            **values,
        },
    )
    network = network or ForcedNetwork()
    network.states = 0
    tracker = Tracker(Model(network, torch.device("cpu"), WIDTH, {}, ""), config)
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    results, after_boundaries = [], []
    for i in range(IMAGES):
        results.append(tracker.step(Frame(i * 100_000_000, rgb)))
        after_boundaries.append(tracker._segment)
    return results, after_boundaries


def true_in_odom(index):
    return optical_extrinsics() @ inverse(true_pose(0)) @ true_pose(index)


def test_forced_scale_rotation_and_translation_between_segments_are_taken_back():
    results, _ = run()
    assert [r.segment for r in results] == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 3
    for index, result in enumerate(results):
        assert result.scale * SCALES[result.segment] == pytest.approx(1.0, rel=0.02)
        error = inverse(true_in_odom(index)) @ result.T_odom_camera
        assert np.degrees(np.linalg.norm(rotation_vector(error))) < 0.1
        assert np.linalg.norm(error[:3, 3]) < 0.01
        depth = result.points[..., 2].median()
        assert depth == pytest.approx(float(results[0].points[..., 2].median()), rel=0.2)


def test_at_a_shared_image_both_segments_say_the_same_pose():
    results, segments = run()
    for index in range(INTERVAL - 1, IMAGES, INTERVAL):
        segment = segments[index]
        k = segment.number
        again = OFFSETS[k].copy()
        again[:3, 3] *= SCALES[k] * segment.scale
        np.testing.assert_allclose(
            segment.T_odom_segment @ again, results[index].T_odom_camera, rtol=0, atol=1e-6
        )


def test_without_taking_scale_from_boundaries_each_segment_keeps_its_own():
    results, _ = run(**{"segment.scale_from": "network"})
    assert {result.scale for result in results} == {1.0}


def test_a_ratio_that_pixels_do_not_agree_on_is_not_taken():
    results, _ = run(**{"segment.boundary_max_log_spread": 0.01})
    assert {result.scale for result in results} == {1.0}


def test_an_unusable_second_answer_costs_the_shared_image_but_not_its_pose():
    results, segments = run(ForcedNetwork(unusable=(1,)))
    assert len(results) == IMAGES
    assert "not finite" in segments[INTERVAL - 1].boundary_reason
    assert results[INTERVAL].boundary_reason == "the network's answer was not finite"
    np.testing.assert_allclose(
        results[INTERVAL - 1].T_odom_camera, true_in_odom(INTERVAL - 1), atol=1e-6
    )


def cloud(depth):
    return torch.stack((torch.zeros_like(depth), torch.zeros_like(depth), depth), dim=-1)


def test_the_scale_of_a_boundary_withstands_wrong_pixels_and_says_how_wide_it_is_spread():
    generator = torch.Generator().manual_seed(1)
    depth, _ = depth_of(0, generator)
    later = 0.8 * depth * torch.exp(0.1 * torch.randn(depth.shape, generator=generator))
    later = torch.where(torch.rand(depth.shape, generator=generator) < 0.15, 3 * later, later)
    confidence = torch.full_like(depth, 3.0)
    found = boundary_scale(cloud(depth), confidence, cloud(later), confidence)
    assert found.ratio == pytest.approx(1.25, rel=0.05)
    assert found.spread == pytest.approx(0.1, rel=0.3)


def test_confident_pixels_decide():
    depth = torch.full((HEIGHT, WIDTH), 2.0)
    later, confidence = depth.clone(), torch.full_like(depth, 1.0)
    later[:32], confidence[:32] = 1.0, 10.0
    found = boundary_scale(cloud(depth), confidence, cloud(later), confidence)
    assert found.ratio == 2.0


def test_pixels_without_depth_say_nothing():
    depth = torch.full((HEIGHT, WIDTH), 2.0)
    later, confidence = depth.clone(), torch.ones_like(depth)
    later[8:] = -1.0
    depth[4:8] = float("nan")
    found = boundary_scale(cloud(depth), confidence, cloud(later), confidence)
    assert (found.ratio, found.spread) == (1.0, 0.0)
    later[:8] = float("inf")
    found = boundary_scale(cloud(depth), confidence, cloud(later), confidence)
    assert (found.ratio, found.spread) == (1.0, float("inf"))


def test_images_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="several sizes"):
        boundary_scale(torch.ones(4, 4, 3), torch.ones(4, 4), torch.ones(8, 4, 3), torch.ones(8, 4))


def test_a_pixel_weighs_as_the_lesser_of_its_two_confidences():
    depth = torch.full((HEIGHT, WIDTH), 2.0)
    later, sure = depth.clone(), torch.full_like(depth, 3.0)
    one, other = sure.clone(), sure.clone()
    later[:40], one[:40], other[:40] = 1.0, 10.0, 1.0  # 40 of 96 rows, of which one knows nothing
    for confidence, later_confidence in ((one, other), (other, one)):
        found = boundary_scale(cloud(depth), confidence, cloud(later), later_confidence)
        assert found.ratio == 1.0


def test_the_spread_of_normal_errors_is_their_standard_deviation():
    shares = (torch.arange(HEIGHT * WIDTH) + 0.5) / (HEIGHT * WIDTH)
    errors = 0.1 * math.sqrt(2) * torch.erfinv(2 * shares - 1).reshape(HEIGHT, WIDTH)
    later, confidence = torch.full((HEIGHT, WIDTH), 2.0), torch.ones(HEIGHT, WIDTH)
    found = boundary_scale(cloud(later * errors.exp()), confidence, cloud(later), confidence)
    assert found.ratio == pytest.approx(1.0, abs=1e-3)
    assert found.spread == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize(("good", "ratio", "spread"), [(63, 1.0, math.inf), (64, 2.0, 0.0)])
def test_fewer_than_64_good_pixels_say_nothing(good, ratio, spread):
    depth, confidence = torch.full((8, 16), 2.0), torch.ones(8, 16)
    later = torch.full((8, 16), math.nan)
    later.view(-1)[:good] = 1.0
    found = boundary_scale(cloud(depth), confidence, cloud(later), confidence)
    assert (found.ratio, found.spread) == (ratio, spread)
