# SPDX-License-Identifier: Apache-2.0
"""ScanNet, exported from its .sens files.

https://github.com/ScanNet/ScanNet/tree/master/SensReader/python: `reader.py --filename
sceneXXXX_XX.sens --output_path sceneXXXX_XX --export_depth_images --export_color_images
--export_poses --export_intrinsics` writes color/N.jpg (1296x968), depth/N.png (640x480, 16-bit,
millimetres, 0 is unknown, of the colour camera's view), pose/N.txt (camera to world, 4 x 4,
metres; -inf where tracking was lost) and intrinsic/intrinsic_color.txt (4 x 4). Stamps are not
exported; the sensor filmed at 30 Hz.
"""

from __future__ import annotations

from pathlib import Path

from ttt3r_ros.recordings.datasets.files import intrinsics_for, matrix, png_depth, pose_files
from ttt3r_ros.recordings.datasets.layout import (
    Format,
    ImageFile,
    Options,
    SequenceFiles,
    every_sequence,
    folder_name,
    numbered,
)

_RATE_HZ = 30.0
_IMAGE_SUFFIXES = (".jpg", ".png")
_LENS = Path("intrinsic", "intrinsic_color.txt")


def is_sequence(path: Path) -> bool:
    """Return whether a folder has colour images, and poses or depth beside."""
    return (path / "color").is_dir() and any((path / name).is_dir() for name in ("pose", "depth"))


def read(path: Path, options: Options) -> SequenceFiles:
    """List a sequence.

    Raises:
        SourceError: the intrinsics are not 4 x 4 numbers.
    """
    colour = (file for file in (path / "color").iterdir() if file.suffix in _IMAGE_SUFFIXES)
    images = numbered(colour, options.rate_hz or _RATE_HZ)

    def beside(folder: str, suffix: str) -> list[tuple[int, Path]]:
        if not (path / folder).is_dir():
            return []
        return [(stamp, path / folder / f"{file.stem}{suffix}") for stamp, file in images]

    poses, depth = beside("pose", ".txt"), beside("depth", ".png")
    lens = None
    if images and (path / _LENS).is_file():
        lens = intrinsics_for(images[0][1], matrix(path / _LENS))
    return SequenceFiles(
        images=[ImageFile(stamp_ns, file, lens) for stamp_ns, file in images],
        depth=depth,
        read_depth=png_depth(1000.0),
        read_poses=pose_files(poses),
        pose_source="pose/*.txt" if poses else "",
        depth_source="depth/*.png" if depth else "",
    )


FORMAT = Format(
    "scannet", "color/ with pose/ or depth/ beside", is_sequence, read, every_sequence, folder_name
)
