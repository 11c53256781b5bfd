# SPDX-License-Identifier: Apache-2.0
"""Coloured points as files that other programs open."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

_PLY_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])


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
    path = Path(path)
    if points.dtype != np.float32 or points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(
            f"points: expected float32 [N, 3], got {points.dtype} {list(points.shape)}"
        )
    if colours.dtype != np.uint8 or colours.shape != points.shape:
        raise ValueError(
            f"colours: expected uint8 {list(points.shape)}, "
            f"got {colours.dtype} {list(colours.shape)}"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist")
    vertices = np.empty(len(points), _PLY_VERTEX)
    vertices["xyz"], vertices["rgb"] = points, colours
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(points)}",
        *(f"property float {name}" for name in ("x", "y", "z")),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        "end_header\n",
    ]
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            file.write("\n".join(header).encode())
            file.write(vertices.data)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
