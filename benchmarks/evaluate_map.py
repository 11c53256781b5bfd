# SPDX-License-Identifier: Apache-2.0
"""How near the accumulated map is to the true surface of rooms, with true poses and with the model.

    python benchmarks/evaluate_map.py --json map.json
    python benchmarks/evaluate_map.py --rooms 4 --moving 4
    python benchmarks/evaluate_map.py --images 100 --model-images 30

A robot drives around each room again and again. First its true depth and poses go into a map, so
that only the map is judged: after 3000 images its F-score at 5 cm shall be above 0.95. Then the
first images go through the whole pipeline; the depth that it finds also goes into a map at the
true poses, which says how much of the error is the depth's. Every map is made twice, without and
with carving. The true surface is what the camera saw of the room, one point in each 2 cm;
distances of the map's points to the room are exact. Rooms, images and weights are fixed, so the
numbers can be had again.

With `--moving` balls and boxes move over the floor until they leave: for the last round there is
nothing but the room, which the map is compared with. Points farther than two voxel edges from it
are their trail (or errors: with true depth and pose there are none). They are also counted at the
last image with moving things, with those left out that are as near to one of them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.evaluation.metrics.map import MapErrors, Numbers, Points, map_errors
from ttt3r_ros.evaluation.metrics.true_surface import (
    SurfaceSamples,
    depth_points,
    room_distance,
    surface_of_room,
)
from ttt3r_ros.geometry import Intrinsics, Transform, orthonormal
from ttt3r_ros.loading import Model, load_model
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.simulation import Rooms, Trajectory, make_rooms, make_trajectory, render
from ttt3r_ros.simulation.movers import Movers
from ttt3r_ros.simulation.scene_options import MOST_MOVING
from ttt3r_ros.types import Frame, FrameResult

FIRST_SEED = 2_600_000  # training, choices and other reports use smaller ones
TRUE_MAP = "true depth and pose"
FIRST_POSE = "model, first pose true"
BEST_FIT = "model, best similarity"
TRUE_POSES = "model's depth, true poses"
CARVED = ", carved"
_RATE_HZ = 10.0
_FOCAL_SHARE = 0.75  # of the width
_RENDERED_AT_ONCE = 4
_NEAR_M = 0.5  # as in the pipeline: weights fall with the square of the depth from here on
_TRAIL_EDGES = 2.0  # edges of voxels that a trail's points are at least away from what is there
_GONE_M = 1000.0  # where things are that have left
_ROOM_ITSELF_M = 1e-3  # of its surface; moving things that near to it are not told from it

Judgement = dict[str, float]  # by name


@dataclass(frozen=True, slots=True)
class Plan:
    """What is evaluated."""

    config: Config  # names the weights, the device and the voxels
    images: int = 3000  # with true depth and pose
    model_images: int = 600  # through the pipeline
    width: int = 128  # of the images, in pixels; three quarters of it high
    loop_s: float = 60.0  # of one round
    moving: int = 0  # things, until they leave

    def staying(self, images: int) -> int:
        """Return in how many of these images there are moving things: not in the last round.

        Of less than two rounds they are there for half.
        """
        return max(images - round(self.loop_s * _RATE_HZ), images // 2)


class Shot(NamedTuple):
    """One image with its truth."""

    rgb: npt.NDArray[np.uint8]  # [H, W, 3]
    points: Points  # [H W, 3] metres in the world, row by row
    depth_m: npt.NDArray[np.float64]  # [H W]
    T_world_camera: Transform


class Studio:
    """A room with a camera on a closed path, and perhaps things that move, and leave.

    Attributes:
        room: without the moving things.
        staying: number of images in which they are there.
    """

    def __init__(self, seed: int, plan: Plan, images: int) -> None:
        """Build it for a film of so many images."""
        room: Rooms = make_rooms(seed)
        self._path: Trajectory = make_trajectory(seed, room, loop_s=plan.loop_s)
        self._movers = Movers(seed, room, plan.moving)
        centre = room.solid_centre.clone()
        centre[:, self._movers.solids] = _GONE_M
        self.room = replace(room, solid_centre=centre)
        self.staying = plan.staying(images)
        self._images = images
        width, height, focal = plan.width, 3 * plan.width // 4, _FOCAL_SHARE * plan.width
        self.lens = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)

    def rooms(self, numbers: torch.Tensor) -> Rooms:
        """Return the room as it is in these images [F]: F rooms."""
        rooms = self._movers.at(numbers.double() / _RATE_HZ)
        there = (numbers < self.staying)[:, None, None]
        centre = torch.where(there, rooms.solid_centre, self.room.solid_centre)
        return replace(rooms, solid_centre=centre)

    def film(self) -> Iterator[Shot]:
        """Yield image after image."""
        lens = self.lens
        pinhole = (lens.fx, lens.fy, lens.cx, lens.cy)
        for start in range(0, self._images, _RENDERED_AT_ONCE):
            numbers = torch.arange(start, min(self._images, start + _RENDERED_AT_ONCE))
            poses = self._path.pose(numbers.double() / _RATE_HZ)[0]  # [F, 4, 4]
            seen = render(self.rooms(numbers), poses[:, None], pinhole, lens.height, lens.width)
            rgb = (255 * seen.rgb[:, 0]).round().byte().numpy()
            for i in range(len(numbers)):
                T_world_camera = orthonormal(poses[i].double().numpy())
                depth_m = seen.depth_m[i, 0].double().numpy()
                points = depth_points(depth_m, lens, T_world_camera)
                yield Shot(rgb[i], points, depth_m.reshape(-1), T_world_camera)

    def distance(self, points: Points) -> Numbers:
        """Return the distances of points [N, 3] to the room without moving things, [N]."""
        return np.abs(room_distance(self.room, points))

    def judge(self, points: Points, samples: SurfaceSamples) -> Judgement:
        """Compare a map's points with the room, of which `samples` have been seen."""
        seen, surface = samples.points(), SurfaceSamples()
        surface.add(seen[self.distance(seen) < _ROOM_ITSELF_M])
        distances_m = self.distance(points)
        errors = map_errors(points, surface_of_room(self.room, surface), distances_m=distances_m)
        return numbers_of(errors)

    def trail(self, points: Points, number: int, voxel_size_m: float) -> int:
        """Count points that are far from all that is there in an image."""
        there = room_distance(self.rooms(torch.tensor([number])), points)
        near = np.minimum(self.distance(points), np.abs(there))
        return int((near > _TRAIL_EDGES * voxel_size_m).sum())


def judge_true_map(plan: Plan, seed: int) -> dict[str, Judgement]:
    """Put true depth into maps, one of them carved, and compare them with the room."""
    studio, samples = Studio(seed, plan, plan.images), SurfaceSamples()
    maps = {TRUE_MAP: _empty_map(plan), TRUE_MAP + CARVED: _empty_map(plan)}
    result: dict[str, Judgement] = {kind: {} for kind in maps}
    for number, shot in enumerate(studio.film()):
        samples.add(shot.points)
        depth_m = torch.from_numpy(shot.depth_m).float()
        weights = depth_m.clamp(min=_NEAR_M).square().reciprocal()
        colours = torch.from_numpy(shot.rgb).reshape(-1, 3)
        maps[TRUE_MAP + CARVED].carve(
            depth_m.view(shot.rgb.shape[:2]), studio.lens, shot.T_world_camera
        )
        for kind, voxels in maps.items():
            voxels.insert(torch.from_numpy(shot.points).float(), colours, weights)
            if number + 1 == studio.staying:
                points = _points(voxels)
                result[kind]["trail_moving"] = studio.trail(
                    points, number, plan.config.map.voxel_size_m
                )
    for kind, voxels in maps.items():
        points = _points(voxels)
        result[kind]["trail"] = studio.trail(points, number, plan.config.map.voxel_size_m)
        result[kind] |= studio.judge(points, samples)
    return result


def judge_model_map(plan: Plan, seed: int, model: Model, carve: bool) -> dict[str, Judgement]:
    """Send images through the pipeline, and compare its map with the room.

    The map is in the frame of the first camera. It is laid into the room by that camera's true
    pose, and by the similarity that suits the positions of all cameras best. A map of its own
    takes the same points where the cameras truly were.
    """
    studio, samples = Studio(seed, plan, plan.model_images), SurfaceSamples()
    config = replace(plan.config, map=replace(plan.config.map, carve=carve))
    pipeline, voxels = Pipeline(model, config), _empty_map(plan)
    found, true = [], []
    for number, shot in enumerate(studio.film()):
        samples.add(shot.points)
        stamp_ns = round((1 + number) * 1e9 / _RATE_HZ)
        result = pipeline.process(Frame(stamp_ns, shot.rgb, studio.lens))
        if result.is_localized:
            found.append(result.T_map_camera)
            true.append(shot.T_world_camera)
            _insert(voxels, result, config, shot.T_world_camera)
    points = _points(pipeline.map)
    first = true[0] @ np.linalg.inv(found[0])
    best = similarity(np.array(found)[:, :3, 3], np.array(true)[:, :3, 3])
    maps = {
        FIRST_POSE: points @ first[:3, :3].T + first[:3, 3],
        BEST_FIT: points @ best[:3, :3].T + best[:3, 3],
        TRUE_POSES: _points(voxels),
    }
    end, suffix = plan.model_images - 1, CARVED if carve else ""
    return {
        kind + suffix: {"trail": studio.trail(some, end, plan.config.map.voxel_size_m)}
        | studio.judge(some, samples)
        for kind, some in maps.items()
    }


def _compared(judgements: dict[str, Judgement]) -> dict[str, Judgement]:
    """Add what share of its trail carving leaves to each carved map."""
    for kind, numbers in judgements.items():
        for name in ("trail", "trail_moving"):
            if kind.endswith(CARVED) and name in numbers:
                uncarved = judgements[kind.removesuffix(CARVED)][name]
                numbers[f"{name}_kept"] = numbers[name] / uncarved if uncarved else math.nan
    return judgements


def _empty_map(plan: Plan) -> VoxelMap:
    return VoxelMap(plan.config.map.voxel_size_m, plan.config.map.max_points, "cpu")


def _points(voxels: VoxelMap) -> Points:
    return voxels.cloud().points.astype(np.float64)


def _insert(voxels: VoxelMap, result: FrameResult, config: Config, T: Transform) -> None:
    """Put what the model trusts of an image into a map, from a pose `T` of the camera."""
    good = result.usable(config.confidence.min, config.depth.max_m)
    if config.map.carve and result.intrinsics:
        voxels.carve(result.points[..., 2].where(good, 0.0).cpu(), result.intrinsics, T)
    points, weights = result.points[good].cpu(), result.confidence[good].cpu()
    weights = weights / points[:, 2].clamp(min=_NEAR_M).square()
    pose = torch.from_numpy(T).float()
    colours = torch.as_tensor(result.rgb)[good.cpu()]
    voxels.insert(points @ pose[:3, :3].T + pose[:3, 3], colours, weights)


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


def numbers_of(errors: MapErrors) -> Judgement:
    """The errors by name, those of thresholds with these in centimetres."""
    numbers = {name: value for name, value in asdict(errors).items() if name != "scores"}
    for score in errors.scores:
        for name in ("precision", "recall", "f_score"):
            numbers[f"{name}_{round(100 * score.threshold_m)}cm"] = getattr(score, name)
    return numbers


def summarize(rooms: Sequence[dict[str, Judgement]]) -> dict[str, dict[str, list[float]]]:
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
        "trail": ("trail", 1, 0),
        "trail_kept": ("kept [%]", 100, 2),
        "trail_moving": ("while moving", 1, 0),
        "trail_moving_kept": ("kept [%]", 100, 2),
    }
    lines = [
        "| map | images | " + " | ".join(head for head, _, _ in heads.values()) + " |",
        "|---" * (2 + len(heads)) + "|",
    ]
    plan = about["plan"]
    for kind, row in summary.items():
        cells = []
        for name, (_, factor, digits) in heads.items():
            mean, spread = (factor * number for number in row.get(name, (math.nan, math.nan)))
            cells.append(
                (f"{mean:.{digits}f}" if math.isfinite(mean) else "-")
                + (f" ± {spread:.{digits}f}" if math.isfinite(spread) else "")
            )
        images = plan["images" if kind.startswith(TRUE_MAP) else "model_images"]
        lines.append(f"| {kind} | {images} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"{about['rooms']} rooms, seeds from {about['first_seed']}, {plan['width']}x"
        f"{3 * plan['width'] // 4} at {_RATE_HZ:g} Hz, rounds of {plan['loop_s']:g} s, voxels of "
        f"{plan['config']['map']['voxel_size_m']:g} m, {plan['moving']} moving things. "
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
    add("--moving", type=int, default=0, choices=range(MOST_MOVING + 1), help="things that move")
    add("--width", type=int, default=128, help="of the images")
    add("--loop", type=float, default=60.0, help="length of a round [s]")
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    arguments = parser.parse_args(words)
    if not arguments.images and not arguments.model_images:
        parser.error("--images, --model-images: both are 0")

    config = Config(
        checkpoint=arguments.checkpoint, device=arguments.device, process_all_images=True
    )
    plan = Plan(
        config,
        arguments.images,
        arguments.model_images,
        arguments.width,
        arguments.loop,
        arguments.moving,
    )
    model = load_model(config)
    began_s = time.perf_counter()
    rooms = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.rooms):
        judgements = judge_true_map(plan, seed) if plan.images else {}
        if plan.model_images:
            for carve in (False, True):
                judgements |= judge_model_map(plan, seed, model, carve)
        rooms.append(_compared(judgements))
        print(f"{len(rooms)} of {arguments.rooms} rooms", file=sys.stderr, flush=True)
    summary = summarize(rooms)
    about = {
        "rooms": arguments.rooms,
        "first_seed": arguments.first_seed,
        "plan": asdict(plan),
        "seconds": time.perf_counter() - began_s,
        **run_metadata.of_run(config, model.device),
    }
    print(markdown(summary, about))
    if arguments.json:
        content = {**about, "summary": summary, "by_room": rooms}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
