# SPDX-License-Identifier: Apache-2.0
"""The simulated camera as a process, heard over DDS."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from geometry_msgs.msg import PoseStamped
from preloaded import new_process
from rclpy.context import Context
from robot import PATIENCE_S
from sensor_msgs.msg import CameraInfo, Image

from ttt3r_ros.clients.simulated_camera import SimulatedCamera
from ttt3r_ros.geometry import transform_from_quaternion
from ttt3r_ros.ros.conversions import stamp_ns
from ttt3r_ros.simulation import make_rooms, render
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions

SEED, WIDTH, HEIGHT, RATE_HZ = 3, 64, 48, 20
PERIOD_NS = 10**9 // RATE_HZ
TOPICS = {
    "image": Image,
    "camera_info": CameraInfo,
    "ground_truth/pose": PoseStamped,
    "ground_truth/depth/image_rect": Image,
}


@pytest.fixture
def inboxes(robot):
    return {topic: robot.listen(kind, topic) for topic, kind in TOPICS.items()}


def start(program: Callable[..., list[str]], seconds: float, *arguments: str) -> subprocess.Popen:
    command = f"--seed {SEED} --seconds {seconds} --rate {RATE_HZ} --size {WIDTH}x{HEIGHT}"
    return subprocess.Popen(
        program("-m", "ttt3r_ros.clients.simulated_camera", *command.split(), *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def log_of(camera: subprocess.Popen) -> str:
    log, _ = camera.communicate(timeout=PATIENCE_S)
    return log


def numbers_in(log: str) -> tuple[int, ...]:
    """Images sent, wanted and skipped."""
    found = re.search(r"(\d+) images of (\d+) sent, (\d+) skipped", log)
    assert found, log
    return tuple(int(number) for number in found.groups())


def test_every_image_comes_with_intrinsics_true_pose_and_true_depth(inboxes):
    camera = start(new_process, 1.0)
    log = log_of(camera)
    assert camera.returncode == 0, log
    sent, wanted, skipped = numbers_in(log)
    assert wanted == RATE_HZ
    assert sent + skipped == wanted
    stamps = {
        topic: [stamp_ns(message.header.stamp) for message in inbox.messages]
        for topic, inbox in inboxes.items()
    }
    assert all(of_topic == stamps["image"] for of_topic in stamps.values())
    assert len(stamps["image"]) == sent
    assert {step % PERIOD_NS for step in np.diff(stamps["image"])} == {0}

    rooms = make_rooms(SEED)
    for image, info, pose, depth in zip(*(i.messages for i in inboxes.values()), strict=True):
        assert image.header.frame_id == info.header.frame_id == depth.header.frame_id == "camera"
        assert pose.header.frame_id == "world"
        assert (image.encoding, image.width, image.height) == ("rgb8", WIDTH, HEIGHT)
        assert (depth.encoding, depth.width, depth.height) == ("32FC1", WIDTH, HEIGHT)
        assert (info.width, info.height) == (WIDTH, HEIGHT)
        fx, fy, cx, cy = info.k[0], info.k[4], info.k[2], info.k[5]
        assert fx == fy == info.p[0]
        assert (cx, cy) == ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
        p, q = pose.pose.position, pose.pose.orientation
        T = transform_from_quaternion((p.x, p.y, p.z), (q.w, q.x, q.y, q.z))
        view = render(rooms, torch.from_numpy(T)[None, None], (fx, fy, cx, cy), HEIGHT, WIDTH)
        published = np.frombuffer(depth.data, np.float32).reshape(HEIGHT, WIDTH)
        rgb = np.frombuffer(image.data, np.uint8).reshape(HEIGHT, WIDTH, 3) / 255
        # The pose has gone through a quaternion: next to edges, pixels may see the other side.
        assert np.mean(np.abs(published - view.depth_m[0, 0].numpy()) > 1e-3) < 0.01
        assert np.mean(np.abs(rgb - view.rgb[0, 0].numpy()) > 0.01) < 0.02
    first, *_, last = (m.pose.position for m in inboxes["ground_truth/pose"].messages)
    assert np.hypot(last.x - first.x, last.y - first.y) > 0.02


def test_a_stall_leaves_a_gap_in_the_stamps_and_no_burst(inboxes):
    camera = start(new_process, 2.0)
    inboxes["image"].wait()
    camera.send_signal(signal.SIGSTOP)
    threading.Event().wait(8 / RATE_HZ)
    camera.send_signal(signal.SIGCONT)
    log = log_of(camera)
    sent, wanted, skipped = numbers_in(log)
    assert skipped >= 6
    assert sent == wanted - skipped
    stamps = [stamp_ns(message.header.stamp) for message in inboxes["image"].messages]
    assert len(stamps) == sent
    assert max(np.diff(stamps)) >= 6 * PERIOD_NS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_camera_at_once_and_well(inboxes, program, number):
    camera = start(program, 600.0)
    images = inboxes["image"]
    images.wait(lambda _: len(images.messages) > 1)  # then the first one has been counted
    camera.send_signal(number)
    log = log_of(camera)
    assert camera.returncode == 0, log
    assert "Traceback" not in log
    assert numbers_in(log)[0] >= 1


def test_without_subscribers_it_goes_on_after_a_while(domain, capfd):
    context = Context()
    context.init(domain_id=domain)
    try:
        camera = SimulatedCamera(Scene(SceneOptions()), context=context)
        camera.wait_for_subscribers(1, 0.1)
        assert "0 subscribers of image in 0.1 s" in capfd.readouterr().err
        with pytest.raises(ValueError, match="must be positive"):
            camera.run(1.0, 0.0)
        camera.destroy_node()
    finally:
        context.shutdown()


def test_a_seed_that_makes_no_sense_is_refused_in_one_line(domain, program):
    camera = start(program, 0.1, "--seed", "-1")
    log = log_of(camera)
    assert camera.returncode == 2
    assert re.fullmatch("simulated_camera: seed: .* got -1\n", log)
