# SPDX-License-Identifier: Apache-2.0
"""Between ROS messages and the package's own types; transforms are in `transforms`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time as TimeMsg
from geometry_msgs.msg import PoseWithCovarianceStamped, Twist
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

try:
    from cv_bridge import CvBridge
    from sensor_msgs_py.point_cloud2 import create_cloud
except ImportError:
    from ttt3r_ros.ros.wheels import CvBridge, create_cloud

from ttt3r_ros.camera.decoding import decode_compressed, decode_image
from ttt3r_ros.geometry import Intrinsics, Transform, inverse, rotation_vector, transform
from ttt3r_ros.mapping.voxel_map import MapCloud
from ttt3r_ros.ros.frame_tree import frame_name
from ttt3r_ros.ros.transforms import Extrinsics, pose_message
from ttt3r_ros.tracking.covariance import moved
from ttt3r_ros.types import NS_PER_S, Covariance, FrameRejected, FrameResult

_bridge = CvBridge()

_LONGEST_NAME = 255  # characters of a frame's name
_LAST_S = 2**31 - 1000  # transforms are stamped a little after the image

_XYZ_RGB = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("rgb", "f4")]
_XYZ_RGB_CONFIDENCE = np.dtype([*_XYZ_RGB, ("confidence", "f4")])
_XYZ_RGB_COUNT = np.dtype([*_XYZ_RGB, ("count", "u4")])
_DATATYPES = {"f": PointField.FLOAT32, "u": PointField.UINT32}  # by the kind of a field


def stamp_ns(stamp: TimeMsg) -> int:
    """Return a stamp in nanoseconds."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def stamp_message(ns: int) -> TimeMsg:
    """Return nanoseconds as a stamp."""
    return TimeMsg(sec=ns // NS_PER_S, nanosec=ns % NS_PER_S)


def image_stamp_ns(message: Image | CompressedImage) -> int:
    """Return an image's stamp in nanoseconds.

    Raises:
        FrameRejected: it is none, or nothing could be stamped after it.
    """
    stamp = message.header.stamp
    if not (0 <= stamp.sec < _LAST_S and stamp.nanosec < NS_PER_S):
        raise FrameRejected(
            f"header.stamp: sec must be 0 to {_LAST_S - 1} and nanosec below 10^9, "
            f"got {stamp.sec} and {stamp.nanosec}"
        )
    return stamp_ns(stamp)


def frame_id_of(message: Image | CompressedImage, camera_frame: str) -> str:
    """Return the camera's frame: the header's, or the parameter's where that names none.

    Raises:
        FrameRejected: neither names one, or it cannot be shown.
    """
    frame_id = frame_name(message.header.frame_id) or frame_name(camera_frame)
    if not frame_id:
        raise FrameRejected("header.frame_id: empty, and the parameter camera_frame is too")
    if len(frame_id) > _LONGEST_NAME or not frame_id.isprintable():
        raise FrameRejected(
            f"header.frame_id: must be printable and of at most {_LONGEST_NAME} characters, got "
            f"{len(frame_id)}: {frame_id[:40]!a}"
        )
    return frame_id


def decode(message: Image | CompressedImage) -> npt.NDArray[np.uint8]:
    """Return the pixels of an image message, uint8 [H, W, 3], RGB.

    Raises:
        FrameRejected: a field is wrong; the message names it.
    """
    # Not through cv_bridge: it skews images whose rows are padded by part of a pixel, fills up what
    # is missing in a damaged file, and offline runs decode without it.
    if isinstance(message, CompressedImage):
        return decode_compressed(message.data, message.format)
    return decode_image(
        message.encoding,
        message.height,
        message.width,
        message.step,
        message.is_bigendian,
        message.data,
    )


def odometry_message(
    result: FrameResult,
    extrinsics: Extrinsics,
    previous: tuple[int, Transform] | None,
    odom_frame: str,
) -> Odometry:
    """Return the pose of the base, and its velocity since the image before.

    Args:
        result: of the image.
        extrinsics: of the camera on the base.
        previous: stamp in nanoseconds and pose of the base at the image before, None if there is
            none; the velocity is unknown then.
        odom_frame: frame of the pose.
    """
    message = Odometry(child_frame_id=extrinsics.base_frame)
    message.header = _header(result.stamp_ns, odom_frame)
    T_odom_base = extrinsics.odom_to_base(result.T_odom_camera)
    message.pose.pose = pose_message(T_odom_base)
    covariance = _at_base(result.pose_covariance, result.T_odom_camera, T_odom_base)
    message.pose.covariance = covariance.flatten()
    if previous is not None:
        message.twist.twist = _twist(
            inverse(previous[1]) @ T_odom_base, (result.stamp_ns - previous[0]) / NS_PER_S
        )
    message.twist.covariance = moved(result.twist_covariance, extrinsics.T_base_camera).flatten()
    return message


def map_pose_message(
    result: FrameResult, extrinsics: Extrinsics, map_frame: str
) -> PoseWithCovarianceStamped:
    """Return the pose of the base in the map."""
    message = PoseWithCovarianceStamped(header=_header(result.stamp_ns, map_frame))
    T_map_camera = result.T_map_camera
    T_map_base = extrinsics.odom_to_base(T_map_camera)
    message.pose.pose = pose_message(T_map_base)
    covariance = _at_base(result.map_pose_covariance, T_map_camera, T_map_base)
    message.pose.covariance = covariance.flatten()
    return message


def _at_base(
    covariance: Covariance, T_parent_camera: Transform, T_parent_base: Transform
) -> Covariance:
    """Transfer the covariance of the camera's pose to the base's."""
    lever = T_parent_camera[:3, 3] - T_parent_base[:3, 3]
    return moved(covariance, transform(np.eye(3), lever))


def depth_message(result: FrameResult, min_confidence: float, max_depth_m: float) -> Image:
    """Return depth along z as 32FC1 in metres, NaN where it is not known (REP-118)."""
    return _image_message(result.depth_m(min_confidence, max_depth_m), "32FC1", result)


def confidence_message(result: FrameResult) -> Image:
    """Return the network's confidence, 1 to infinity, as 32FC1."""
    return _image_message(result.host_confidence(), "32FC1", result)


def rgb_message(result: FrameResult) -> Image:
    """Return what the network saw as rgb8, of the depth image's size."""
    return _image_message(result.rgb, "rgb8", result)


def camera_info_message(result: FrameResult, intrinsics: Intrinsics) -> CameraInfo:
    """Return the intrinsics of the depth image of a result."""
    message = CameraInfo(header=_header(result.stamp_ns, result.frame_id))
    message.width, message.height = intrinsics.width, intrinsics.height
    message.distortion_model = "plumb_bob"
    message.d = [0.0] * 5
    K = intrinsics.matrix()
    message.k = K.flatten()
    message.r = np.eye(3).flatten()
    message.p = np.hstack([K, np.zeros((3, 1))]).flatten()
    return message


def points_message(result: FrameResult, min_confidence: float, max_depth_m: float) -> PointCloud2:
    """Return the points in the camera frame as an organised cloud, NaN where not known."""
    height, width = result.confidence.shape
    points = result.known_points(min_confidence, max_depth_m)
    cloud = np.empty(height * width, _XYZ_RGB_CONFIDENCE)
    _fill(cloud, points.reshape(-1, 3), result.rgb.reshape(-1, 3))
    cloud["confidence"] = result.host_confidence().flatten()
    message = _cloud_message(cloud, _header(result.stamp_ns, result.frame_id))
    message.height, message.width = height, width
    message.row_step = message.point_step * width
    return message


def map_message(cloud: MapCloud, stamp_ns: int, frame: str) -> PointCloud2:
    """Return the points of the map as a cloud."""
    points = np.empty(len(cloud.values), _XYZ_RGB_COUNT)
    _fill(points, cloud.points, cloud.colours)
    points["count"] = cloud.counts
    message = _cloud_message(points, _header(stamp_ns, frame))
    message.is_dense = True
    return message


def _header(ns: int, frame: str) -> Header:
    return Header(stamp=stamp_message(ns), frame_id=frame)


def _image_message(pixels: npt.NDArray[Any], encoding: str, result: FrameResult) -> Image:
    message: Image = _bridge.cv2_to_imgmsg(pixels, encoding)
    message.header = _header(result.stamp_ns, result.frame_id)
    return message


def _fill(
    cloud: npt.NDArray[np.void], points: npt.NDArray[np.float32], rgb: npt.NDArray[np.uint8]
) -> None:
    for axis, name in enumerate("xyz"):
        cloud[name] = points[:, axis]
    red, green, blue = rgb.astype(np.uint32).T
    # PCL's convention, which RViz follows: the bytes of an integer in the place of a float.
    cloud["rgb"] = (red << 16 | green << 8 | blue).view(np.float32)


def _cloud_message(cloud: npt.NDArray[np.void], header: Header) -> PointCloud2:
    fields = [
        PointField(name=name, offset=offset, datatype=_DATATYPES[kind.kind], count=1)
        for name, (kind, offset, *_) in (cloud.dtype.fields or {}).items()
    ]
    message: PointCloud2 = create_cloud(header, fields, cloud)
    message.is_dense = False
    return message


def _twist(T_previous_now: Transform, seconds: float) -> Twist:
    """Return the velocity, in the moving frame, of a motion within some seconds."""
    message = Twist()
    v, w = message.linear, message.angular
    # Constant velocity in the frame now: the translation, turned into it.
    v.x, v.y, v.z = map(float, T_previous_now[:3, :3].T @ T_previous_now[:3, 3] / seconds)
    w.x, w.y, w.z = map(float, rotation_vector(T_previous_now) / seconds)
    return message
