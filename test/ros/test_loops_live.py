# SPDX-License-Identifier: Apache-2.0
"""Places seen again while the node runs: what asks, what moves, and who is told."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry, Path
from robot import LATCHED, PATIENCE_S, camera_info_message, image_message, stamp
from seen_again import EAGER, recognise_every_place
from sensor_msgs.msg import CameraInfo, PointCloud2
from tf2_msgs.msg import TFMessage
from tracked_frames import frames, pipeline
from visualization_msgs.msg import Marker, MarkerArray

from ttt3r_ros.geometry import Intrinsics, Transform, optical_extrinsics, transform_from_quaternion
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.pose_graph.loop_closer import LoopCloser

IMAGES = 25
CAMERA = Intrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)
FAST = {**EAGER, "path.rate_hz": 50.0, "map.publish_hz": 50.0}


def matrix(p, q) -> Transform:
    return transform_from_quaternion((p.x, p.y, p.z), (q.w, q.x, q.y, q.z))


def pose(message) -> Transform:
    return matrix(message.pose.pose.position, message.pose.pose.orientation)


def start(robot, **parameters):
    robot.start(**FAST, **parameters)
    info = robot.client.create_publisher(CameraInfo, "camera_info", 1)
    robot.wait_until(lambda: info.get_subscription_count() > 0)
    message = camera_info_message(128, 96)
    message.k = CAMERA.matrix().flatten()
    info.publish(message)


def drive(robot, images=IMAGES, first=0) -> TrackingStatus:
    for frame in frames(first + images)[first:]:
        status = robot.send(image_message(1 + frame.stamp_ns / 1e9, frame.rgb))
    return status


def offline(images=IMAGES) -> Pipeline:
    """The same images in one thread."""
    subject = pipeline(**EAGER)
    subject.place_first_camera(optical_extrinsics())
    for frame in frames(images):
        stamp_ns = frame.stamp_ns + 10**9
        subject.process(replace(frame, stamp_ns=stamp_ns, intrinsics=CAMERA))
    return subject


def at_the_end(images=IMAGES):
    return stamp(1 + (images - 1) / 10)


def test_a_question_delays_nothing_of_its_own_image(robot, monkeypatch):
    asked, may_end = threading.Event(), threading.Event()

    def ask(self):
        asked.set()
        assert may_end.wait(PATIENCE_S)

    monkeypatch.setattr(Pipeline, "ask_for_loops", ask)
    robot.start(**FAST)
    poses = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    try:
        assert robot.send(at_s=1.0).state != TrackingStatus.LOST  # its status has come
        poses.wait(lambda m: m.header.stamp == stamp(1.0))
        assert asked.wait(PATIENCE_S)
    finally:
        may_end.set()


def test_whatever_a_question_raises_tracking_goes_on_and_asks_again(robot, monkeypatch, capfd):
    questions = []

    def fail(self, query):
        questions.append(query)
        raise RuntimeError("so and so")

    monkeypatch.setattr(LoopCloser, "answer", fail)
    start(robot)
    status = drive(robot, images=12)
    assert (status.processed, status.rejected) == (12, 0)
    assert (status.state, status.loops_closed) == (TrackingStatus.TRACKING, 0)
    assert len(questions) > 2
    said = capfd.readouterr().err
    assert "loops: a question was given up" in said and "RuntimeError: so and so" in said


def test_loops_live_are_those_of_an_offline_run(robot, monkeypatch):
    recognise_every_place(monkeypatch)
    expected = offline()
    assert expected.loops.counts.corrections > 2
    start(robot)
    maps = robot.listen_to_node(PointCloud2, "cloud_map", LATCHED)
    paths = robot.listen_to_node(Path, "path", LATCHED)
    drive(robot)
    path = paths.wait(lambda m: m.header.stamp == at_the_end() and len(m.poses) == IMAGES)
    live = [matrix(p.pose.position, p.pose.orientation) for p in path.poses]
    np.testing.assert_allclose(live, [T for _, T in expected.trajectory()], atol=1e-8)
    points = expected.map.cloud().points
    cloud = maps.wait(lambda m: m.header.stamp == at_the_end() and m.width == len(points))
    rows = np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)
    np.testing.assert_array_equal(rows[:, :3], points)


def test_a_correction_moves_path_and_map_frame_and_leaves_odom_where_it_is(robot, monkeypatch):
    recognise_every_place(monkeypatch)
    start(robot)
    odometry = robot.listen_to_node(Odometry, "odom")
    poses = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    paths = robot.listen_to_node(Path, "path", LATCHED)
    tf = robot.listen(TFMessage, "/tf")
    robot.wait_until(lambda: robot.node.count_subscribers("/tf") > 1)
    drive(robot)
    path = paths.wait(lambda m: m.header.stamp == at_the_end() and len(m.poses) == IMAGES)
    poses.wait(lambda m: m.header.stamp == at_the_end())
    odometry.wait(lambda m: m.header.stamp == at_the_end())
    tf.wait(lambda m: m.transforms[0].header.stamp == at_the_end())
    published = np.array([pose(m) for m in poses.messages])
    mended = np.array([matrix(p.pose.position, p.pose.orientation) for p in path.poses])
    assert np.abs(published - mended)[:, :3, 3].max() > 0.05  # earlier ones have moved since
    np.testing.assert_allclose(published[-1], mended[-1], atol=1e-9)
    T_map_odom = [matrix(t.translation, t.rotation) for t in map_edges(tf)]
    np.testing.assert_allclose(T_map_odom[0], np.eye(4), atol=1e-12)
    assert np.abs(T_map_odom[-1] - np.eye(4)).max() > 0.05
    odom = np.array([pose(m) for m in odometry.messages])
    np.testing.assert_allclose(np.array(T_map_odom) @ odom, published, atol=1e-6)
    # The network alone, without loops, goes the same way in odom.
    alone = pipeline(**{**EAGER, "loop.enabled": False})
    alone.place_first_camera(optical_extrinsics())
    went = [alone.track(replace(f, intrinsics=CAMERA)).T_odom_camera for f in frames(IMAGES)]
    np.testing.assert_allclose(odom, went, atol=1e-6)


def map_edges(tf):
    return [
        edge.transform
        for m in tf.messages
        for edge in m.transforms
        if edge.header.frame_id == "map"
    ]


def test_status_log_and_diagnostics_count_loops(robot, monkeypatch, capfd):
    recognise_every_place(monkeypatch)
    expected = offline().loops.counts
    capfd.readouterr()
    start(robot)
    before = drive(robot, images=1)
    assert (before.loops_closed, before.last_correction_m) == (0, 0.0)
    after = drive(robot, images=IMAGES - 1, first=1)
    assert after.loops_closed == expected.accepted - expected.gated > 0
    assert after.last_correction_m == pytest.approx(expected.last_correction_m, rel=1e-4)
    lines = [line for line in capfd.readouterr().err.splitlines() if "back at a place" in line]
    assert len(lines) == expected.corrections
    assert f"moves the camera by {expected.last_correction_m:.3f} m" in lines[-1]
    diagnostics = robot.listen(DiagnosticArray, "/diagnostics")
    values = {item.key: item.value for item in diagnostics.wait().status[0].values}
    said = [values[f"loop{x}"] for x in ("s asked", "s accepted", "s gated", " corrections")]
    counts = (expected.asked, expected.accepted, expected.gated, expected.corrections)
    assert said == [str(count) for count in counts]
    assert robot.call("reset").success
    assert robot.send(image_message(100.0, frames(1)[0].rgb)).loops_closed == 0


def test_the_graph_is_shown_to_those_who_join_late_and_empty_after_a_reset(robot, monkeypatch):
    recognise_every_place(monkeypatch)
    graph = offline().loops.graph
    start(robot)
    drive(robot)
    shown = robot.listen_to_node(MarkerArray, "graph", LATCHED)
    by_name = {marker.ns: marker for marker in shown.wait().markers}
    assert set(by_name) == {"nodes", "boundaries", "loops", "doubted"}
    assert {m.header.frame_id for m in by_name.values()} == {"map"}
    assert by_name["nodes"].header.stamp == at_the_end()
    nodes = np.array([(p.x, p.y, p.z) for p in by_name["nodes"].points])
    np.testing.assert_allclose(nodes, [graph.pose(s)[:3, 3] for s in graph.segments], atol=1e-6)
    believed = sum(edge.is_believed for edge in graph.loops)
    assert len(by_name["loops"].points) == 2 * believed > 0
    assert len(by_name["doubted"].points) == 2 * (len(graph.loops) - believed)
    assert len(by_name["boundaries"].points) == 2 * (len(graph.edges) - len(graph.loops)) > 0
    assert robot.call("reset").success
    shown.wait(lambda m: all(marker.action == Marker.DELETE for marker in m.markers))
