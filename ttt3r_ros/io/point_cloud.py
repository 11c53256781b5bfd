# SPDX-License-Identifier: Apache-2.0
"""Coloured points as files that other programs open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ttt3r_ros.io.atomic import whole_file

_PLY_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
_PCD_POINT = np.dtype([("xyz", "<f4", 3), ("rgb", "<u4")])


def write_ply(
    path: str | Path, points: npt.NDArray[np.float32], colours: npt.NDArray[np.uint8]
) -> None:
    """Write points as a binary little-endian PLY file with x y z red green blue.

    The file appears under its name when it is whole; one that was there is replaced.

    Args:
        path: of the file, in a folder that exists.
        points: float32 [N, 3], metres; N may be 0.
        colours: uint8 [N, 3], RGB.

    Raises:
        ValueError: a shape or type is not as said.
        OSError: the file cannot be written; none is left behind.
    """
    _check(points, colours)
    vertices = np.empty(len(points), _PLY_VERTEX)
    vertices["xyz"], vertices["rgb"] = points, colours
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(points)}",
        *(f"property float {name}" for name in ("x", "y", "z")),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        "end_header",
    ]
    _write(path, header, vertices)


def write_pcd(
    path: str | Path, points: npt.NDArray[np.float32], colours: npt.NDArray[np.uint8]
) -> None:
    """Write points as a binary PCD file, version 0.7, with x y z rgb.

    As PCL has it, a colour is the bits 0x00RRGGBB in the place of a float. Arguments and errors
    are those of `write_ply`.
    """
    _check(points, colours)
    cloud = np.empty(len(points), _PCD_POINT)
    red, green, blue = colours.astype(np.uint32).T
    cloud["xyz"], cloud["rgb"] = points, red << 16 | green << 8 | blue
    header = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        "FIELDS x y z rgb",
        "SIZE 4 4 4 4",
        "TYPE F F F F",
        "COUNT 1 1 1 1",
        f"WIDTH {len(points)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(points)}",
        "DATA binary",
    ]
    _write(path, header, cloud)


CLOUD_WRITERS: Mapping[str, Callable[..., None]] = MappingProxyType(
    {"ply": write_ply, "pcd": write_pcd}
)
"""What writes a format; its name is the end of the file's."""


def _check(points: npt.NDArray[np.float32], colours: npt.NDArray[np.uint8]) -> None:
    if points.dtype != np.float32 or points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(
            f"points: expected float32 [N, 3], got {points.dtype} {list(points.shape)}"
        )
    if colours.dtype != np.uint8 or colours.shape != points.shape:
        raise ValueError(
            f"colours: expected uint8 {list(points.shape)}, "
            f"got {colours.dtype} {list(colours.shape)}"
        )


def _write(path: str | Path, header: list[str], rows: npt.NDArray[np.void]) -> None:
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        file.write(("\n".join(header) + "\n").encode())
        file.write(rows.data)
