# SPDX-License-Identifier: Apache-2.0
"""Beside an odometry of the robot's own, and what happens when one appears unasked."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from nav_msgs.msg import Odometry
from rclpy.logging import get_logger
from robot import PATIENCE_S, image_message, picture, stamp
from tf2_msgs.msg import TFMessage
from tolerant import TOLERANT

from ttt3r_ros.config import ConfigError, NodeConfig, with_values
from ttt3r_ros.geometry import inverse, transform, transform_from_quaternion
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.ros.robot_odometry import RobotOdometry
from ttt3r_ros.ros.transforms import Extrinsics, transform_message
from ttt3r_ros.tracking.odometry_buffer import OdometryBuffer
from ttt3r_ros.tracking.tracker import Tracker

DARK = np.zeros((48, 64, 3), np.uint8)
BEHIND_TF = {
    "odom_source": "tf",
    "transform_tolerance_s": 0.0,
    "base_frame": "base",
    "camera_pose": [0.2, 0.0, 1.0, 0.0, 0.1, 0.0],
    **TOLERANT,
    "tracking.lost_contrast": 2.0,
}


def T_odom_base(at_s):
    """The robot's odometry: a bend, begun somewhere."""
    x, y, yaw = 3.0 + 0.5 * at_s, -1.0 + 0.1 * at_s, 0.7 + 0.2 * at_s
    half = yaw / 2
    return transform_from_quaternion((x, y, 0.0), (np.cos(half), 0, 0, np.sin(half)))


class Wheels:
    """Publishes the robot's odometry on /tf, and hears what the node says there."""

    def __init__(self, robot):
        self._robot = robot
        self._publisher = robot.client.create_publisher(TFMessage, "/tf", 100)
        self.tf = robot.listen(TFMessage, "/tf")

    def meet(self):
        # The node's listener, its odometry with odom_source tf, and our own ear.
        is_tf = self._robot.node.get_parameter("odom_source").value == "tf"
        self._robot.wait_until(
            lambda: self._publisher.get_subscription_count() == (3 if is_tf else 2)
        )
        self._robot.wait_until(lambda: self._robot.node.count_subscribers("/tf") >= 2)

    def say(self, at_s, T=None, parent="odom", child="base"):
        T = T_odom_base(at_s) if T is None else T
        message = transform_message(T, parent, child, stamp(at_s))
        self._publisher.publish(TFMessage(transforms=[message]))

    def edges(self, child):
        """What was said of a frame, by stamp in seconds."""
        return {
            edge.header.stamp.sec + edge.header.stamp.nanosec / 1e9: matrix(edge.transform)
            for message in list(self.tf.messages)
            for edge in message.transforms
            if edge.child_frame_id == child
        }

    def correction(self, at_s):
        """Return map -> odom of a stamp, once it was heard."""
        self._robot.wait_until(lambda: at_s in self.edges("odom"))
        return self.edges("odom")[at_s]


def matrix(pose):
    p = pose.translation if hasattr(pose, "translation") else pose.position
    q = pose.rotation if hasattr(pose, "rotation") else pose.orientation
    return transform_from_quaternion((p.x, p.y, p.z), (q.w, q.x, q.y, q.z))


@pytest.fixture
def wheels(robot):
    return Wheels(robot)


def start(robot, wheels, **parameters):
    robot.start(**{**BEHIND_TF, **parameters})
    wheels.meet()


def drive(robot, wheels, stamps, **fields):
    """Send images between two messages of the odometry each."""
    for at_s in stamps:
        wheels.say(at_s - 0.02)
        robot.images.publish(image_message(at_s, **fields))
        wheels.say(at_s + 0.03)
        status = robot.status_at(stamp(at_s))
    return status


def test_map_to_base_in_tf_is_the_tracked_pose_at_the_images_stamp(robot, wheels):
    start(robot, wheels)
    poses = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    odometry = robot.listen_to_node(Odometry, "odom")
    for i in range(4):
        drive(robot, wheels, [1 + 0.25 * i], rgb=picture(i))
    for i in range(4):
        at_s = 1 + 0.25 * i
        pose = poses.wait(lambda message, at_s=at_s: message.header.stamp == stamp(at_s))
        tracked = matrix(pose.pose.pose)
        # Interpolated between the messages before and after the image, nearly T_odom_base(at_s).
        in_tf = wheels.correction(at_s) @ T_odom_base(at_s)
        np.testing.assert_allclose(in_tf, tracked, atol=1e-4)
    assert not np.allclose(wheels.correction(1.0), np.eye(4), atol=0.1)
    # Of odom -> base, only what the wheels said; and no odometry beside theirs.
    assert set(wheels.edges("base")) == {1 + 0.25 * i + d for i in range(4) for d in (-0.02, 0.03)}
    assert not odometry.messages


def test_the_base_begins_at_the_origin_of_the_map(robot, wheels, monkeypatch):
    step = Tracker.step

    def standing(self, frame):
        return replace(step(self, frame), T_odom_camera=self.T_odom_first_camera)

    monkeypatch.setattr(Tracker, "step", standing)
    start(robot, wheels)
    drive(robot, wheels, [1.0])
    np.testing.assert_allclose(wheels.correction(1.0), inverse(T_odom_base(1.0)), atol=1e-4)


def test_the_stamp_is_ahead_by_the_tolerance(robot, wheels):
    start(robot, wheels, transform_tolerance_s=0.5)
    drive(robot, wheels, [1.0])
    wheels.correction(1.5)
    assert "10" in robot.set_parameter("transform_tolerance_s", 1e10).reason
    assert robot.set_parameter("transform_tolerance_s", 0.0).successful
    drive(robot, wheels, [1.1])
    wheels.correction(1.1)
    assert set(wheels.edges("odom")) == {1.5, 1.1}


def test_while_lost_map_to_odom_is_kept_and_sent_again(robot, wheels):
    start(robot, wheels, publish_when_lost=True)
    drive(robot, wheels, [1.0, 1.1])
    kept = wheels.correction(1.1)
    status = drive(robot, wheels, [1.2, 1.3], rgb=DARK)
    assert status.state == TrackingStatus.LOST
    for at_s in (1.2, 1.3):
        np.testing.assert_array_equal(wheels.correction(at_s), kept)
    drive(robot, wheels, [1.4])
    assert not np.allclose(wheels.correction(1.4), kept, atol=1e-6)


def test_without_odometry_at_the_stamp_the_last_map_to_odom_stays(robot, wheels, capfd):
    start(robot, wheels)
    robot.send(at_s=0.9)
    drive(robot, wheels, [1.0])
    kept = wheels.correction(1.0)
    assert "no odom -> base at the time of the image, 900000000 ns" in capfd.readouterr().err
    assert set(wheels.edges("odom")) == {1.0}  # nothing was made up for the first image
    robot.send(at_s=1.5)  # nothing heard since 1.03
    robot.send(at_s=1.8)
    np.testing.assert_array_equal(wheels.correction(1.5), kept)
    assert set(wheels.edges("odom")) == {1.0, 1.5}


def test_an_image_that_is_ahead_of_the_odometry_waits_for_it(robot, wheels):
    start(robot, wheels)
    wheels.say(0.98)
    robot.send(at_s=1.0)
    assert not wheels.edges("odom")
    wheels.say(1.03)
    wheels.correction(1.0)


def test_no_image_waits_for_those_that_wait_for_odometry(robot, wheels, monkeypatch):
    monkeypatch.setattr("ttt3r_ros.ros.map_correction._WAIT_NS", 10**12)
    start(robot, wheels, process_all_images=True)
    stamps = [1 + i / 10 for i in range(20)]
    for i, at_s in enumerate(stamps):
        robot.images.publish(image_message(at_s, picture(i)))
    last = robot.status_at(stamp(stamps[-1]))
    assert (last.processed, last.replaced) == (20, 0) and last.map_points > 0
    assert not wheels.edges("odom")
    for at_s in stamps:
        wheels.say(at_s)
    wheels.correction(stamps[-1])
    assert list(wheels.edges("odom")) == stamps


def test_a_lost_image_waits_for_no_odometry_and_misses_none(robot, wheels, capfd):
    start(robot, wheels)
    drive(robot, wheels, [1.0])
    kept = wheels.correction(1.0)
    assert robot.send(at_s=1.5, rgb=DARK).state == TrackingStatus.LOST
    np.testing.assert_array_equal(wheels.correction(1.5), kept)
    assert "no odom -> base" not in capfd.readouterr().err


@pytest.mark.parametrize(("publish_map_tf", "missed"), [(True, 1), (False, 0)])
def test_odometry_is_missed_only_where_map_to_odom_is_published(
    robot, wheels, capfd, publish_map_tf, missed
):
    start(robot, wheels, publish_map_tf=publish_map_tf)
    robot.send(at_s=1.0)
    robot.send(at_s=1.3)
    counts = robot.in_node(robot.node._worker.counts)
    assert (counts.processed, counts.without_odometry) == (2, missed)
    assert ("no odom -> base" in capfd.readouterr().err) == bool(missed)


def test_the_correction_of_an_activation_ends_with_it(robot, wheels):
    start(robot, wheels)
    drive(robot, wheels, [1.0])
    wheels.correction(1.0)
    robot.in_node(robot.node.trigger_deactivate)
    robot.wait_until(lambda: robot.images.get_subscription_count() == 0)
    robot.wait_until(lambda: wheels._publisher.get_subscription_count() == 1)
    robot.in_node(robot.node.trigger_activate)
    robot.meet()
    wheels.meet()
    assert robot.send(at_s=1.5).images_since_reset == 2  # the map goes on
    drive(robot, wheels, [2.0])
    wheels.correction(2.0)
    assert set(wheels.edges("odom")) == {1.0, 2.0}


def test_after_a_reset_the_old_map_to_odom_is_not_sent_again(robot, wheels):
    start(robot, wheels)
    drive(robot, wheels, [1.0])
    wheels.correction(1.0)
    assert robot.call("reset").success
    assert drive(robot, wheels, [1.1], rgb=DARK).state == TrackingStatus.LOST
    drive(robot, wheels, [1.2])
    wheels.correction(1.2)
    assert set(wheels.edges("odom")) == {1.0, 1.2}


def test_the_base_is_found_below_the_odometrys_frame(robot, wheels):
    robot.publish_tf(("base", "arm", (0.1, 0.0, 0.5)), ("arm", "camera", (0.0, 0.2, 0.0)))
    start(robot, wheels, base_frame="", camera_pose=[])
    wheels.say(0.9)
    robot.hear_tf(("odom", "base"))
    poses = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    drive(robot, wheels, [1.0])
    tracked = matrix(poses.wait().pose.pose)
    np.testing.assert_allclose(wheels.correction(1.0) @ T_odom_base(1.0), tracked, atol=1e-4)


def test_without_a_base_frame_images_are_rejected_until_there_is_odometry_above_the_camera(
    robot, wheels
):
    start(robot, wheels, base_frame="", camera_pose=[])
    first = robot.send(at_s=1.0)
    assert "odom_frame odom is not above the camera frame camera" in first.message
    robot.publish_tf(("base", "camera", (0.1, 0.2, 0.5)))
    for i in range(11, 1000):
        if drive(robot, wheels, [i / 10]).processed:
            break
    wheels.correction(i / 10)


def test_the_same_odometry_gives_the_scale(robot, wheels):
    parameters = {"scale_source": "odom", "scale_max_log_spread": 10.0, "process_all_images": True}
    start(robot, wheels, **parameters)
    assert robot.node.count_subscribers("/odometry") == 0
    for i in range(40):
        at_s = 1 + 0.1 * i
        wheels.say(at_s, transform(np.eye(3), (at_s, 0.0, 0.0)))
        status = robot.send(at_s=at_s, rgb=picture(i))
    assert status.scale != 1.0 and np.isfinite(status.scale_log_spread)


def test_an_odometry_of_another_frame_is_told(robot, wheels, capfd):
    start(robot, wheels)
    wheels.say(0.9, child="base_footprint")
    wheels.say(1.1, child="base_footprint")
    robot.send(at_s=1.0)
    assert (
        "is of base_footprint, the camera's extrinsics are known on base" in capfd.readouterr().err
    )
    assert not wheels.edges("odom")


def test_odometries_may_come_while_another_thread_asks_for_one():
    """The names of those that are there are put together in between."""
    odometry, others = RobotOdometry(get_logger("test"), "odom"), []

    def add_another():
        edge = transform_message(np.eye(4), "odom", f"wheel{len(others)}", stamp(1.0))
        others.append(
            threading.Thread(target=odometry.update_tf, args=[TFMessage(transforms=[edge])])
        )
        others[-1].start()
        others[-1].join(0.2)

    class Slow(dict):
        def __iter__(self):
            for name in super().__iter__():
                add_another()
                yield name

    odometry._buffers = Slow(base_footprint=OdometryBuffer())
    extrinsics = Extrinsics("base", np.eye(4), np.eye(4), is_published=True)
    assert odometry.camera_pose(0, extrinsics) is None
    for other in others:
        other.join()
    assert len(odometry._buffers) == 2


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match=r"robot_odom_frame: with odom_source tf .* got 'wheels'"):
        with_values(NodeConfig(), {"odom_source": "tf", "robot_odom_frame": "wheels"})
    for values in ({"odom_source": "tf"}, {"publish_odom_tf": False}):
        # In the order of a parameter file, whose values are only right together.
        config = with_values(NodeConfig(), {"robot_odom_frame": "odom", **values})
        assert not config.owns_odom


@pytest.fixture
def active(robot, wheels):
    """The node with its own odom -> base, tracking."""
    robot.start(base_frame="base", camera_pose=[0.0] * 6, **TOLERANT)
    wheels.meet()
    for i in range(5):
        robot.send(at_s=1 + 0.1 * i, rgb=picture(i))
    robot.wait_until(lambda: len(wheels.edges("base")) == 5)
    return robot


@pytest.mark.parametrize("parent", ["odom", "wheel_odom"])
def test_an_odometry_that_appears_later_is_an_error_and_the_node_deactivates(
    active, wheels, capfd, parent
):
    assert active.images.get_subscription_count() == 1  # its own transforms are no offence
    wheels.say(1.6, parent=parent)
    active.wait_until(lambda: active.images.get_subscription_count() == 0)
    error = capfd.readouterr().err
    assert error.count(f"deactivated: somebody else publishes {parent} -> base too") == 1
    assert "odom_source to tf or publish_odom_tf to false" in error


EKF = """
import rclpy
from geometry_msgs.msg import TransformStamped
from ttt3r_ros.ros.transforms import TransformBroadcaster

rclpy.init()
node = rclpy.create_node("ekf")
broadcaster = TransformBroadcaster(node)

def say():
    edge = TransformStamped(child_frame_id="base")
    edge.header.frame_id, edge.header.stamp = "odom", node.get_clock().now().to_msg()
    broadcaster.sendTransform([edge])

node.create_timer(0.05, say)
rclpy.spin(node)
"""


def test_a_process_that_begins_to_publish_odometry_is_noticed(active, capfd):
    with subprocess.Popen([sys.executable, "-c", EKF]) as process:
        try:
            active.wait_until(lambda: active.images.get_subscription_count() == 0)
        finally:
            process.kill()
    assert "deactivated: somebody else publishes odom -> base too" in capfd.readouterr().err


def test_a_transform_that_comes_back_is_known_by_its_content(active, wheels, monkeypatch):
    *_, own = active.node._outputs._frames._sent
    parent, child, sec, nanosec, x, y, z, *xyzw = own
    echo = TransformStamped(child_frame_id=child)
    echo.header.frame_id = parent
    echo.header.stamp.sec, echo.header.stamp.nanosec = sec, nanosec
    t, q = echo.transform.translation, echo.transform.rotation
    t.x, t.y, t.z = x, y, z
    q.x, q.y, q.z, q.w = xyzw
    outputs, heard = active.node._outputs, []
    is_rival = outputs.is_rival
    monkeypatch.setattr(outputs, "is_rival", lambda *e: heard.append(is_rival(*e)) or heard[-1])
    wheels._publisher.publish(TFMessage(transforms=[echo]))
    active.wait_until(lambda: heard == [False])
    assert active.send(at_s=1.6, rgb=picture(6)).processed == 6


def test_transforms_of_other_frames_are_nobodys_business(active, wheels):
    wheels.say(1.6, child="other_robot")
    wheels.say(1.6, parent="base", child="lidar")
    assert active.send(at_s=1.7, rgb=picture(7)).processed == 6
    assert active.images.get_subscription_count() == 1


def test_without_an_edge_of_its_own_the_node_minds_no_odometry(active, wheels):
    assert active.set_parameter("publish_odom_tf", False).successful
    wheels.say(1.6)
    assert active.send(at_s=1.7, rgb=picture(7)).processed == 6
    assert active.images.get_subscription_count() == 1


def test_it_goes_on_when_the_intruder_has_gone(active, wheels):
    wheels.say(1.6)
    active.wait_until(lambda: active.images.get_subscription_count() == 0)
    active.in_node(active.node.trigger_activate)
    active.meet()
    assert active.send(at_s=1.7, rgb=picture(7)).processed == 1
    assert active.send(at_s=1.8, rgb=picture(8)).processed == 2


@pytest.mark.parametrize("is_active", [True, False])
def test_the_robots_tree_that_came_too_late_is_taken_at_the_next_activation(
    robot, wheels, capfd, is_active
):
    """The base was the camera's frame, which has a parent now."""
    robot.start(**TOLERANT)
    odometry = robot.listen_to_node(Odometry, "odom")
    robot.send(at_s=1.0)
    assert odometry.wait().child_frame_id == "camera"
    if not is_active:
        robot.in_node(robot.node.trigger_deactivate)
    robot.publish_tf(("base_link", "camera", (0.1, 0.0, 0.5)))
    robot.wait_until(lambda: robot.images.get_subscription_count() == 0)
    told = "somebody else publishes base_link -> camera too"
    error = capfd.readouterr().err
    assert (told in error) == ("set base_frame, or a longer tf_wait_s" in error) == is_active
    robot.in_node(robot.node.trigger_activate)
    robot.meet()
    robot.hear_tf(("base_link", "camera"))
    for i in range(3):
        robot.send(at_s=2 + i / 10)
    odometry.wait(lambda message: message.header.stamp == stamp(2.2))
    assert {m.child_frame_id for m in odometry.messages[1:]} == {"base_link"}
    assert told not in capfd.readouterr().err


def test_a_static_parent_of_the_base_is_noticed_before_the_first_pose(robot, monkeypatch, capfd):
    step, entered, released = Tracker.step, threading.Event(), threading.Event()

    def held(self, frame):
        entered.set()
        assert released.wait(PATIENCE_S)
        return step(self, frame)

    monkeypatch.setattr(Tracker, "step", held)
    robot.start(base_frame="base", camera_pose=[0.0] * 6, **TOLERANT)
    robot.images.publish(image_message(1.0))
    assert entered.wait(PATIENCE_S)
    robot.publish_tf(("world", "base", (0.0, 0.0, 0.0)))
    try:
        robot.wait_until(lambda: robot.images.get_subscription_count() == 0)
    finally:
        released.set()
    assert "somebody else publishes world -> base too" in capfd.readouterr().err


def test_an_odometry_of_other_names_is_no_part_of_the_robot(robot, wheels):
    """As the one of another node of this package, for another camera."""
    robot.publish_tf(("base_link", "camera", (0.0, 0.0, 0.0)))
    robot.start(odom_frame="odom2", map_frame="map2")
    wheels.meet()
    wheels.say(0.9, parent="map1", child="odom1")
    wheels.say(0.9, parent="odom1", child="base_link")
    robot.hear_tf(("map1", "base_link"))
    assert "TF has odom1 -> base_link already" in robot.send(at_s=1.0).message
    robot.wait_until(lambda: robot.images.get_subscription_count() == 0)
    robot.wait_until(lambda: len(wheels.tf.messages) == 2)
    assert set(wheels.edges("map1")) == set(wheels.edges("odom2")) == set()


def test_an_error_about_the_frames_costs_no_points(robot, wheels, monkeypatch):
    start(robot, wheels)
    map_ = robot.node._worker._pipeline.map
    monkeypatch.setattr("ttt3r_ros.ros.map_correction.MapCorrection.add", lambda *_: 1 / 0)
    wheels.say(0.98)
    robot.images.publish(image_message(1.0))
    wheels.say(1.03)
    robot.wait_until(lambda: len(map_) > 0)
    monkeypatch.undo()
    assert drive(robot, wheels, [1.1]).images_since_reset == 2
