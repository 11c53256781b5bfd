# SPDX-License-Identifier: Apache-2.0
"""Somebody says where the robot is in the map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from robot import camera_info_message, image_message, stamp
from seen_again import EAGER, recognise_every_place
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage
from tolerant import TOLERANT
from tracked_frames import frames, pipeline

from ttt3r_ros.geometry import Intrinsics, Transform, inverse, transform_from_quaternion
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.pose_graph.graph import EdgeKind
from ttt3r_ros.relocalization.place_memory import PlaceMemory
from ttt3r_ros.ros.told_pose import TOPICS, read_told_pose
from ttt3r_ros.session import made_for, save_session
from ttt3r_ros.types import TrackingState

LOST = TrackingState.LOST
CAMERA = Intrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)
MOUNT = [0.3, 0.0, 0.5, 0.0, 0.2, 0.0]
COVARIANCE = np.diag([0.25, 0.25, 0.0, 0.0, 0.0, 0.0685])  # RViz's


def matrix(p, q) -> Transform:
    return transform_from_quaternion((p.x, p.y, p.z), (q.w, q.x, q.y, q.z))


def pose(message) -> Transform:
    return matrix(message.pose.pose.position, message.pose.pose.orientation)


def told(frame="map", x=3.0, y=-2.0, covariance=COVARIANCE) -> PoseWithCovarianceStamped:
    message = PoseWithCovarianceStamped()
    message.header.frame_id = frame
    message.pose.pose.position.x, message.pose.pose.position.y = x, y
    message.pose.pose.orientation.w, message.pose.pose.orientation.z = np.cos(0.6), np.sin(0.6)
    message.pose.covariance = covariance.flatten()
    return message


def start(robot, **parameters):
    settings = {**TOLERANT, "process_all_images": True, **parameters}
    robot.start(base_frame="base", camera_pose=MOUNT, **settings)
    info = robot.client.create_publisher(CameraInfo, "camera_info", 1)
    robot.wait_until(lambda: info.get_subscription_count() > 0)
    message = camera_info_message(128, 96)
    message.k = CAMERA.matrix().flatten()
    info.publish(message)


def send(robot, frame) -> TrackingStatus:
    return robot.send(image_message(1 + frame.stamp_ns / 1e9, frame.rgb))


def tell(robot, topic, message):
    """Publish it, and wait until the node has it."""
    name = robot.node.resolve_topic_name(topic)
    publisher = robot.client.create_publisher(PoseWithCovarianceStamped, name, 1)
    robot.wait_until(lambda: publisher.get_subscription_count() > 0)
    publisher.publish(message)
    robot.wait_until(lambda: robot.node._worker._told_pose is not None)


def at(index):
    return stamp(1 + index / 10)


@pytest.mark.parametrize("topic", TOPICS)
def test_the_base_is_in_the_map_where_somebody_says_and_odom_stays(robot, topic):
    start(robot)
    poses = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    odometry = robot.listen_to_node(Odometry, "odom")
    tf = robot.listen(TFMessage, "/tf")
    robot.wait_until(lambda: robot.node.count_subscribers("/tf") > 1)
    images = frames(8)
    for frame in images[:4]:
        before = send(robot, frame)
    tell(robot, topic, told())
    for frame in images[4:]:
        after = send(robot, frame)
    odometry.wait(lambda m: m.header.stamp == at(7))
    tf.wait(lambda m: m.transforms[0].header.stamp == at(7))
    poses.wait(lambda m: m.header.stamp == at(7))
    assert (before.segment, after.segment, after.state) == (0, 1, TrackingStatus.TRACKING)
    odom = [pose(m) for m in odometry.messages]
    maps = [pose(m) for m in poses.messages]
    T_map_odom = maps[4] @ inverse(odom[4])
    # The base stood there with the image before: it has moved on in odom since.
    np.testing.assert_allclose(T_map_odom @ odom[3], pose(told()), atol=1e-6)
    for T_map_base, T_odom_base in zip(maps[4:], odom[4:], strict=True):
        np.testing.assert_allclose(T_map_base, T_map_odom @ T_odom_base, atol=1e-6)
    edge = tf.wait(lambda m: m.transforms[0].header.stamp == at(7)).transforms[0].transform
    np.testing.assert_allclose(matrix(edge.translation, edge.rotation), T_map_odom, atol=1e-6)
    alone = pipeline(**TOLERANT)
    alone.place_first_camera(robot.node._worker._activation.extrinsics.T_odom_first_camera)
    extrinsics = robot.node._worker._activation.extrinsics
    went = [extrinsics.odom_to_base(alone.process(f).T_odom_camera) for f in images]
    np.testing.assert_allclose(odom, went, atol=1e-6)


def test_the_covariance_of_the_pose_is_what_was_said_and_grows_from_there(robot):
    start(robot)
    poses = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    images = frames(6)
    for frame in images[:5]:
        send(robot, frame)
    tell(robot, "initialpose", told(covariance=100 * COVARIANCE))
    send(robot, images[5])
    variances = np.diag(poses.wait(lambda m: m.header.stamp == at(5)).pose.covariance.reshape(6, 6))
    assert (variances > np.diag(100 * COVARIANCE)).all()
    assert variances[0] == pytest.approx(25.0, rel=0.2)
    assert variances[5] == pytest.approx(6.85, rel=0.2)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (told(frame="odom"), "header.frame_id: must be 'map', got 'odom'"),
        (told(frame=""), "header.frame_id: must be 'map', got ''"),
        (told(x=np.nan), "pose.pose: must be finite"),
        (told(covariance=-COVARIANCE), "no negative eigenvalue"),
        (told(covariance=np.inf * np.ones((6, 6))), "pose.covariance: must be finite"),
    ],
)
def test_what_is_no_pose_in_the_map_is_refused_by_name(message, reason):
    with pytest.raises(ValueError, match=reason):
        read_told_pose(message, "map")


def test_a_pose_in_another_frame_changes_nothing_but_the_log(robot, capfd):
    start(robot)
    send(robot, frames(1)[0])
    publisher = robot.client.create_publisher(PoseWithCovarianceStamped, "initialpose", 2)
    robot.wait_until(lambda: publisher.get_subscription_count() > 0)
    heard = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    publisher.publish(told(frame="odom"))
    said = []
    robot.wait_until(lambda: said.append(capfd.readouterr().err) or "left out" in "".join(said))
    assert "initialpose: left out: header.frame_id: must be 'map', got 'odom'" in "".join(said)
    send(robot, frames(2)[1])
    assert heard.wait(lambda m: m.header.stamp == at(1)).pose.pose.position.x < 2.0


def session(tmp_path):
    subject = pipeline(**TOLERANT)
    for frame in frames(8):
        subject.process(replace(frame, intrinsics=CAMERA))
    owner = made_for(subject.config, subject.model.image_size)
    save_session(tmp_path / "session", subject.session(), owner)
    return str(tmp_path / "session")


def test_a_camera_that_is_looked_for_in_a_session_is_where_somebody_says(robot, tmp_path):
    start(robot, session=session(tmp_path), recovery__candidates=1)
    poses = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    odometry = robot.listen_to_node(Odometry, "odom")
    noise = np.random.default_rng(5).integers(0, 256, (4, 96, 128, 3), np.uint8)
    unknown = [replace(f, rgb=rgb) for f, rgb in zip(frames(4), noise, strict=True)]
    assert {send(robot, frame).state for frame in unknown[:2]} == {TrackingStatus.LOST}
    tell(robot, "initialpose", told())
    status = send(robot, unknown[2])
    assert status.state != TrackingStatus.LOST
    # The base was at the origin of odom.
    T_map_odom = pose(poses.wait(lambda m: m.header.stamp == at(2))) @ inverse(
        pose(odometry.wait(lambda m: m.header.stamp == at(2)))
    )
    np.testing.assert_allclose(T_map_odom, pose(told()), atol=1e-6)
    assert send(robot, unknown[3]).state == TrackingStatus.TRACKING


def assert_pulls_nothing(graph, segment):
    """What was tracked before says nothing of where the segment is in the map."""
    (boundary,) = [
        edge
        for edge in graph.edges
        if edge.kind is EdgeKind.BOUNDARY and edge.second.segment == segment
    ]
    assert boundary.covariance[0, 0] >= 100.0


def test_a_camera_that_is_lost_after_somebody_said_where_it_is_stays_there(monkeypatch):
    monkeypatch.setattr(PlaceMemory, "find", lambda *_: None)
    subject = pipeline(**{**EAGER, "tracking.lost_contrast": 2.0})
    images = [replace(frame, intrinsics=CAMERA) for frame in frames(12)]
    for frame in images[:3]:
        last = subject.process(frame)
    T_map_camera = last.T_map_camera.copy()
    T_map_camera[:3, 3] += 10.0
    subject.set_pose(T_map_camera, COVARIANCE)
    assert subject.process(replace(images[3], rgb=np.zeros_like(images[3].rgb))).state == LOST
    for frame in images[4:]:
        result = subject.process(frame)
        if result.is_localized:
            break
    graph = subject.loops.graph
    assert result.T_map_camera[0, 3] > last.T_map_camera[0, 3] + 5.0
    assert_pulls_nothing(graph, result.segment)
    assert [edge.kind for edge in graph.edges].count(EdgeKind.ODOMETRY) == 1


def test_loops_know_how_well_a_pose_was_known_that_somebody_said(monkeypatch):
    recognise_every_place(monkeypatch)
    subject = pipeline(**{**EAGER, "loop.max_correction_m": 0.0})  # nothing moves by itself
    images = [replace(frame, intrinsics=CAMERA) for frame in frames(12)]
    for frame in images[:6]:
        last = subject.process(frame)
    assert subject.loops.counts.asked > 0
    T_map_camera = last.T_map_camera.copy()
    T_map_camera[:3, 3] += 1.0
    subject.set_pose(T_map_camera, COVARIANCE)
    result = subject.process(images[6])
    graph = subject.loops.graph
    (edge,) = [edge for edge in graph.edges if edge.kind is EdgeKind.ODOMETRY]
    assert (edge.first.segment, edge.second.segment) == (graph.segments[0], result.segment)
    there = graph.pose(edge.first.segment) @ edge.T_first_second
    np.testing.assert_allclose(there, result.T_map_camera, atol=1e-9)
    axes = result.T_map_camera[:3, :3]
    place = axes @ edge.covariance[:3, :3] @ axes.T
    known = result.map_pose_covariance[:3, :3]
    np.testing.assert_allclose(place, known + 0.05**2 * np.eye(3), atol=1e-9)
    assert known[0, 0] >= COVARIANCE[0, 0]
    assert_pulls_nothing(graph, result.segment)
    asked = subject.loops.counts.asked
    for frame in images[7:]:
        subject.process(frame)
    assert subject.loops.counts.asked > asked  # the question that was dropped left its place free
    assert sum(edge.kind is EdgeKind.ODOMETRY for edge in subject.loops.graph.edges) == 1
