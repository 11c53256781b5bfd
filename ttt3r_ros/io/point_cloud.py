# SPDX-License-Identifier: Apache-2.0
"""Coloured points as files that other programs open, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ttt3r_ros.io.atomic import atomic_write

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
    """Write points [N, 3] as a binary PCD file, version 0.7, with x y z rgb.

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
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        file.write(("\n".join(header) + "\n").encode())
        file.write(rows.data)


_PLY_TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "<i2",
    "ushort": "<u2",
    "int": "<i4",
    "uint": "<u4",
    "float": "<f4",
    "double": "<f8",
}
_MOST_LINES = 100  # of a header


def find_cloud(folder: Path, name: str) -> Path | None:
    """Return the file `name` in a folder, whatever its format; None if there is none."""
    paths = (folder / f"{name}.{ending}" for ending in CLOUD_WRITERS)
    return next((path for path in paths if path.is_file()), None)


def read_cloud(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Read a map: binary PLY with x y z red green blue, or binary PCD with x y z rgb.

    Other fields may stand between or behind them.

    Returns:
        Points, float32 [N, 3], and their colours, uint8 [N, 3].

    Raises:
        OSError: the file cannot be read.
        ValueError: it is something else, or ends too early; the message names it.
    """
    try:
        with path.open("rb") as file:
            rows = _rows(file)
            xyz = np.stack([rows[axis] for axis in "xyz"], axis=1).astype(np.float32)
            return xyz, _colours(rows)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a binary cloud with colours: {error}") from error


def _rows(file: BinaryIO) -> npt.NDArray[np.void]:
    header = [*_header(file)]
    point, count = _ply_layout(header) if header[0] == "ply" else _pcd_layout(header)
    data = file.read(count * point.itemsize)
    if len(data) < count * point.itemsize:
        raise ValueError(f"{count} points announced, {len(data)} bytes there")
    return np.frombuffer(data, point, count)


def _header(file: BinaryIO) -> Iterator[str]:
    for _ in range(_MOST_LINES):
        line = file.readline(1000).decode("ascii").strip()
        yield line
        if line == "end_header" or line.startswith("DATA"):
            return
    raise ValueError("no end of the header")


def _ply_layout(header: Sequence[str]) -> tuple[np.dtype[np.void], int]:
    if "format binary_little_endian 1.0" not in header:
        raise ValueError("not of the format binary_little_endian 1.0")
    elements = [line.split()[1:] for line in header if line.startswith("element ")]
    if [name for name, _ in elements] != ["vertex"]:
        raise ValueError(f"elements {elements}, not vertices alone")
    fields = [line.split()[1:] for line in header if line.startswith("property ")]
    point = np.dtype([(name, _PLY_TYPES[kind]) for kind, name in fields])
    return point, int(elements[0][1])


def _pcd_layout(header: Sequence[str]) -> tuple[np.dtype[np.void], int]:
    entries = {line.partition(" ")[0]: line.split()[1:] for line in header}
    if entries["DATA"] != ["binary"]:
        raise ValueError(f"DATA {' '.join(entries['DATA'])}, not binary")
    kinds = [
        kind.lower() + size for kind, size in zip(entries["TYPE"], entries["SIZE"], strict=True)
    ]
    fields = [
        (name, "<u4" if name == "rgb" else f"<{kind}")
        for name, kind in zip(entries["FIELDS"], kinds, strict=True)
    ]
    return np.dtype(fields), int(entries["POINTS"][0])


def _colours(rows: npt.NDArray[np.void]) -> npt.NDArray[np.uint8]:
    if "rgb" in (rows.dtype.names or ()):
        channels = [rows["rgb"] >> shift & 255 for shift in (16, 8, 0)]
    else:
        channels = [rows[name] for name in ("red", "green", "blue")]
    return np.stack(channels, axis=1).astype(np.uint8)
