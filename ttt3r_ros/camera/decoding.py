# SPDX-License-Identifier: Apache-2.0
"""Pixels of ROS images as arrays: raw, JPEG and PNG, colour and depth.

The functions take the fields of `sensor_msgs/Image` and `CompressedImage`, not the messages, so
that rclpy's and rosbags' messages go through the same code. Image files, which unlike a camera's
stream may carry an EXIF orientation, are read in `evaluation.folder_reader`.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ttt3r_ros.types import FrameRejected

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_COMPRESSED_PIXELS = 100_000_000
"""A compressed image that claims more is rejected before memory is taken (300 MB of RGB)."""

# compressed_depth_image_transport's ConfigHeader: format, and depthParam a and b.
_DEPTH_HEADER = struct.Struct("<iff")


class _Layout(NamedTuple):
    """How the pixels of an encoding lie in memory."""

    channels: int
    sample_bytes: int
    to_rgb: int | None  # OpenCV's conversion; None: is RGB


# OpenCV names a Bayer pattern by the second row from the second column on, ROS by the first row
# from the first column on: the same pairs as in cv_bridge.
_BAYER_TO_RGB = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}

# sensor_msgs/image_encodings.hpp; the anonymous 8UC* are taken in OpenCV's order of channels.
_COLOUR = {
    "rgb8": _Layout(3, 1, None),
    "bgr8": _Layout(3, 1, cv2.COLOR_BGR2RGB),
    "rgba8": _Layout(4, 1, cv2.COLOR_RGBA2RGB),
    "bgra8": _Layout(4, 1, cv2.COLOR_BGRA2RGB),
    "mono8": _Layout(1, 1, cv2.COLOR_GRAY2RGB),
    "mono16": _Layout(1, 2, cv2.COLOR_GRAY2RGB),
    "8UC1": _Layout(1, 1, cv2.COLOR_GRAY2RGB),
    "8UC3": _Layout(3, 1, cv2.COLOR_BGR2RGB),
    "8UC4": _Layout(4, 1, cv2.COLOR_BGRA2RGB),
    "rgb16": _Layout(3, 2, None),
    "bgr16": _Layout(3, 2, cv2.COLOR_BGR2RGB),
    "nv12": _Layout(1, 1, cv2.COLOR_YUV2RGB_NV12),
    "nv21": _Layout(1, 1, cv2.COLOR_YUV2RGB_NV21),
    "uyvy": _Layout(2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": _Layout(2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": _Layout(2, 1, cv2.COLOR_YUV2RGB_YUY2),
    "yuv422_yuy2": _Layout(2, 1, cv2.COLOR_YUV2RGB_YUY2),
    **{f"bayer_{name}8": _Layout(1, 1, code) for name, code in _BAYER_TO_RGB.items()},
    **{f"bayer_{name}16": _Layout(1, 2, code) for name, code in _BAYER_TO_RGB.items()},
}

_PACKED = ("uyvy", "yuv422", "yuyv", "yuv422_yuy2")  # two pixels share their colour
_PLANAR = ("nv12", "nv21")  # four do, below all pixels' brightness

# REP-118: 16UC1 in millimetres, 32FC1 in metres.
_DEPTH = {"16UC1": _Layout(1, 2, None), "32FC1": _Layout(1, 4, None)}


def check_image(encoding: str, height: int, width: int, step: int, data: Buffer) -> None:
    """Check the fields of a raw colour or gray image; arguments as `decode_image`.

    Raises:
        FrameRejected: a field is wrong; the message names it, its value and what is allowed.
    """
    _check_layout(_layout(encoding, _COLOUR), _rows(encoding, height), width, step, data)
    if encoding in (*_PACKED, *_PLANAR) and width % 2:
        raise FrameRejected(f"width: must be even with {encoding}, got {width}")
    if encoding in _PLANAR and height % 2:
        raise FrameRejected(f"height: must be even with {encoding}, got {height}")


def decode_image(
    encoding: str, height: int, width: int, step: int, is_bigendian: int, data: Buffer
) -> npt.NDArray[np.uint8]:
    """Return the pixels of a raw colour or gray image as contiguous RGB, uint8 [H, W, 3].

    `rgb8` without padding is returned as a view of `data`, read-only where `data` is; everything
    else is converted through OpenCV with the results of cv_bridge: samples of 16 bits span 0 to
    65535 and are scaled by 255 / 65535, rounded; YUV is BT.601 with 16 to 235 for black to white.

    Args:
        encoding: of `sensor_msgs/image_encodings.hpp`.
        height: rows.
        width: columns.
        step: bytes from one row to the next, padding included.
        is_bigendian: byte order of samples of 16 bits.
        data: at least `height` x `step` bytes.

    Raises:
        FrameRejected: a field is wrong; the message names it, its value and what is allowed.
    """
    check_image(encoding, height, width, step, data)
    layout = _COLOUR[encoding]
    rows = _rows(encoding, height)
    samples = _samples(layout, rows, width, step, is_bigendian, data, "u")
    if layout.to_rgb is None:
        return to_uint8(np.ascontiguousarray(samples))
    return to_uint8(cv2.cvtColor(samples, layout.to_rgb))


def decode_compressed(data: Buffer, format: str) -> npt.NDArray[np.uint8]:
    """Return the pixels of a JPEG or PNG image as RGB, uint8 [H, W, 3].

    Gray becomes RGB, alpha is dropped, 16 bits become 8 as in `decode_image`. An EXIF orientation
    is ignored: the camera's intrinsics and frame belong to the pixels as they are stored. The
    order of the channels is the file's own, whatever `format` says of the image before.

    Args:
        data: the whole file.
        format: the message's field, for instance "jpeg" or "rgb8; jpeg compressed bgr8".

    Raises:
        FrameRejected: the image is depth, neither JPEG nor PNG, damaged, or larger than
            `MAX_COMPRESSED_PIXELS`.
    """
    if _is_depth(format):
        raise FrameRejected(f"format: {format!r} is a depth image, not a colour image")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    return to_uint8(cv2.cvtColor(_decode_file(data, format, flags), cv2.COLOR_BGR2RGB))


def decode_depth_image(
    encoding: str, height: int, width: int, step: int, is_bigendian: int, data: Buffer
) -> npt.NDArray[np.float32]:
    """Return a raw depth image in metres, float32 [H, W], NaN where unknown.

    The arguments are those of `decode_image`; the encoding is 16UC1 (millimetres, 0 is unknown)
    or 32FC1 (metres; what is not finite and positive is unknown), as in REP-118.

    Raises:
        FrameRejected: a field is wrong; the message names it, its value and what is allowed.
    """
    layout = _layout(encoding, _DEPTH)
    _check_layout(layout, height, width, step, data)
    kind = "u" if encoding == "16UC1" else "f"
    return _metres(_samples(layout, height, width, step, is_bigendian, data, kind)[..., 0])


def decode_compressed_depth(data: Buffer, format: str) -> npt.NDArray[np.float32]:
    """Return depth [H, W] in metres of a gray PNG of 16 bits, as `decode_depth_image` does 16UC1.

    With the transport `compressedDepth`, a header of 12 bytes precedes the PNG; depth that was
    32FC1 is quantised as q = a / z + b with a and b from there, and 0 is unknown.

    Args:
        data: all bytes of the message.
        format: the message's field, for instance "16UC1; png compressed" or
            "32FC1; compressedDepth png".

    Raises:
        FrameRejected: the image is not a gray PNG of 16 bits, damaged, or larger than
            `MAX_COMPRESSED_PIXELS`; also for `compressedDepth` with RVL.
    """
    a = b = 0.0
    if is_transport := "compressedDepth" in format:
        if "rvl" in format:
            raise FrameRejected(f"format: {format!r} is not supported, only PNG is")
        if memoryview(data).nbytes <= _DEPTH_HEADER.size:
            raise FrameRejected(f"data: no image after the header: {memoryview(data).nbytes} bytes")
        _, a, b = _DEPTH_HEADER.unpack_from(data)
        data = memoryview(data)[_DEPTH_HEADER.size :]
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    depth = _decode_file(data, format, flags)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise FrameRejected(
            f"data: depth is a gray PNG of 16 bits, got {depth.dtype} {list(depth.shape)}"
        )
    if is_transport and format.startswith("32FC1"):
        with np.errstate(divide="ignore"):
            metres = np.float32(a) / (depth.astype(np.float32) - np.float32(b))
        metres[depth == 0] = np.nan
        return _metres(metres)
    return _metres(depth)


def to_uint8(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return samples [...] of 0 to 65535 scaled to 0 to 255, rounded; uint8 as it is."""
    if pixels.dtype == np.uint8:
        return pixels
    scaled: npt.NDArray[Any] = cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    return scaled


def _layout(encoding: str, known: dict[str, _Layout]) -> _Layout:
    if encoding not in known:
        raise FrameRejected(f"encoding: {encoding!r} is not one of {', '.join(known)}")
    return known[encoding]


def _rows(encoding: str, height: int) -> int:
    """Return how many rows of samples an image has."""
    return height * 3 // 2 if encoding in _PLANAR else height


def _check_layout(layout: _Layout, height: int, width: int, step: int, data: Buffer) -> None:
    if height < 1 or width < 1:
        raise FrameRejected(f"height, width: must be positive, got {height}, {width}")
    pixel_bytes = layout.channels * layout.sample_bytes
    if step < width * pixel_bytes:
        raise FrameRejected(
            f"step: {width} pixels take {width * pixel_bytes} bytes, got a step of {step}"
        )
    if memoryview(data).nbytes < height * step:
        raise FrameRejected(
            f"data: {height} rows of {step} bytes take {height * step} bytes, "
            f"got {memoryview(data).nbytes}"
        )


def _samples(
    layout: _Layout,
    height: int,
    width: int,
    step: int,
    is_bigendian: int,
    data: Buffer,
    kind: str,  # numpy's: u, f
) -> npt.NDArray[Any]:  # [H, W, C], in the machine's byte order
    samples: npt.NDArray[Any] = np.ndarray(
        (height, width, layout.channels),
        f"{'>' if is_bigendian else '<'}{kind}{layout.sample_bytes}",
        memoryview(data),
        strides=(step, layout.channels * layout.sample_bytes, layout.sample_bytes),
    )
    # Nothing is copied for single bytes; OpenCV takes rows with padding as they are.
    return np.require(samples, samples.dtype.newbyteorder("="), "A")


def _is_depth(format: str) -> bool:
    before, _, how = format.partition(";")  # a JPEG of 16UC1 has become gray: no depth is in it
    is_depth = before.strip() in _DEPTH and "jpeg" not in how
    return is_depth or "compressedDepth" in format


def _decode_file(data: Buffer, format: str, flags: int) -> npt.NDArray[Any]:
    file = bytes(data)
    width, height = _whole_file_size(file, format)
    if width * height > MAX_COMPRESSED_PIXELS:
        raise FrameRejected(
            f"data: claims {width}x{height} pixels, at most {MAX_COMPRESSED_PIXELS} are allowed"
        )
    try:
        pixels = cv2.imdecode(np.frombuffer(file, np.uint8), flags)
    except cv2.error as error:
        raise FrameRejected(f"data: not decodable ({format!r}): {error}") from error
    if pixels is None:
        raise FrameRejected(f"data: not decodable ({format!r}): {len(file)} bytes")
    return pixels


def _whole_file_size(file: bytes, format: str) -> tuple[int, int]:
    """Return width and height; OpenCV alone fills up what is missing in a damaged file."""
    try:
        with Image.open(io.BytesIO(file), formats=("JPEG", "PNG")) as image:
            image.verify()  # the check sums of a PNG
            size, is_png = image.size, image.format == "PNG"
    except UnidentifiedImageError as error:  # it names an object in memory
        raise FrameRejected(
            f"data: {len(file)} bytes that are neither JPEG nor PNG ({format!r})"
        ) from error
    except Image.DecompressionBombError as error:
        raise FrameRejected(f"data: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        raise FrameRejected(f"data: not a whole JPEG or PNG ({format!r}): {error}") from error
    # The pixels of a JPEG hold no markers: the end (D9) comes after the last start of a scan (DA).
    if not is_png and file.rfind(b"\xff\xd9") < file.rfind(b"\xff\xda"):
        raise FrameRejected(f"data: JPEG of {len(file)} bytes is cut off")
    return size


def _metres(depth: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    metres = depth.astype(np.float32)
    if depth.dtype == np.uint16:
        metres *= np.float32(0.001)
    metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
    return metres
