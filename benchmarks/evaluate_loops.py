# SPDX-License-Identifier: Apache-2.0
"""What loops are worth in rooms: errors of path and map without them, online and in the end.

    python benchmarks/evaluate_loops.py --rooms 20 --json loops.json
    python benchmarks/evaluate_loops.py --rooms 5 --images 2000
    python benchmarks/evaluate_loops.py --images 900 --places alike

A robot drives around in each room. One run says all: odometry never moves by loops, so that it is
the path without them, and a second map takes the same points there. A third one takes them where
the camera truly was: no loop can make a better map of these depths. ATE is that after a rigid
alignment, beside that of a camera that rests. The first `--timed` images also go through a pipeline
without loops, in turns with the other, for the time of a step. Rooms, images and weights are fixed,
so the numbers can be had again, but for times.

With `--places` of two rooms (see `places`) the robot is carried from one to the other and back. A
loop or a relocalization between the two is wrong, and ATE is that of each stay on its own.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks import harness
from benchmarks.harness import Context, cell, mean, option, ratio, table
from benchmarks.places import PLACES, stream
from benchmarks.streams import RATE_HZ, Studio
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation.loops import judge_loops, loop_metrics
from ttt3r_ros.evaluation.metrics.map import Points, map_errors
from ttt3r_ros.evaluation.metrics.plain_errors import align, position_errors
from ttt3r_ros.evaluation.metrics.true_surface import (
    SurfaceSamples,
    depth_points,
    room_distance,
    surface_of_room,
)
from ttt3r_ros.geometry import Transform, inverse
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.run import FinalPath
from ttt3r_ros.types import Frame, FrameResult, TrackingState

FIRST_SEED = 1_000_000  # rooms by which figures are reported; settings were chosen in 900104-900109
WITHOUT, ONLINE, FINAL, TRUE = "without loops", "online", "final", "true poses"
_JUDGED_EVERY = 5  # images: for the true surface
_RELOCALIZED = ("relocalized", "relocalized_wrong", "relocalized_wrong_believed")
_WARM_UP = 20  # images whose time does not count
_COUNTS = (
    "asked",
    "accepted",
    "gated",
    "corrections",
    "believed",
    "believed_right",
    "believed_wrong",
    "thrown_out",
    "thrown_out_right",
    "thrown_out_wrong",
)


@dataclass(frozen=True, slots=True)
class Options:
    """What is evaluated."""

    images: int = option(600, "of each room")
    timed: int = option(200, "that also go through a pipeline without loops; 0: no times")
    with_map: int = option(1, "compare maps too: 1 or 0; of one room only")
    places: str = option("one", "where the robot drives", choices=PLACES)


Numbers = dict[str, float]


class Drive:
    """One room's images through the pipeline, with what is compared in the end."""

    def __init__(self, context: Context[Options]) -> None:
        """Begin in front of the first image."""
        config = context.config
        off = replace(config, loop=replace(config.loop, enabled=False))
        self.pipeline = Pipeline(context.model, config)
        # Their maps alone: they track nothing.
        self.plain, self.true = Pipeline(context.model, off), Pipeline(context.model, off)
        self._timed = Pipeline(context.model, off)
        self._options = context.options
        self.path = FinalPath()
        self.results: list[FrameResult] = []  # with poses; tensors are of no use later
        self.with_ms: list[float] = []
        self.without_ms: list[float] = []
        self.query_ms: list[float] = []
        self._images = 0
        self._with_map = context.options.with_map and context.options.places == "one"

    def take(self, frame: Frame, T_world_camera: Transform) -> None:
        """Process an image, whose true pose is told for the third map."""
        is_timed = self._images < self._options.timed
        self._images += 1
        if is_timed:
            began_s = time.perf_counter()
            self._timed.process(frame)
            self.without_ms.append(1e3 * (time.perf_counter() - began_s))
        began_s = time.perf_counter()
        result = self.pipeline.track(frame)
        self.pipeline.integrate(result)
        asked_s = time.perf_counter()
        self.pipeline.ask_for_loops()
        ended_s = time.perf_counter()
        if is_timed:
            self.with_ms.append(1e3 * (ended_s - began_s))
        self.query_ms.append(1e3 * (ended_s - asked_s))
        self.path.take(result)
        if result.state is TrackingState.LOST:
            return
        if self._with_map:
            self.plain.integrate(replace(result, T_map_odom=np.eye(4), moves=()))
            T_world_odom = T_world_camera @ inverse(result.T_odom_camera)
            self.true.integrate(replace(result, T_map_odom=T_world_odom, moves=()))
        nothing = torch.empty(0)
        self.results.append(replace(result, points=nothing, confidence=nothing))

    def finish(self) -> dict[str, list[Transform]]:
        """Close loops for the last time; return T_map_camera of each image by kind of path."""
        self.path.move(self.pipeline.finish())
        return {
            WITHOUT: [result.T_odom_camera for result in self.results],
            ONLINE: [result.T_map_camera for result in self.results],
            FINAL: [T for _, T in self.path.poses()],
        }


def evaluate_rooms(context: Context[Options], seeds: Sequence[int]) -> list[Numbers]:
    """Drive through some rooms."""
    return [_evaluate_room(context, seed) for seed in seeds]


def _evaluate_room(context: Context[Options], seed: int) -> Numbers:
    options, width = context.options, context.model.image_size
    studio, samples = Studio(seed, width), SurfaceSamples()  # the first room, for its surface
    drive, truth, room_of = Drive(context), {}, {}
    for number, seen in enumerate(stream(seed, width, options.images, options.places)):
        truth[seen.stamp_ns], room_of[seen.stamp_ns] = seen.T_world_camera, seen.room
        if number % _JUDGED_EVERY == 0:
            samples.add(depth_points(seen.depth_m, studio.lens, seen.T_world_camera))
        drive.take(Frame(seen.stamp_ns, seen.rgb, studio.lens), seen.T_world_camera)
    paths = drive.finish()
    true = [truth[result.stamp_ns] for result in drive.results]
    paths[TRUE] = true
    stays = _stays([room_of[result.stamp_ns] for result in drive.results])
    numbers = {"resting_m": _over(stays, [_resting_m(true[stay]) for stay in stays])}
    for kind, path in paths.items():
        errors = [_laid_on(path[stay], true[stay])[1] for stay in stays]
        numbers[f"{kind} ate_m"] = _over(stays, errors)
    loops = drive.pipeline.loops
    judged = loop_metrics(loops.counts, judge_loops(loops.graph.loops, truth))
    numbers |= {name: judged[name] or 0 for name in _COUNTS} | _times(drive)  # None: no loops
    numbers |= _relocalizations(drive, room_of)
    if options.with_map and options.places == "one":
        maps = {WITHOUT: drive.plain, FINAL: drive.pipeline, TRUE: drive.true}
        for kind, pipeline in maps.items():
            T = _laid_on(paths[kind], true)[0]
            points = pipeline.map.cloud().points.astype(np.float64) @ T[:3, :3].T + T[:3, 3]
            numbers |= _map_numbers(kind, points, studio, samples)
    return numbers


def _stays(rooms: Sequence[int]) -> list[slice]:
    """Images in a row in the same room."""
    ends = [i + 1 for i in range(len(rooms) - 1) if rooms[i] != rooms[i + 1]] + [len(rooms)]
    return [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]


def _over(stays: Sequence[slice], errors_m: Sequence[float]) -> float:
    """The root mean square over all images of errors [m] of each stay."""
    images = [stay.stop - stay.start for stay in stays]
    return float(np.sqrt(np.average(np.square(errors_m), weights=images)))


def _resting_m(true: Sequence[Transform]) -> float:
    places = np.array(true)[:, :3, 3]
    return float(np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1).mean()))


def _relocalizations(drive: Drive, room_of: dict[int, int]) -> Numbers:
    """How many segments came back to a place after being lost, and how many to another room's."""
    room_of_segment = {result.segment: room_of[result.stamp_ns] for result in drive.results}
    found = [edge for edge in drive.pipeline.loops.graph.loops if edge.second.stamp_ns is None]
    wrong = [
        edge
        for edge in found
        if room_of_segment[edge.first.segment] != room_of_segment[edge.second.segment]
    ]
    return {
        "relocalized": len(found),
        "relocalized_wrong": len(wrong),
        "relocalized_wrong_believed": sum(edge.is_believed for edge in wrong),
    }


def _laid_on(path: Sequence[Transform], true: Sequence[Transform]) -> tuple[Transform, float]:
    """The rigid transform that lays positions on the true ones, and their distance then, RMS."""
    found = np.array(path)
    laid, _ = align(found, np.array(true), "se3")
    errors = position_errors(laid, np.array(true))
    return laid[0] @ inverse(found[0]), float(np.sqrt((errors**2).mean()))


def _times(drive: Drive) -> Numbers:
    result: Numbers = {}
    for name, values in (("with", drive.with_ms), ("without", drive.without_ms)):
        some = values[_WARM_UP:]
        for key, share in (("p50", 0.5), ("p99", 0.99)):
            result[f"{name}_ms_{key}"] = float(np.quantile(some, share)) if some else math.nan
        result[f"{name}_ms_mean"] = float(np.mean(some)) if some else math.nan
    asked = [value for value in drive.query_ms if value > 1]
    result["query_ms"] = float(np.median(asked)) if asked else math.nan
    return result


def _map_numbers(kind: str, points: Points, studio: Studio, samples: SurfaceSamples) -> Numbers:
    distances_m = np.abs(room_distance(studio.rooms, points))
    errors = map_errors(points, surface_of_room(studio.rooms, samples), distances_m=distances_m)
    f_score = next(score.f_score for score in errors.scores if score.threshold_m == 0.05)
    return {
        f"{kind} doubled": errors.doubled,
        f"{kind} f_score_5cm": f_score,
        f"{kind} map_points": len(points),
    }


def summarize(_: Context[Options], rooms: Sequence[Numbers]) -> dict[str, Any]:
    """Means, shares and sums over rooms."""

    def of(name: str) -> list[float]:
        return [room.get(name, math.nan) for room in rooms]

    resting, without = of("resting_m"), of(f"{WITHOUT} ate_m")
    paths = {
        kind: {
            "ate_m": mean(of(f"{kind} ate_m")),
            "share": ratio(of(f"{kind} ate_m"), resting),
            "less_m": mean(np.subtract(without, of(f"{kind} ate_m"))),
            "better": int(np.sum(np.less(of(f"{kind} ate_m"), without))),
            **{
                name: mean(of(f"{kind} {name}"))
                for name in ("doubled", "f_score_5cm", "map_points")
            },
        }
        for kind in (WITHOUT, ONLINE, FINAL, TRUE)
    }
    times = [f"{kind}_ms_{key}" for kind in ("with", "without") for key in ("p50", "mean", "p99")]
    return {
        "resting_m": mean(resting),
        "paths": paths,
        "loops": {name: int(np.sum(of(name))) for name in (*_COUNTS, *_RELOCALIZED)},
        "wrong_maps": sum(
            any(room[name] for name in ("believed_wrong", "relocalized_wrong_believed"))
            for room in rooms
        ),
        "times": {name: mean(of(name)) for name in (*times, "query_ms")},
        "by_room": list(rooms),
    }


def markdown(report: dict[str, Any]) -> list[str]:
    """The tables, with what they were made with below."""
    rows = [
        [
            kind,
            cell(row["ate_m"], 3),
            cell(row["share"], 3),
            cell(row["less_m"], 3) if kind in (ONLINE, FINAL) else "-",
            f"{row['better']} of {report['rooms']}" if kind in (ONLINE, FINAL) else "-",
            cell(row["doubled"], 3),
            cell(row["f_score_5cm"], 3),
            cell(row["map_points"], 0),
        ]
        for kind, row in report["paths"].items()
    ]
    heads = ["path", "ATE [m]", "share of a resting camera's", "less by [m]", "rooms better"]
    lines = table([*heads, "doubled", "F 5 cm", "points"], rows)
    loops, times = report["loops"], report["times"]
    lines += table([name.replace("_", " ") for name in loops], [list(loops.values())], "Loops")
    lines += table(
        ["step [ms]", "median", "mean", "99 %"],
        [
            [kind, *(cell(times[f"{kind}_ms_{key}"], 1) for key in ("p50", "mean", "p99"))]
            for kind in ("without", "with")
        ],
    )
    plan, loop = report["plan"], Config().loop
    return [
        *lines,
        f"{report['rooms']} rooms, seeds from {report['first_seed']}, {plan['images']} images of "
        f"{report['size']} at {RATE_HZ:g} Hz; a resting camera has {cell(report['resting_m'], 3)} "
        f"m. A question every {loop.every_images} images at most, {loop.candidates} keyframes, "
        f"takes {cell(times['query_ms'], 0)} ms. Places: {plan['places']}; "
        f"{report['wrong_maps']} maps believe a wrong loop or relocalization. "
        + harness.made_with(report),
    ]


PROGRAM = harness.Evaluation(
    about=__doc__,
    options=Options,
    first_seed=FIRST_SEED,
    measure=evaluate_rooms,
    summarize=summarize,
    markdown=markdown,
    rooms=20,
)

if __name__ == "__main__":
    harness.run(PROGRAM)
