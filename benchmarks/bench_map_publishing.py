# SPDX-License-Identifier: Apache-2.0
"""Does a step of the node take longer while a large map is published?

    python benchmarks/bench_map_publishing.py

The node runs as on a robot: a simulated camera and a listener are processes of their own, over
DDS. Its map begins with 2 million voxels and changes with every image. In turns nobody listens to
`~/cloud_map`, somebody does and it is thinned as by default, and somebody does and all of it is
sent. What is counted comes with `~/status`: the time of each step, and from the image's stamp to
the end of its work. On few cores, camera and listener take time from the node as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from ttt3r_ros.clients.transport import use_large_image_profile
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.ros.node import TTT3RNode

SILENT, THINNED, WHOLE = "nobody listens", "thinned", "all points"
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_PATIENCE_S = 60.0
_SETTLE_S = 3.0  # after a change; not counted
_ROOM_M = (60.0, 60.0, 4.0)  # that the first voxels are strewn over
_AT_ONCE = 100_000
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Listener(Node):
    """Notes what `~/status` says, and takes the map while it is told to."""

    def __init__(self) -> None:
        super().__init__("listener")
        self.create_subscription(TrackingStatus, "ttt3r_node/status", self._on_status, 1000)
        self._map: Any = None
        self._phase = ""
        self.heard: dict[str, dict[str, list[float]]] = {}

    def turn(self, phase: str, listens: bool) -> None:
        """Note under another name from now on; under none if it is empty."""
        if listens and self._map is None:
            self._map = self.create_subscription(
                PointCloud2, "ttt3r_node/cloud_map", self._on_map, _LATCHED
            )
        elif not listens and self._map is not None:
            self.destroy_subscription(self._map)
            self._map = None
        self._phase = phase

    def _notes(self) -> dict[str, list[float]]:
        empty: dict[str, list[float]] = {"step_ms": [], "latency_ms": [], "map_points": []}
        return self.heard.setdefault(self._phase, empty)

    def _on_status(self, status: TrackingStatus) -> None:
        self._notes()["step_ms"].append(status.step_ms)
        self._notes()["latency_ms"].append(status.latency_ms)

    def _on_map(self, message: PointCloud2) -> None:
        self._notes()["map_points"].append(message.width)


def listen() -> None:
    """Be the listener: commands `PHASE LISTENS` on stdin, at its end all notes on stdout."""
    rclpy.init()
    node = Listener()
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def obey() -> None:
        for line in sys.stdin:
            phase, listens = json.loads(line)
            executor.create_task(node.turn, phase, listens)
        executor.create_task(rclpy.shutdown)

    threading.Thread(target=obey, daemon=True).start()
    with suppress(ExternalShutdownException):
        executor.spin()
    json.dump(node.heard, sys.stdout)


def fill(voxels: VoxelMap, points: int, device: torch.device) -> None:
    """Put voxels anywhere in a large room until there are as many as wanted."""
    random = torch.Generator().manual_seed(0)
    size = torch.tensor(_ROOM_M)
    while (missing := points - len(voxels)) > 0:
        count = min(_AT_ONCE, missing)
        where = (torch.rand(count, 3, generator=random) * size).to(device)
        colours = torch.randint(0, 256, (count, 3), generator=random).to(device)
        voxels.insert(where, colours, torch.ones(count, device=device))


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Run node, camera and listener; return what the listener has noted, by phase."""
    rclpy.init()
    values = {
        "device": arguments.device,
        "checkpoint": arguments.checkpoint,
        "autostart": False,
        "tf_wait_s": 0.0,
        "map.max_points": arguments.points + 1_000_000,
    }
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = TTT3RNode(parameter_overrides=overrides)
    node.trigger_configure()
    pipeline = node._configured_worker()._pipeline  # no client can do this
    fill(pipeline.map, arguments.points, pipeline.model.device)
    node.trigger_activate()
    phases = [(SILENT, False), (THINNED, True), (WHOLE, True)]
    shown = {THINNED: Config().map.publish_max_points, WHOLE: 50_000_000}
    seconds = arguments.rounds * len(phases) * (arguments.seconds + _SETTLE_S) + 10
    camera = [sys.executable, "-m", "ttt3r_ros.cli", "simulate", "--publish", "--size", "160x120"]
    camera += ["--rate", str(arguments.rate), "--frames", str(int(seconds * arguments.rate))]
    ear = [sys.executable, __file__, "--listen"]
    with (
        subprocess.Popen(ear, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listener,
        subprocess.Popen(camera, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as filming,
    ):

        def tell(phase: str, listens: bool) -> None:
            assert listener.stdin is not None
            print(json.dumps([phase, listens]), file=listener.stdin, flush=True)

        def direct() -> None:
            rounds = arguments.rounds if tracked.wait(_PATIENCE_S) else 0
            for _ in range(rounds):
                for phase, listens in phases:
                    most = Parameter("map.publish_max_points", value=shown.get(phase, 1))
                    executor.create_task(partial(node.set_parameters, [most]))
                    tell("", listens)
                    time.sleep(_SETTLE_S)
                    tell(phase, listens)
                    time.sleep(arguments.seconds)
            tell("", False)
            filming.terminate()
            executor.create_task(rclpy.shutdown)

        tracked = threading.Event()
        node.create_subscription(TrackingStatus, "~/status", lambda _: tracked.set(), 1)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        threading.Thread(target=direct, daemon=True).start()
        with suppress(ExternalShutdownException):
            executor.spin()
        node.destroy_node()
        heard, _ = listener.communicate()
    if not tracked.is_set():
        raise RuntimeError(f"no image was tracked within {_PATIENCE_S:g} s")
    result: dict[str, dict[str, list[float]]] = json.loads(heard)
    return {phase: result[phase] for phase, _ in phases}


def summarize(heard: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Counts and quantiles by phase."""
    return {
        phase: {
            "steps": len(notes["step_ms"]),
            "maps": len(notes["map_points"]),
            "map_points": max(notes["map_points"], default=0),
            **{
                f"{what}_{name}": float(np.quantile(notes[what], quantile))
                for what in ("step_ms", "latency_ms")
                for name, quantile in _QUANTILES.items()
            },
        }
        for phase, notes in heard.items()
    }


def markdown(result: dict[str, Any]) -> str:
    """The table with its run_metadata below."""
    rows = result["phases"]
    silent = rows[SILENT]
    heads = [f"{what} {name} [ms]" for what in ("step", "latency") for name in _QUANTILES]
    lines = [
        "| map | maps | points in each | steps | " + " | ".join(heads) + " | step p99 ratio |",
        "|---" * (5 + len(heads)) + "|",
    ]
    for phase, row in rows.items():
        cells = [f"{row[f'{w}_ms_{n}']:.1f}" for w in ("step", "latency") for n in _QUANTILES]
        ratio = row["step_ms_p99"] / silent["step_ms_p99"]
        counts = f"{row['maps']} | {row['map_points']:,} | {row['steps']}"
        lines.append(f"| {phase} | {counts} | {' | '.join(cells)} | {ratio:.2f} |")
    lines += [
        "",
        f"{result['points']:,} voxels at first, {result['rate_hz']:g} images/s, "
        f"{result['hardware']}, threads: {torch.get_num_threads()}, load average "
        f"{result['load_average']:.1f}, {result['date']}, commit {result['commit']}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Time steps while a large map is published.")
    add = parser.add_argument
    add("--points", type=int, default=2_000_000, help="voxels of the map at first")
    add("--rate", type=float, default=15.0, help="images/s")
    add("--seconds", type=float, default=20.0, help="of each turn")
    add("--rounds", type=int, default=5, help="of turns")
    add("--device", default="cpu", help="cpu or cuda")
    add("--checkpoint", default="", help="default: the shipped one")
    add("--threads", type=int, default=1, help="of torch")
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--listen", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    use_large_image_profile()
    if arguments.listen:
        listen()
        return
    torch.set_num_threads(arguments.threads)
    heard = measure(arguments)
    result = {
        "phases": summarize(heard),
        "points": arguments.points,
        "rate_hz": arguments.rate,
        "hardware": run_metadata.described(torch.device(arguments.device)),
        "load_average": os.getloadavg()[0],
        "date": date.today().isoformat(),
        "commit": run_metadata.commit(),
    }
    print(json.dumps(result, indent=1) if arguments.json else markdown(result))


if __name__ == "__main__":
    main()
