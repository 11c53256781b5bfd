# SPDX-License-Identifier: Apache-2.0
"""The RGB-D dynamic dataset of the University of Bonn.

https://www.ipb.uni-bonn.de/data/rgbd-dynamic-dataset/: the files of the TUM data sets, depth
registered to colour, poses from a motion capture system. Its intrinsics are here; the distortion
(k1 = 0.0399, k2 = -0.0993, less than 5 pixels) is not undone.

Poses are those of the markers on the camera, in axes of their own. The published way from there
to the sensor is T_ros^-1 · T · T_ros · T_m with the matrices below. T_m as published also scales
by 1.059, for models that were made from the sensor's depth; a pose has no scale, so that only its
rotation and translation are used. Depth is left as published (value / 5000), as if it were not
too short by that factor.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ttt3r_ros.geometry import Intrinsics, inverse, orthonormal, transform
from ttt3r_ros.recordings.datasets import tum
from ttt3r_ros.recordings.datasets.layout import (
    Format,
    Options,
    SequenceFiles,
    StampedPoses,
    every_sequence,
    folder_name,
)

_LENS = Intrinsics(542.822841, 542.576870, 315.593520, 237.756098, 640, 480)
T_ROS = transform([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], (0.0, 0.0, 0.0))
T_MARKERS_CAMERA = orthonormal(
    np.array(
        [
            [1.0157, 0.1828, -0.2389, 0.0113],
            [0.0009, -0.8431, -0.6413, -0.0098],
            [-0.3009, 0.6147, -0.8085, 0.0111],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
)


def is_sequence(path: Path) -> bool:
    """Return whether a folder has the list of images and one of Bonn's names."""
    return (path / tum.IMAGES).is_file() and path.name.startswith(tum.BONN)


def read(path: Path, options: Options) -> SequenceFiles:
    """List a sequence."""
    files = tum.listed(path, options, _LENS)

    def poses() -> StampedPoses:
        return [
            (stamp_ns, inverse(T_ROS) @ T @ T_ROS @ T_MARKERS_CAMERA)
            for stamp_ns, T in files.read_poses()
        ]

    return replace(files, read_poses=poses)


FORMAT = Format(
    "bonn",
    f"{tum.BONN}*/ with {tum.IMAGES}, {tum.DEPTH}, {tum.POSES}",
    is_sequence,
    read,
    every_sequence,
    folder_name,
)
