# SPDX-License-Identifier: Apache-2.0
"""Pixels of ROS images against plain twins that read them byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from array import array

import cv2
import numpy as np
import pytest
from PIL import Image

from ttt3r_ros.camera.decoding import (
    check_image,
    decode_compressed,
    decode_compressed_depth,
    decode_depth_image,
    decode_image,
)
from ttt3r_ros.types import FrameRejected

HEIGHT, WIDTH = 6, 8
CHANNELS = {
    "rgb8": "rgb",
    "bgr8": "bgr",
    "rgba8": "rgba",
    "bgra8": "bgra",
    "mono8": "m",
    "8UC1": "m",
    "8UC3": "bgr",
}
YUV = {"uyvy": "uyvy", "yuv422": "uyvy", "yuyv": "yuyv", "yuv422_yuy2": "yuyv"}
BAYER = ("rggb", "bggr", "gbrg", "grbg")


def message(samples, padding=0, big=False):
    """Lay out samples [H, W, C] as the fields height, width, step, is_bigendian, data."""
    height, width = samples.shape[:2]
    swapped = samples.astype(samples.dtype.newbyteorder(">" if big else "<"))
    rows = [row.tobytes() + b"\xaa" * padding for row in swapped]
    return height, width, len(rows[0]), int(big), b"".join(rows)


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def yuv_pixel(y, u, v):
    """ITU-R BT.601 of 8 bits: 16 is black, 235 white; blacker than black is black."""
    y, u, v = 255 / 219 * max(int(y) - 16, 0), int(u) - 128, int(v) - 128
    rgb = (y + 1.596 * v, y - 0.392 * u - 0.813 * v, y + 2.017 * u)
    return [min(max(round(c), 0), 255) for c in rgb]


def bilinear_bayer(mosaic, pattern):
    """Average of the samples of a colour in the 3 x 3 around each inner pixel, [H-2, W-2, 3]."""
    height, width = mosaic.shape
    colour = [[pattern[2 * (r % 2) + c % 2] for c in range(width)] for r in range(height)]
    result = np.zeros((height - 2, width - 2, 3))
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            for channel, name in enumerate("rgb"):
                if colour[row][column] == name:
                    values = [mosaic[row, column]]
                else:
                    values = [
                        mosaic[r, c]
                        for r in range(row - 1, row + 2)
                        for c in range(column - 1, column + 2)
                        if colour[r][c] == name
                    ]
                result[row - 1, column - 1, channel] = np.mean(np.array(values, np.float64))
    return result


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", CHANNELS)
def test_channels_of_eight_bits_are_put_in_order(encoding, padding):
    order = CHANNELS[encoding]
    samples = noise(HEIGHT, WIDTH, len(order))

    rgb = decode_image(encoding, *message(samples, padding))

    wanted = ["m"] * 3 if order == "m" else "rgb"
    expected = [[[int(pixel[order.index(c)]) for c in wanted] for pixel in r] for r in samples]
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert rgb.tolist() == expected


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", YUV)
def test_packed_yuv_is_bt601(encoding, padding):
    samples = noise(HEIGHT, WIDTH, 2)

    rgb = decode_image(encoding, *message(samples, padding))

    pairs = samples.reshape(-1, 4)
    y0, u, y1, v = (1, 0, 3, 2) if YUV[encoding] == "uyvy" else (0, 1, 2, 3)
    expected = [yuv_pixel(pair[y], pair[u], pair[v]) for pair in pairs for y in (y0, y1)]
    assert np.abs(rgb.reshape(-1, 3) - np.array(expected)).max() <= 1


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 2, 3])
def test_mono16_is_scaled_over_its_whole_range_and_rounded(padding, big):
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)

    rgb = decode_image("mono16", *message(samples, padding, big))

    expected = (np.arange(65536) + 128) // 257  # 65535 = 255 * 257
    for channel in range(3):
        assert np.array_equal(rgb[..., channel].reshape(-1), expected)


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize("pattern", BAYER)
def test_bayer_is_interpolated_bilinearly(pattern, padding):
    samples = noise(HEIGHT, WIDTH, 1)

    rgb = decode_image(f"bayer_{pattern}8", *message(samples, padding))

    expected = bilinear_bayer(samples[..., 0], pattern)
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(rgb[1:-1, 1:-1] - expected).max() <= 1


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize("pattern", BAYER)
def test_bayer_of_sixteen_bits_is_interpolated_before_it_is_scaled(pattern, padding, big):
    samples = noise(HEIGHT, WIDTH, 1, dtype=np.uint16)

    rgb = decode_image(f"bayer_{pattern}16", *message(samples, padding, big))

    expected = bilinear_bayer(samples[..., 0], pattern) / 257
    assert np.abs(rgb[1:-1, 1:-1] - expected).max() <= 0.51


def test_rgb8_without_padding_is_not_copied():
    data = array("B", bytes(HEIGHT * WIDTH * 3))

    rgb = decode_image("rgb8", HEIGHT, WIDTH, WIDTH * 3, 0, data)
    data[4] = 77

    assert rgb[0, 1, 1] == 77


@pytest.mark.parametrize("container", [bytes, bytearray, memoryview, lambda b: array("B", b)])
def test_any_buffer_is_taken_and_bytes_behind_the_image_are_not_read(container):
    samples = noise(HEIGHT, WIDTH, 3)
    *fields, data = message(samples)

    rgb = decode_image("bgr8", *fields, container(data + b"rest"))

    assert np.array_equal(rgb, samples[..., ::-1])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"encoding": "rgb9"}, "encoding: 'rgb9' is not one of rgb8, bgr8"),
        ({"encoding": "16UC1"}, "encoding: '16UC1'"),
        ({"height": 0}, "height, width: must be positive, got 0, 8"),
        ({"width": 0}, "height, width: must be positive, got 6, 0"),
        ({"step": 23}, "step: 8 pixels take 24 bytes, got a step of 23"),
        ({"data": bytes(143)}, "data: 6 rows of 24 bytes take 144 bytes, got 143"),
        ({"data": b""}, "data: 6 rows of 24 bytes take 144 bytes, got 0"),
        ({"encoding": "yuyv", "width": 7}, "width: must be even with yuyv, got 7"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(change, named):
    fields = {"encoding": "rgb8", "height": 6, "width": 8, "step": 24, "is_bigendian": 0}
    fields = {**fields, "data": bytes(144), **change}
    with pytest.raises(FrameRejected) as raised:
        decode_image(**fields)
    assert named in str(raised.value)
    del fields["is_bigendian"]
    with pytest.raises(FrameRejected) as raised:
        check_image(**fields)
    assert named in str(raised.value)


def jpeg(rgb, exif=None):
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=95, **({"exif": exif} if exif else {}))
    return file.getvalue()


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


def gradient(height=64, width=96):
    v, u = np.mgrid[:height, :width]
    return np.stack([2 * u, 3 * v, 255 - u - v], -1).astype(np.uint8)


def test_a_jpeg_is_decoded_to_rgb_whatever_the_format_says_of_the_image_before():
    for format in ("jpeg", "rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed bgr8", ""):
        rgb = decode_compressed(jpeg(gradient()), format)
        assert np.abs(rgb.astype(int) - gradient()).max() < 8


def test_a_gray_jpeg_becomes_rgb():
    gray = gradient()[..., 0]
    rgb = decode_compressed(jpeg(gray), "mono8; jpeg compressed ")
    assert np.abs(rgb.astype(int) - gray[..., None]).max() < 8


def test_an_exif_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees
    assert decode_compressed(jpeg(gradient(), exif), "jpeg").shape == (64, 96, 3)


@pytest.mark.parametrize("kind", [bytes, lambda b: np.frombuffer(b, np.uint8)])
def test_a_png_of_eight_bits_is_exact(kind):
    pixels = noise(HEIGHT, WIDTH, 3)
    assert np.array_equal(decode_compressed(kind(png(pixels[..., ::-1])), "png"), pixels)


def test_a_png_of_sixteen_bits_is_scaled_as_mono16():
    pixels = noise(HEIGHT, WIDTH, 3, dtype=np.uint16)
    expected = (pixels.astype(int) + 128) // 257
    assert np.array_equal(decode_compressed(png(pixels[..., ::-1]), "png"), expected)
    gray = decode_compressed(png(pixels[..., 0]), "mono16; png compressed ")
    assert np.array_equal(gray, expected[..., :1].repeat(3, -1))


def test_alpha_is_dropped():
    pixels = noise(HEIGHT, WIDTH, 4)
    rgb = decode_compressed(png(pixels), "png")
    assert np.array_equal(rgb, pixels[..., 2::-1])


@pytest.mark.parametrize("file", [jpeg(gradient()), png(gradient())], ids=["jpeg", "png"])
def test_a_file_cut_off_anywhere_is_rejected(file):
    for size in (0, 3, 20, len(file) // 2, len(file) - 40, len(file) - 1):
        with pytest.raises(FrameRejected, match="data: "):
            decode_compressed(file[:size], "jpeg")


def test_a_png_with_a_wrong_byte_is_rejected():
    file = bytearray(png(noise(64, 96, 3)))
    file[len(file) // 2] ^= 1
    with pytest.raises(FrameRejected, match="data: not a whole JPEG or PNG"):
        decode_compressed(file, "png")


def test_zeros_behind_a_jpeg_do_no_harm():
    rgb = decode_compressed(jpeg(gradient()) + bytes(100), "jpeg")
    assert rgb.shape == (64, 96, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 60_000])
def test_a_file_that_claims_too_many_pixels_is_rejected_before_it_is_decoded(side):
    file = bytearray(png(gradient(8, 8)))
    file[16:24] = side.to_bytes(4, "big") * 2  # width and height in the header chunk
    file[29:33] = zlib.crc32(file[12:29]).to_bytes(4, "big")
    with pytest.raises(FrameRejected, match=r"data: (claims 10001x10001|Image size)"):
        decode_compressed(file, "png")


@pytest.mark.parametrize("format", ["16UC1; png compressed ", "16UC1; compressedDepth png"])
def test_depth_is_not_taken_for_colour(format):
    with pytest.raises(FrameRejected, match=r"format: .* is a depth image"):
        decode_compressed(png(noise(4, 4, dtype=np.uint16)), format)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
def test_depth_of_sixteen_bits_is_millimetres_and_zero_is_unknown(padding, big):
    samples = np.array([[[0], [1], [1500]], [[65535], [0], [2]]], np.uint16)
    depth = decode_depth_image("16UC1", *message(samples, padding, big))
    assert depth.dtype == np.float32
    expected = [[np.nan, 0.001, 1.5], [65.535, np.nan, 0.002]]
    np.testing.assert_allclose(depth, expected, rtol=1e-6)


@pytest.mark.parametrize("big", [False, True])
def test_depth_in_metres_is_unknown_where_it_is_not_finite_and_positive(big):
    samples = np.array([[[1.5], [np.inf], [-np.inf]], [[np.nan], [0.0], [-1.0]]], np.float32)
    depth = decode_depth_image("32FC1", *message(samples, 4, big))
    np.testing.assert_array_equal(depth, [[1.5, np.nan, np.nan], [np.nan] * 3])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ((0, 8, 16, 0, bytes(96)), "height, width: must be positive, got 0, 8"),
        ((6, 8, 15, 0, bytes(96)), "step: 8 pixels take 16 bytes, got a step of 15"),
        ((6, 8, 16, 0, bytes(95)), "data: 6 rows of 16 bytes take 96 bytes, got 95"),
    ],
)
def test_a_wrong_field_of_a_depth_image_is_named_with_its_value(fields, named):
    with pytest.raises(FrameRejected, match=named):
        decode_depth_image("16UC1", *fields)


def test_a_colour_encoding_is_no_depth():
    with pytest.raises(FrameRejected, match="encoding: 'mono8' is not one of 16UC1, 32FC1"):
        decode_depth_image("mono8", *message(noise(4, 4, 1)))


def test_a_depth_png_is_millimetres():
    depth = decode_compressed_depth(png(np.array([[0, 2500]], np.uint16)), "16UC1; png compressed ")
    np.testing.assert_allclose(depth, [[np.nan, 2.5]])


def compressed_depth(quantised, a=0.0, b=0.0):
    return np.frombuffer(struct.pack("<iff", 0, a, b) + bytes(png(quantised)), np.uint8)


def test_the_transport_compressed_depth_puts_a_header_before_the_png():
    millimetres = np.array([[0, 2500], [1, 65535]], np.uint16)
    for format in ("16UC1; compressedDepth", "16UC1; compressedDepth png"):
        depth = decode_compressed_depth(compressed_depth(millimetres), format)
        np.testing.assert_allclose(depth, [[np.nan, 2.5], [0.001, 65.535]], rtol=1e-6)
    with pytest.raises(FrameRejected, match="no image after the header: 12 bytes"):
        decode_compressed_depth(bytes(12), "16UC1; compressedDepth png")


def test_the_transport_compressed_depth_quantises_the_inverse_of_metres():
    a = 100.0 * (100.0 + 1.0)  # the transport's: depth_quantization, and depth_max of 10 m
    b = 1.0 - a / 10.0
    metres = np.array([[0.5, 1.25], [7.0, 9.9]])
    quantised = np.append((a / metres + b).round(), [[0.0, 0.0]], axis=0).astype(np.uint16)
    depth = decode_compressed_depth(compressed_depth(quantised, a, b), "32FC1; compressedDepth png")
    np.testing.assert_allclose(depth[:2], metres, rtol=1e-2)
    assert np.isnan(depth[2]).all()


@pytest.mark.parametrize(
    ("pixels", "format", "named"),
    [
        (noise(4, 4), "16UC1; png compressed ", r"data: .* got uint8 \[4, 4\]"),
        (noise(4, 4, 3, dtype=np.uint16), "png", r"data: .* got uint16 \[4, 4, 3\]"),
        (noise(4, 4, dtype=np.uint16), "16UC1; compressedDepth rvl", "format: .* not supported"),
        (noise(4, 4, dtype=np.uint16), "16UC1; compressedDepth png", "data: .* neither JPEG nor P"),
    ],
)
def test_what_is_not_a_depth_png_is_rejected(pixels, format, named):
    with pytest.raises(FrameRejected, match=named):
        decode_compressed_depth(png(pixels), format)


@pytest.mark.parametrize(("encoding", "code"), [("nv12", (1, 0)), ("nv21", (0, 1))])
def test_brightness_with_colours_below_it_is_bt601(encoding, code):
    """A plane of one colour, with rows that are padded."""
    y, u, v = 120, 90, 200
    planes = np.zeros((6, 10), np.uint8)
    planes[:4, :8] = y
    chroma = (u, v) if code == (1, 0) else (v, u)
    planes[4:, :8] = np.tile(chroma, 4)
    rgb = decode_image(encoding, 4, 8, 10, 0, planes.tobytes())
    packed = np.tile(np.array([u, y, v, y], np.uint8), (4, 4))
    np.testing.assert_array_equal(rgb, decode_image("uyvy", 4, 8, 16, 0, packed.tobytes()))
    with pytest.raises(FrameRejected, match="height: must be even"):
        decode_image(encoding, 3, 8, 10, 0, planes.tobytes())
    with pytest.raises(FrameRejected, match="data: 6 rows of 10 bytes take 60 bytes, got 59"):
        decode_image(encoding, 4, 8, 10, 0, planes.tobytes()[:-1])


@pytest.mark.parametrize("big", [0, 1])
def test_colours_of_sixteen_bits_are_scaled(big):
    samples = np.array([[[0, 32768, 65535]]], np.uint16)
    data = samples.astype(">u2" if big else "<u2").tobytes()
    assert decode_image("rgb16", 1, 1, 6, big, data).tolist() == [[[0, 128, 255]]]
    assert decode_image("bgr16", 1, 1, 6, big, data).tolist() == [[[255, 128, 0]]]


def test_four_channels_without_names_are_in_the_order_of_opencv():
    assert decode_image("8UC4", 1, 1, 4, 0, bytes([1, 2, 3, 4])).tolist() == [[[3, 2, 1]]]


def test_a_jpeg_of_what_was_depth_is_gray():
    file = cv2.imencode(".jpg", np.full((16, 16), 77, np.uint8))[1].tobytes()
    assert decode_compressed(file, "16UC1; jpeg compressed mono8")[8, 8].tolist() == [77] * 3


def test_what_is_no_image_is_named_by_its_size():
    with pytest.raises(FrameRejected) as raised:
        decode_compressed(b"no image at all", "jpeg")
    assert str(raised.value) == "data: 15 bytes that are neither JPEG nor PNG ('jpeg')"
