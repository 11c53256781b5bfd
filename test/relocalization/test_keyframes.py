# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from keyframe_examples import LENS, offered, random_features
from small_network import CONFIG

from ttt3r_ros.geometry import Intrinsics, transform
from ttt3r_ros.relocalization.keyframes import (
    KeyframeStore,
    describe,
    subsample,
    subsample_intrinsics,
    subsample_picture,
)

WIDTH = CONFIG.enc_embed_dim


def test_a_new_place_is_kept_and_the_same_view_again_is_not():
    store = KeyframeStore()
    assert store.offer(**offered(0))
    assert not store.offer(**offered(1, looks=0))
    assert not store.offer(**offered(2, x_m=0.1, looks=0))
    assert store.offer(**offered(3, x_m=0.3, looks=0))  # a tenth of 2 m is 0.2 m
    assert [s.stamp_ns % 10**18 for s in store.keyframes] == [0, 3]


def test_what_is_far_away_must_be_passed_further():
    store = KeyframeStore()
    store.offer(**offered(0, depth_m=20.0))
    assert not store.offer(**offered(1, x_m=0.5, looks=0, depth_m=20.0))
    assert store.offer(**offered(2, x_m=2.5, looks=0, depth_m=20.0))


def test_another_picture_at_the_same_pose_is_kept():
    store = KeyframeStore()
    assert store.offer(**offered(0)) and store.offer(**offered(1))


def test_nothing_is_computed_when_the_pose_alone_tells_and_only_looks_when_not():
    class Untouched:
        """Fails when anything is done with it."""

    view = {**offered(1, looks=0), "points": Untouched(), "confidence": Untouched()}
    store = KeyframeStore()
    store.offer(**offered(0))
    assert not store.offer(**{**view, "rgb": Untouched(), "state": Untouched()})


def test_a_full_store_drops_one_of_the_two_most_alike_the_one_with_others_near():
    for before, kept in (((0.0, 7.0, 9.0, 20.0), 9.0), ((0.0, 9.0, 11.0, 16.0), 9.0)):
        store = KeyframeStore(capacity=4)
        for number, x_m in enumerate((*before, 30.0)):
            store.offer(**offered(number, x_m=x_m, looks=0))
        places = [s.T_map_camera[0, 3] for s in store.keyframes]
        assert places == [before[0], kept, before[3], 30.0]


def test_of_two_that_are_nobody_elses_neighbours_the_older_goes():
    store = KeyframeStore(capacity=1)
    store.offer(**offered(0))
    store.offer(**offered(1, x_m=5.0))
    assert [s.T_map_camera[0, 3] for s in store.keyframes] == [5.0]


def test_the_places_on_a_long_way_stay_covered():
    store = KeyframeStore(capacity=8)
    for number in range(100):
        store.offer(**offered(number, x_m=0.5 * number, looks=0))
    places = sorted(s.T_map_camera[0, 3] for s in store.keyframes)
    assert len(places) == 8 and places[0] < 8 and max(np.diff(places)) < 16


def test_a_full_store_wants_no_view_between_those_it_has():
    store = KeyframeStore(capacity=3)
    for number, x_m in enumerate((0.0, 4.0, 8.0)):
        assert store.offer(**offered(number, x_m=x_m, looks=0))
    assert not store.offer(**offered(4, x_m=9.0, looks=0))
    assert store.offer(**offered(5, x_m=13.0, looks=0))


def test_a_second_round_does_not_drive_out_the_first():
    store = KeyframeStore(capacity=10)
    for number in range(30):
        store.offer(**offered(number, x_m=float(number % 10), looks=number % 10))
    assert sorted(s.T_map_camera[0, 3] for s in store.keyframes) == list(range(10))


def test_the_most_alike_comes_first():
    store = KeyframeStore()
    for number in range(6):
        store.offer(**offered(number, x_m=float(number)))
    near = random_features(3) + 0.3 * random_features(4)
    found = store.most_alike(describe(near, WIDTH).numpy(), 2)
    assert [s.stamp_ns % 10**18 for s in found] == [3, 4]
    assert len(store.most_alike(describe(near, WIDTH).numpy(), 99)) == 6
    assert KeyframeStore().most_alike(describe(near, WIDTH).numpy(), 3) == []


def test_a_keyframe_holds_a_small_copy_of_what_was_offered():
    view = offered(7)
    store = KeyframeStore()
    store.offer(**view)
    view["points"].zero_()
    keyframe = store.keyframes[0]
    assert keyframe.points.shape == (48, 64, 3) and keyframe.points.dtype == torch.float16
    assert keyframe.confidence.shape == (48, 64) and keyframe.rgb.shape == (48, 64, 3)
    assert keyframe.depth_m == 2.0 and keyframe.scale == 1.5 and keyframe.median_confidence == 3.0
    assert keyframe.state is view["state"]
    lens = keyframe.intrinsics
    x, y, z = keyframe.points[10, 20].double()
    assert (lens.width, lens.height) == (64, 48)
    assert float(lens.fx * x / z + lens.cx) == pytest.approx(20, abs=0.05)
    assert float(lens.fy * y / z + lens.cy) == pytest.approx(10, abs=0.05)


@pytest.mark.parametrize("size", [(96, 128), (384, 512), (144, 256)])
def test_a_keyframe_has_the_picture_whole_and_its_lens(size):
    height, width = size
    lens = Intrinsics(100.0, 110.0, 30.0, 20.0, width, height)
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    view = offered(7) | {"rgb": picture, "intrinsics": lens}
    view |= {"points": torch.ones(*size, 3), "confidence": torch.ones(size)}
    store = KeyframeStore()
    store.offer(**view)
    keyframe = store.keyframes[0]
    seen = picture.copy()
    picture[:] = 0  # it may be part of a message
    np.testing.assert_array_equal(keyframe.picture, seen)
    np.testing.assert_array_equal(keyframe.rgb, subsample_picture(seen))
    found = keyframe.picture_intrinsics
    assert (found.width, found.height) == (width, height)
    np.testing.assert_allclose(found.matrix(), lens.matrix(), atol=1e-9)


def test_a_store_goes_on_from_keyframes_as_the_one_they_are_from():
    store, other = KeyframeStore(capacity=5), KeyframeStore(capacity=5)
    for number in range(7):
        store.offer(**offered(number, x_m=0.7 * number * number, looks=0))
    other.restore(store.keyframes)
    for one in (store, other):
        for number in range(7, 12):
            one.offer(**offered(number, x_m=0.7 * number * number, looks=0))
    assert [s.stamp_ns for s in store.keyframes] == [s.stamp_ns for s in other.keyframes]
    small = KeyframeStore(capacity=2)
    small.restore(store.keyframes)
    assert len(small) == 2
    small.clear()
    assert len(small) == 0


@pytest.mark.parametrize("depth_m", [float("nan"), float("inf"), 0.0, -2.0])
def test_depth_that_is_none_is_not_kept(depth_m):
    store = KeyframeStore()
    view = offered(0)
    view["points"][..., 2] = depth_m
    assert not store.offer(**view) and len(store) == 0


def test_a_store_for_nothing_is_refused():
    with pytest.raises(ValueError, match="capacity: must be at least 1, got 0"):
        KeyframeStore(capacity=0)


def test_a_descriptor_has_length_1_and_ignores_pixels_behind_the_features():
    features = random_features(0)
    with_pixels = torch.cat((features, torch.full((1, 6, 8, 768), 9.0)), dim=-1)
    descriptor = describe(features, WIDTH)
    assert descriptor.shape == (6 * WIDTH,)
    assert float(descriptor.norm()) == pytest.approx(1)
    assert torch.equal(descriptor, describe(with_pixels, WIDTH))


def test_a_descriptor_is_the_means_of_the_cells():
    features = random_features(1)
    cells = [
        features[0, 3 * row : 3 * row + 3, first:last].mean(dim=(0, 1))
        for row in range(2)
        for first, last in ((0, 3), (2, 6), (5, 8))  # eight columns into three cells that overlap
    ]
    expected = torch.stack(cells).T.flatten()
    torch.testing.assert_close(describe(features, WIDTH), expected / expected.norm())


def test_a_picture_is_thinned_around_the_pixels_that_points_are_left_at():
    row = np.broadcast_to(np.arange(256, dtype=np.uint8), (192, 256))  # 192x256: every 4th
    rgb = np.repeat(row[..., None], 3, axis=2)
    kept = subsample(torch.from_numpy(rgb.copy()))
    small = subsample_picture(rgb)
    assert small.shape == kept.shape == (48, 64, 3)
    # Averages of four pixels lie between two.
    assert np.abs(small[:, 1:-1].astype(int) - kept[:, 1:-1].numpy()).max() <= 1


@pytest.mark.parametrize("size", [(96, 128), (384, 512), (100, 30), (50, 60), (144, 256)])
def test_thinned_intrinsics_are_those_of_the_thinned_image(size):
    height, width = size
    lens = Intrinsics(100.0, 110.0, 30.0, 20.0, width, height)
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = (column - lens.cx) / lens.fx, (row - lens.cy) / lens.fy
    small = subsample_intrinsics(lens)
    x, y = subsample(torch.stack((x, y), dim=-1)).unbind(dim=-1)
    assert x.shape == (small.height, small.width) and x.numel() <= 3072
    found = torch.stack((small.fx * x + small.cx, small.fy * y + small.cy))
    expected = torch.meshgrid(torch.arange(small.width), torch.arange(small.height), indexing="xy")
    torch.testing.assert_close(found, torch.stack(expected).float(), atol=1e-3, rtol=0)


def test_the_examples_are_what_a_camera_sees():
    assert (LENS.width, LENS.height) == offered(0)["rgb"].shape[1::-1]


def test_keyframes_move_with_their_segments_and_take_their_new_numbers():
    store = KeyframeStore(8)
    for number in (0, 12, 24):  # segments 0, 1, 2
        assert store.offer(**offered(number, x_m=float(number)))
    before = store.keyframes
    shift = transform(np.eye(3), (0.0, 0.0, 5.0))
    store.move({0: shift, 2: shift}, {2: 1})
    assert [k.segment for k in store.keyframes] == [0, 1, 1]
    for old, new, T in zip(before, store.keyframes, (shift, np.eye(4), shift), strict=True):
        np.testing.assert_allclose(new.T_map_camera, T @ old.T_map_camera)
        np.testing.assert_allclose(new.T_map_segment, T @ old.T_map_segment)
        assert new.state is old.state
    # What is near has moved too.
    again = {**offered(30, looks=0), "T_map_camera": store.keyframes[0].T_map_camera}
    assert not store.offer(**again)
