# SPDX-License-Identifier: Apache-2.0
"""How good a model is on pictures of the real world: bags with true poses and depth.

    python benchmarks/evaluate_recordings.py BAG [BAG ...] [--checkpoint FILE] [--json FILE]

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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks import classical
from benchmarks.evaluate_demo_model import BatchTracker, mean
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import circumstances
from ttt3r_ros.evaluation.bag_recording import BagRecording
from ttt3r_ros.evaluation.metrics.trajectory import TrajectoryErrors, trajectory_errors
from ttt3r_ros.evaluation.recording import Selection
from ttt3r_ros.model import Model, load_model
from ttt3r_ros.preprocessing import CropTransform, crop_transform, network_image

_NEAREST_M = 0.05  # nearer truth is noise
_OVERLAP = 0.5  # of neighbouring windows

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Footage:
    """A recording as the network sees it."""

    name: str
    stamps_s: Numbers  # [N] from the first image on
    pictures: npt.NDArray[np.uint8]  # [N, H, W, 3] at the network's size
    depth_m: npt.NDArray[np.float32]  # [N, H, W], NaN where unknown
    poses: Numbers  # [N, 4, 4] camera to world
    K: Numbers  # [3, 3] of these pictures


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


def read(bag: Path, image_size: int) -> Footage:
    """Read the images of a bag that have a true pose and depth."""
    recording = BagRecording(name=bag.name, format="rosbag2", path=bag)
    stamps, pictures, depths, K = [], [], [], np.eye(3)
    with recording.truth() as truth, recording.images(Selection()) as source:
        truth.follow(source)
        for frame in source:
            depth = truth.depth(frame.stamp_ns)
            if depth is None or frame.intrinsics is None:
                continue
            height, width = frame.rgb.shape[:2]
            plan = crop_transform(width, height, image_size)
            lens = plan.intrinsics(frame.intrinsics)
            K = np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]])
            stamps.append(frame.stamp_ns)
            pictures.append(network_image(frame.rgb, torch.device("cpu"), image_size).rgb)
            depths.append(_nearest(depth, plan))
        with_pose, poses = truth.poses(np.array(stamps, np.int64))
    chosen = list(with_pose)
    times = (np.array(stamps, np.float64)[chosen] - stamps[chosen[0]]) / 1e9
    return Footage(
        bag.name,
        times,
        np.stack(pictures)[chosen],
        np.stack(depths)[chosen],
        np.stack([np.asarray(pose) for pose in poses]),
        K,
    )


def _nearest(depth_m: npt.NDArray[np.float32], plan: CropTransform) -> npt.NDArray[np.float32]:
    """True depth at the centres of the network's pixels; pixels without depth are NaN."""
    height, width = depth_m.shape
    rows = (np.arange(plan.height) + plan.top + 0.5) * height / plan.scaled_height - 0.5
    columns = (np.arange(plan.width) + plan.left + 0.5) * width / plan.scaled_width - 0.5
    sampled = depth_m[np.ix_(rows.round().astype(int), columns.round().astype(int))]
    return np.where(sampled > _NEAREST_M, sampled, np.nan).astype(np.float32)


def windows(stamps_s: Numbers, seconds: float, rate_hz: float) -> Numbers:
    """Indices [W, T] of images in windows that overlap by half, as near to the rate as there are.

    A recording that is faster than the rate also has windows that begin in between.
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
        raise SystemExit(f"the recording is shorter than {seconds:g} s at {rate_hz:g} Hz")
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
        pixels = torch.from_numpy(pictures[:, t]).permute(0, 3, 1, 2).to(model.device).float()
        features_ = model.network.encode(pixels.div_(255).sub_(0.5).div_(0.5))
        pose, prediction = tracker.step(features_)
        poses.append(pose)
        depths.append(prediction.points[..., 2].cpu())
        confidences.append(prediction.confidence.cpu())
    return tuple(torch.stack(x, dim=1).double().numpy() for x in (poses, depths, confidences))  # type: ignore[return-value]


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
        other = trajectory_errors(classical.path([*footage.pictures[window]], footage.K), truth)
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


def markdown(rows: Sequence[Scores], about: str) -> str:
    """One table."""
    heads = (
        "recording", "rule", "reset every", "windows x images", "AbsRel, one scale",
        "of a constant", "unscaled", "of the confident half", "ATE / resting", "after Sim(3)",
        "features after Sim(3)",
    )  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        paths = (row.ate_share, row.ate_share_sim3, row.ate_share_features)
        cells = (
            row.name,
            row.rule,
            row.reset_interval or "never",
            f"{row.windows} x {row.images}",
            f"{row.abs_rel:.3f}",
            f"{row.abs_rel_constant:.3f}",
            f"{row.abs_rel_unscaled:.3f}",
            f"{row.abs_rel_confident:.3f}",
            *(f"{value:.2f} ± {error:.2f}" for value, error in paths),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, "", about])


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("bags", type=Path, nargs="+", metavar="BAG", help="with true poses and depth")
    add("--checkpoint", default="", help="default: the shipped one")
    add("--device", default="cpu", help="cpu or cuda")
    add("--seconds", type=float, default=4.0, help="of a window")
    add("--rate", type=float, default=10.0, help="images per second")
    add("--rules", nargs="+", default=("cut3r", "ttt3r"), metavar="RULE")
    add("--intervals", type=int, nargs="+", metavar="N", help="images; 0: never; default: its own")
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    arguments = parser.parse_args(words)
    config = Config(checkpoint=arguments.checkpoint, device=arguments.device, every_frame=True)
    model = load_model(config)
    recommended = int(model.settings.get("segment.reset_interval", 0))
    intervals = arguments.intervals or [*dict.fromkeys((0, recommended))]
    rows = []
    for bag in arguments.bags:
        footage = read(bag, model.image_size)
        index = windows(footage.stamps_s, arguments.seconds, arguments.rate)
        for rule in arguments.rules:
            for interval in intervals:
                found = answers(model, rule, interval, footage.pictures[index])
                scores = scored(footage, index, found)
                rows.append(Scores(footage.name, rule, interval, **scores))
    facts = circumstances.of_run(config, model.device)
    about = (
        f"Windows of {arguments.seconds:g} s at {arguments.rate:g} Hz. Weights "
        f"{facts['checkpoint']['name']} (SHA-256 {facts['checkpoint']['sha256']}). "
        f"{facts['hardware']['gpu'] or facts['hardware']['cpu']}, "
        f"torch {facts['versions']['torch']}, {facts['date']}, commit {facts['commit']}."
    )
    print(markdown(rows, about))
    if arguments.json:
        content = {**facts, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
