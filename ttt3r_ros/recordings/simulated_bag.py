# SPDX-License-Identifier: Apache-2.0
"""A simulated camera's images with their truth as a rosbag2. What it sees is `simulation`'s."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Transform, orthonormal, quaternion
from ttt3r_ros.recordings.rosbag2 import StoragePlugin, Stores, Writer, get_typestore
from ttt3r_ros.simulation.scene import Scene, View
from ttt3r_ros.types import NS_PER_S, SourceError

FRAME, WORLD_FRAME = "camera", "world"
TRUE_FRAME = "ground_truth_camera"  # in /tf; a camera with a parent would seem to be on a robot
IMAGE, INFO = "/image", "/camera_info"
POSE, DEPTH = "/ground_truth/pose", "/ground_truth/depth/image_rect"
DISTORTED_DEPTH = "/ground_truth/depth/image_raw"
DEPTH_ENCODINGS = ("32FC1", "16UC1")
_START_NS = 1_700_000_000_000_000_000  # any time, but not the time of writing: bags are the same
_MAX_DEPTH_MM = 65535

_types = get_typestore(Stores.ROS2_JAZZY)
_T = _types.types


def write_simulated_bag(
    path: Path,
    scene: Scene,
    indices: Iterable[int],
    rate_hz: float,
    *,
    compressed: bool = False,
    depth_encoding: str = "32FC1",
) -> None:
    """Write a bag (mcap) of what a simulated camera sees.

    It holds images, intrinsics, depth, poses as PoseStamped, and the same in /tf; all messages of
    an image bear its stamp. Poses are those of the optical frame in the world.

    Args:
        path: the bag's folder, which does not exist yet.
        scene: what is seen.
        indices: of the images; image i is taken i / `rate_hz` seconds after the start.
        rate_hz: images per second.
        compressed: images as JPEG instead of raw.
        depth_encoding: 32FC1 (metres) or 16UC1 (millimetres).

    Raises:
        SourceError: the path exists, or an argument is not allowed.
        OSError: the bag cannot be written.
    """
    if path.exists():
        raise SourceError(f"{path}: exists already; name a bag that does not")
    if depth_encoding not in DEPTH_ENCODINGS:
        raise SourceError(
            f"depth encoding: must be one of {DEPTH_ENCODINGS}, got {depth_encoding!r}"
        )
    if not rate_hz > 0:
        raise SourceError(f"rate: must be above 0, got {rate_hz}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for index in indices:
            stamp_ns = _START_NS + round(index * 1e9 / rate_hz)
            view = scene.view(index / rate_hz)
            messages = _messages(scene, view, stamp_ns, compressed, depth_encoding)
            for topic, message in messages.items():
                kind = message.__msgtype__
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=_types)
                writer.write(connections[topic], stamp_ns, _types.serialize_cdr(message, kind))


def _messages(
    scene: Scene, view: View, stamp_ns: int, compressed: bool, depth_encoding: str
) -> dict[str, Any]:
    stamp = _T["builtin_interfaces/msg/Time"](*divmod(stamp_ns, NS_PER_S))
    camera = _T["std_msgs/msg/Header"](stamp, FRAME)
    world = _T["std_msgs/msg/Header"](stamp, WORLD_FRAME)
    T_world_camera = orthonormal(view.T_world_camera.numpy())
    rotation = _quaternion(T_world_camera)
    x, y, z = T_world_camera[:3, 3].tolist()
    pose = _T["geometry_msgs/msg/Pose"](_T["geometry_msgs/msg/Point"](x, y, z), rotation)
    tf = _T["geometry_msgs/msg/Transform"](_T["geometry_msgs/msg/Vector3"](x, y, z), rotation)
    rgb = view.rgb.numpy()
    image = (
        {f"{IMAGE}/compressed": _jpeg(camera, rgb)}
        if compressed
        else {IMAGE: _image(camera, rgb, "rgb8")}
    )
    return {
        INFO: _camera_info(camera, scene),
        POSE: _T["geometry_msgs/msg/PoseStamped"](world, pose),
        "/tf": _T["tf2_msgs/msg/TFMessage"](
            [_T["geometry_msgs/msg/TransformStamped"](world, TRUE_FRAME, tf)]
        ),
        DISTORTED_DEPTH if any(scene.options.distortion) else DEPTH: _image(
            camera, _encoded_depth(view.depth_m.numpy(), depth_encoding), depth_encoding
        ),
        **image,
    }


def _quaternion(T: Transform) -> Any:
    w, x, y, z = quaternion(T).tolist()
    return _T["geometry_msgs/msg/Quaternion"](x, y, z, w)


def _image(header: Any, pixels: npt.NDArray[Any], encoding: str) -> Any:
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<"), copy=False)
    return _T["sensor_msgs/msg/Image"](
        header, height, width, encoding, 0, pixels.nbytes // height, data.reshape(-1).view(np.uint8)
    )


def _jpeg(header: Any, rgb: npt.NDArray[np.uint8]) -> Any:
    _, data = cv2.imencode(".jpg", rgb[..., ::-1])
    kind = "rgb8; jpeg compressed bgr8"
    return _T["sensor_msgs/msg/CompressedImage"](header, kind, data.reshape(-1))


def _encoded_depth(depth_m: npt.NDArray[np.float32], encoding: str) -> npt.NDArray[Any]:
    if encoding == "32FC1":
        return depth_m
    return (1000 * depth_m).round().clip(0, _MAX_DEPTH_MM).astype(np.uint16)


def _camera_info(header: Any, scene: Scene) -> Any:
    fx, fy, cx, cy = scene.lens
    options = scene.options
    return _T["sensor_msgs/msg/CameraInfo"](
        header=header,
        height=options.height,
        width=options.width,
        distortion_model="plumb_bob",
        d=np.array([*options.distortion, 0.0, 0.0, 0.0]),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0]),
        r=np.eye(3).reshape(-1),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1.0, 0]),
        binning_x=0,
        binning_y=0,
        roi=_T["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )
