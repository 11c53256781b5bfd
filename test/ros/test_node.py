# SPDX-License-Identifier: Apache-2.0
"""What the node publishes, and how it is started, paused and set, over real DDS."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import PoseWithCovarianceStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import DescribeParameters
from robot import LATCHED, PATIENCE_S, camera_info_message, image_message, picture, stamp
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from small_network import small_checkpoint
from tf2_msgs.msg import TFMessage
from tolerant import TOLERANT

from ttt3r_ros.config import Config, NodeConfig, settings
from ttt3r_ros.geometry import optical_extrinsics, quaternion
from ttt3r_ros.loading import load_model
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import Frame

R_BODY_OPTICAL_XYZW = (-0.5, 0.5, -0.5, 0.5)


def floats(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, np.float32).reshape(message.height, message.width)


def cloud(message: PointCloud2) -> np.ndarray:
    names = [field.name for field in message.fields]
    assert message.point_step == 4 * len(names)
    points = np.frombuffer(message.data, [(name, "<f4") for name in names])
    assert len(points) == message.width * message.height
    return points


def test_one_image_gives_everything_with_the_images_own_stamp(robot):
    robot.start(map__publish_hz=20.0, **TOLERANT)
    tf = robot.listen(TFMessage, "/tf")
    odometry = robot.listen_to_node(Odometry, "odom")
    poses = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    depth = robot.listen_to_node(Image, "depth/image_rect")
    info = robot.listen_to_node(CameraInfo, "depth/camera_info")
    points = robot.listen_to_node(PointCloud2, "points")
    map_ = robot.listen_to_node(PointCloud2, "cloud_map", LATCHED)
    camera_info = robot.client.create_publisher(CameraInfo, "camera_info", 1)
    robot.wait_until(lambda: camera_info.get_subscription_count() > 0)
    robot.wait_until(lambda: robot.node.count_subscribers("/tf") > 1)
    camera_info.publish(camera_info_message())
    # Two topics are not in order with one another: images go on until the intrinsics are used.
    at_s = 1.0
    while robot.send(at_s=at_s) and not info.messages:
        at_s += 0.1
    at_s += 0.1
    status = robot.send(at_s=at_s)

    def of_image(message):
        return message.header.stamp == stamp(at_s)

    assert status.state == TrackingStatus.TRACKING
    assert status.received == status.processed and status.rejected == status.replaced == 0
    assert status.step_ms > 0 and status.map_points > 0 and status.message == ""
    pose = odometry.wait(of_image)
    assert (pose.header.frame_id, pose.child_frame_id) == ("odom", "camera")
    edges = {
        (edge.header.frame_id, edge.child_frame_id): edge
        for message in tf.messages
        for edge in message.transforms
        if edge.header.stamp == stamp(at_s)
    }
    assert set(edges) == {("map", "odom"), ("odom", "camera")}
    translation = edges["odom", "camera"].transform.translation
    assert translation.x == pose.pose.pose.position.x
    assert edges["map", "odom"].transform.rotation.w == 1.0
    assert np.isfinite(pose.twist.twist.linear.x)
    in_map = poses.wait(of_image)
    assert in_map.header.frame_id == "map" and in_map.pose.pose == pose.pose.pose
    for covariance in (pose.pose.covariance, pose.twist.covariance, in_map.pose.covariance):
        matrix = np.reshape(covariance, (6, 6))
        np.testing.assert_allclose(matrix, matrix.T)
        assert np.linalg.eigvalsh(matrix).min() > 0

    known = floats(depth.wait(of_image))
    assert known.shape == (96, 128) and np.nanmin(known) > 0
    camera = info.wait(of_image)
    assert (camera.width, camera.height) == (128, 96)
    np.testing.assert_allclose(camera.k, [120, 0, 63.5, 0, 120, 47.5, 0, 0, 1])
    organised = points.wait(of_image)
    assert (organised.height, organised.width, organised.header.frame_id) == (96, 128, "camera")
    np.testing.assert_array_equal(cloud(organised)["z"], known.flatten())
    assert cloud(organised).dtype.names == ("x", "y", "z", "rgb", "confidence")
    whole = map_.wait(lambda message: message.width == status.map_points)
    assert whole.header.frame_id == "map"
    assert np.isfinite(cloud(whole)["x"]).all()


def test_confidence_and_colours_are_images_of_what_the_depth_image_shows(robot):
    robot.start(**TOLERANT)
    depth = robot.listen_to_node(Image, "depth/image_rect")
    confidence = robot.listen_to_node(Image, "confidence/image_rect")
    colours = robot.listen_to_node(Image, "image_rect")
    points = robot.listen_to_node(PointCloud2, "points")
    robot.send(at_s=1.0)
    for image in (confidence.wait(), colours.wait()):
        assert image.header == depth.wait().header
        assert (image.height, image.width) == (96, 128)
    confident = floats(confidence.wait())
    assert confident.min() >= 1
    known = cloud(points.wait())
    np.testing.assert_array_equal(confident.flatten(), known["confidence"])
    assert (confident[np.isfinite(floats(depth.wait()))] >= Config().confidence.min).all()
    assert colours.wait().encoding == "rgb8"
    red, green, blue = np.frombuffer(colours.wait().data, np.uint8).reshape(-1, 3).T.astype("u4")
    np.testing.assert_array_equal(known["rgb"].view("u4"), red << 16 | green << 8 | blue)


def test_the_map_tells_the_colour_of_its_points_and_how_many_images_saw_each(robot):
    robot.start(map__publish_hz=20.0, **TOLERANT)
    robot.send(at_s=1.0, rgb=np.full((48, 64, 3), (255, 128, 7), np.uint8))
    clouds = robot.listen_to_node(PointCloud2, "cloud_map", LATCHED)
    first = clouds.wait()
    assert [(f.name, f.offset, f.datatype) for f in first.fields] == [
        ("x", 0, PointField.FLOAT32),
        ("y", 4, PointField.FLOAT32),
        ("z", 8, PointField.FLOAT32),
        ("rgb", 12, PointField.FLOAT32),
        ("count", 16, PointField.UINT32),
    ]
    assert set(cloud(first)["rgb"].view("u4")) == {255 << 16 | 128 << 8 | 7}
    assert set(cloud(first)["count"].view("u4")) == {1}
    seen = robot.send(at_s=1.1, rgb=np.full((48, 64, 3), (255, 128, 7), np.uint8)).map_points
    # The executor's thread may read the map: no image comes any more.
    counts = robot.node._worker._pipeline.map.cloud().counts
    second = clouds.wait(lambda message: message.width == seen and message is not first)
    np.testing.assert_array_equal(cloud(second)["count"].view("u4"), counts)
    assert len(counts) and counts.sum() > first.width


def test_the_map_reaches_those_who_join_late(robot):
    robot.start(map__publish_hz=20.0)
    points = robot.send(at_s=1.0).map_points
    late = robot.listen_to_node(PointCloud2, "cloud_map", LATCHED)
    assert late.wait().width == points


def test_a_large_map_is_thinned_for_publishing_and_whole_again_when_that_is_allowed(robot):
    robot.start(map__publish_hz=20.0, map__publish_max_points=100)
    points = robot.send(at_s=1.0).map_points
    assert points > 200
    clouds = robot.listen_to_node(PointCloud2, "cloud_map", LATCHED)
    step = -(-points // 100)
    assert clouds.wait().width == -(-points // step)
    assert robot.set_parameter("map.publish_max_points", points).successful
    assert clouds.wait(lambda message: message.width > 100).width == points


def test_masked_pixels_stay_out_of_the_map_until_another_mask_comes(robot):
    robot.start(tracking__odd_repeats=0, **TOLERANT)
    masks = robot.client.create_publisher(Image, "mask", 1)
    robot.wait_until(lambda: masks.get_subscription_count() > 0)

    def send_mask(at_s, grey):
        held = len(robot.node._inputs.masks._masks)
        rows = np.full((48, 64), grey, np.uint8).tobytes()
        masks.publish(image_message(at_s, encoding="mono8", step=64, data=rows))
        robot.wait_until(lambda: len(robot.node._inputs.masks._masks) > held)

    send_mask(5.0, 255)
    assert [robot.send(at_s=at_s).map_points for at_s in (1.0, 1.1, 5.1)] == [0, 0, 0]
    send_mask(5.2, 0)
    assert robot.send(at_s=5.15).map_points == 0  # of before the second mask
    assert robot.send(at_s=5.2).map_points > 0


def test_a_mask_that_cannot_be_used_is_told_and_the_image_is_used(robot, capfd):
    robot.start(**TOLERANT)
    masks = robot.client.create_publisher(Image, "mask", 1)
    robot.wait_until(lambda: masks.get_subscription_count() > 0)
    masks.publish(image_message(1.0, picture()))
    log = []

    def said(text):
        log.append(capfd.readouterr().err)
        return text in "".join(log)

    robot.wait_until(lambda: said("mask: not used: encoding: 'rgb8' is not one of"))
    small = {"height": 4, "width": 4, "step": 4, "data": bytes(16 * [255])}
    masks.publish(image_message(1.0, encoding="mono8", **small))
    robot.wait_until(lambda: robot.node._inputs.masks._masks)
    assert robot.send(at_s=1.0).map_points > 0
    assert said("mask: not used: is 4x4, the image 64x48")


def test_without_tf_the_first_camera_is_level_and_looks_along_x(robot):
    robot.start()
    tf = robot.listen(TFMessage, "/tf")
    robot.wait_until(lambda: robot.node.count_subscribers("/tf") > 1)
    robot.send(at_s=1.0)
    edge = tf.wait().transforms[1]
    # The small network does not answer identity for the first image: compare with its answer.
    tracker = Tracker(load_model(Config(checkpoint=small_checkpoint(), device="cpu")), Config())
    pose = tracker.step(Frame(0, picture())).T_odom_camera
    q = edge.transform.rotation
    np.testing.assert_allclose((q.w, q.x, q.y, q.z), quaternion(pose), atol=1e-9)
    np.testing.assert_allclose(
        np.roll(quaternion(optical_extrinsics()), -1), R_BODY_OPTICAL_XYZW, atol=1e-12
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_images_are_tracked(robot, suffix):
    robot.images = robot.client.create_publisher(CompressedImage, "image/compressed", 10)
    robot.start(image_transport="compressed")
    message = CompressedImage(format=suffix[1:])
    message.header.stamp, message.header.frame_id = stamp(1.0), "camera"
    message.data = cv2.imencode(suffix, picture())[1].tobytes()
    assert robot.send(message).processed == 1


def test_nothing_is_heard_before_the_first_tracked_image(robot):
    robot.start()
    tf = robot.listen(TFMessage, "/tf")
    robot.wait_until(lambda: robot.node.count_subscribers("/tf") > 1)
    status = robot.send(at_s=1.0, encoding="nonsense")
    assert status.state == TrackingStatus.INITIALIZING and status.rejected == 1
    assert not tf.messages


def test_live_the_newest_image_wins_and_every_image_is_accounted_for(robot):
    robot.start()
    for i in range(60):
        robot.images.publish(image_message(1 + 0.01 * i))
    last = robot.status_at(stamp(1.59))
    waiting = last.received - last.processed - last.replaced - last.rejected
    assert waiting == 0  # the reader of depth 1 drops some more, before they are received
    assert last.replaced > 0 and last.processed > 0


def test_with_process_all_images_none_is_replaced(robot):
    robot.start(process_all_images=True)
    for i in range(60):
        robot.images.publish(image_message(1 + 0.01 * i))
    assert robot.status_at(stamp(1.59)).processed == 60


def test_images_that_never_arrived_are_estimated_from_the_stamps(robot):
    robot.start(process_all_images=True)
    for i in [*range(10), *range(13, 20), 21]:
        last = robot.send(at_s=1 + i / 10)
    assert last.lost_estimated == 4 and last.processed == 18


@pytest.fixture
def held_step(monkeypatch):
    """Steps of the network that wait until they are released."""
    step, entered, released = Tracker.step, threading.Event(), threading.Event()

    def held(self, frame):
        entered.set()
        assert released.wait(PATIENCE_S)
        return step(self, frame)

    monkeypatch.setattr(Tracker, "step", held)
    yield SimpleNamespace(entered=entered, released=released)
    released.set()


def test_a_reset_is_accepted_during_a_step_and_takes_effect_before_the_next_image(robot, held_step):
    robot.start()
    held_step.released.set()
    for i in range(2):
        robot.send(at_s=1 + i / 10)
    held_step.released.clear()
    held_step.entered.clear()
    robot.images.publish(image_message(1.2))
    assert held_step.entered.wait(PATIENCE_S)
    answer = robot.call("reset")
    assert answer.success and answer.message == "the next image is the first one"
    held_step.released.set()
    before = robot.status_at(stamp(1.2))
    after = robot.send(at_s=1.3)
    assert (before.images_since_reset, after.images_since_reset) == (3, 1)
    assert after.last_reset_reason == "~/reset" and after.segment == 0
    assert after.map_points < before.map_points


def test_an_image_in_work_at_deactivation_is_not_published_in_the_next(robot, held_step):
    robot.publish_tf(("base_link", "camera", (0.0, 0.0, 0.0)))
    robot.start(tf_wait_s=0.5)
    held_step.released.set()
    robot.send(at_s=1.0)
    held_step.released.clear()
    held_step.entered.clear()
    robot.images.publish(image_message(1.1))
    assert held_step.entered.wait(PATIENCE_S)
    robot.in_node(robot.node.trigger_deactivate)
    robot.in_node(robot.node.trigger_activate)
    robot.meet()
    held_step.released.set()
    status = robot.send(at_s=1.2)  # its own TF of before is not taken for somebody else's
    assert (status.received, status.processed, status.rejected) == (1, 1, 0)
    assert status.images_since_reset == 3  # what it has learnt stays
    assert all(s.header.stamp != stamp(1.1) for s in robot.statuses.messages)


def test_a_shutdown_from_active_is_quiet_and_hears_no_more_images(robot):
    robot.start()
    robot.send(at_s=1.0)
    robot.in_node(robot.node.trigger_shutdown)
    robot.images.publish(image_message(1.1))
    robot.wait_until(lambda: robot.images.get_subscription_count() == 0)
    assert robot.in_node(lambda: "the executor lives") == "the executor lives"


def test_odometry_tells_the_velocity_in_the_moving_frame(robot, monkeypatch):
    robot.start(camera_pose=[0.0] * 6, base_frame="base")
    odometry = robot.listen_to_node(Odometry, "odom")
    poses = [optical_extrinsics((0, 0, 0, 0, 0, 1.0)), optical_extrinsics((0.1, 0, 0, 0, 0, 1.05))]
    step = Tracker.step

    def known_pose(self, frame):
        return replace(step(self, frame), T_odom_camera=poses[frame.stamp_ns > 1_000_000_000])

    monkeypatch.setattr(Tracker, "step", known_pose)
    robot.send(at_s=1.0)
    robot.send(at_s=1.2)
    twist = odometry.wait(lambda m: m.header.stamp == stamp(1.2)).twist.twist
    v = np.array([twist.linear.x, twist.linear.y, twist.linear.z])
    # 0.1 m along odom's x in 0.2 s, seen from a base turned by 1.05 rad
    np.testing.assert_allclose(v, [0.5 * np.cos(1.05), -0.5 * np.sin(1.05), 0], atol=1e-9)
    w = (twist.angular.x, twist.angular.y, twist.angular.z)
    np.testing.assert_allclose(w, (0, 0, 0.25), atol=1e-9)


def test_settings_marked_runtime_change_at_once_and_others_are_refused(robot):
    robot.start()
    depth = robot.listen_to_node(Image, "depth/image_rect")
    robot.send(at_s=1.0)
    assert robot.set_parameter("confidence.min", 1000.0).successful
    robot.send(at_s=1.1)
    first, second = (depth.wait(lambda m, t=t: m.header.stamp == stamp(t)) for t in (1.0, 1.1))
    assert np.isfinite(floats(first)).any() and np.isnan(floats(second)).all()
    refused = robot.set_parameter("confidence.min", 0.5)
    assert not refused.successful and "confidence.min" in refused.reason
    assert not robot.set_parameter("update_rule", "cut3r").successful


def test_every_setting_is_described(robot):
    robot.start(autostart=False)
    client = robot.client.create_client(DescribeParameters, "ttt3r_node/describe_parameters")
    client.wait_for_service()
    known = settings(Config, NodeConfig)
    request = DescribeParameters.Request(names=list(known))
    for description in robot.result_of(client.call_async(request)).descriptors:
        setting = known[description.name]
        assert setting.help in description.description
        assert description.read_only is not setting.runtime
        if setting.low is not None:
            ranges = [*description.integer_range, *description.floating_point_range]
            assert ranges[0].from_value == setting.low


def test_the_lifecycle_loads_pauses_and_frees(robot):
    robot.start(autostart=False)
    change = robot.client.create_client(ChangeState, "ttt3r_node/change_state")
    get = robot.client.create_client(GetState, "ttt3r_node/get_state")
    change.wait_for_service()
    get.wait_for_service()

    def go(transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert robot.result_of(change.call_async(request)).success
        return robot.result_of(get.call_async(GetState.Request())).current_state.label

    assert not robot.call("reset").success
    assert go(Transition.TRANSITION_CONFIGURE) == "inactive"
    assert robot.images.get_subscription_count() == 0
    assert go(Transition.TRANSITION_ACTIVATE) == "active"
    robot.meet()
    assert robot.send(at_s=1.0).images_since_reset == 1
    assert go(Transition.TRANSITION_DEACTIVATE) == "inactive"
    robot.wait_until(lambda: robot.images.get_subscription_count() == 0)
    assert go(Transition.TRANSITION_ACTIVATE) == "active"
    robot.meet()
    paused = robot.send(at_s=1.5)  # the same stream goes on
    assert (paused.images_since_reset, paused.received) == (2, 1)
    assert go(Transition.TRANSITION_DEACTIVATE) == "inactive"
    assert go(Transition.TRANSITION_CLEANUP) == "unconfigured"
    assert go(Transition.TRANSITION_CONFIGURE) == "inactive"
    assert go(Transition.TRANSITION_ACTIVATE) == "active"
    robot.meet()
    assert robot.send(at_s=1.6).images_since_reset == 1
