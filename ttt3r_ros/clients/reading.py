# SPDX-License-Identifier: Apache-2.0
"""From messages back to arrays, for those who listen to the node; see `conversions`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Pose
from geometry_msgs.msg import Transform as TransformMessage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from ttt3r_ros.camera.decoding import (
    decode_compressed,
    decode_compressed_depth,
    decode_depth_image,
    decode_image,
)
from ttt3r_ros.geometry import Intrinsics, Transform, transform_from_message

_XYZ_RGB = ("x", "y", "z", "rgb")


def transform_of(pose: Pose | TransformMessage) -> Transform:
    """Return a pose or transform as a matrix [4, 4], not finite where its quaternion is none."""
    if isinstance(pose, Pose):
        return transform_from_message(pose.position, pose.orientation)
    return transform_from_message(pose.translation, pose.rotation)


def intrinsics_of(info: CameraInfo) -> Intrinsics:
    """Return what K says."""
    return Intrinsics(info.k[0], info.k[4], info.k[2], info.k[5], info.width, info.height)


def rgb_of(image: Image | CompressedImage) -> npt.NDArray[np.uint8]:
    """Return the pixels [H, W, 3] of a colour image.

    Raises:
        FrameRejected: a field is wrong; the message names it.
    """
    if isinstance(image, CompressedImage):
        return decode_compressed(image.data, image.format)
    return decode_image(*_layout(image))


def depth_of(image: Image | CompressedImage) -> npt.NDArray[np.float32]:
    """Return a depth image [H, W] in metres, NaN where unknown.

    Raises:
        FrameRejected: a field is wrong; the message names it.
    """
    if isinstance(image, CompressedImage):
        return decode_compressed_depth(image.data, image.format)
    return decode_depth_image(*_layout(image))


def _layout(image: Image) -> tuple[str, int, int, int, int, Any]:
    return (
        image.encoding,
        image.height,
        image.width,
        image.step,
        image.is_bigendian,
        image.data,
    )


def points_of(cloud: PointCloud2) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Return points [N, 3] and colours [N, 3] of the node's map, whatever else it says of them."""
    fields = {field.name: field.offset for field in cloud.fields if field.name in _XYZ_RGB}
    layout = np.dtype(
        {
            "names": [*fields],
            "formats": ["<u4" if name == "rgb" else "<f4" for name in fields],
            "offsets": [*fields.values()],
            "itemsize": cloud.point_step,
        }
    )
    values = np.frombuffer(cloud.data, layout)
    points = np.stack([values[name] for name in "xyz"], axis=1)
    colours = np.stack([values["rgb"] >> shift & 255 for shift in (16, 8, 0)], axis=1)
    return points, colours.astype(np.uint8)
