# SPDX-License-Identifier: Apache-2.0
"""PLY and PCD files read back by parsers that share nothing with the writers."""

from __future__ import annotations

import resource
import struct
from contextlib import contextmanager

import numpy as np
import pytest

from ttt3r_ros.config import NodeConfig, settings
from ttt3r_ros.io.point_cloud import CLOUD_WRITERS, write_pcd, write_ply


def read_ply(path):
    """Return the points and colours of a PLY file as lists, by its own header."""
    lines, body = path.read_bytes().split(b"end_header\n", 1)
    magic, form, element, *properties = lines.decode().splitlines()
    assert (magic, form) == ("ply", "format binary_little_endian 1.0")
    codes = {"float": "f", "uchar": "B"}
    names = [line.split()[2] for line in properties]
    layout = struct.Struct("<" + "".join(codes[line.split()[1]] for line in properties))
    vertices = [dict(zip(names, v, strict=True)) for v in layout.iter_unpack(body)]
    assert element == f"element vertex {len(vertices)}"
    points = [[v[name] for name in ("x", "y", "z")] for v in vertices]
    return points, [[v[name] for name in ("red", "green", "blue")] for v in vertices]


def read_pcd(path):
    """Return the points and colours of a binary PCD file as lists, by its own header."""
    lines, body = path.read_bytes().split(b"DATA binary\n", 1)
    comment, *entries = lines.decode().splitlines()
    assert comment.startswith("# .PCD v0.7")
    keys = [entry.split()[0] for entry in entries]
    order = "VERSION FIELDS SIZE TYPE COUNT WIDTH HEIGHT VIEWPOINT POINTS"  # is prescribed
    assert keys == order.split()
    header = {entry.split()[0]: entry.split()[1:] for entry in entries}
    assert header["VERSION"] == ["0.7"] and header["COUNT"] == ["1"] * len(header["FIELDS"])
    assert header["VIEWPOINT"] == list("0001000")
    kinds = zip(header["TYPE"], header["SIZE"], strict=True)
    layout = struct.Struct("<" + "".join({("F", "4"): "f"}[kind] for kind in kinds))
    rows = [dict(zip(header["FIELDS"], v, strict=True)) for v in layout.iter_unpack(body)]
    assert header["POINTS"] == header["WIDTH"] == [str(len(rows))] and header["HEIGHT"] == ["1"]
    packed = [struct.unpack("<I", struct.pack("<f", row["rgb"]))[0] for row in rows]
    colours = [[rgb >> 16, rgb >> 8 & 255, rgb & 255] for rgb in packed]
    return [[row[name] for name in ("x", "y", "z")] for row in rows], colours


FORMATS = pytest.mark.parametrize(
    ("write", "read"), [(write_ply, read_ply), (write_pcd, read_pcd)], ids=["ply", "pcd"]
)


def cloud(count):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(count, 3)).astype(np.float32)
    return points, rng.integers(0, 256, (count, 3), np.uint8)


@FORMATS
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_points_and_colours_come_back_exactly(tmp_path, write, read, count):
    points, colours = cloud(count)
    write(tmp_path / "map", points, colours)
    assert read(tmp_path / "map") == (points.tolist(), colours.tolist())


def test_every_byte_of_a_colour_survives_being_packed_into_a_float(tmp_path):
    colours = np.array([(255, 255, 255), (0, 0, 0), (128, 0, 0), (127, 128, 255)], np.uint8)
    write_pcd(tmp_path / "map.pcd", cloud(4)[0], colours)
    assert read_pcd(tmp_path / "map.pcd")[1] == colours.tolist()


@FORMATS
def test_arrays_need_not_be_contiguous(tmp_path, write, read):
    points, colours = cloud(10)
    write(str(tmp_path / "map"), points[::-2], colours[::-2, ::-1])
    assert read(tmp_path / "map") == (points[::-2].tolist(), colours[::-2, ::-1].tolist())


@FORMATS
def test_an_older_file_is_replaced_and_nothing_else_is_left(tmp_path, write, read):
    write(tmp_path / "map", *cloud(5))
    write(tmp_path / "map", *cloud(2))
    assert len(read(tmp_path / "map")[0]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["map"]


@contextmanager
def little_room():
    """Files may grow to 1000 bytes: as on a full disk, writing fails half way.

    Meanwhile nothing else may be written, not even what pytest says of its progress.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@FORMATS
def test_without_room_the_older_file_stays_and_the_error_names_it(tmp_path, write, read):
    write(tmp_path / "map", *cloud(5))
    with pytest.raises(OSError, match=r"/map'$") as caught, little_room():
        write(tmp_path / "map", *cloud(5000))
    assert caught.value.filename == str(tmp_path / "map")
    assert len(read(tmp_path / "map")[0]) == 5
    assert [file.name for file in tmp_path.iterdir()] == ["map"]


@FORMATS
def test_what_cannot_be_replaced_is_named_and_nothing_is_left_behind(tmp_path, write, read):
    (tmp_path / "map").mkdir()
    with pytest.raises(IsADirectoryError, match=r"/map'$"):
        write(tmp_path / "map", *cloud(5))
    assert [file.name for file in tmp_path.iterdir()] == ["map"]


@pytest.mark.parametrize(
    ("points", "colours", "named"),
    [
        (np.zeros((4, 3)), np.zeros((4, 3), np.uint8), r"points: .* got float64 \[4, 3\]"),
        (np.zeros((4, 2), "f"), np.zeros((4, 3), np.uint8), r"points: .* got float32 \[4, 2\]"),
        (np.zeros(3, "f"), np.zeros(3, np.uint8), r"points: .* got float32 \[3\]"),
        (np.zeros((4, 3), "f"), np.zeros((4, 3), "f"), r"colours: .* got float32 \[4, 3\]"),
        (np.zeros((4, 3), "f"), np.zeros((5, 3), np.uint8), r"expected uint8 \[4, 3\], got uint8"),
    ],
)
@FORMATS
def test_a_wrong_array_is_named(tmp_path, points, colours, named, write, read):
    with pytest.raises(ValueError, match=named):
        write(tmp_path / "map", points, colours)
    assert list(tmp_path.iterdir()) == []


@FORMATS
def test_a_missing_folder_is_named(tmp_path, write, read):
    with pytest.raises(FileNotFoundError, match=r"none/map: the folder .*none does not exist"):
        write(tmp_path / "none" / "map", *cloud(1))


def test_the_formats_that_can_be_chosen_are_those_that_can_be_written():
    assert settings(NodeConfig)["map_format"].choices == tuple(CLOUD_WRITERS)
