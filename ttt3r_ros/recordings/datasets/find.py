# SPDX-License-Identifier: Apache-2.0
"""Finds the recordings below a path, whatever their format."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ttt3r_ros.recordings.bag_files import BAG_FORMAT, BAG_SUFFIXES, files_of
from ttt3r_ros.recordings.bag_recording import BagRecording
from ttt3r_ros.recordings.datasets import bonn, kitti, scannet, seven_scenes, sintel, tum
from ttt3r_ros.recordings.datasets.folder import FolderRecording
from ttt3r_ros.recordings.datasets.layout import Format, Options, folders_at, outermost
from ttt3r_ros.recordings.pose_track import MAX_DIFFERENCE_S
from ttt3r_ros.recordings.recording import Recording
from ttt3r_ros.types import SourceError

_FORMATS = {
    entry.name: entry
    for entry in (
        tum.FORMAT,
        kitti.FORMAT,
        seven_scenes.FORMAT,
        scannet.FORMAT,
        bonn.FORMAT,
        sintel.FORMAT,
    )
}
FORMATS = tuple(_FORMATS)
"""The names of all formats of folders."""


def find_recordings(
    path: str | Path,
    *,
    format: str = "",
    sequences: Sequence[str] = (),
    topic: str = "",
    camera_info_topic: str = "",
    ground_truth_topic: str = "",
    ground_truth_frames: tuple[str, str] | None = None,
    depth_topic: str = "",
    rate_hz: float | None = None,
    max_difference_s: float = MAX_DIFFERENCE_S,
) -> list[Recording]:
    """Find the recordings at a path or below, in order, at least one; none is opened.

    Their own paths are absolute, and names of links are those of the links themselves.

    Args:
        path: a rosbag2 (its folder, or one .mcap or .db3 file), one sequence of a data set, or a
            folder with several of the same kind.
        format: one of `FORMATS` or "rosbag2"; empty: whatever fits.
        sequences: names of those to take, as in `Recording.name`, or the folder's own or its end
            after "_" or "-"; empty: all that are usually evaluated.
        topic: of a bag's images; see `BagSource`.
        camera_info_topic: likewise.
        ground_truth_topic: of a bag; see `BagTruth`.
        ground_truth_frames: likewise.
        depth_topic: likewise; "none" for none.
        rate_hz: images per second in data sets without stamps; None: as their sensor had.
        max_difference_s: between the stamps of an image and its truth, where they have their own.

    Raises:
        SourceError: there is nothing, or no such sequence, or an option does not fit; the message
            names what was looked for.
    """
    path = Path(os.path.abspath(path))
    if not path.exists():
        raise SourceError(f"{path}: does not exist")
    if format not in ("", BAG_FORMAT, *FORMATS):
        known = ", ".join((BAG_FORMAT, *FORMATS))
        raise SourceError(f"format: must be one of {known}, got {format!r}")
    for name, value in (("rate_hz", rate_hz), ("max_difference_s", max_difference_s)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise SourceError(f"{name}: must be positive and finite, got {value}")
    kind, places = _places(path, format)
    layout = _FORMATS.get(kind)
    chosen = _chosen(path, _named(path, places, layout), sequences)
    if layout is None:
        return [
            BagRecording(
                place.name,
                kind,
                place.path,
                topic,
                camera_info_topic,
                ground_truth_topic,
                ground_truth_frames,
                depth_topic,
                max_difference_s,
            )
            for place in chosen
        ]
    if topic or camera_info_topic or ground_truth_topic or ground_truth_frames or depth_topic:
        raise SourceError(f"{path}: no bag but a folder of {kind}, so it has no topics or frames")
    options = Options(rate_hz, max_difference_s)
    return [FolderRecording(place.name, kind, place.path, layout.read, options) for place in chosen]


def _places(path: Path, format: str) -> tuple[str, list[Path]]:
    """Return the format and all places that it has here."""
    if path.is_file() and path.suffix not in BAG_SUFFIXES:
        raise SourceError(
            f"{path}: neither a folder nor a bag file ({', '.join(BAG_SUFFIXES)}); "
            "rosbags-convert makes a rosbag2 of a ROS 1 bag"
        )
    found = {}
    folders = folders_at(path) if path.is_dir() else []
    if format in ("", BAG_FORMAT) and (bags := _bags(folders) if path.is_dir() else [path]):
        found[BAG_FORMAT] = bags
    for name, layout in _FORMATS.items():
        if format in ("", name) and (sequences := outermost(folders, layout.is_sequence)):
            found[name] = sequences
    if not found:
        looked_for = {
            BAG_FORMAT: "metadata.yaml, *.mcap, *.db3",
            **{name: layout.looked_for for name, layout in _FORMATS.items()},
        }
        listing = "".join(
            f"\n  {name}: {files}" for name, files in looked_for.items() if format in ("", name)
        )
        raise SourceError(f"{path}: no recording with truth is here or below; looked for:{listing}")
    if len(found) > 1:
        raise SourceError(
            f"{path}: recordings of several formats ({', '.join(found)}); choose one with --format"
        )
    return next(iter(found.items()))


def _bags(folders: list[Path]) -> list[Path]:
    """Return the bags; those without a metadata.yaml by their files.

    A folder with a single file stands for that, unless there are bags below it.
    """
    whole = outermost(folders, lambda folder: (folder / "metadata.yaml").exists())
    within = {*whole}
    loose = {
        folder: files
        for folder in folders
        if within.isdisjoint((folder, *folder.parents)) and (files := files_of(folder))
    }
    above = {parent for bag in (*whole, *loose) for parent in bag.parents}
    result = [*whole]
    for folder, files in loose.items():
        result += files if len(files) > 1 or folder in above else [folder]
    return sorted(result)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a sequence is."""

    path: Path
    own: str  # perhaps like others
    name: str  # unlike all others
    is_usual: bool


def _named(path: Path, places: list[Path], layout: Format | None) -> list[_Place]:
    """Give sequences their own names or, where these are not enough, those of folders above too.

    What is still like another one gets a number.
    """
    own = [layout.name_of(place) for place in places] if layout else _bag_names(places)
    below = [
        "-".join((*place.relative_to(path).parts[:-1], name))
        for place, name in zip(places, own, strict=True)
    ]
    usual = [layout is None or layout.is_usual(place) for place in places]
    if not any(usual):
        usual = [True] * len(places)
    count = Counter(own)
    count_usual = Counter(name for name, is_usual in zip(own, usual, strict=True) if is_usual)
    enough = max(count_usual.values()) == 1
    names = [
        name if enough and (is_usual or count[name] == 1) else long
        for name, long, is_usual in zip(own, below, usual, strict=True)
    ]
    return [
        _Place(place, name, distinct, is_usual)
        for place, name, distinct, is_usual in zip(
            places, own, _distinct(names), usual, strict=True
        )
    ]


def _bag_names(places: list[Path]) -> list[str]:
    """Return the bags' own names; with the suffix where files differ by that alone."""
    stems = [place.with_suffix("") if place.is_file() else place for place in places]
    count = Counter(stems)
    return [
        place.name if count[stem] > 1 else stem.name
        for place, stem in zip(places, stems, strict=True)
    ]


def _distinct(names: list[str]) -> list[str]:
    """Return names of folders, unlike each other; those that come again get a number."""
    names = [re.sub(r"[^\w.=-]+", "_", name) for name in names]
    given: list[str] = []
    for name in names:
        new, number = name, 2
        while new in given or (new != name and new in names):
            new, number = f"{name}-{number}", number + 1
        given.append(new)
    return given


def _chosen(path: Path, places: list[_Place], wanted: Sequence[str]) -> list[_Place]:
    if not wanted:
        return [place for place in places if place.is_usual]
    taken: list[_Place] = []
    for name in wanted:
        found = (
            [place for place in places if place.name == name]
            or [place for place in places if place.own == name]
            or [place for place in places if place.own.endswith(("_" + name, "-" + name))]
        )
        if not found:
            there = ", ".join(place.name for place in places)
            raise SourceError(f"{path}: no sequence {name}; there are: {there}")
        taken += [place for place in found if place.is_usual] or found
    return [place for place in places if place in taken]
