# SPDX-License-Identifier: Apache-2.0
"""PLY files read back by a parser that shares nothing with the writer."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from ttt3r_ros.mapping.export import write_ply


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


def cloud(count):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(count, 3)).astype(np.float32)
    return points, rng.integers(0, 256, (count, 3), np.uint8)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_points_and_colours_come_back_exactly(tmp_path, count):
    points, colours = cloud(count)
    write_ply(tmp_path / "map.ply", points, colours)
    assert read_ply(tmp_path / "map.ply") == (points.tolist(), colours.tolist())


def test_arrays_need_not_be_contiguous(tmp_path):
    points, colours = cloud(10)
    write_ply(str(tmp_path / "map.ply"), points[::-2], colours[::-2, ::-1])
    assert read_ply(tmp_path / "map.ply") == (points[::-2].tolist(), colours[::-2, ::-1].tolist())


def test_an_older_file_is_replaced_and_nothing_else_is_left(tmp_path):
    write_ply(tmp_path / "map.ply", *cloud(5))
    write_ply(tmp_path / "map.ply", *cloud(2))
    assert len(read_ply(tmp_path / "map.ply")[0]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["map.ply"]


def test_a_failure_leaves_no_file_behind(tmp_path):
    (tmp_path / "map.ply").mkdir()
    with pytest.raises(OSError, match=r"map\.ply"):
        write_ply(tmp_path / "map.ply", *cloud(5))
    assert [file.name for file in tmp_path.iterdir()] == ["map.ply"]


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
def test_a_wrong_array_is_named(tmp_path, points, colours, named):
    with pytest.raises(ValueError, match=named):
        write_ply(tmp_path / "map.ply", points, colours)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none/map.ply: the folder .*none does not exist"):
        write_ply(tmp_path / "none" / "map.ply", *cloud(1))
