# SPDX-License-Identifier: Apache-2.0
"""Where the camera is on the robot, from transforms that somebody has heard; no node, no DDS."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from robot import stamp

from ttt3r_ros.config import NodeConfig
from ttt3r_ros.geometry import optical_extrinsics, transform
from ttt3r_ros.ros.frame_tree import WatchedBuffer
from ttt3r_ros.ros.transforms import (
    FrameConflict,
    find_extrinsics,
    matrix_from_transform,
    transform_message,
)
from ttt3r_ros.types import FrameRejected

ARM = transform(np.eye(3), (0.1, 0.0, 0.5))
WRIST = transform(np.eye(3), (0.0, 0.2, 0.0))
ROBOT = {("base_link", "arm"): ARM, ("arm", "camera"): WRIST}
POSE = (0.1, 0.0, 0.5, 0.0, 0.2, 0.0)


def found(static, moving=(), own_edges=(), camera="camera", **settings):
    heard = []
    buffer = WatchedBuffer(heard.append)
    for (parent, child), T in dict(static).items():
        buffer.set_transform_static(transform_message(T, parent, child, stamp(0)), "robot")
    for (parent, child), T in dict(moving).items():
        buffer.set_transform(transform_message(T, parent, child, stamp(1)), "robot")
    assert len(heard) == len(static) + len(moving)
    return find_extrinsics(buffer, camera, NodeConfig(**settings), set(own_edges))


def test_a_transform_goes_there_and_back():
    T = optical_extrinsics(POSE)
    message = transform_message(T, "base_link", "camera", stamp(1.5))
    assert (message.header.frame_id, message.child_frame_id) == ("base_link", "camera")
    assert message.header.stamp == stamp(1.5)
    np.testing.assert_allclose(matrix_from_transform(message), T, atol=1e-12)


def test_the_base_is_the_topmost_frame_that_the_camera_is_fixed_to():
    extrinsics = found(ROBOT)
    assert (extrinsics.base_frame, extrinsics.is_published) == ("base_link", True)
    np.testing.assert_allclose(extrinsics.T_base_camera, ARM @ WRIST)
    np.testing.assert_array_equal(extrinsics.T_odom_first_camera, extrinsics.T_base_camera)
    np.testing.assert_allclose(extrinsics.odom_to_base(ARM @ WRIST), np.eye(4), atol=1e-12)


def test_without_tf_the_camera_is_the_base_and_looks_along_x():
    extrinsics = found({})
    assert (extrinsics.base_frame, extrinsics.is_published) == ("camera", True)
    np.testing.assert_array_equal(extrinsics.T_base_camera, np.eye(4))
    np.testing.assert_array_equal(extrinsics.T_odom_first_camera, optical_extrinsics())


def test_a_given_pose_stands_in_for_tf_and_has_to_be_published():
    extrinsics = found({}, base_frame="base_link", camera_pose=POSE)
    assert (extrinsics.base_frame, extrinsics.is_published) == ("base_link", False)
    np.testing.assert_array_equal(extrinsics.T_base_camera, optical_extrinsics(POSE))


def test_a_given_pose_of_a_camera_without_a_base_says_how_it_starts():
    extrinsics = found({}, camera_pose=POSE)
    assert (extrinsics.base_frame, extrinsics.is_published) == ("camera", True)
    np.testing.assert_array_equal(extrinsics.T_base_camera, np.eye(4))
    np.testing.assert_array_equal(extrinsics.T_odom_first_camera, optical_extrinsics(POSE))


def test_a_base_that_tf_does_not_connect_is_named():
    with pytest.raises(FrameRejected, match="from base_frame robot to the camera frame camera"):
        found(ROBOT, base_frame="robot")


@pytest.mark.parametrize("settings", [{}, {"base_frame": "base_link", "camera_pose": POSE}])
def test_a_base_with_a_parent_gets_no_second_one(settings):
    wheels = {("odom", "base_link"): np.eye(4)}
    with pytest.raises(FrameConflict, match="TF has odom -> base_link already"):
        found(ROBOT, wheels, **settings)
    assert found(ROBOT, wheels, own_edges=wheels, **settings).base_frame == "base_link"
    assert found(ROBOT, wheels, publish_odom_tf=False, **settings).base_frame == "base_link"


def test_behind_another_odometry_the_base_is_right_below_its_frame():
    wheels = {("odom", "base_link"): np.eye(4)}
    assert found(ROBOT, wheels, odom_source="tf").base_frame == "base_link"
    with pytest.raises(FrameRejected, match="odom_frame odom is not above the camera frame"):
        found(ROBOT, odom_source="tf")


def test_a_joint_ends_the_robot_unless_a_base_above_it_is_named(caplog):
    static, joint = {("head", "camera"): WRIST}, {("base_link", "head"): ARM}
    assert found(static, joint, publish_odom_tf=False).base_frame == "head"
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        extrinsics = found(static, joint, base_frame="base_link")
    np.testing.assert_allclose(extrinsics.T_base_camera, ARM @ WRIST)
    assert "base_link -> head, between base and camera, is not static" in caplog.text


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        ("world", "tag #3"),
        ("Bob's", "wand"),
        ("a: b", "c: d"),
        ("world", "evil'\ncamera:\n  parent: 'forged"),
        ("on", "null"),
    ],
)
def test_names_of_other_frames_are_nobodys_business(parent, child):
    assert found({**ROBOT, (parent, child): ARM}).base_frame == "base_link"


@pytest.mark.parametrize("name", ["0", "on", "null", "1e3", "~", "tag #3", "Bob's", "a: b"])
def test_a_camera_may_have_any_name(name):
    extrinsics = found({("1", name): ARM}, camera=name)
    assert extrinsics.base_frame == "1"


def test_a_slash_at_the_beginning_is_none():
    assert found({("/base_link", "/camera"): ARM}).base_frame == "base_link"
    buffer = WatchedBuffer(lambda _: None)
    buffer.set_transform_static(transform_message(ARM, "/base_link", "/camera", stamp(0)), "robot")
    assert buffer.parents == {"camera": "base_link"}


@pytest.mark.parametrize("xyzw", [(0, 0, 0, 0), (0, 0, 0, 2), (float("nan"), 0, 0, 1)])
def test_edges_that_tf2_ignores_are_none(xyzw):
    edge = transform_message(ARM, "base_link", "camera", stamp(0))
    q = edge.transform.rotation
    q.x, q.y, q.z, q.w = map(float, xyzw)
    heard = []
    buffer = WatchedBuffer(heard.append)
    buffer.set_transform_static(edge, "robot")
    buffer.set_transform(transform_message(ARM, "camera", "/camera", stamp(0)), "robot")
    buffer.set_transform(transform_message(ARM, "", "camera", stamp(0)), "robot")
    buffer.set_transform(transform_message(ARM, "camera", "", stamp(0)), "robot")
    assert not buffer.parents and not buffer.static_edges and not heard


@pytest.mark.parametrize("name", ["map", "odom"])
def test_no_camera_has_a_frame_of_the_nodes_own(name):
    with pytest.raises(FrameRejected, match=f"header.frame_id: '{name}' is a frame that this node"):
        found({}, camera=name)


@pytest.mark.parametrize("parent", ["map", "world"])
def test_odom_gets_no_second_parent_either(parent):
    rival = {(parent, "odom"): np.eye(4)}
    with pytest.raises(FrameConflict, match=f"TF has {parent} -> odom already"):
        found(ROBOT, rival)
    assert found(ROBOT, rival, own_edges=rival).base_frame == "base_link"
    assert found(ROBOT, rival, publish_map_tf=False).base_frame == "base_link"
