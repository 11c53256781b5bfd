# SPDX-License-Identifier: Apache-2.0
"""The tracking state in the tracker and the pipeline: what a LOST image changes, and what not."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from small_network import small_checkpoint
from tolerant import TOLERANT
from tracked_frames import frames, raw_poses

from ttt3r_ros.config import Config, with_values
from ttt3r_ros.loading import load_model
from ttt3r_ros.network.model import Network
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import Frame, TrackingState

# The contrast alone decides: the poses of random weights are no camera's.
CONFIG = with_values(
    Config(checkpoint=small_checkpoint(), device="cpu", process_all_images=True),
    {**TOLERANT, "tracking.lost_contrast": 2.0},
)
LOST = TrackingState.LOST


def covered(frame):
    return Frame(frame.stamp_ns, np.full_like(frame.rgb, 3))


def pipeline(**values):
    config = with_values(CONFIG, values)
    return Pipeline(load_model(config), config)


def tracker(**values):
    config = with_values(CONFIG, values)
    return Tracker(load_model(config), config)


def test_a_covered_lens_has_no_pose_and_tracking_goes_on_from_the_last_one(caplog):
    images, subject = frames(8), pipeline()
    film = [*images[:3], *map(covered, images[3:6]), *images[6:]]
    with caplog.at_level(logging.INFO):
        results = [subject.process(frame) for frame in film]
    assert [r.state.name[0] for r in results] == list("ITTLLLIT")
    last = results[2].T_odom_camera
    for result in results[3:6]:
        np.testing.assert_array_equal(result.T_odom_camera, last)
        assert "contrast" in result.reason and result.images_since_reset == 3
    expected = [last @ pose for pose in raw_poses(images[6:])]
    np.testing.assert_allclose([r.T_odom_camera for r in results[6:]], expected, atol=1e-6)
    assert [r.segment for r in results] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert (
        results[6].boundary_reason.startswith("tracking was lost: contrast")
        and not results[7].boundary_reason
    )
    assert results[7].images_since_reset == 5
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1 and lines[0].startswith("tracking is lost: contrast")


def test_a_lost_image_leaves_the_map_and_the_focal_length_alone(monkeypatch):
    focals = iter([100.0, 110.0, 120.0, 999.0, 130.0])
    monkeypatch.setattr("ttt3r_ros.tracking.tracker.robust_focal", lambda *_, **__: next(focals))
    images, subject = frames(5), pipeline()
    for frame in images[:3]:
        subject.process(frame)
    points, merged = len(subject.map), subject.map.images
    subject.process(covered(images[3]))
    assert (len(subject.map), subject.map.images) == (points, merged)
    assert subject.process(images[4]).intrinsics.fx == 115.0  # the median of four


def test_a_stream_may_begin_in_the_dark():
    images, subject = frames(4), pipeline()
    results = [subject.process(frame) for frame in [*map(covered, images[:2]), *images[2:]]]
    assert [r.state.name[0] for r in results] == list("LLIT")
    assert [(r.segment, r.boundary_reason, r.images_since_reset) for r in results[2:]] == [
        (0, "", 1),
        (0, "", 2),
    ]
    np.testing.assert_array_equal(results[0].T_odom_camera, subject._tracker.T_odom_first_camera)


def test_a_gap_in_the_dark_is_no_further_segment():
    images, subject = frames(6), tracker()
    for frame in (*images[:2], covered(images[2])):
        subject.step(frame)
    subject.start_segment("a gap")
    result = subject.step(images[4])
    assert result.segment == 1 and result.boundary_reason.startswith("tracking was lost")


def test_each_image_is_tried_with_a_new_state_while_lost():
    images, subject = frames(5), tracker()
    subject.step(images[0])
    once, again = (subject.step(covered(frame)) for frame in images[1:3])
    fresh = tracker().step(covered(images[3]))
    assert float((once.points - fresh.points).abs().max()) > 0
    assert float((again.points - fresh.points).abs().max()) == 0


def test_a_reset_ends_lost():
    images, subject = frames(3), pipeline()
    subject.process(images[0])
    subject.process(covered(images[1]))
    subject.reset("asked")
    result = subject.process(images[0])
    assert (result.state, result.segment, result.boundary_reason) == (
        TrackingState.INITIALIZING,
        0,
        "",
    )


def test_an_image_like_the_last_one_in_the_state_gives_a_pose_and_is_not_written():
    images = frames(4)
    images = [images[0], Frame(50_000_000, images[0].rgb + 1), *images[1:]]
    gated, plain = tracker(motion_gate=2.0), tracker()
    results = [gated.step(frame) for frame in images]
    assert [result.mean_gain == 0 for result in results] == [False, True, False, False, False]
    assert results[1].images_since_reset == 2
    without = [plain.step(frame) for frame in (images[0], *images[2:])]
    for result, expected in zip(results[2:], without[1:], strict=True):
        np.testing.assert_allclose(result.T_odom_camera, expected.T_odom_camera, atol=1e-6)


def test_images_that_are_not_written_do_not_fill_a_segment():
    image = frames(1)[0].rgb
    subject = tracker(motion_gate=2.0, **{"segment.reset_interval": 2})
    results = [subject.step(Frame(i, image)) for i in range(6)]
    assert {result.segment for result in results} == {0}
    other = [subject.step(Frame(6 + i, frames(8)[7].rgb)) for i in range(3)]
    assert [result.segment for result in other] == [0, 1, 1]


@pytest.mark.parametrize("rule", ["cut3r", "ttt3r", "brake", "filt3r"])
def test_looking_without_writing_leaves_every_rules_state_as_it_is(rule):
    config = with_values(CONFIG, {"update_rule": rule})
    network: Network = load_model(config).network
    from ttt3r_ros.camera.preprocessing import to_network_input

    features = [network.encode(to_network_input(frame.rgb)) for frame in frames(2)]
    state, _ = network.advance(network.initial_state(), features[0])
    after, _ = network.advance(state, features[1], update=False)
    before = state.to_tensors()
    assert before.keys() == after.to_tensors().keys()
    for name, tensor in after.to_tensors().items():
        assert bool((tensor == before[name]).all()), name
