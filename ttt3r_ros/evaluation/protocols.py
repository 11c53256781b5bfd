# SPDX-License-Identifier: Apache-2.0
"""How the papers of CUT3R and TTT3R measure on each data set, as presets of `ttt3r evaluate`.

With the data and the published weights a preset repeats what the paper did: one pass over the
images, float32, no resets. Lengths are the longest that are usual; `--max-frames` sets others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ttt3r_ros.evaluation.report.data import Published
from ttt3r_ros.recordings.recording import Selection

_ONE_PASS: Mapping[str, Any] = {
    "update_rule": "ttt3r",
    "segment.reset_interval": 0,
    "preprocessing": "exact",
    "dtype": "float32",
}
_SQUEEZED: Mapping[str, Any] = {**_ONE_PASS, "fit": "resize"}
_LISTED = "TTT3R (paper, as listed elsewhere)"  # the paper's tables themselves were not at hand


@dataclass(frozen=True, slots=True)
class Part:
    """One way through the data; some data sets are measured in two."""

    name: str
    settings: Mapping[str, Any]
    sequences: tuple[str, ...] = ()  # names or ends of names; empty: all there are


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset."""

    format: str  # one of `datasets.FORMATS`
    about: str  # what is measured, and in what the preset differs from the paper
    parts: tuple[Part, ...]
    selection: Selection = field(default_factory=Selection)
    max_difference_s: float = 0.01  # between stamps that belong together
    max_true_depth_m: float | None = None  # pixels whose truth is farther are left out
    max_depth_m: float | None = None  # predictions are clipped to this after alignment
    published: tuple[Published, ...] = ()


def _ate(where: str, ate_m: float) -> tuple[Published, ...]:
    metrics = {"trajectory": {"alignments": {"sim3": {"ate_rmse_m": ate_m}}}}
    return (Published(f"{_LISTED}, {where}", "", metrics),)


PROTOCOLS: dict[str, Preset] = {
    "ttt3r-scannet": Preset(
        format="scannet",
        about="Camera pose: every third image from the first on, at most 1000 of them; ATE and RPE "
        "after a Sim(3) alignment. The published ATE is of 90 images: --max-frames 90.",
        parts=(Part("pose", _ONE_PASS),),
        selection=Selection(every=3, max_frames=1000),
        published=_ate("90 images", 0.064),
    ),
    "ttt3r-tum": Preset(
        format="tum",
        about="Camera pose: every image with a true pose within 0.02 s, the first 1000 of them; "
        "ATE and RPE after a Sim(3) alignment. The published ATE is of 90 images.",
        parts=(Part("pose", _ONE_PASS),),
        selection=Selection(max_frames=1000, with_truth="poses"),
        max_difference_s=0.02,
        published=_ate("90 images", 0.028),
    ),
    "ttt3r-sintel": Preset(
        format="sintel",
        about="Camera pose of 14 sequences, images cut to size: ATE and RPE after a Sim(3) "
        "alignment. Video depth of all sequences, images squeezed to size: true depth below 70 m, "
        "predictions clipped to 70 m after alignment.",
        parts=(
            Part(
                "pose",
                _ONE_PASS,
                (
                    *("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4"),
                    *("market_2", "market_5", "market_6", "shaman_3", "sleeping_1", "sleeping_2"),
                    *("temple_2", "temple_3"),
                ),
            ),
            Part("depth", _SQUEEZED),
        ),
        max_true_depth_m=70.0,
        max_depth_m=70.0,
        published=_ate("14 sequences", 0.201),
    ),
    "ttt3r-kitti": Preset(
        format="kitti",
        about="Video depth: the first 500 images with true depth of each drive of the depth "
        "prediction benchmark's validation set, left colour camera, squeezed to size.",
        parts=(Part("depth", _SQUEEZED),),
        selection=Selection(max_frames=500, with_truth="depth"),
    ),
    "ttt3r-bonn": Preset(
        format="bonn",
        about="Video depth of five sequences, images 30 to 530, squeezed to size; true depth below "
        "70 m.",
        parts=(
            Part(
                "depth",
                _SQUEEZED,
                ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous"),
            ),
        ),
        selection=Selection(start=30, max_frames=500),
        max_true_depth_m=70.0,
        published=(
            Published(
                f"{_LISTED}, video depth",
                "",
                {"depth": {"alignments": {"scale": {"abs_rel": 0.068}}}},
            ),
        ),
    ),
    "ttt3r-7scenes": Preset(
        format="7scenes",
        about="3D reconstruction of the test sequences: every second image, the first 200 of "
        "them. The paper compares the world points of a second head over the central 224x224 "
        "pixels after ICP; here the accumulated map is compared with the true surface after the "
        "alignment of the poses, so accuracy, completeness and normal consistency are of the same "
        "kind but not the same numbers.",
        parts=(Part("reconstruction", _ONE_PASS),),
        selection=Selection(every=2, max_frames=200),
    ),
}
