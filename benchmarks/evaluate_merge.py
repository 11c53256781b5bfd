# SPDX-License-Identifier: Apache-2.0
"""How well sessions of one room fit: after `ttt3r merge`, and when one goes on from the other.

    python benchmarks/evaluate_merge.py --rooms 10 --json merge.json

A robot drives around in each room. The first half of its images makes one session, the second half
another one, whose map begins elsewhere. ATE and map of both are those after one rigid alignment
each, "apart", and after one alignment of both together, "merged", or "gone on" where the second
half was tracked by a stream that began with the first session. A session of another room is merged
with the first, too: that must not be done. Rooms, images and weights are fixed, so the numbers can
be had again.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks import harness
from benchmarks.harness import Context, cell, mean, option, table
from benchmarks.streams import RATE_HZ, Studio
from ttt3r_ros.evaluation.loops import judge_loops
from ttt3r_ros.evaluation.metrics.map import map_errors
from ttt3r_ros.evaluation.metrics.plain_errors import align, position_errors
from ttt3r_ros.evaluation.metrics.true_surface import (
    SurfaceSamples,
    depth_points,
    room_distance,
    surface_of_room,
)
from ttt3r_ros.geometry import Transform, inverse, orthonormal
from ttt3r_ros.merge import merge_sessions
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.session import Session
from ttt3r_ros.types import Frame, TrackingState

FIRST_SEED = 1_000_000  # rooms by which figures are reported
_ANOTHER = 50_000  # seeds between a room and the other one
_JUDGED_EVERY = 5  # images: for the true surface
APART, MERGED, GONE_ON = KINDS = ("apart", "merged", "gone on")


@dataclass(frozen=True, slots=True)
class Options:
    """What is evaluated."""

    images: int = option(300, "of each session")


Numbers = dict[str, float]


class _Room:
    """Sessions of a room, and its truth."""

    def __init__(self, context: Context[Options], seed: int, sessions: int) -> None:
        self.studio = Studio(seed, context.model.image_size)
        self.samples = SurfaceSamples()
        self.truth: dict[int, Transform] = {}
        self.frames: list[Frame] = []
        for number, shot in enumerate(self.studio.film(sessions * context.options.images)):
            stamp_ns = round((1 + number) * 1e9 / RATE_HZ)
            self.truth[stamp_ns] = orthonormal(shot.T_world_camera[0].numpy())
            if number % _JUDGED_EVERY == 0:
                depth_m = shot.depth_m[0].double().numpy()
                points = depth_points(depth_m, self.studio.lens, self.truth[stamp_ns])
                self.samples.add(points)
            self.frames.append(Frame(stamp_ns, shot.rgb[0].numpy(), self.studio.lens))

    def laid(self, session: Session) -> tuple[np.ndarray, np.ndarray]:
        """Errors [N] of a session's path and points [M, 3] of its map, laid on the truth."""
        true = np.array([self.truth[stamp_ns] for stamp_ns, _ in session.trajectory])
        found = np.array([T for _, T in session.trajectory])
        laid, _ = align(found, true, "se3")
        T = laid[0] @ inverse(found[0])
        points = session.map_tensors["mean"][:, :3].double().numpy()
        return position_errors(laid, true), points @ T[:3, :3].T + T[:3, 3]

    def numbers(self, kind: str, sessions: Sequence[Session]) -> Numbers:
        """What sessions are worth, each laid on the truth by itself."""
        errors, points = zip(*map(self.laid, sessions), strict=True)
        cloud = np.concatenate(points)
        distances_m = np.abs(room_distance(self.studio.rooms, cloud))
        surface = surface_of_room(self.studio.rooms, self.samples)
        fit = map_errors(cloud, surface, distances_m=distances_m)
        return {
            f"{kind} ate_m": float(np.sqrt((np.concatenate(errors) ** 2).mean())),
            f"{kind} doubled": fit.doubled,
            f"{kind} f_score_5cm": next(s.f_score for s in fit.scores if s.threshold_m == 0.05),
            f"{kind} off_m": float(np.median(distances_m)),
            f"{kind} map_points": len(cloud),
        }


def _session(
    context: Context[Options], frames: Sequence[Frame], begin: Session | None = None
) -> tuple[Session, int]:
    """What a stream knows in the end, and how many of its images were not LOST."""
    pipeline, tracked = Pipeline(context.model, context.config), 0
    if begin:
        pipeline.go_on_from(begin, "the first one")
    for frame in frames:
        tracked += pipeline.process(frame).state is not TrackingState.LOST
    pipeline.finish()
    return _read_back(pipeline.session()), tracked


def _read_back(session: Session) -> Session:
    """As it is after it was saved and loaded."""
    segments = session.loops.graph.segments
    return session.renumbered({s: i - len(segments) for i, s in enumerate(segments)})


def evaluate_rooms(context: Context[Options], seeds: Sequence[int]) -> list[Numbers]:
    """Merge the sessions of some rooms."""
    return [_evaluate_room(context, seed) for seed in seeds]


def _evaluate_room(context: Context[Options], seed: int) -> Numbers:
    room, another = _Room(context, seed, 2), _Room(context, seed + _ANOTHER, 1)
    network, config = context.model.network, context.config
    began_s = time.perf_counter()
    images = context.options.images
    one, other = (
        _session(context, part)[0] for part in (room.frames[:images], room.frames[images:])
    )
    third, _ = _session(context, another.frames)
    went_on, tracked = _session(context, room.frames[images:], one)
    made = merge_sessions(one, other, network, config)
    seconds = time.perf_counter() - began_s
    wrongly = merge_sessions(one, third, network, config)
    numbers = room.numbers(APART, (one, other)) | room.numbers(GONE_ON, [went_on])
    numbers["tracked_share"] = tracked / images
    numbers |= {"is_merged": made is not None, "is_wrongly_merged": wrongly is not None}
    numbers["merge_s"] = seconds
    if made is not None:
        session, between = made
        numbers |= room.numbers(MERGED, [session])
        loops = judge_loops(between, room.truth)
        numbers |= {
            "loops": len(loops),
            "right": sum(loop.is_right for loop in loops),
            "wrong": sum(loop.is_wrong for loop in loops),
        }
    return numbers


def summarize(_: Context[Options], rooms: Sequence[Numbers]) -> dict[str, Any]:
    """Means over the rooms that were merged, and counts."""
    merged = [room for room in rooms if room["is_merged"]]

    def of(name: str) -> list[float]:
        return [room.get(name, math.nan) for room in merged]

    names = ("ate_m", "doubled", "f_score_5cm", "off_m", "map_points")
    return {
        "kinds": {kind: {name: mean(of(f"{kind} {name}")) for name in names} for kind in KINDS},
        "merged": len(merged),
        "wrongly_merged": int(sum(room["is_wrongly_merged"] for room in rooms)),
        "tracked_share": mean([room["tracked_share"] for room in rooms]),
        "loops": {name: int(sum(of(name))) for name in ("loops", "right", "wrong")},
        "merge_s": mean([room["merge_s"] for room in rooms]),
        "by_room": list(rooms),
    }


def markdown(report: dict[str, Any]) -> list[str]:
    """The tables, with what they were made with below."""
    rows = [
        [
            kind,
            cell(row["ate_m"], 3),
            cell(row["off_m"], 3),
            cell(row["doubled"], 3),
            cell(row["f_score_5cm"], 3),
            cell(row["map_points"], 0),
        ]
        for kind, row in report["kinds"].items()
    ]
    heads = ["sessions", "ATE [m]", "map off by [m]", "doubled", "F 5 cm", "points"]
    lines = table(heads, rows)
    loops = report["loops"]
    lines += table(
        ["rooms", "merged", "other rooms merged", "loops", "right", "wrong"],
        [[report["rooms"], report["merged"], report["wrongly_merged"], *loops.values()]],
    )
    return [
        *lines,
        f"Two sessions of {report['plan']['images']} images of {report['size']} at {RATE_HZ:g} Hz "
        f"in each room, seeds from {report['first_seed']}; figures are means over merged ones. A "
        f"merge takes {cell(report['merge_s'], 0)} s. Of images after the first session "
        f"{cell(report['tracked_share'], 2)} were tracked. " + harness.made_with(report),
    ]


PROGRAM = harness.Evaluation(
    about=__doc__,
    options=Options,
    first_seed=FIRST_SEED,
    measure=evaluate_rooms,
    summarize=summarize,
    markdown=markdown,
    rooms=10,
)

if __name__ == "__main__":
    harness.run(PROGRAM)
