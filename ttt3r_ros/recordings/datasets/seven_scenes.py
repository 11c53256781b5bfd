# SPDX-License-Identifier: Apache-2.0
"""7-Scenes of Microsoft Research.

https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/: scene/seq-XX/ has for
each image frame-XXXXXX.color.png (24-bit, 640x480), .depth.png (16-bit, millimetres, 65535 where
unknown) and .pose.txt (camera to world, 4 x 4, metres). TestSplit.txt of a scene names the
sequences to evaluate on, as "sequence3".

Poses come from KinectFusion, which tracked the depth camera. Colour and depth camera are not
calibrated to each other: the images are as the Kinect gave them, and KinectFusion ran with a focal
length of 585 and the principal point (320, 240) of the depth camera. As everywhere in the
literature, both are taken as one camera here; the views differ by some centimetres and pixels.
Stamps are not published; the Kinect filmed at 30 Hz.
"""

from __future__ import annotations

from pathlib import Path

from ttt3r_ros.geometry import Intrinsics
from ttt3r_ros.recordings.datasets.files import png_depth, pose_files
from ttt3r_ros.recordings.datasets.layout import (
    Format,
    ImageFile,
    Options,
    SequenceFiles,
    numbered,
)

_LENS = Intrinsics(585.0, 585.0, 320.0, 240.0, 640, 480)
_RATE_HZ = 30.0
_COLOUR, _DEPTH, _POSE = ".color.png", ".depth.png", ".pose.txt"
_SPLIT = "TestSplit.txt"


def is_sequence(path: Path) -> bool:
    """Return whether a folder has colour images with these names."""
    return path.name.startswith("seq-") and next(path.glob(f"frame-*{_COLOUR}"), None) is not None


def is_usual(path: Path) -> bool:
    """Return whether a sequence is one to evaluate on; all are where no file says."""
    split = path.parent / _SPLIT
    if not split.is_file():
        return True
    lines = split.read_text("utf-8", errors="replace").splitlines()
    numbers = ("".join(filter(str.isdecimal, line)) for line in lines)
    own = path.name.removeprefix("seq-")
    return own.isdecimal() and int(own) in {int(number) for number in numbers if number}


def name_of(path: Path) -> str:
    """Return scene and sequence."""
    return f"{path.parent.name}-{path.name}"


def read(path: Path, options: Options) -> SequenceFiles:
    """List a sequence."""
    images = numbered(path.glob(f"frame-*{_COLOUR}"), options.rate_hz or _RATE_HZ)

    def beside(ending: str) -> list[tuple[int, Path]]:
        names = [(stamp, path / (file.name[: -len(_COLOUR)] + ending)) for stamp, file in images]
        return names if any(file.is_file() for _, file in names) else []

    poses, depth = beside(_POSE), beside(_DEPTH)
    return SequenceFiles(
        images=[ImageFile(stamp_ns, file, _LENS) for stamp_ns, file in images],
        depth=depth,
        read_depth=png_depth(1000.0, unknown=(0, 65535)),
        read_poses=pose_files(poses),
        pose_source=f"frame-*{_POSE}" if poses else "",
        depth_source=f"frame-*{_DEPTH}" if depth else "",
    )


FORMAT = Format("7scenes", f"seq-*/frame-*{_COLOUR}", is_sequence, read, is_usual, name_of)
