# SPDX-License-Identifier: Apache-2.0
"""A bag of a distorting camera gives what a pinhole camera at its place would have seen."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from known_bags import changed

from ttt3r_ros.cli import main
from ttt3r_ros.geometry import Intrinsics
from ttt3r_ros.recordings.datasets import find_recordings
from ttt3r_ros.recordings.recording import Selection
from ttt3r_ros.recordings.simulated_bag import DEPTH, DISTORTED_DEPTH, write_simulated_bag
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions

OPTIONS = SceneOptions(seed=5, width=64, height=48, distortion=(-0.25, 0.06))


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("distorted") / "bag"
    write_simulated_bag(path, Scene(OPTIONS), range(2), rate_hz=10.0)
    return path


def read(bag):
    """Return frames and true depth images."""
    (recording,) = find_recordings(bag)
    with recording.images(Selection()) as source, recording.truth() as truth:
        truth.follow(source)
        frames = list(source)
        return frames, [truth.depth(frame.stamp_ns) for frame in frames], truth.depth_source


def test_images_and_true_depth_are_those_of_a_pinhole_camera(bag):
    scene = Scene(replace(OPTIONS, distortion=(0.0, 0.0)))
    frames, depths, source = read(bag)
    assert source == DISTORTED_DEPTH and len(frames) == 2
    for index, (frame, depth) in enumerate(zip(frames, depths, strict=True)):
        view = scene.view(index / 10)
        assert frame.intrinsics == Intrinsics(*scene.lens, 64, 48)
        seen = np.ones((48, 64), bool) if frame.outside_fov is None else ~frame.outside_fov
        difference = np.abs(frame.rgb.astype(float) - view.rgb.numpy())[seen]
        assert np.median(difference) < 3 and difference.mean() < 8
        np.testing.assert_array_equal(np.isfinite(depth), seen)
        error = np.abs(depth / view.depth_m.numpy() - 1)[seen]
        assert np.median(error) < 0.01 and (error < 0.05).mean() > 0.9


def test_true_depth_called_rectified_is_left_as_it_is(bag, tmp_path):
    def renamed(topic, message):
        return [(DEPTH if topic == DISTORTED_DEPTH else topic, message)]

    _, depths, source = read(changed(bag, tmp_path / "renamed", renamed))
    assert source == DEPTH
    scene = Scene(OPTIONS)
    for index, depth in enumerate(depths):
        np.testing.assert_array_equal(depth, scene.view(index / 10).depth_m.numpy())


def test_depth_is_not_compared_where_the_lens_shows_nothing(tmp_path):
    def renamed(topic, message):  # then it is known there, too
        return [(DEPTH if topic == DISTORTED_DEPTH else topic, message)]

    scene = Scene(replace(OPTIONS, distortion=(0.25, 0.0)))
    write_simulated_bag(tmp_path / "bag", scene, range(2), rate_hz=10.0)
    known = changed(tmp_path / "bag", tmp_path / "renamed", renamed)
    outside_fov = sum(int(frame.outside_fov.sum()) for frame in read(known)[0])
    assert main(["evaluate", str(known), "--output", str(tmp_path / "report")]) == 0
    depth = json.loads((tmp_path / "report" / "report.json").read_text())["depth"]
    assert depth["images"] == 2 and depth["pixels_not_finite"] >= outside_fov > 0
