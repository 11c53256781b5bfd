# SPDX-License-Identifier: Apache-2.0
"""How good a model is on pictures of the real world: recordings with true poses and depth.

    python benchmarks/evaluate_recordings.py RECORDING [RECORDING ...] --json recordings.json

Each recording is cut into windows of a few seconds at one rate, each with a state of its own, and
all windows step together. Depth is compared after one scale for the whole recording, by medians;
paths after a rigid alignment, window by window, beside a camera that never moves and beside the
classical path of `classical`. Errors in brackets are standard errors over windows, which overlap:
they are too small. Nothing here is for choosing settings.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks import classical, harness
from benchmarks.harness import Numbers, cell, mean, table
from benchmarks.streams import BatchTracker, network_input
from ttt3r_ros.camera.preprocessing import resize_and_crop
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import run_metadata
from ttt3r_ros.evaluation.metrics.depth import require_same_view
from ttt3r_ros.evaluation.metrics.trajectory import TrajectoryErrors, trajectory_errors
from ttt3r_ros.geometry import CropTransform, Intrinsics
from ttt3r_ros.io.atomic import atomic_write
from ttt3r_ros.loading import Model, load_model
from ttt3r_ros.recordings.datasets.find import find_recordings
from ttt3r_ros.recordings.recording import Recording, Selection
from ttt3r_ros.types import NS_PER_S, EvaluationError, SourceError

_NEAREST_M = 0.05  # nearer truth is noise
_OVERLAP = 0.5  # of neighbouring windows


@dataclass(frozen=True, slots=True)
class Footage:
    """A recording as the network sees it."""

    name: str
    stamps_s: Numbers  # [N] from the first image on
    pictures: npt.NDArray[np.uint8]  # [N, H, W, 3] at the network's size
    depth_m: npt.NDArray[np.float32]  # [N, H, W], NaN where unknown
    poses: Numbers  # [N, 4, 4] camera to world
    lens: Intrinsics  # of these pictures


@dataclass(frozen=True, slots=True)
class Scores:
    """What is said of a recording under one rule and reset interval."""

    name: str
    rule: str
    reset_interval: int
    windows: int
    images: int  # of a window
    abs_rel: float  # after one scale
    abs_rel_constant: float  # of the median depth, after the same kind of scale
    abs_rel_unscaled: float
    abs_rel_confident: float  # of the more confident half of each picture's pixels
    ate_share: tuple[float, float]  # of a resting camera's, mean over windows and its error
    ate_share_sim3: tuple[float, float]  # likewise after an alignment that scales
    ate_share_features: tuple[float, float]  # of the classical path, after the same


def read(recording: Recording, image_size: int) -> Footage:
    """Read the images that have a true pose and depth.

    Raises:
        SourceError: it cannot be read, or there are none.
        OtherViewError: its depth is not of the images' view.
    """
    stamps, pictures, depths, lenses = [], [], [], []
    with recording.truth() as truth, recording.images(Selection()) as source:
        truth.follow(source)
        for frame in source:
            depth_m = truth.depth(frame.stamp_ns)
            if depth_m is None or frame.intrinsics is None:
                continue
            picture, plan = resize_and_crop(frame.rgb, image_size)
            stamps.append(frame.stamp_ns)
            pictures.append(picture)
            depths.append(_nearest(depth_m, plan))
            lenses.append(plan.intrinsics(frame.intrinsics))
        with_pose, poses = truth.poses(np.array(stamps, np.int64))
    chosen = list(with_pose)
    if not chosen:
        raise SourceError(f"{recording.name}: no image has true pose, true depth and intrinsics")
    times_s = (np.array(stamps, np.float64)[chosen] - stamps[chosen[0]]) / NS_PER_S
    return Footage(
        recording.name,
        times_s,
        np.stack(pictures)[chosen],
        np.stack(depths)[chosen],
        np.stack([np.asarray(pose) for pose in poses]),
        lenses[chosen[0]],
    )


def _nearest(depth_m: npt.NDArray[np.float32], plan: CropTransform) -> npt.NDArray[np.float32]:
    """True depth at the centres of the network's pixels; pixels without depth are NaN."""
    require_same_view(depth_m.shape, plan.source_width, plan.source_height)
    height, width = depth_m.shape
    rows = (np.arange(plan.height) + plan.top + 0.5) * height / plan.scaled_height - 0.5
    columns = (np.arange(plan.width) + plan.left + 0.5) * width / plan.scaled_width - 0.5
    sampled = depth_m[np.ix_(rows.round().astype(int), columns.round().astype(int))]
    return np.where(sampled > _NEAREST_M, sampled, np.nan).astype(np.float32)


def windows(stamps_s: Numbers, seconds: float, rate_hz: float) -> Numbers:
    """Indices [W, T] of images in windows that overlap by half, as near to the rate as there are.

    A recording that is faster than the rate also has windows that begin in between.

    Raises:
        SourceError: it is too short for one.
    """
    images = round(seconds * rate_hz)
    period = 1 / rate_hz
    between = round(period / max(1e-3, float(np.median(np.diff(stamps_s)))))
    found = []
    last = float(stamps_s[-1]) - (images - 1) * period + 0.5 * period
    starts = np.arange(0.0, max(last, 1e-9), seconds * (1 - _OVERLAP))
    for start in starts:
        for phase in range(max(1, between)):
            wanted = start + period * (phase / max(1, between) + np.arange(images))
            index = np.abs(stamps_s[None] - wanted[:, None]).argmin(axis=1)
            if wanted[-1] <= stamps_s[-1] + 0.5 * period and (np.diff(index) > 0).all():
                found.append(index)
    if not found:
        raise SourceError(f"the recording is shorter than {seconds:g} s at {rate_hz:g} Hz")
    return np.stack(found)


@torch.inference_mode()
def answers(
    model: Model, rule: str, interval: int, pictures: npt.NDArray[np.uint8]
) -> tuple[Numbers, Numbers, Numbers]:
    """Poses [W, T, 4, 4], depth and confidence [W, T, H, W] for windows [W, T, H, W, 3]."""
    tracker = BatchTracker(model.network, rule, interval, len(pictures))
    poses: list[Tensor] = []
    depths: list[Tensor] = []
    confidences: list[Tensor] = []
    for t in range(pictures.shape[1]):
        pixels = network_input(torch.from_numpy(pictures[:, t]), model.device)
        step = tracker.step(model.network.encode(pixels))
        poses.append(step.T_first_camera)
        depths.append(step.prediction.points[..., 2].cpu())
        confidences.append(step.prediction.confidence.cpu())
    found = (torch.stack(x, dim=1).double().numpy() for x in (poses, depths, confidences))
    return next(found), next(found), next(found)


def scored(
    footage: Footage, index: Numbers, found: tuple[Numbers, Numbers, Numbers]
) -> dict[str, Any]:
    """Errors of the answers for windows [W, T] of a recording."""
    poses, depth, confidence = found
    true = footage.depth_m[index].astype(np.float64)
    known = np.isfinite(true) & (depth > 0)
    scale = float(np.median(true[known] / depth[known]))
    relative = np.where(known, np.abs(scale * depth - true) / true, np.nan)
    middle = np.median(confidence, axis=(2, 3), keepdims=True)
    level = np.median(true[known])
    shares, sim3, yardstick = [], [], []
    for window, pose in zip(index, poses, strict=True):
        truth = footage.poses[window]
        path = trajectory_errors(pose, truth)
        guess = path.guess_ate_rmse_m
        shares.append(_ate_m(path, "se3") / guess)
        sim3.append(_ate_m(path, "sim3") / guess)
        other = trajectory_errors(
            classical.path([*footage.pictures[window]], footage.lens.matrix()), truth
        )
        yardstick.append(_ate_m(other, "sim3") / guess)
    return {
        "windows": len(index),
        "images": index.shape[1],
        "abs_rel": float(np.nanmean(relative)),
        "abs_rel_constant": float((np.abs(level - true[known]) / true[known]).mean()),
        "abs_rel_unscaled": float((np.abs(depth - true)[known] / true[known]).mean()),
        "abs_rel_confident": float(np.nanmean(relative[confidence >= middle])),
        "ate_share": mean(shares),
        "ate_share_sim3": mean(sim3),
        "ate_share_features": mean(yardstick),
    }


def _ate_m(errors: TrajectoryErrors, alignment: str) -> float:
    ate_m = errors.by_alignment[alignment].ate_rmse_m
    return math.nan if ate_m is None else ate_m


def markdown(report: dict[str, Any]) -> list[str]:
    """One table, with what it was made with below."""
    heads = (
        "recording", "rule", "reset every", "windows x images", "AbsRel, one scale",
        "of a constant", "unscaled", "of the confident half", "ATE / resting", "after Sim(3)",
        "features after Sim(3)",
    )  # fmt: skip
    depths = ("abs_rel", "abs_rel_constant", "abs_rel_unscaled", "abs_rel_confident")
    paths = ("ate_share", "ate_share_sim3", "ate_share_features")
    rows = [
        [
            row["name"],
            row["rule"],
            row["reset_interval"] or "never",
            f"{row['windows']} x {row['images']}",
            *(f"{row[name]:.3f}" for name in depths),
            *(cell(row[name], 2) for name in paths),
        ]
        for row in report["rows"]
    ]
    how = f"Windows of {report['window_s']:g} s at {report['rate_hz']:g} Hz. "
    return [*table(heads, rows), how + harness.made_with(report)]


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, evaluate, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("recordings", type=Path, nargs="+", metavar="RECORDING", help="as `ttt3r evaluate`")
    add("--checkpoint", default="", help="default: the shipped one")
    add("--device", default="cpu", help="cpu or cuda")
    add("--seconds", type=float, default=4.0, help="of a window")
    add("--rate", type=float, default=10.0, help="images per second")
    add("--rules", nargs="+", default=("cut3r", "ttt3r"), metavar="RULE")
    add("--intervals", type=int, nargs="+", metavar="N", help="images; 0: never; default: its own")
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    arguments = parser.parse_args(words)
    began_s = time.perf_counter()
    config = Config(
        checkpoint=arguments.checkpoint, device=arguments.device, process_all_images=True
    )
    model = load_model(config)
    intervals = arguments.intervals or [*dict.fromkeys((0, model.reset_interval))]
    rows = []
    try:
        for path in arguments.recordings:
            for recording in find_recordings(path):
                footage = read(recording, model.image_size)
                index = windows(footage.stamps_s, arguments.seconds, arguments.rate)
                for rule, interval in product(arguments.rules, intervals):
                    found = answers(model, rule, interval, footage.pictures[index])
                    scores = scored(footage, index, found)
                    rows.append(Scores(footage.name, rule, interval, **scores))
    except (SourceError, EvaluationError) as error:
        parser.error(str(error))
    report = {
        **run_metadata.of_run(config, model.device),
        "processes": 1,
        "seconds": time.perf_counter() - began_s,
        "window_s": arguments.seconds,
        "rate_hz": arguments.rate,
        "rows": [asdict(row) for row in rows],
    }
    if arguments.json:
        with atomic_write(arguments.json) as file:
            file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n".join(markdown(report)))


if __name__ == "__main__":
    main()
