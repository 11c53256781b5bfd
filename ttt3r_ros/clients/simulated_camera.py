# SPDX-License-Identifier: Apache-2.0
"""A camera that moves through a simulated room: images like a real one's, and the truth with them.

It is a process of its own, as a camera's driver would be. What it sees is `simulation`'s.
"""

from __future__ import annotations

import argparse
import array
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import rclpy
import torch
from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image

from ttt3r_ros.clients.transport import use_large_image_profile
from ttt3r_ros.geometry import orthonormal
from ttt3r_ros.ros.conversions import stamp_message
from ttt3r_ros.ros.transforms import pose_message
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions, add_scene_arguments, scene_options

FRAME, WORLD_FRAME = "camera", "world"
# One core of an AMD EPYC renders 320x240 in 0.02 s: a fifth of its time.
RATE_HZ = 10.0
_WAIT_S = 120.0  # at most, for subscribers: a first start from a slow disk takes long
_MATCH_S = 0.2  # a writer knows of a new reader before the reader knows of the writer
_ACKNOWLEDGE_S = 5.0  # at most, for the last messages to arrive


class SimulatedCamera(Node):
    """Publishes images and intrinsics, and the camera's true pose and depth.

    All messages of one image have its stamp. Poses are those of the optical frame in the world;
    depth is along z in metres, to the surface at the pixel's centre.

    Attributes:
        stop: ends waiting and publishing when set; so does KeyboardInterrupt.
    """

    def __init__(self, scene: Scene, **kwargs: Any) -> None:
        """Create the topics; `kwargs` go to `rclpy.node.Node`."""
        super().__init__("simulated_camera", **kwargs)
        self.stop = threading.Event()
        self._scene = scene
        # Reliable offers meet both kinds of subscribers.
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        depth = "image_raw" if any(scene.options.distortion) else "image_rect"
        # In this order they are sent: who has the image can have the rest.
        self._outputs: dict[str, Any] = {
            "info": self.create_publisher(CameraInfo, "camera_info", qos),
            "pose": self.create_publisher(PoseStamped, "ground_truth/pose", qos),
            "depth": self.create_publisher(Image, f"ground_truth/depth/{depth}", qos),
            "image": self.create_publisher(Image, "image", qos),
        }

    def wait_for_subscribers(self, count: int, timeout_s: float) -> None:
        """Wait until so many subscribe to `image`; go on with a warning after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        while (found := self._outputs["image"].get_subscription_count()) < count:
            if time.monotonic() > deadline_s:
                self.get_logger().warning(f"{found} subscribers of image in {timeout_s:g} s")
                return
            if self.stop.wait(0.05):  # rclpy of Humble cannot be told of a match
                return
        self.stop.wait(_MATCH_S)

    def run(self, seconds: float, rate_hz: float) -> None:
        """Publish the first `seconds` of the path.

        Image i is due, and stamped, i / rate_hz after the start. It is rendered before; if there
        is no time left for that, it is skipped, so that a stall is a gap and never a burst.

        Raises:
            ValueError: `seconds` or `rate_hz` is not positive.
        """
        if not (seconds > 0 and rate_hz > 0):
            raise ValueError(f"seconds, rate: must be positive, got {seconds}, {rate_hz}")
        count = max(1, round(seconds * rate_hz))
        sent = skipped = 0
        self._messages(0.0)  # the first time takes longest
        began_s = time.monotonic() + 1 / rate_hz
        began_ns = self.get_clock().now().nanoseconds + round(1e9 / rate_hz)
        try:
            for index in range(count):
                due_s = began_s + index / rate_hz
                if time.monotonic() > due_s:
                    skipped += 1
                    continue
                messages = self._messages(index / rate_hz)
                if self.stop.wait(max(0.0, due_s - time.monotonic())):
                    return
                stamp = stamp_message(began_ns + round(index * 1e9 / rate_hz))
                for name, publisher in self._outputs.items():
                    messages[name].header.stamp = stamp
                    publisher.publish(messages[name])
                sent += 1
            self.stop.wait(max(0.0, began_s + count / rate_hz - time.monotonic()))
            for publisher in self._outputs.values():
                publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGE_S))
        finally:
            self.get_logger().info(f"{sent} images of {count} sent, {skipped} skipped: late")

    def _messages(self, t_s: float) -> dict[str, Any]:
        """Return what there is to publish of one moment of the path; headers lack the stamp."""
        view = self._scene.view(t_s)
        pose = pose_message(orthonormal(view.T_world_camera.numpy()))
        messages = {
            "info": _info_message(self._scene),
            "pose": PoseStamped(pose=pose),
            "depth": _image_message(view.depth_m.numpy(), "32FC1"),
            "image": _image_message(view.rgb.numpy(), "rgb8"),
        }
        for name, message in messages.items():
            message.header.frame_id = WORLD_FRAME if name == "pose" else FRAME
        return messages


def _image_message(pixels: npt.NDArray[Any], encoding: str) -> Image:
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=pixels.strides[0])
    message.is_bigendian = int(sys.byteorder == "big")
    # The one type that message setters take without looking at every byte.
    message.data = array.array("B", np.ascontiguousarray(pixels).tobytes())
    return message


def _info_message(scene: Scene) -> CameraInfo:
    width, height = scene.options.width, scene.options.height
    message = CameraInfo(width=width, height=height, distortion_model="plumb_bob")
    fx, fy, cx, cy = scene.lens
    P = np.array([[fx, 0, cx, 0], [0, fy, cy, 0], [0, 0, 1, 0]])
    message.d, message.r = [*scene.options.distortion, 0.0, 0.0, 0.0], np.eye(3).flatten()
    message.k, message.p = P[:, :3].flatten(), P.flatten()
    return message


def publish(options: SceneOptions, *, seconds: float, rate_hz: float, subscribers: int = 1) -> int:
    """Publish until the path ends or SIGINT or SIGTERM comes; return the exit status.

    This is for a process of its own, whose arguments for ROS are heeded. It waits, but not
    forever, for so many `subscribers` of the images.

    Raises:
        ConfigError: there is no such scene.
        ValueError: `seconds` or `rate_hz` is not positive.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    torch.set_num_threads(1)
    scene = Scene(options)
    use_large_image_profile()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        camera = SimulatedCamera(scene)
        camera.wait_for_subscribers(subscribers, _WAIT_S)
        camera.run(seconds, rate_hz)
    except KeyboardInterrupt:
        pass
    finally:
        rclpy.try_shutdown()
    return 0


def main() -> int:
    """Publish what the command line says; return the process's exit status."""
    parser = argparse.ArgumentParser(description="Publish images of a simulated room.")
    add = parser.add_argument
    add("--seconds", type=float, default=20.0, help="length of the path")
    add("--rate", type=float, default=RATE_HZ, help="images per second")
    add("--subscribers", type=int, default=1, help="of the images to wait for")
    add_scene_arguments(parser)
    args = parser.parse_args(remove_ros_args()[1:])
    try:
        options = scene_options(args)
        return publish(
            options, seconds=args.seconds, rate_hz=args.rate, subscribers=args.subscribers
        )
    except ValueError as error:
        print(f"simulated_camera: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
