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

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks import harness, streams
from benchmarks.harness import Context, cell, mean, option, table
from benchmarks.streams import RATE_HZ, Shot
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation.metrics.map import MapErrors, Numbers, Points, map_errors
from ttt3r_ros.evaluation.metrics.true_surface import (
    SurfaceSamples,
    depth_points,
    room_distance,
    surface_of_room,
)
from ttt3r_ros.geometry import Transform, orthonormal
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.simulation import Rooms
from ttt3r_ros.simulation.movers import Movers
from ttt3r_ros.simulation.scene_options import MOST_MOVING
from ttt3r_ros.types import Frame, FrameResult

FIRST_SEED = 2_600_000  # training, choices and other reports use smaller ones
TRUE_MAP = "true depth and pose"
FIRST_POSE = "model, first pose true"
BEST_FIT = "model, best similarity"
TRUE_POSES = "model's depth, true poses"
CARVED = ", carved"
_NEAR_M = 0.5  # as in the pipeline: weights fall with the square of the depth from here on
_TRAIL_EDGES = 2.0  # edges of voxels that a trail's points are at least away from what is there
_GONE_M = 1000.0  # where things are that have left
_ROOM_ITSELF_M = 1e-3  # of its surface; moving things that near to it are not told from it

Judgement = dict[str, float]  # by name


@dataclass(frozen=True, slots=True)
class Options:
    """What is evaluated."""

    images: int = option(3000, "with true depth and pose; 0: leave out")
    model_images: int = option(600, "through the pipeline; 0: leave out")
    moving: int = option(0, "things that move, until they leave", choices=range(MOST_MOVING + 1))
    width: int = option(128, "of the images, in pixels; three quarters of it high")
    loop: float = option(60.0, "length of a round [s]")

    def __post_init__(self) -> None:
        if not self.images and not self.model_images:
            raise ValueError("--images, --model-images: both are 0")

    def staying(self, images: int) -> int:
        """Return in how many of these images there are moving things: not in the last round.

        Of less than two rounds they are there for half.
        """
        return max(images - round(self.loop * RATE_HZ), images // 2)


class Studio(streams.Studio):
    """A room with a camera on a closed path, and perhaps things that move, and leave.

    Attributes:
        room: without the moving things.
        staying: number of images in which they are there.
    """

    def __init__(self, seed: int, options: Options, images: int) -> None:
        """Build it for a film of so many images."""
        super().__init__(seed, options.width, options.loop)
        self._movers = Movers(seed, self.rooms, options.moving)
        centre = self.rooms.solid_centre.clone()
        centre[:, self._movers.solids] = _GONE_M
        self.room = replace(self.rooms, solid_centre=centre)
        self.staying = options.staying(images)

    def rooms_at(self, numbers: Tensor) -> Rooms:
        """Return the room as it is in these images [F]: F rooms."""
        rooms = self._movers.at(numbers.double() / RATE_HZ)
        there = (numbers < self.staying)[:, None, None]
        centre = torch.where(there, rooms.solid_centre, self.room.solid_centre)
        return replace(rooms, solid_centre=centre)

    def look(self, numbers: Tensor, poses: Tensor, supersampling: int) -> tuple[Tensor, Tensor]:
        """Render the images of these numbers [F] from poses [1, F, 4, 4]."""
        rgb, depth_m = self.render(poses[0, :, None], self.rooms_at(numbers), supersampling)
        return rgb.transpose(0, 1), depth_m.transpose(0, 1)

    def points(self, shot: Shot) -> tuple[Points, Transform]:
        """Return what is seen, [H W, 3] metres in the world, and T_world_camera."""
        T_world_camera = orthonormal(shot.T_world_camera[0].numpy())
        return depth_points(shot.depth_m[0].double().numpy(), self.lens, T_world_camera), (
            T_world_camera
        )

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
        there = room_distance(self.rooms_at(torch.tensor([number])), points)
        near = np.minimum(self.distance(points), np.abs(there))
        return int((near > _TRAIL_EDGES * voxel_size_m).sum())


def judge_true_map(context: Context[Options], seed: int) -> dict[str, Judgement]:
    """Put true depth into maps, one of them carved, and compare them with the room."""
    config, images = context.config, context.options.images
    studio, samples = Studio(seed, context.options, images), SurfaceSamples()
    maps = {TRUE_MAP: _empty_map(config), TRUE_MAP + CARVED: _empty_map(config)}
    result: dict[str, Judgement] = {kind: {} for kind in maps}
    for number, shot in enumerate(studio.film(images)):
        world, T_world_camera = studio.points(shot)
        samples.add(world)
        depth_m = shot.depth_m[0].float()
        weights = depth_m.reshape(-1).clamp(min=_NEAR_M).square().reciprocal()
        maps[TRUE_MAP + CARVED].carve(depth_m, studio.lens, T_world_camera)
        for kind, voxels in maps.items():
            voxels.insert(torch.from_numpy(world).float(), shot.rgb[0].reshape(-1, 3), weights)
            if number + 1 == studio.staying:
                trail = studio.trail(_points(voxels), number, config.map.voxel_size_m)
                result[kind]["trail_moving"] = trail
    for kind, voxels in maps.items():
        points = _points(voxels)
        result[kind]["trail"] = studio.trail(points, images - 1, config.map.voxel_size_m)
        result[kind] |= studio.judge(points, samples)
    return result


def judge_model_map(context: Context[Options], seed: int, carve: bool) -> dict[str, Judgement]:
    """Send images through the pipeline, and compare its map with the room.

    The map is in the frame of the first camera. It is laid into the room by that camera's true
    pose, and by the similarity that suits the positions of all cameras best. A map of its own
    takes the same points where the cameras truly were.
    """
    images, voxel_m = context.options.model_images, context.config.map.voxel_size_m
    studio, samples = Studio(seed, context.options, images), SurfaceSamples()
    config = replace(context.config, map=replace(context.config.map, carve=carve))
    pipeline, voxels = Pipeline(context.model, config), _empty_map(config)
    found, true = [], []
    for number, shot in enumerate(studio.film(images)):
        world, T_world_camera = studio.points(shot)
        samples.add(world)
        stamp_ns = round((1 + number) * 1e9 / RATE_HZ)
        result = pipeline.process(Frame(stamp_ns, shot.rgb[0].numpy(), studio.lens))
        if result.is_localized:
            found.append(result.T_map_camera)
            true.append(T_world_camera)
            _insert(voxels, result, config, T_world_camera)
    points = _points(pipeline.map)
    first = true[0] @ np.linalg.inv(found[0])
    best = similarity(np.array(found)[:, :3, 3], np.array(true)[:, :3, 3])
    maps = {
        FIRST_POSE: points @ first[:3, :3].T + first[:3, 3],
        BEST_FIT: points @ best[:3, :3].T + best[:3, 3],
        TRUE_POSES: _points(voxels),
    }
    suffix = CARVED if carve else ""
    return {
        kind + suffix: {"trail": studio.trail(some, images - 1, voxel_m)}
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


def _empty_map(config: Config) -> VoxelMap:
    return VoxelMap(config.map.voxel_size_m, config.map.max_points, "cpu")


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
    centre, true_centre = positions.mean(axis=0), true_positions.mean(axis=0)
    centred = positions - centre
    u, stretch, vt = np.linalg.svd((true_positions - true_centre).T @ centred)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    result = np.eye(4)
    result[:3, :3] = u @ np.diag(sign) @ vt * (stretch @ sign) / (centred**2).sum()
    result[:3, 3] = true_centre - result[:3, :3] @ centre
    return result


def numbers_of(errors: MapErrors) -> Judgement:
    """The errors by name, those of thresholds with these in centimetres."""
    numbers = {name: value for name, value in asdict(errors).items() if name != "scores"}
    for score in errors.scores:
        for name in ("precision", "recall", "f_score"):
            numbers[f"{name}_{round(100 * score.threshold_m)}cm"] = getattr(score, name)
    return numbers


def evaluate_rooms(context: Context[Options], seeds: Sequence[int]) -> list[dict[str, Judgement]]:
    """Judge all maps of some rooms, by kind of map."""
    rooms = []
    for seed in seeds:
        judgements = judge_true_map(context, seed) if context.options.images else {}
        if context.options.model_images:
            for carve in (False, True):
                judgements |= judge_model_map(context, seed, carve)
        rooms.append(_compared(judgements))
    return rooms


def summarize(_: Context[Options], rooms: Sequence[dict[str, Judgement]]) -> dict[str, Any]:
    """Mean and its standard error over rooms, by kind of map and error."""
    means = {
        kind: {name: mean([room[kind][name] for room in rooms]) for name in rooms[0][kind]}
        for kind in rooms[0]
    }
    return {"summary": means, "by_room": rooms}


_HEADS = {  # of the table, factor and decimals
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


def markdown(report: dict[str, Any]) -> list[str]:
    """The table, with what it was made with below."""
    plan = report["plan"]
    rows = []
    for kind, row in report["summary"].items():
        images = plan["images" if kind.startswith(TRUE_MAP) else "model_images"]
        numbers = (row.get(name, (math.nan, math.nan)) for name in _HEADS)
        cells = [
            cell(number, decimals, factor)
            for number, (_, factor, decimals) in zip(numbers, _HEADS.values(), strict=True)
        ]
        rows.append([kind, images, *cells])
    return [
        *table(["map", "images", *(head for head, _, _ in _HEADS.values())], rows),
        f"{report['rooms']} rooms, seeds from {report['first_seed']}, {plan['width']}x"
        f"{3 * plan['width'] // 4} at {RATE_HZ:g} Hz, rounds of {plan['loop']:g} s, voxels of "
        f"{Config().map.voxel_size_m:g} m, {plan['moving']} moving things. "
        + harness.made_with(report),
    ]


PROGRAM = harness.Evaluation(
    about=__doc__,
    options=Options,
    first_seed=FIRST_SEED,
    measure=evaluate_rooms,
    summarize=summarize,
    markdown=markdown,
    rooms=1,
)

if __name__ == "__main__":
    harness.run(PROGRAM)
