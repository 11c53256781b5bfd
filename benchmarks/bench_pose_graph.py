# SPDX-License-Identifier: Apache-2.0
"""Time and judgement of the pose graph: 300 segments, true loops, false ones, and alike corridors.

    python benchmarks/bench_pose_graph.py
    python benchmarks/bench_pose_graph.py --graphs 50 --json pose_graph.json

A robot drives round after round on an oval; each boundary drifts by 3 cm and 0.02 rad. Printed are
the time of an ordinary loop (gate and solution when it agrees) and of a decision anew; how many
true and false loops are believed, with false ones at random and with false ones that agree with
each other, as those of two corridors that look alike do; and the errors of the path. Graphs are
random with fixed seeds, so the numbers but for the times can be had again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from ttt3r_ros.geometry import Transform, inverse, transform
from ttt3r_ros.pose_graph.graph import Edge, EdgeKind, End, PoseGraph
from ttt3r_ros.pose_graph.robust import passing, solve_again, solve_robustly
from ttt3r_ros.pose_graph.rotations import exponential
from ttt3r_ros.types import Covariance

SEGMENTS = 300
_TO_A_ROUND = 60
_DRIFT = (0.03, 0.02)  # metres and radians, of each boundary
_LOOP = (0.03, 0.015)
_FAR_M = 1.5  # a loop between places that far apart is false
_ALIKE = (2, 5, 10, 20)  # false loops that agree with each other


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one graph."""

    true_kept: float  # share
    false_kept: float  # share
    passed: float  # share of the false ones that the gate lets through
    drifted_m: float  # ATE of the chain alone
    ate_m: float
    true_only_ate_m: float  # with the true loops given and no others


class Drive:
    """A chain of segments, its truth, and loops to be added."""

    def __init__(self, seed: int) -> None:
        """Drive."""
        self._generator = np.random.default_rng(seed)
        self.truth = [_on_oval(2 * np.pi * k / _TO_A_ROUND) for k in range(SEGMENTS)]
        self.graph = PoseGraph()
        T = self.truth[0]
        self.graph.add_segment(0, T)
        for k in range(1, SEGMENTS):
            step = inverse(self.truth[k - 1]) @ self.truth[k] @ self._noise(_DRIFT)
            T = T @ step
            self.graph.add_segment(k, T)
            ends = End(k - 1), End(k)
            self.graph.add_edge(Edge(*ends, step, _spread(_DRIFT), EdgeKind.BOUNDARY))

    def true_loop(self) -> Edge:
        """A place seen again, one or more rounds later."""
        second = int(self._generator.integers(_TO_A_ROUND, SEGMENTS))
        rounds = int(self._generator.integers(1, second // _TO_A_ROUND + 1))
        first = second - _TO_A_ROUND * rounds
        return _loop(first, second, self._between(first, second) @ self._noise(_LOOP))

    def false_loop(self) -> Edge:
        """Two places far apart, said to be all but the same."""
        while True:
            first, second = sorted(self._generator.integers(0, SEGMENTS, 2).tolist())
            if np.linalg.norm(self._between(first, second)[:3, 3]) > _FAR_M:
                return _loop(first, second, self._noise((0.3, 0.2)))

    def alike_corridors(self, count: int) -> list[Edge]:
        """Loops of one pass through a place that looks like another, half a round away."""
        first = int(self._generator.integers(0, SEGMENTS - 2 * _TO_A_ROUND))
        second = first + _TO_A_ROUND + _TO_A_ROUND // 2
        shift = self._noise((0.1, 0.1))
        return [
            _loop(
                first + k,
                second + k,
                self._between(first + k, first) @ shift @ self._between(second, second + k)
                @ self._noise(_LOOP),
            )
            for k in range(count)
        ]  # fmt: skip

    def poses(self) -> dict[int, Transform]:
        """Where the segments stand."""
        return {k: self.graph.pose(k) for k in self.graph.segments}

    def _between(self, first: int, second: int) -> Transform:
        return inverse(self.truth[first]) @ self.truth[second]

    def _noise(self, sigmas: tuple[float, float]) -> Transform:
        turn = exponential(self._generator.normal(0, sigmas[1], (1, 3)))[0]
        return transform(turn, self._generator.normal(0, sigmas[0], 3))


def ate_m(truth: Sequence[Transform], poses: Mapping[int, Transform]) -> float:
    """Root mean square error of the segments' places after a rigid alignment."""
    found = np.array([poses[k][:3, 3] for k in range(len(truth))])
    true = np.array([T[:3, 3] for T in truth])
    found, true = found - found.mean(axis=0), true - true.mean(axis=0)
    u, _, vt = np.linalg.svd(true.T @ found)
    turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    return float(np.sqrt(((true - found @ turn.T) ** 2).sum(axis=1).mean()))


def _on_oval(angle: float) -> Transform:
    turn = exponential(np.array([[0, 0, angle + np.pi / 2]]))[0]
    return transform(turn, (3 * np.cos(angle), 2 * np.sin(angle), 0.1 * np.sin(3 * angle)))


def _spread(sigmas: tuple[float, float]) -> Covariance:
    return np.diag([sigmas[0] ** 2] * 3 + [sigmas[1] ** 2] * 3)


def _loop(first: int, second: int, T_first_second: Transform) -> Edge:
    return Edge(End(first), End(second), T_first_second, _spread(_LOOP), EdgeKind.LOOP)


def judge(drive: Drive, true: list[Edge], false: list[Edge]) -> Outcome:
    """Solve a graph with true and false loops."""
    passed = len(passing(drive.graph, false)) / max(1, len(false))
    drifted_m = ate_m(drive.truth, drive.poses())
    for edge in true:
        drive.graph.add_edge(edge)
    true_only = ate_m(drive.truth, solve_robustly(drive.graph, most_squared_error=1e9).poses)
    for edge in false:
        drive.graph.add_edge(edge)
    solved = solve_robustly(drive.graph)
    weights = solved.weights[SEGMENTS - 1 :]
    return Outcome(
        true_kept=float(weights[: len(true)].mean()) if true else 1.0,
        false_kept=float(weights[len(true) :].mean()) if false else 0.0,
        passed=passed,
        drifted_m=drifted_m,
        ate_m=ate_m(drive.truth, solved.poses),
        true_only_ate_m=true_only,
    )


def times_ms(seed: int) -> tuple[list[float], float]:
    """Milliseconds of 20 ordinary loops, gate and all, and of one decision anew with as many."""
    drive = Drive(seed)
    ordinary = []
    for _ in range(20):
        edge = drive.true_loop()
        began_s = time.perf_counter()
        passing(drive.graph, [edge])
        drive.graph.add_edge(edge)
        solved = solve_again(drive.graph)
        ordinary.append(1e3 * (time.perf_counter() - began_s))
        drive.graph.set_poses((solved or solve_robustly(drive.graph)).poses)
    for _ in range(20):
        drive.graph.add_edge(drive.false_loop())
    began_s = time.perf_counter()
    solve_robustly(drive.graph)
    return ordinary, 1e3 * (time.perf_counter() - began_s)


def run(graphs: int) -> dict[str, Any]:
    """Measure all."""
    ordinary, anew = [], []
    for seed in range(min(graphs, 5)):
        some, one = times_ms(seed)
        ordinary += some
        anew.append(one)
    cases: dict[str, list[Outcome]] = {}
    for seed in range(graphs):
        drive = Drive(seed)
        true, false = ([make() for _ in range(20)] for make in (drive.true_loop, drive.false_loop))
        cases.setdefault("20 true, 20 false at random", []).append(judge(drive, true, false))
        for count in _ALIKE:
            for trues in (0, 20):
                drive = Drive(seed)
                true = [drive.true_loop() for _ in range(trues)]
                alike = drive.alike_corridors(count)
                name = f"{trues} true, {count} of two corridors alike"
                cases.setdefault(name, []).append(judge(drive, true, alike))
    return {
        "ordinary_ms": np.quantile(ordinary, (0.5, 0.95)).tolist(),
        "anew_ms": np.quantile(anew, (0.5, 1.0)).tolist(),
        "cases": {name: _means(outcomes) for name, outcomes in cases.items()},
    }


def _means(outcomes: list[Outcome]) -> dict[str, float]:
    names = Outcome.__slots__
    means = {name: float(np.mean([getattr(o, name) for o in outcomes])) for name in names}
    worse = [o.ate_m > o.drifted_m for o in outcomes]
    return {**means, "graphs": len(outcomes), "worse_than_drifted": float(np.mean(worse))}


def markdown(result: dict[str, Any]) -> str:
    """The tables."""
    lines = [
        f"An ordinary loop: {result['ordinary_ms'][0]:.0f} ms in the median, "
        f"{result['ordinary_ms'][1]:.0f} ms at 95 %; a decision anew: "
        f"{result['anew_ms'][0]:.0f} ms, {result['anew_ms'][1]:.0f} ms at most.",
        "",
        "| loops | graphs | true kept | false that pass the gate | false kept | "
        "ATE drifted [m] | solved | true ones alone | worse than drifted |",
        "|---" * 9 + "|",
    ]
    for name, row in result["cases"].items():
        lines.append(
            f"| {name} | {row['graphs']} | {row['true_kept']:.3f} | {row['passed']:.3f} | "
            f"{row['false_kept']:.3f} | {row['drifted_m']:.3f} | {row['ate_m']:.3f} | "
            f"{row['true_only_ate_m']:.3f} | {row['worse_than_drifted']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--graphs", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the numbers there")
    arguments = parser.parse_args()
    result = run(arguments.graphs)
    print(markdown(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
