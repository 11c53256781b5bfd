# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from ttt3r_ros.io.point_cloud import CLOUD_WRITERS, find_cloud, read_cloud

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(57, 3)).astype(np.float32)
COLOURS = RNG.integers(0, 256, (57, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [0, 57])
@pytest.mark.parametrize("ending", CLOUD_WRITERS)
def test_what_was_written_is_read(tmp_path, ending, count):
    path = tmp_path / f"map.{ending}"
    CLOUD_WRITERS[ending](path, POINTS[:count], COLOURS[:count])
    points, colours = read_cloud(path)
    assert (points.dtype, colours.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(points, POINTS[:count])
    np.testing.assert_array_equal(colours, COLOURS[:count])
    assert find_cloud(tmp_path, "map") == path


def test_other_fields_are_passed_over(tmp_path):
    path = tmp_path / "map.ply"
    vertex = np.dtype("<f8,<f8,<f8,<f4,u1,u1,u1,<u2")
    kinds = "double x,double y,double z,float confidence,uchar red,uchar green,uchar blue,ushort n"
    header = ["ply", "format binary_little_endian 1.0", "comment by hand", "element vertex 1"]
    header += [f"property {kind}" for kind in kinds.split(",")] + ["end_header\n"]
    row = np.array([(1, 2, 3, 9, 10, 20, 30, 7)], vertex)
    path.write_bytes("\n".join(header).encode() + row.tobytes())
    points, colours = read_cloud(path)
    assert (points.tolist(), colours.tolist()) == ([[1, 2, 3]], [[10, 20, 30]])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"solid\n" * 200,
        b"\x89PNG\r\n\x1a\n\xff",
        b"ply\nformat ascii 1.0\nelement vertex 0\nend_header\n",
        b"ply\nformat binary_little_endian 1.0\nelement vertex 0\nproperty float x\nend_header\n",
        b"ply\nformat binary_little_endian 1.0\nelement face 2\nend_header\n",
        b"ply\nformat binary_little_endian 1.0\nelement vertex -1\nend_header\n",
        b"FIELDS x y z rgb\nPOINTS 0\nDATA ascii\n",
    ],
)
def test_anything_else_is_refused_by_name(tmp_path, content):
    path = tmp_path / "map.ply"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"map\.ply: not a binary cloud with colours"):
        read_cloud(path)


@pytest.mark.parametrize("ending", CLOUD_WRITERS)
def test_a_file_that_ends_too_early_is_refused(tmp_path, ending):
    path = tmp_path / f"map.{ending}"
    CLOUD_WRITERS[ending](path, POINTS, COLOURS)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="57 points announced"):
        read_cloud(path)


def test_a_folder_without_a_map_has_none(tmp_path):
    assert find_cloud(tmp_path, "map") is None
