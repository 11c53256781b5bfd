# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import PointField
from std_msgs.msg import Header

from ttt3r_ros.geometry import inverse, optical_extrinsics
from ttt3r_ros.ros import wheels
from ttt3r_ros.ros.transforms import matrix_from_transform, transform_message
from ttt3r_ros.ros.wheels import Buffer, CvBridge, TransformException, create_cloud

T_A_B = optical_extrinsics((1, 2, 3, 0.1, 0.2, 0.3))
T_B_C = optical_extrinsics((-1, 0, 2, 0.5, -0.2, 0.1))
T_A_D = optical_extrinsics((0, 0, 1, 0, 0, 1))


@pytest.fixture
def buffer():
    buffer = Buffer()
    for T, parent, child in ((T_A_B, "a", "b"), (T_B_C, "b", "c"), (T_A_D, "a", "d")):
        buffer.set_transform(transform_message(T, parent, child, Header().stamp), "test")
    return buffer


def test_transforms_are_chained_up_and_down_the_tree(buffer):
    for target, source, expected in (
        ("a", "c", T_A_B @ T_B_C),
        ("c", "a", inverse(T_A_B @ T_B_C)),
        ("d", "c", inverse(T_A_D) @ T_A_B @ T_B_C),
        ("b", "b", np.eye(4)),
    ):
        found = buffer.lookup_transform(target, source, None)
        assert (found.header.frame_id, found.child_frame_id) == (target, source)
        np.testing.assert_allclose(matrix_from_transform(found), expected, atol=1e-12)


def test_frames_that_are_not_connected_are_an_error_that_names_them(buffer):
    with pytest.raises(TransformException, match='"a" and "x" are not connected'):
        buffer.lookup_transform("a", "x", None)


def test_a_circle_in_tf_ends_the_search(buffer):
    buffer.set_transform(transform_message(T_A_B, "c", "a", Header().stamp), "test")
    with pytest.raises(TransformException):
        buffer.lookup_transform("a", "x", None)


def test_quaternions_are_x_y_z_w():
    half = np.sqrt(0.5)
    about_z = wheels.quaternion_matrix((0.0, 0.0, half, half))
    np.testing.assert_allclose(about_z[:2, :2], [[0, -1], [1, 0]], atol=1e-12)
    np.testing.assert_allclose(wheels.quaternion_from_matrix(about_z), [0, 0, half, half])


def test_depth_becomes_an_image_message():
    depth = np.arange(6, dtype=np.float32).reshape(2, 3)
    message = CvBridge().cv2_to_imgmsg(depth, "32FC1")
    assert (message.height, message.width, message.step, message.encoding) == (2, 3, 12, "32FC1")
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32), depth.flatten())
    message = CvBridge().cv2_to_imgmsg(depth[:, ::2], "32FC1")  # not contiguous
    assert message.step == 8
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32), [0, 2, 3, 5])


def test_what_the_stand_in_cannot_do_is_said():
    for pixels, encoding in (
        (np.zeros((2, 2), np.uint8), "mono8"),
        (np.zeros((2, 2), np.uint8), "rgb8"),
        (np.zeros((2, 2), np.float64), "32FC1"),
    ):
        with pytest.raises(ValueError, match=r"encoding: only 32FC1 and rgb8 .* without a ROS"):
            CvBridge().cv2_to_imgmsg(pixels, encoding)


def test_colours_become_an_image_message():
    rgb = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    message = CvBridge().cv2_to_imgmsg(rgb, "rgb8")
    assert (message.height, message.width, message.step, message.encoding) == (2, 3, 9, "rgb8")
    assert message.data.tobytes() == rgb.tobytes()


def test_a_cloud_holds_its_points_packed():
    points = np.zeros(3, [("x", "<f4"), ("k", "<u4")])
    points["x"], points["k"] = (1, 2, 3), (4, 5, 6)
    fields = [
        PointField(name="x", offset=0, datatype=PointField.FLOAT32, count=1),
        PointField(name="k", offset=4, datatype=PointField.UINT32, count=1),
    ]
    cloud = create_cloud(Header(frame_id="map"), fields, points)
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (1, 3, 8, 24)
    assert cloud.data.tobytes() == points.tobytes()
