# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from tracked_frames import frames, pipeline

from ttt3r_ros.config import with_values
from ttt3r_ros.geometry import Intrinsics, optical_extrinsics
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.pose_graph.exchange import Correction
from ttt3r_ros.types import Frame, FrameRejected

CAMERA = Intrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)


def test_the_map_holds_the_confident_points_in_the_odometry_frame():
    subject = pipeline(**{"map.voxel_size_m": 0.001})  # hardly two points in a voxel
    result = subject.process(frames(1)[0])
    good = result.usable(1.5, 20.0)
    points = result.points[good].double().numpy()
    expected = points @ result.T_odom_camera[:3, :3].T + result.T_odom_camera[:3, 3]
    cloud = subject.map.cloud()
    assert 0.9 * len(expected) < len(cloud.points) <= len(expected)
    distances = torch.cdist(torch.from_numpy(cloud.points).double(), torch.from_numpy(expected))
    assert distances.min(dim=1).values.max() < 0.002


def test_points_are_left_out_by_confidence_depth_and_stride():
    frame = frames(1)[0]
    everything = len_of_map(frame)
    assert 0 < len_of_map(frame, **{"map.pixel_stride": 4}) <= everything
    assert len_of_map(frame, **{"confidence.min": 1e6}) == 0
    assert len_of_map(frame, **{"depth.max_m": 0.1}) < everything


def test_points_are_left_out_by_range_and_at_jumps_of_depth():
    frame = frames(1)[0]
    everything = len_of_map(frame)
    result = pipeline().process(frame)
    distances = result.points[result.usable(1.5, 20.0)].norm(dim=-1)
    assert 0 < len_of_map(frame, **{"map.max_range_m": float(distances.median())}) < everything
    assert 0 < len_of_map(frame, **{"map.edge_filter": 0.5}) < everything


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_masked_pixels_are_left_out_of_the_map_and_change_nothing_else(fit):
    frame = frames(1, height=120, width=128)[0]  # of which a crop cuts rows
    mask = np.zeros((120, 128), bool)
    mask[:, :64] = True  # all that the camera sees on the left
    values = {"confidence.min": 1.0, "map.voxel_size_m": 0.001, "fit": fit}
    plain, subject = pipeline(**values), pipeline(**values)
    result = plain.process(frame)
    masked = subject.process(replace(frame, mask=mask))
    assert torch.equal(masked.points, result.points)
    np.testing.assert_array_equal(masked.T_odom_camera, result.T_odom_camera)
    right = result.usable(1.0, 20.0)[:, 64:]
    assert 0.9 * int(right.sum()) < len(subject.map) <= int(right.sum()) < len(plain.map)
    assert len_of_map(replace(frame, mask=np.ones_like(mask)), **values) == 0


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_nothing_is_known_where_the_lens_shows_nothing(fit):
    images = frames(3, height=120, width=128)
    values = {"confidence.min": 1.0, "map.voxel_size_m": 0.001, "fit": fit}
    plain, subject = pipeline(**values), pipeline(**values)
    dark_left, dark_right = np.zeros((2, 120, 128), bool)
    dark_left[:, :64], dark_right[:, 64:] = True, True
    for frame, unseen in zip(images, (None, dark_left, dark_right), strict=True):
        known = plain.process(frame).usable(1.0, 20.0)
        before = len(subject.map)
        result = subject.process(replace(frame, outside_fov=unseen))
        expected = known.clone()
        if unseen is not None:
            expected[:, unseen[0]] = False
            assert 0 < int(expected.sum()) < int(known.sum())
        assert torch.equal(result.usable(1.0, 20.0), expected)
        assert len(subject.map) - before <= int(expected.sum())


@pytest.mark.parametrize("name", ["mask", "outside_fov"])
def test_a_mask_of_another_size_is_refused(name):
    with pytest.raises(FrameRejected, match=rf"{name}: is \[48, 64\], the image \[96, 128\]"):
        replace(frames(1)[0], **{name: np.zeros((48, 64), bool)})


def test_what_the_camera_sees_through_is_carved_if_that_is_wanted(monkeypatch):
    carved = []
    monkeypatch.setattr(VoxelMap, "carve", lambda self, *arguments: carved.append(arguments))
    for carve in (False, True):
        subject = pipeline(**{"map.carve": carve, "confidence.min": 1.0})
        result = subject.process(replace(frames(1)[0], intrinsics=CAMERA))
        assert len(carved) == int(carve)
    depth, intrinsics, pose = carved[0]
    usable = result.usable(1.0, 20.0)
    assert torch.equal(depth[usable], result.points[..., 2][usable]) and not depth[~usable].any()
    assert intrinsics == result.intrinsics
    np.testing.assert_array_equal(pose, result.T_map_camera)


def test_voxels_belong_to_the_segment_of_their_image():
    subject = pipeline(**{"segment.reset_interval": 2})
    results = [subject.process(frame) for frame in frames(6)]
    segments = set(subject.map.to_tensors()["segment"].tolist())
    assert segments == {result.segment for result in results} == {0, 1, 2}


def len_of_map(frame, **values):
    subject = pipeline(**values)
    subject.process(frame)
    return len(subject.map)


def test_settings_marked_runtime_hold_from_the_next_image_on():
    images = frames(2)
    subject = pipeline()
    subject.process(images[0])
    before = subject.map.images, len(subject.map)
    subject.config = with_values(subject.config, {"confidence.min": 1e6})
    subject.process(images[1])
    assert (subject.map.images, len(subject.map)) == (before[0] + 1, before[1])


def test_a_rejected_image_changes_nothing(caplog):
    images = frames(3)
    subject, other = pipeline(), pipeline()
    for frame in images[:2]:
        subject.process(frame)
        other.process(frame)
    for bad in (images[1], images[0]):
        with pytest.raises(FrameRejected):
            subject.process(bad)
    np.testing.assert_array_equal(
        subject.process(images[2]).T_odom_camera, other.process(images[2]).T_odom_camera
    )
    assert len(subject.map) == len(other.map)


def test_an_image_that_is_too_narrow_changes_nothing_whatever_its_stamp():
    images = frames(2)
    subject = pipeline()
    subject.process(Frame(50_000_000_000, images[0].rgb))
    points = len(subject.map)
    for stamp_ns in (1_000_000_000, 99_000_000_000):
        with pytest.raises(FrameRejected, match="image: 4x640 becomes"):
            subject.process(Frame(stamp_ns, np.zeros((640, 4, 3), np.uint8)))
    assert len(subject.map) == points > 0 and subject.last_reset_reason == ""
    result = subject.process(Frame(50_100_000_000, images[1].rgb))
    assert (result.segment, result.images_since_reset) == (0, 2)


def test_slow_processing_of_a_steady_stream_is_no_gap():
    images = frames(2)
    subject = pipeline()
    subject.process(Frame(0, images[0].rgb))
    result = subject.process(Frame(9_000_000_000, images[1].rgb), left_out_ns=8_967_000_000)
    assert (result.segment, result.boundary_reason) == (0, "")


def test_a_reset_is_one_log_line_and_a_new_beginning(caplog):
    caplog.set_level(logging.INFO, logger="ttt3r_ros")
    images = frames(2)
    subject = pipeline()
    first = [subject.process(frame).T_odom_camera for frame in images]
    subject.reset("asked for")
    assert len(subject.map) == 0 and subject.last_reset_reason == "asked for"
    assert [record.message for record in caplog.records if "reset" in record.message] == [
        "reset: asked for"
    ]
    again = [subject.process(frame).T_odom_camera for frame in images]
    np.testing.assert_array_equal(first, again)


def test_stamps_far_back_reset_and_far_ahead_start_a_segment():
    rgb = frames(1)[0].rgb
    subject = pipeline()
    subject.process(Frame(10_000_000_000, rgb))
    assert subject.process(Frame(13_000_000_000, rgb)).boundary_reason == "no image for 3.000 s"
    subject.process(Frame(13_100_000_000, rgb))
    with pytest.raises(FrameRejected, match="believed when a second one confirms it"):
        subject.process(Frame(1_000_000_000, rgb))
    assert subject.process(Frame(1_100_000_000, rgb)).images_since_reset == 1
    assert subject.last_reset_reason == "image stamps jumped back by 12.000 s"


def test_one_odd_stamp_ahead_costs_no_map():
    rgb = frames(1)[0].rgb
    subject = pipeline()
    for ms in (10_000, 10_100, 40_000):
        subject.process(Frame(ms * 1_000_000, rgb))
    points = len(subject.map)
    result = subject.process(Frame(10_200_000_000, rgb))
    assert result.boundary_reason == "the image before was stamped 29.800 s ahead"
    assert subject.last_reset_reason == "" and len(subject.map) >= points
    assert np.linalg.eigvalsh(result.pose_covariance)[0] >= 0


def test_the_clock_resets_only_if_an_image_says_so_too():
    rgb = frames(1)[0].rgb
    subject = pipeline()
    subject.clock_jumped(0)
    subject.process(Frame(10_000_000_000, rgb))
    subject.clock_jumped(2_000_000_000)
    subject.process(Frame(10_100_000_000, rgb))
    assert subject.last_reset_reason == ""
    subject.clock_jumped(2_000_000_000)
    subject.process(Frame(2_000_000_000, rgb))
    assert subject.last_reset_reason == "image stamps jumped back by 8.100 s"


def test_the_first_camera_is_placed_where_it_is_said_to_be():
    frame = frames(1)[0]
    plain, subject = pipeline(), pipeline()
    T_odom_camera = optical_extrinsics((1, 2, 3, 0.1, 0.2, 0.3))
    subject.place_first_camera(T_odom_camera)
    assert subject.last_reset_reason == ""  # nothing was there to be lost
    expected = (
        T_odom_camera @ np.linalg.inv(optical_extrinsics()) @ plain.process(frame).T_odom_camera
    )
    np.testing.assert_allclose(subject.process(frame).T_odom_camera, expected, atol=1e-9)
    subject.place_first_camera(T_odom_camera)
    assert subject.last_reset_reason == ""
    subject.place_first_camera(optical_extrinsics())
    assert subject.last_reset_reason == "the camera's extrinsics changed"


def test_what_the_shipped_weights_are_not_for_is_said(caplog):
    pipeline(checkpoint="")
    assert "the small demo model, trained on simulated rooms alone" in caplog.text


def test_in_the_end_map_and_path_move_with_the_last_solve(monkeypatch):
    subject, twin = pipeline(), pipeline()
    for frame in frames(3):
        subject.process(frame)
        twin.process(frame)
    shift = np.eye(4)
    shift[0, 3] = 20 * subject.config.map.voxel_size_m
    correction = Correction({0: shift}, shift, np.eye(6), 1.0, ())
    monkeypatch.setattr(subject.loops, "finish", lambda: correction)
    (moves,) = subject.finish()
    np.testing.assert_array_equal(moves.T_by_segment[0], shift)
    for (_, after), (_, before) in zip(subject.trajectory(), twin.trajectory(), strict=True):
        np.testing.assert_allclose(after, shift @ before, atol=1e-9)
    after, before = (p.map.cloud().points for p in (subject, twin))
    moved = before + shift[:3, 3].astype(np.float32)
    np.testing.assert_allclose(sorted(after[:, 0]), sorted(moved[:, 0]), atol=1e-4)


def test_where_nothing_was_seen_again_nothing_moves_in_the_end():
    subject = pipeline()
    for frame in frames(3):
        subject.process(frame)
    assert subject.finish() == ()
