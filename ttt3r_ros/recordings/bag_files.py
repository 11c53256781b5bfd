# SPDX-License-Identifier: Apache-2.0
"""Which paths are rosbag2s, by the names of their files; nothing is opened here."""

from __future__ import annotations

from pathlib import Path

BAG_FORMAT = "rosbag2"
BAG_SUFFIXES = (".mcap", ".db3")


def files_of(folder: Path) -> list[Path]:
    """Return the bag files in a folder, in order."""
    return sorted(file for file in folder.iterdir() if file.suffix in BAG_SUFFIXES)


def is_bag(path: Path) -> bool:
    """Return whether a path looks like a rosbag2: a folder with its files, or one of these."""
    if path.is_dir():
        return (path / "metadata.yaml").exists() or bool(files_of(path))
    return path.suffix in BAG_SUFFIXES
