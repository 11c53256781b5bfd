# SPDX-License-Identifier: Apache-2.0
"""How near the accumulated map is to the true surface of rooms, with true poses and with the model.

    python benchmarks/evaluate_map.py --json map.json
    python benchmarks/evaluate_map.py --images 100 --model-images 30

A robot drives around each room again and again. First its true depth and poses go into a map, so
that only the map is judged: after 3000 images its F-score at 5 cm shall be above 0.95. Then the
first images go through the whole pipeline; the depth that it finds also goes into a map at the
true poses, which says how much of the error is the depth's. The true surface is what the camera
saw of the room, one point in each 2 cm; distances of the map's points to the room are exact.
Rooms, images and weights are fixed, so the numbers can be had again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import circumstances
from ttt3r_ros.evaluation.map_metrics import MapErrors, Points, map_errors
from ttt3r_ros.evaluation.true_surface import (
    SurfaceSamples,
    depth_points,
    room_distance,
    surface_of_room,
)
from ttt3r_ros.geometry import Intrinsics, Transform, orthonormal
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.model import Model, load_model
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.simulation import Rooms, Trajectory, make_rooms, make_trajectory, render
from ttt3r_ros.types import Frame, FrameResult

FIRST_SEED = 2_600_000  # training, choices and other reports use smaller ones
TRUE_MAP = "true depth and pose"
FIRST_POSE = "model, first pose true"
BEST_FIT = "model, best similarity"
TRUE_POSES = "model's depth, true poses"
_RATE_HZ = 10.0
_FOCAL_SHARE = 0.75  # of the width
_RENDERED_AT_ONCE = 4
_NEAR_M = 0.5  # as in the pipeline: weights fall with the square of the depth from here on


@dataclass(frozen=True, slots=True)
class Plan:
    """What is evaluated."""

    config: Config  # names the weights, the device and the voxels
    images: int = 3000  # with true depth and pose
    model_images: int = 600  # through the pipeline
    width: int = 128  # of the images, in pixels; three quarters of it high
    loop_s: float = 60.0  # of one round


class Shot(NamedTuple):
    """One image with its truth."""

    rgb: npt.NDArray[np.uint8]  # [H, W, 3]
    points: Points  # [H W, 3] metres in the world, row by row
    depth_m: npt.NDArray[np.float64]  # [H W]
    T_world_camera: Transform


class Studio:
    """A room with a camera on a closed path."""

    def __init__(self, seed: int, width: int, loop_s: float) -> None:
        """Build it for images of `width` times three quarters of that."""
        self.rooms: Rooms = make_rooms(seed)
        self.path: Trajectory = make_trajectory(seed, self.rooms, loop_s=loop_s)
        height, focal = 3 * width // 4, _FOCAL_SHARE * width
        self.lens = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)

    def film(self, images: int) -> Iterator[Shot]:
        """Yield image after image."""
        lens = self.lens
        pinhole = (lens.fx, lens.fy, lens.cx, lens.cy)
        for start in range(0, images, _RENDERED_AT_ONCE):
            stop = min(images, start + _RENDERED_AT_ONCE)
            poses = self.path.pose(torch.arange(start, stop, dtype=torch.float64) / _RATE_HZ)
            seen = render(self.rooms, poses, pinhole, lens.height, lens.width)
            rgb = (255 * seen.rgb[0]).round().byte().numpy()
            for i in range(stop - start):
                T_world_camera = orthonormal(poses[0, i].double().numpy())
                depth_m = seen.depth_m[0, i].double().numpy()
                points = depth_points(depth_m, lens, T_world_camera)
                yield Shot(rgb[i], points, depth_m.reshape(-1), T_world_camera)


def judge_true_map(plan: Plan, seed: int) -> MapErrors:
    """Put true depth into a map, and compare it with the room."""
    studio, samples = Studio(seed, plan.width, plan.loop_s), SurfaceSamples()
    voxels = _empty_map(plan)
    for shot in studio.film(plan.images):
        samples.add(shot.points)
        weights = torch.from_numpy(shot.depth_m).float().clamp(min=_NEAR_M).square().reciprocal()
        colours = torch.from_numpy(shot.rgb).reshape(-1, 3)
        voxels.insert(torch.from_numpy(shot.points).float(), colours, weights)
    return _compare(studio, voxels.cloud().points.astype(np.float64), samples)


def judge_model_map(plan: Plan, seed: int, model: Model) -> dict[str, MapErrors]:
    """Send images through the pipeline, and compare its map with the room.

    The map is in the frame of the first camera. It is laid into the room by that camera's true
    pose, and by the similarity that suits the positions of all cameras best. A map of its own
    takes the same points where the cameras truly were.
    """
    studio, samples = Studio(seed, plan.width, plan.loop_s), SurfaceSamples()
    pipeline, voxels = Pipeline(model, plan.config), _empty_map(plan)
    found, true = [], []
    for number, shot in enumerate(studio.film(plan.model_images)):
        samples.add(shot.points)
        stamp_ns = round((1 + number) * 1e9 / _RATE_HZ)
        result = pipeline.process(Frame(stamp_ns, shot.rgb, studio.lens))
        if result.is_placed:
            found.append(result.T_map_camera)
            true.append(shot.T_world_camera)
            _insert(voxels, result, plan.config, shot.T_world_camera)
    points = pipeline.map.cloud().points.astype(np.float64)
    first = true[0] @ np.linalg.inv(found[0])
    best = similarity(np.array(found)[:, :3, 3], np.array(true)[:, :3, 3])
    maps = {
        FIRST_POSE: points @ first[:3, :3].T + first[:3, 3],
        BEST_FIT: points @ best[:3, :3].T + best[:3, 3],
        TRUE_POSES: voxels.cloud().points.astype(np.float64),
    }
    return {name: _compare(studio, some, samples) for name, some in maps.items()}


def _empty_map(plan: Plan) -> VoxelMap:
    return VoxelMap(plan.config.map.voxel_size, plan.config.map.max_points, "cpu")


def _insert(voxels: VoxelMap, result: FrameResult, config: Config, T: Transform) -> None:
    """Put what the model trusts of an image into a map, from a pose `T` of the camera."""
    good = result.usable(config.confidence.min, config.depth.max_m)
    points, weights = result.points[good].cpu(), result.confidence[good].cpu()
    weights = weights / points[:, 2].clamp(min=_NEAR_M).square()
    pose = torch.from_numpy(T).float()
    colours = torch.as_tensor(result.rgb)[good.cpu()]
    voxels.insert(points @ pose[:3, :3].T + pose[:3, 3], colours, weights)


def _compare(studio: Studio, points: Points, samples: SurfaceSamples) -> MapErrors:
    surface = surface_of_room(studio.rooms, samples)
    return map_errors(points, surface, distances_m=room_distance(studio.rooms, points))


def similarity(positions: Points, true_positions: Points) -> Transform:
    """Return the similarity [4, 4] that brings positions [N, 3] nearest to others.

    Least squares (Umeyama, PAMI 1991); the upper left 3 x 3 is rotation times scale.
    """
    mean, true_mean = positions.mean(axis=0), true_positions.mean(axis=0)
    centred = positions - mean
    u, stretch, vt = np.linalg.svd((true_positions - true_mean).T @ centred)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    result = np.eye(4)
    result[:3, :3] = u @ np.diag(sign) @ vt * (stretch @ sign) / (centred**2).sum()
    result[:3, 3] = true_mean - result[:3, :3] @ mean
    return result


def numbers_of(errors: MapErrors) -> dict[str, float]:
    """The errors by name, those of thresholds with these in centimetres."""
    numbers = {name: value for name, value in asdict(errors).items() if name != "scores"}
    for score in errors.scores:
        for name in ("precision", "recall", "f_score"):
            numbers[f"{name}_{round(100 * score.threshold_m)}cm"] = getattr(score, name)
    return numbers


def summarize(rooms: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Mean and its standard error over rooms, by kind of map and error."""
    return {
        kind: {name: _mean([room[kind][name] for room in rooms]) for name in rooms[0][kind]}
        for kind in rooms[0]
    }


def _mean(values: Sequence[float]) -> list[float]:
    """Mean and its standard error over the rooms that have the number (others: NaN)."""
    numbers = [value for value in values if math.isfinite(value)]
    if not numbers:
        return [math.nan, math.nan]
    spread = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else math.nan
    return [float(np.mean(numbers)), spread / math.sqrt(len(numbers))]


def markdown(summary: dict[str, dict[str, list[float]]], about: dict[str, Any]) -> str:
    """The table."""
    heads = {
        "accuracy_m": ("accuracy [cm]", 100, 2),
        "completeness_m": ("completeness [cm]", 100, 2),
        "chamfer_m": ("Chamfer [cm]", 100, 2),
        "normal_consistency": ("normal consistency", 1, 3),
        "precision_5cm": ("precision 5 cm", 1, 3),
        "recall_5cm": ("recall 5 cm", 1, 3),
        "f_score_5cm": ("F 5 cm", 1, 3),
        "f_score_10cm": ("F 10 cm", 1, 3),
        "off_surface": ("off the surface", 1, 3),
        "doubled": ("doubled", 1, 3),
        "map_points": ("points", 1, 0),
    }
    lines = [
        "| map | images | " + " | ".join(head for head, _, _ in heads.values()) + " |",
        "|---" * (2 + len(heads)) + "|",
    ]
    plan = about["plan"]
    for kind, row in summary.items():
        cells = []
        for name, (_, factor, digits) in heads.items():
            mean, spread = (factor * number for number in row[name])
            cells.append(
                f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if math.isfinite(spread) else "")
            )
        images = plan["images" if kind == TRUE_MAP else "model_images"]
        lines.append(f"| {kind} | {images} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"{about['rooms']} rooms, seeds from {about['first_seed']}, {plan['width']}x"
        f"{3 * plan['width'] // 4} at {_RATE_HZ:g} Hz, rounds of {plan['loop_s']:g} s, voxels of "
        f"{plan['config']['map']['voxel_size']:g} m. "
        f"Weights {about['checkpoint']['name']} (SHA-256 {about['checkpoint']['sha256']}). "
        f"{about['hardware']['gpu'] or about['hardware']['cpu']}, threads: "
        f"{about['hardware']['threads']}, {about['seconds']:.0f} s, "
        f"torch {about['versions']['torch']}, {about['date']}, commit {about['commit']}.",
    ]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", default="", help="default: the shipped one")
    add("--device", default="cpu", help="cpu or cuda")
    add("--rooms", type=int, default=1)
    add("--first-seed", type=int, default=FIRST_SEED)
    add("--images", type=int, default=3000, help="with true depth and pose; 0: leave out")
    add("--model-images", type=int, default=600, help="through the pipeline; 0: leave out")
    add("--width", type=int, default=128, help="of the images")
    add("--loop", type=float, default=60.0, help="length of a round [s]")
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    arguments = parser.parse_args(words)
    if not arguments.images and not arguments.model_images:
        parser.error("--images, --model-images: both are 0")

    config = Config(checkpoint=arguments.checkpoint, device=arguments.device, every_frame=True)
    plan = Plan(config, arguments.images, arguments.model_images, arguments.width, arguments.loop)
    model = load_model(config)
    began_s = time.perf_counter()
    rooms = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.rooms):
        errors = {TRUE_MAP: judge_true_map(plan, seed)} if plan.images else {}
        if plan.model_images:
            errors |= judge_model_map(plan, seed, model)
        rooms.append({kind: numbers_of(some) for kind, some in errors.items()})
        print(f"{len(rooms)} of {arguments.rooms} rooms", file=sys.stderr, flush=True)
    summary = summarize(rooms)
    about = {
        "rooms": arguments.rooms,
        "first_seed": arguments.first_seed,
        "plan": asdict(plan),
        "seconds": time.perf_counter() - began_s,
        **circumstances.of_run(config, model.device),
    }
    print(markdown(summary, about))
    if arguments.json:
        content = {**about, "summary": summary, "by_room": rooms}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
