# SPDX-License-Identifier: Apache-2.0
"""How the node meets bad images, odd times, missing files and missing transforms."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
import torch
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from rclpy.lifecycle import TransitionCallbackReturn
from robot import PATIENCE_S, image_message, picture, stamp
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from small_network import small_checkpoint
from tf2_msgs.msg import TFMessage
from tolerant import TOLERANT

from ttt3r_ros.config import Config
from ttt3r_ros.geometry import inverse, optical_extrinsics, transform, transform_from_quaternion
from ttt3r_ros.loading import load_model
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.ros.node import TTT3RNode
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import Frame

BAD_IMAGES = {  # each is sent 0.1 s after a good one, unless a step in seconds is given
    "unknown encoding": (dict(encoding="rgb7"), "encoding: 'rgb7'"),
    "no rows": (dict(height=0), "height, width: must be positive"),
    "no columns": (dict(width=0), "height, width: must be positive"),
    "step too short": (dict(step=100), "step: 64 pixels take 192 bytes, got a step of 100"),
    "data too short": (dict(data=b"abc"), "data: 48 rows of 192 bytes take 9216 bytes, got 3"),
    "no frame": (dict(frame_id=""), "header.frame_id: empty"),
    "repeated stamp": (dict(step_s=0.0), "stamp: 8000000000 ns repeats"),
    "older stamp": (dict(step_s=-0.5), "stamp: 0.500 s older"),
    "too narrow": (dict(rgb=np.zeros((640, 4, 3), np.uint8)), "less than one patch"),
}


def test_bad_images_are_rejected_by_name_and_the_next_good_one_works(robot):
    robot.start(time__jump_back_s=0.6, **TOLERANT)
    good = robot.send(at_s=2.0)
    for number, (fields, reason) in enumerate(BAD_IMAGES.values(), 1):
        seen, at_s = len(robot.statuses.messages), number + 1.0
        bad_s = at_s + fields.get("step_s", 0.1)
        rest = {name: value for name, value in fields.items() if name != "step_s"}
        robot.images.publish(image_message(bad_s, **rest))
        bad = robot.statuses.wait(lambda s, number=number: s.rejected == number)
        assert reason in bad.message
        assert (bad.received, bad.processed) == (2 * number, number)
        assert bad.map_points == good.map_points
        good = robot.send(at_s=at_s + 1)
        assert (good.processed, good.images_since_reset) == (number + 1, number + 1)
        assert good.message == "" and len(robot.statuses.messages) == seen + 2


def test_bad_compressed_images_are_rejected_and_the_next_good_one_works(robot):
    robot.images = robot.client.create_publisher(CompressedImage, "image/compressed", 10)
    robot.start(image_transport="compressed")
    whole = cv2.imencode(".jpg", picture())[1].tobytes()

    def sent(at_s, content):
        message = CompressedImage(format="jpeg", data=content)
        message.header.stamp, message.header.frame_id = stamp(at_s), "camera"
        return robot.send(message)

    for number, (data, reason) in enumerate(
        [
            (b"", "data: 0 bytes that are neither JPEG nor PNG"),
            (b"nonsense", "data: 8 bytes that are neither JPEG nor PNG"),
            (whole[:-40], "cut off"),
        ],
        1,
    ):
        assert reason in sent(number, data).message
        assert sent(number + 0.1, whole).processed == number


def test_camera_frame_stands_in_for_a_missing_frame_id(robot):
    robot.start(camera_frame="eye")
    odometry = robot.listen_to_node(Odometry, "odom")
    robot.send(at_s=1.0, frame_id="")
    assert odometry.wait().child_frame_id == "eye"


def test_stamps_that_jump_back_far_reset_once(robot):
    robot.start()
    robot.send(at_s=100.0)
    robot.send(at_s=100.1)
    assert "believed when a second one confirms it" in robot.send(at_s=5.0).message
    after = robot.send(at_s=5.1)
    assert (after.images_since_reset, after.segment) == (1, 0)
    assert after.last_reset_reason == "image stamps jumped back by 95.000 s"
    assert robot.send(at_s=5.2).images_since_reset == 2


@pytest.mark.parametrize("odd_s", [0.0, 1100.0 + 4294.967, 5.0])
def test_one_odd_stamp_is_rejected_and_the_map_stays(robot, odd_s):
    robot.start(**TOLERANT)
    before = [robot.send(at_s=1000 + i / 10) for i in range(3)][-1]
    odd = robot.send(at_s=odd_s)
    assert odd.rejected == 1 and "stamp: " in odd.message
    after = robot.send(at_s=1000.3)
    assert (after.processed, after.segment, after.last_reset_reason) == (4, 0, "")
    assert after.map_points >= before.map_points


def test_one_image_of_another_frame_is_rejected_and_the_map_stays(robot):
    robot.start(**TOLERANT)
    for i in range(2):
        robot.send(at_s=1 + i / 10)
    assert (
        "header.frame_id: 'typo', the images before"
        in robot.send(at_s=1.2, frame_id="typo").message
    )
    after = robot.send(at_s=1.3)
    assert (after.processed, after.rejected, after.last_reset_reason) == (3, 1, "")


def test_a_gap_in_time_starts_a_segment_at_the_last_pose(robot):
    robot.start()
    robot.send(at_s=1.0)
    after = robot.send(at_s=9.0)
    assert (after.segment, after.images_since_reset) == (1, 2)
    assert after.message == "new segment: no image for 8.000 s"


def test_a_change_of_image_size_starts_a_segment(robot):
    robot.start()
    robot.send(at_s=1.0)
    after = robot.send(at_s=1.1, rgb=picture(height=64, width=48))
    assert (after.segment, after.message) == (1, "new segment: image size changed to 48x64")


def test_a_jump_back_of_the_ros_clock_resets_once(robot):
    clock = robot.client.create_publisher(Clock, "/clock", 10)
    robot.start(use_sim_time=True)
    robot.wait_until(lambda: clock.get_subscription_count() > 0)

    def clock_at(seconds):
        clock.publish(Clock(clock=stamp(seconds)))
        robot.wait_until(lambda: abs(robot.node.get_clock().now().nanoseconds - seconds * 1e9) < 1)

    clock_at(50.0)
    robot.send(at_s=50.0)
    clock_at(10.0)
    after = robot.send(at_s=10.0)
    assert after.images_since_reset == 1
    assert after.last_reset_reason == "image stamps jumped back by 40.000 s"
    # The other way round: the images tell first.
    assert robot.send(at_s=3.0).rejected == 1
    clock_at(3.0)
    second, third = robot.send(at_s=3.1), robot.send(at_s=3.2)
    assert (second.images_since_reset, third.images_since_reset) == (1, 2)
    # One odd message of the clock.
    clock_at(0.5)
    clock_at(3.3)
    fourth = robot.send(at_s=3.3)
    assert fourth.images_since_reset == 3


def test_images_from_before_a_jump_of_the_clock_do_not_reset_again(robot, monkeypatch):
    clock = robot.client.create_publisher(Clock, "/clock", 10)
    robot.start(use_sim_time=True)
    robot.wait_until(lambda: clock.get_subscription_count() > 0)
    reasons = []
    reset = Pipeline.reset
    monkeypatch.setattr(Pipeline, "reset", lambda s, r: (reasons.append(r), reset(s, r)))
    step, entered, released = Tracker.step, threading.Event(), threading.Event()

    def held(self, frame):
        entered.set()
        assert released.wait(PATIENCE_S)
        return step(self, frame)

    monkeypatch.setattr(Tracker, "step", held)
    robot.images.publish(image_message(100.0))
    assert entered.wait(PATIENCE_S)
    robot.images.publish(image_message(100.1))  # waits in the mailbox
    clock.publish(Clock(clock=stamp(100.1)))
    robot.wait_until(lambda: robot.node.get_clock().now().nanoseconds > 100e9)
    clock.publish(Clock(clock=stamp(1.0)))
    robot.wait_until(lambda: robot.node.get_clock().now().nanoseconds < 2e9)
    released.set()
    robot.status_at(stamp(100.0))
    last = robot.send(at_s=1.1)
    assert reasons == ["image stamps jumped back by 98.900 s"]
    assert (last.received, last.processed, last.replaced) == (3, 2, 1)


def first_pose(T_odom_first_camera):
    """What the small network answers to `picture()`, from a first camera placed so."""
    tracker = Tracker(load_model(Config(checkpoint=small_checkpoint(), device="cpu")), Config())
    tracker.T_odom_first_camera = T_odom_first_camera
    tracker.reset()
    return tracker.step(Frame(0, picture())).T_odom_camera


def matrix(pose):
    p, q = pose.position, pose.orientation
    return transform_from_quaternion((p.x, p.y, p.z), (q.w, q.x, q.y, q.z))


def test_the_pose_is_that_of_the_topmost_frame_above_the_camera(robot):
    robot.publish_tf(("base_link", "arm", (0.1, 0.0, 0.5)), ("arm", "camera", (0.0, 0.2, 0.0)))
    robot.start()
    odometry = robot.listen_to_node(Odometry, "odom")
    robot.send(at_s=1.0)
    message = odometry.wait()
    T_base_camera = transform(np.eye(3), (0.1, 0.2, 0.5))
    assert message.child_frame_id == "base_link"
    np.testing.assert_allclose(
        matrix(message.pose.pose), first_pose(T_base_camera) @ inverse(T_base_camera), atol=1e-6
    )


def test_camera_pose_stands_in_for_tf_and_is_published(robot):
    tf_static = robot.listen(TFMessage, "/tf_static")
    robot.start(base_frame="base_link", camera_pose=[0.1, 0.0, 0.5, 0.0, 0.2, 0.0])
    odometry = robot.listen_to_node(Odometry, "odom")
    robot.send(at_s=1.0)
    T_base_camera = optical_extrinsics((0.1, 0.0, 0.5, 0.0, 0.2, 0.0))
    np.testing.assert_allclose(
        matrix(odometry.wait().pose.pose),
        first_pose(T_base_camera) @ inverse(T_base_camera),
        atol=1e-6,
    )
    edge = tf_static.wait().transforms[0]
    assert (edge.header.frame_id, edge.child_frame_id) == ("base_link", "camera")
    assert edge.transform.translation.z == 0.5


def test_a_missing_transform_is_an_error_until_it_comes_never_an_identity(robot):
    robot.start(base_frame="base_link", tf_wait_s=0.1)
    tf = robot.listen(TFMessage, "/tf")
    status = robot.send(at_s=1.0)
    assert "no transform from base_frame base_link to the camera frame camera" in status.message
    assert status.state == TrackingStatus.INITIALIZING and not tf.messages
    robot.publish_tf(("base_link", "camera", (0.0, 0.0, 0.0)))
    for i in range(1, 1000):
        if robot.send(at_s=1 + i / 10).processed:
            break
    assert tf.wait().transforms[1].child_frame_id == "base_link"


def test_the_node_never_gives_a_frame_a_second_parent(robot):
    robot.publish_tf(("base_link", "camera", (0.0, 0.0, 0.0)))
    wheel_odometry = robot.client.create_publisher(TFMessage, "/tf", 10)
    robot.start()
    robot.wait_until(lambda: wheel_odometry.get_subscription_count() > 0)
    edge = TransformStamped(child_frame_id="base_link")
    edge.header.frame_id = "odom"
    wheel_odometry.publish(TFMessage(transforms=[edge]))
    robot.hear_tf(("odom", "base_link"))
    assert "TF has odom -> base_link already" in robot.send(at_s=1.0).message
    robot.wait_until(lambda: robot.images.get_subscription_count() == 0)  # it is inactive


def test_the_images_may_come_from_another_camera_on_the_same_base(robot):
    robot.publish_tf(("base_link", "camera", (0.0,) * 3), ("base_link", "other", (0.0,) * 3))
    robot.start()
    assert robot.send(at_s=1.0, frame_id="camera").processed == 1
    assert robot.send(at_s=1.1, frame_id="other").rejected == 1
    assert robot.send(at_s=1.15, frame_id="other").processed == 2


def test_with_foreign_odometry_only_map_to_odom_is_published_if_asked_for(robot):
    robot.publish_tf(("odom", "base_link", (1.0, 0.0, 0.0)), ("base_link", "camera", (0.0,) * 3))
    robot.start(publish_odom_tf=False)
    tf = robot.listen(TFMessage, "/tf")
    robot.wait_until(lambda: robot.node.count_subscribers("/tf") > 1)
    odometry = robot.listen_to_node(Odometry, "odom")
    robot.send(at_s=1.0)
    assert odometry.wait().child_frame_id == "base_link"
    assert [edge.child_frame_id for edge in tf.wait().transforms] == ["odom"]


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        (dict(checkpoint="/nowhere.pth"), "/nowhere.pth: no such file"),
        (dict(device="cuda:77"), "device: 'cuda:77' is not there"),
    ],
    ids=["checkpoint", "device"],
)
def test_what_cannot_be_loaded_is_one_error_and_no_topic_pretends(robot, capfd, parameters, reason):
    robot.start(**parameters)
    assert not robot.started
    assert robot.images.get_subscription_count() == 0
    assert capfd.readouterr().err.count(reason) == 1


def test_the_program_says_what_is_wrong_with_a_parameter_and_ends(domain):
    ended = subprocess.run(
        [sys.executable, "-m", "ttt3r_ros.ros.node", "--ros-args", "-p", "map.voxel_size_m:=-1.0"],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "map.voxel_size_m" in ended.stderr and "Traceback" not in ended.stderr


def test_an_error_nobody_thought_of_costs_one_image(robot, monkeypatch):
    robot.start()
    depth = robot.listen_to_node(Image, "depth/image_rect")
    monkeypatch.setattr(
        "ttt3r_ros.tracking.tracker.robust_focal",
        lambda *_, **__: (_ for _ in ()).throw(KeyError("oops")),
    )
    assert "oops" in robot.send(at_s=1.0).message
    monkeypatch.undo()
    assert robot.send(at_s=1.1).processed == 1
    assert depth.wait().header.stamp == stamp(1.1)


def test_an_error_while_publishing_costs_one_image(robot, monkeypatch):
    robot.start()
    odometry = robot.listen_to_node(Odometry, "odom")
    monkeypatch.setattr("ttt3r_ros.ros.outputs.odometry_message", lambda *_: 1 / 0)
    robot.send(at_s=1.0)
    monkeypatch.undo()
    robot.send(at_s=1.1)
    assert odometry.wait().header.stamp == stamp(1.1)


def test_without_device_memory_the_node_gives_up_and_frees_it(robot, monkeypatch):
    robot.start()
    robot.send(at_s=1.0)

    def fail(*_):
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(VoxelMap, "clear", fail)
    robot.call("reset")
    robot.wait_until(lambda: robot.images.get_subscription_count() == 0)
    robot.wait_until(lambda: robot.node._worker is None)
    monkeypatch.undo()
    success = TransitionCallbackReturn.SUCCESS
    assert robot.in_node(robot.node.trigger_configure) == success  # and may begin again
    assert robot.in_node(robot.node.trigger_activate) == success
    robot.meet()
    assert robot.send(at_s=1.2).images_since_reset == 1


def test_what_nobody_thought_of_in_configure_is_told(robot, monkeypatch, capfd):
    monkeypatch.setattr(Pipeline, "from_config", lambda _: 1 / 0)
    robot.start()
    assert not robot.started
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_what_nobody_thought_of_in_activate_is_told_and_it_may_be_tried_again(
    robot, monkeypatch, capfd
):
    robot.start(autostart=False)
    node = robot.node
    robot.in_node(node.trigger_configure)
    monkeypatch.setattr(TTT3RNode, "_subscribe", lambda *_: 1 / 0)
    assert robot.in_node(node.trigger_activate) == TransitionCallbackReturn.FAILURE
    error = capfd.readouterr().err
    assert "cannot activate:" in error and "ZeroDivisionError" in error
    monkeypatch.undo()
    assert robot.in_node(node.trigger_activate) == TransitionCallbackReturn.SUCCESS
    robot.meet()
    assert robot.send(at_s=1.0).processed == 1


def test_an_image_that_waits_for_its_camera_keeps_nobody_from_ending_the_node(robot, monkeypatch):
    monkeypatch.setattr("ttt3r_ros.ros.worker._CAMERA_WAIT_S", 10 * PATIENCE_S)
    robot.client.create_publisher(CameraInfo, "camera_info", 10)
    robot.start()
    node = robot.node
    robot.wait_until(lambda: node.count_publishers("/camera_info") == 1)
    robot.images.publish(image_message(1.0))
    activation = node._worker._activation
    robot.wait_until(lambda: activation.is_camera_awaited)
    for transition in ("deactivate", "cleanup"):
        success = TransitionCallbackReturn.SUCCESS
        assert robot.in_node(getattr(node, f"trigger_{transition}")) == success
    assert activation.counter.counts().processed == 0  # without its lens it is not looked at


def test_an_answer_that_is_not_finite_is_no_pose_and_a_new_segment(robot, monkeypatch):
    robot.start()
    odometry = robot.listen_to_node(Odometry, "odom")
    robot.send(at_s=1.0)
    from ttt3r_ros.network.model import Network

    advance = Network.advance

    def poisoned(self, state, features, *args, **kwargs):
        return advance(self, state, features * float("nan"), *args, **kwargs)

    monkeypatch.setattr(Network, "advance", poisoned)
    lost = robot.send(at_s=1.1)
    assert lost.state == TrackingStatus.LOST and "not finite" in lost.message
    monkeypatch.undo()
    again = robot.send(at_s=1.2)
    assert again.state == TrackingStatus.INITIALIZING and again.segment == 1
    odometry.wait(lambda message: message.header.stamp == stamp(1.2))
    assert [message.header.stamp for message in odometry.messages] == [stamp(1.0), stamp(1.2)]


ONLY_CONTRAST = {**TOLERANT, "tracking.lost_contrast": 2.0}


def test_a_lost_image_has_a_status_and_nothing_else(robot):
    robot.start(**ONLY_CONTRAST)
    odometry = robot.listen_to_node(Odometry, "odom")
    depth = robot.listen_to_node(Image, "depth/image_rect")
    tf = robot.listen(TFMessage, "/tf")
    robot.wait_until(lambda: robot.node.count_subscribers("/tf") > 1)
    dark = np.zeros((48, 64, 3), np.uint8)
    before = robot.send(at_s=1.0)
    lost = [robot.send(at_s=1.1 + 0.1 * i, rgb=dark) for i in range(2)]
    after = robot.send(at_s=1.3)
    assert {status.state for status in lost} == {TrackingStatus.LOST}
    assert all("contrast 0.00 below 2" in status.message for status in lost)
    assert (lost[1].processed, lost[1].rejected, lost[1].images_since_reset) == (3, 0, 1)
    assert [status.map_points for status in lost] == [before.map_points] * 2
    assert (after.state, after.segment) == (TrackingStatus.INITIALIZING, 1)
    assert after.message.startswith("new segment: tracking was lost: contrast")
    odometry.wait(lambda message: message.header.stamp == stamp(1.3))
    depth.wait(lambda message: message.header.stamp == stamp(1.3))
    stamps = [stamp(1.0), stamp(1.3)]
    assert [message.header.stamp for message in odometry.messages] == stamps
    assert [message.header.stamp for message in depth.messages] == stamps
    assert {str(edge.header.stamp) for m in tf.messages for edge in m.transforms} == {
        str(some) for some in stamps
    }


def test_a_lost_image_has_the_last_known_pose_if_that_is_wanted(robot):
    robot.start(publish_when_lost=True, **ONLY_CONTRAST)
    odometry = robot.listen_to_node(Odometry, "odom")
    robot.send(at_s=1.0)
    robot.send(at_s=1.1, rgb=np.zeros((48, 64, 3), np.uint8))
    last = odometry.wait(lambda message: message.header.stamp == stamp(1.1))
    assert last.pose.pose == odometry.messages[0].pose.pose
