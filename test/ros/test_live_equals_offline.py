# SPDX-License-Identifier: Apache-2.0
"""A bag played into the running node gives what `ttt3r run` makes of its images.

Three processes, real DDS; /tf is read by an independent implementation of DDS, Cyclone.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from cyclone_tf import FASTDDS_PROFILE, CycloneTf
from preloaded import new_process
from robot import LATCHED, PATIENCE_S, Inbox, Robot
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image, PointCloud2
from small_network import write_small_checkpoint

from ttt3r_ros.cli import main
from ttt3r_ros.geometry import transform_from_quaternion
from ttt3r_ros.io.trajectory import read_tum
from ttt3r_ros.msg import TrackingStatus

IMAGES = 40
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 33_333_333


@pytest.fixture
def checkpoint(tmp_path):
    """A small network of known random weights."""
    return write_small_checkpoint(tmp_path / "small.safetensors", segment__reset_interval=15)


@pytest.fixture
def bag(tmp_path):
    """JPEG images of a moving pattern at 30 Hz, 320x240, from a camera that distorts."""
    types = get_typestore(Stores.ROS2_JAZZY)
    T = types.types
    path = tmp_path / "bag"
    row, column = np.mgrid[0:240, 0:320]
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        images = writer.add_connection(
            "/camera/image_raw/compressed", "sensor_msgs/msg/CompressedImage", typestore=types
        )
        infos = writer.add_connection(
            "/camera/camera_info", "sensor_msgs/msg/CameraInfo", typestore=types
        )
        for i in range(IMAGES):
            stamp_ns = START_NS + i * PERIOD_NS
            stamp = T["builtin_interfaces/msg/Time"](stamp_ns // 10**9, stamp_ns % 10**9)
            header = T["std_msgs/msg/Header"](stamp, "camera_optical")
            waves = [np.sin((row * (k + 1) + column * 3 + 9 * i) / 37 + k) for k in range(3)]
            rgb = (127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)
            jpeg = cv2.imencode(".jpg", rgb)[1]
            message = T["sensor_msgs/msg/CompressedImage"](header, "jpeg", jpeg)
            writer.write(
                images, stamp_ns, types.serialize_cdr(message, "sensor_msgs/msg/CompressedImage")
            )
            if i == 0:
                roi = T["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
                d = np.array([-0.2, 0.05, 0.0, 0.001, 0.0])
                k = np.array([300.0, 0, 160, 0, 300, 120, 0, 0, 1])
                r = np.eye(3).flatten()
                p = np.array([230.0, 0, 158, 0, 0, 230, 121, 0, 0, 0, 1, 0])  # beyond the raw view
                message = T["sensor_msgs/msg/CameraInfo"](
                    header, 240, 320, "plumb_bob", d, k, r, p, 0, 0, roi
                )
                writer.write(
                    infos, stamp_ns, types.serialize_cdr(message, "sensor_msgs/msg/CameraInfo")
                )
    return path


@contextmanager
def process(python, *arguments, **environment):
    # As many threads as this process has, for the sums of both to be equal to the last bit.
    environment = {"OMP_NUM_THREADS": "1", **environment}
    with subprocess.Popen(python("-m", *arguments), env={**os.environ, **environment}) as running:
        try:
            yield running
        finally:
            running.send_signal(signal.SIGINT)
            try:
                running.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                running.kill()


def stamp_ns(stamp) -> int:
    return stamp.sec * 10**9 + stamp.nanosec


def test_the_node_gives_what_an_offline_run_gives(domain, bag, checkpoint, tmp_path):
    offline = tmp_path / "offline"
    arguments = ["run", bag, "--output", offline, "--checkpoint", checkpoint, "--device", "cpu"]
    arguments += ["--depth", "--map.edge-filter", 0]  # random depth is nothing but edges
    assert main([*map(str, arguments)]) == 0
    stamps, poses = read_tum(offline / "trajectory.tum")
    assert stamps.tolist() == [START_NS + i * PERIOD_NS for i in range(IMAGES)]

    robot = Robot(domain)
    edges = Inbox()
    tf = CycloneTf(domain, edges.put)
    depths = robot.listen(Image, "ttt3r_node/depth/image_rect")
    maps = robot.listen(PointCloud2, "ttt3r_node/cloud_map", LATCHED)
    parameters = {
        "checkpoint": checkpoint,
        "device": "cpu",
        "process_all_images": "true",
        "image_transport": "compressed",
        "map.edge_filter": "0.0",
        "map.publish_hz": "10.0",
        "tf_wait_s": "0.5",
        # A listener that is kept waiting on a busy machine loses none.
        "qos_overrides./ttt3r_node/depth/image_rect.publisher.depth": str(IMAGES),
    }
    flags = [x for name, value in parameters.items() for x in ("-p", f"{name}:={value}")]
    remaps = ["-r", "image:=/camera/image_raw", "-r", "camera_info:=/camera/camera_info"]
    try:
        profile = tmp_path / "profile.xml"
        profile.write_text(FASTDDS_PROFILE)
        with process(
            new_process,
            *("ttt3r_ros.ros.node", "--ros-args", *flags, *remaps),
            FASTDDS_DEFAULT_PROFILES_FILE=str(profile),
        ):
            robot.hear_process()
            assert tf.matched.wait(PATIENCE_S)
            with process(new_process, "ttt3r_ros.cli", "play", bag, "--wait", PATIENCE_S) as player:
                last = robot.statuses.wait(lambda s: stamp_ns(s.header.stamp) == stamps[-1])
                assert player.wait(PATIENCE_S) == 0
            whole = maps.wait(lambda message: message.width == last.map_points)
            edges.wait(lambda m: stamp_ns(m.transforms[0].header.stamp) == stamps[-1])
            depths.wait(lambda message: stamp_ns(message.header.stamp) == stamps[-1])
    finally:
        robot.shutdown()

    assert (last.received, last.processed) == (IMAGES, IMAGES)
    assert (last.replaced, last.rejected, last.segment) == (0, 0, 2)
    # Poses, with the images' own stamps: text with 9 decimals against float64 on the wire.
    frames = {tuple(edge.child_frame_id for edge in m.transforms) for m in edges.messages}
    assert frames == {("odom", "camera_optical")}
    assert [stamp_ns(m.transforms[1].header.stamp) for m in edges.messages] == stamps.tolist()
    for message, pose in zip(edges.messages, poses, strict=True):
        t, q = message.transforms[1].transform.translation, message.transforms[1].transform.rotation
        live = transform_from_quaternion((t.x, t.y, t.z), (q.w, q.x, q.y, q.z))
        np.testing.assert_allclose(live, pose, atol=1e-8)
    # Depth: millimetres in the files.
    assert [stamp_ns(m.header.stamp) for m in depths.messages] == stamps.tolist()
    for message in depths.messages:
        live = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
        path = offline / "depth" / f"{stamp_ns(message.header.stamp)}.png"
        known = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(np.nan_to_num(1000 * live).round(), known)
        assert np.isnan(live[:, [0, -1]]).all() and np.isfinite(live).mean() > 0.3
    # The map: the same points in the same order.
    ply = (offline / "map.ply").read_bytes().split(b"end_header\n", 1)[1]
    points = np.frombuffer(ply, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows = [("xyz", "<f4", 3), ("bgr", "u1", 3), ("pad", "u1"), ("count", "<u4")]
    live = np.frombuffer(whole.data, rows)
    assert len(live) > 1000
    np.testing.assert_array_equal(live["xyz"], points["xyz"])
    np.testing.assert_array_equal(live["bgr"][:, ::-1], points["rgb"])


def test_played_live_every_image_is_accounted_for(domain, program, bag, checkpoint):
    robot = Robot(domain)
    values = [f"checkpoint:={checkpoint}", "image_transport:=compressed", "tf_wait_s:=0.0"]
    wait = "--wait", PATIENCE_S
    values.append("image_reliability:=reliable")  # best effort may lose the last ones at the end
    flags = [x for value in values for x in ("-p", value)]
    remaps = ["-r", "image:=/camera/image_raw", "-r", "camera_info:=/camera/camera_info"]
    try:
        with process(
            program, "ttt3r_ros.ros.node", "--ros-args", *flags, "-p", "device:=cpu", *remaps
        ):
            robot.hear_process()
            with process(program, "ttt3r_ros.cli", "play", bag, "--rate", 2, *wait) as player:
                assert player.wait(PATIENCE_S) == 0
            statuses: list[TrackingStatus] = robot.statuses.messages
            last_ns = START_NS + (IMAGES - 1) * PERIOD_NS
            robot.statuses.wait(lambda s: stamp_ns(s.header.stamp) == last_ns)
    finally:
        robot.shutdown()
    for status in statuses:
        waiting = status.received - status.processed - status.replaced - status.rejected
        assert waiting in (0, 1)
    assert waiting == 0 and status.processed > 1 and status.rejected == 0
