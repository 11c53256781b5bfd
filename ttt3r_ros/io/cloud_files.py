# SPDX-License-Identifier: Apache-2.0
"""Coloured points back from the files that `export` writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ttt3r_ros.io.point_cloud import CLOUD_WRITERS

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
