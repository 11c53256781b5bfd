# SPDX-License-Identifier: Apache-2.0
"""Messages made of results and frames made of messages, without a node or DDS."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from honest_network import CAMERA_HEIGHT_M, HonestNetwork, honest_tracker, level_pose
from robot import image_message, picture
from sensor_msgs.msg import CompressedImage

from ttt3r_ros.geometry import R_BODY_OPTICAL, inverse, transform
from ttt3r_ros.mapping.voxel_map import MapCloud
from ttt3r_ros.ros import conversions
from ttt3r_ros.ros.transforms import Extrinsics
from ttt3r_ros.types import FrameRejected, FrameResult

STAMP_NS = 1_700_000_000_123_456_789
MOUNT = transform(R_BODY_OPTICAL, (0.1, 0.2, 0.5))


@pytest.fixture(scope="module")
def result() -> FrameResult:
    network = HonestNetwork()
    return honest_tracker(network).step(
        replace(network.frame(STAMP_NS, level_pose()), frame_id="eye")
    )


def image_of(message, dtype, channels=1):
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width, channels)


def test_a_stamp_goes_there_and_back_to_the_nanosecond():
    message = conversions.stamp_message(STAMP_NS)
    assert (message.sec, message.nanosec) == divmod(STAMP_NS, 10**9)
    assert conversions.stamp_ns(message) == STAMP_NS


def test_an_image_is_of_the_frame_that_it_names_or_else_of_the_cameras():
    assert conversions.frame_id_of(image_message(frame_id="eye"), "other") == "eye"
    assert conversions.frame_id_of(image_message(frame_id=""), "other") == "other"
    with pytest.raises(FrameRejected, match=r"header\.frame_id: empty, and the parameter"):
        conversions.frame_id_of(image_message(frame_id=""), "")


def test_pixels_are_those_of_the_message():
    np.testing.assert_array_equal(conversions.decode(image_message()), picture())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (dict(encoding="rgb7"), "encoding: 'rgb7'"),
        (dict(step=100), "step: 64 pixels take 192 bytes"),
        (dict(data=b"abc"), "data: 48 rows of 192 bytes take 9216 bytes, got 3"),
    ],
)
def test_a_wrong_field_is_named(fields, reason):
    with pytest.raises(FrameRejected, match=reason):
        conversions.decode(image_message(**fields))


def test_a_damaged_picture_is_named():
    message = CompressedImage(format="jpeg", data=b"nonsense")
    with pytest.raises(FrameRejected, match="data: 8 bytes that are neither JPEG nor PNG"):
        conversions.decode(message)


def test_depth_is_metres_where_it_is_known_and_else_no_number(result):
    message = conversions.depth_message(result, min_confidence=1.0, max_depth_m=3.0)
    assert (message.encoding, message.header.frame_id) == ("32FC1", "eye")
    assert conversions.stamp_ns(message.header.stamp) == STAMP_NS
    depth, true = image_of(message, np.float32)[..., 0], result.points[..., 2].numpy()
    np.testing.assert_array_equal(depth, np.where(true <= 3.0, true, np.nan))
    assert 0 < np.isnan(depth).mean() < 1
    unsure = conversions.depth_message(result, min_confidence=3.1, max_depth_m=3.0)
    assert np.isnan(image_of(unsure, np.float32)).all()


def test_what_the_network_saw_and_trusts_has_the_depths_size(result):
    confidence, rgb = conversions.confidence_message(result), conversions.rgb_message(result)
    assert (confidence.encoding, rgb.encoding) == ("32FC1", "rgb8")
    assert (image_of(confidence, np.float32) == 3.0).all()
    np.testing.assert_array_equal(image_of(rgb, np.uint8, 3), result.rgb)


def test_a_camera_info_says_the_lens_in_k_and_p_and_no_distortion(result):
    message = conversions.camera_info_message(result, result.intrinsics)
    K = result.intrinsics.matrix()
    np.testing.assert_array_equal(np.reshape(message.k, (3, 3)), K)
    np.testing.assert_array_equal(np.reshape(message.p, (3, 4)), np.c_[K, np.zeros(3)])
    assert (message.width, message.height, list(message.d)) == (128, 96, [0.0] * 5)


def fields_of(message):
    offsets = {field.name: field.offset for field in message.fields}
    dtype = np.dtype(
        {
            "names": [*offsets],
            "formats": [np.uint32 if name in ("rgb", "count") else np.float32 for name in offsets],
            "offsets": [*offsets.values()],
            "itemsize": message.point_step,
        }
    )
    return np.frombuffer(message.data, dtype)


def test_a_cloud_of_an_image_has_its_order_its_colours_and_holes(result):
    message = conversions.points_message(result, min_confidence=1.0, max_depth_m=3.0)
    assert (message.height, message.width, message.is_dense) == (96, 128, False)
    assert message.row_step == 128 * message.point_step
    points = fields_of(message)
    true = result.points.numpy().reshape(-1, 3)
    expected = np.where(true[:, 2:] <= 3.0, true, np.nan)
    np.testing.assert_array_equal(np.stack([points[axis] for axis in "xyz"], axis=1), expected)
    colours = np.stack([points["rgb"] >> shift & 255 for shift in (16, 8, 0)], axis=1)
    np.testing.assert_array_equal(colours, result.rgb.reshape(-1, 3))


def test_a_map_says_how_often_each_point_was_seen():
    values = np.float32([[1, 2, 3, 10, 20, 30], [4, 5, 6, 40, 50, 60]])
    message = conversions.map_message(MapCloud(values, np.int32([7, 8])), STAMP_NS, "map")
    points = fields_of(message)
    assert message.is_dense and message.header.frame_id == "map"
    np.testing.assert_array_equal(points["count"], [7, 8])
    np.testing.assert_array_equal(points["rgb"], [10 << 16 | 20 << 8 | 30, 40 << 16 | 50 << 8 | 60])


def pose_of(message):
    p, q = message.position, message.orientation
    assert np.linalg.norm((q.x, q.y, q.z, q.w)) == pytest.approx(1)
    return np.array((p.x, p.y, p.z))


def test_odometry_is_the_bases_and_its_velocity_that_of_the_moving_frame(result):
    base = Extrinsics("base", MOUNT, MOUNT, is_published=True)
    T_odom_base = result.T_odom_camera @ inverse(MOUNT)
    first = conversions.odometry_message(result, base, None, "odom")
    assert (first.header.frame_id, first.child_frame_id) == ("odom", "base")
    np.testing.assert_allclose(pose_of(first.pose.pose), T_odom_base[:3, 3], atol=1e-9)
    assert first.twist.twist.linear.x == 0
    # Half a second ago it was 10 cm behind.
    before = STAMP_NS - 500_000_000, T_odom_base @ transform(np.eye(3), (-0.1, 0.0, 0.0))
    then = conversions.odometry_message(result, base, before, "odom").twist.twist
    linear = then.linear.x, then.linear.y, then.linear.z
    np.testing.assert_allclose(linear, (0.2, 0, 0), atol=1e-9)
    assert then.angular.z == pytest.approx(0, abs=1e-9)


def test_the_pose_in_the_map_is_that_of_odom_corrected(result):
    moved = replace(result, T_map_odom=transform(np.eye(3), (5.0, 0.0, CAMERA_HEIGHT_M)))
    base = Extrinsics("base", MOUNT, MOUNT, is_published=True)
    message = conversions.map_pose_message(moved, base, "map")
    plain = conversions.map_pose_message(result, base, "map")
    assert message.header.frame_id == "map"
    shift = pose_of(message.pose.pose) - pose_of(plain.pose.pose)
    np.testing.assert_allclose(shift, (5.0, 0.0, CAMERA_HEIGHT_M), atol=1e-9)
