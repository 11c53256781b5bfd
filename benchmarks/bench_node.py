# SPDX-License-Identifier: Apache-2.0
"""From an image's stamp to its pose on /tf, with the whole node between them.

    python benchmarks/bench_node.py                 # with the shipped model
    python benchmarks/bench_node.py --load-ms 45    # with a fixed load in place of the network
    python benchmarks/bench_node.py --map-publishing --map-points 2000000 --size 160x120 --rate 15

The node runs as on a robot, over DDS: a camera that publishes raw images, whoever listens to /tf
and whoever takes depth, points and the map are processes of their own, with the same clock. The
time from stamp to TF is the sum of its parts, which are noted within the node. Waiting is for the
step before alone: where other work of the node holds up an image, that is overhead. What is done
beside, while the next image is tracked or in the executor's thread, is listed too. At the end
`~/reset` and `~/change_state` are called while images flow.

The load stands for a network of that time on a CPU: it multiplies matrices until its time is up, on
one core and outside of Python's lock, and answers with a wall that the camera moves along.

With `--map-publishing` the question is whether a step takes longer while a large map is published:
in turns nobody listens to `~/cloud_map`, somebody does and it is thinned as by default, and
somebody does and all of it is sent. Camera and listener take time from the node as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
import torch
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks import timing
from benchmarks.harness import table
from benchmarks.node_watch import (
    MS,
    QUANTILES,
    REST,
    TOTAL,
    FixedLoad,
    Watch,
    fill,
    parts_of,
)
from ttt3r_ros.clients.simulated_camera import FRAME, _image_message, _info_message
from ttt3r_ros.clients.transport import use_large_image_profile
from ttt3r_ros.config import Config
from ttt3r_ros.ros.conversions import stamp_message
from ttt3r_ros.ros.node import TTT3RNode
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions

SEED = 2_700_000
# Who listens to the map, and how many points it has at most; in turns.
SILENT, THINNED, WHOLE = "nobody listens", "thinned", "all points"
PHASES = {SILENT: 1, THINNED: Config().map.publish_max_points, WHOLE: 50_000_000}
_PATIENCE_S = 60.0
_FILM_S = 4.0


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Quantiles and the largest; nothing of nothing."""
    if not values:
        return {}
    found = {name: float(np.quantile(values, share)) for name, share in QUANTILES.items()}
    return {**found, "max": max(values)}


def film(size: tuple[int, int], rate_hz: float) -> list[tuple[Image, CameraInfo]]:
    """Messages of a robot's path, there and back; rendered at a quarter of the size."""
    width, height = size
    options = SceneOptions(seed=SEED, width=width // 4, height=height // 4)
    scene = Scene(options)
    info = _info_message(Scene(SceneOptions(seed=SEED, width=width, height=height)))
    info.header.frame_id = FRAME
    messages = []
    for index in range(round(_FILM_S * rate_hz)):
        rgb = cv2.resize(scene.view(index / rate_hz).rgb.numpy(), size)
        message = _image_message(rgb, "rgb8")
        message.header.frame_id = FRAME
        messages.append((message, info))
    return messages + messages[-2:0:-1]


def shoot(size: tuple[int, int], rate_hz: float) -> None:
    """Be the camera until the process is told to end."""
    messages = film(size, rate_hz)
    rclpy.init()
    node = Node("camera")
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    images = node.create_publisher(Image, "image", qos)
    infos = node.create_publisher(CameraInfo, "camera_info", qos)
    began_s, index = time.monotonic(), 0
    try:
        while True:
            image, info = messages[index % len(messages)]
            time.sleep(max(0.0, began_s + index / rate_hz - time.monotonic()))
            image.header.stamp = info.header.stamp = stamp_message(time.time_ns())
            infos.publish(info)
            images.publish(image)
            index += 1
    except Exception:
        if rclpy.ok():  # else it is told to end
            raise


class Company:
    """The processes around the node: a camera, a listener and one that takes what is heavy."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Start them."""
        here = Path(__file__).resolve().parent
        path = os.pathsep.join(filter(None, [str(here.parent), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}
        listener = [sys.executable, str(here / "node_listener.py")]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        self._listener = subprocess.Popen(
            [*listener, "listen"], stdin=pipe, stdout=pipe, text=True, env=environment
        )
        others = [[sys.executable, __file__, "--film", *sys.argv[1:]]]
        if not (arguments.quiet or arguments.map_publishing):
            others.append([*listener, "take"])
        self._others = [subprocess.Popen(w, stdout=nowhere, env=environment) for w in others]

    def tell(self, line: str) -> None:
        """Give the listener a command."""
        assert self._listener.stdin is not None
        print(line, file=self._listener.stdin, flush=True)

    def heard(self, requests: int) -> dict[str, Any]:
        """Let the listener call the node's services so often; return all that it has noted."""
        heard, _ = self._listener.communicate(f"requests {requests}\n")
        return dict(json.loads(heard))

    def end(self) -> None:
        """End them."""
        processes: list[subprocess.Popen[Any]] = [self._listener, *self._others]
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def configured_node(arguments: argparse.Namespace) -> TTT3RNode:
    """The node, configured, with a map that is filled, and the load in place of the network."""
    values = {
        "device": arguments.device,
        "checkpoint": arguments.checkpoint,
        "image_size": arguments.image_size,
        "autostart": False,
        "tf_wait_s": 0.0,
        "map.max_points": max(Config().map.max_points, arguments.map_points + 1_000_000),
    }
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = TTT3RNode(parameter_overrides=overrides)
    node.trigger_configure()
    pipeline = node._configured_worker()._pipeline  # no client can do this
    if arguments.load_ms:
        network, device = pipeline.model.network, pipeline.model.device
        FixedLoad(network, device, 1e-3 * arguments.load_ms).replace(network)
    fill(pipeline.map, arguments.map_points, pipeline.model.device)
    return node


def wait_for(happened: Callable[[], bool], what: str) -> None:
    """Wait until it has happened.

    Raises:
        RuntimeError: it has not within a minute.
    """
    deadline_s = time.monotonic() + _PATIENCE_S
    while not happened():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"no {what} within {_PATIENCE_S:g} s")
        time.sleep(0.1)


def measure(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Run the node and its company; yield rows, one or one for each of PHASES."""
    rclpy.init()
    node = configured_node(arguments)
    watch = Watch(node)
    node.trigger_activate()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    company = Company(arguments)
    windows: dict[str, list[dict[str, float]]] = {}
    heard: dict[str, Any] = {}

    def count(phase: str) -> None:
        time.sleep(arguments.settle)
        began_s, cpu_s = time.time(), time.process_time()
        time.sleep(arguments.seconds)
        ended_s = time.time()
        cpu = (time.process_time() - cpu_s) / (ended_s - began_s)
        window = {"began_ns": 1e9 * began_s, "ended_ns": 1e9 * ended_s, "cpu": cpu}
        windows.setdefault(phase, []).append(window)

    def direct() -> None:
        try:
            wait_for(lambda: any("sent" in m for m in list(watch.images.values())), "pose")
            if not arguments.map_publishing:
                count("")
            for _ in range(arguments.rounds if arguments.map_publishing else 0):
                for phase, most in PHASES.items():
                    parameter = Parameter("map.publish_max_points", value=most)
                    executor.create_task(partial(node.set_parameters, [parameter]))
                    company.tell("silent" if phase == SILENT else "map")
                    count(phase)
            heard.update(company.heard(0 if arguments.map_publishing else arguments.requests))
        finally:
            company.end()
            executor.create_task(rclpy.shutdown)

    director = threading.Thread(target=direct)
    director.start()
    with suppress(ExternalShutdownException):
        executor.spin()
    director.join()
    node.destroy_node()
    if not heard:
        raise RuntimeError("the listener ended early")
    if arguments.map_publishing:
        yield from (publishing(phase, heard, some) for phase, some in windows.items())
    else:
        about = {name: getattr(arguments, name) for name in ("load_ms", "size", "rate")}
        about |= {name: getattr(arguments, name) for name in ("image_size", "map_points")}
        yield {**about, **summarize(watch, heard, windows[""][0])}


def publishing(
    phase: str, heard: dict[str, Any], windows: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """What was noted while one of PHASES lasted."""

    def within(at_ns: float) -> bool:
        return any(window["began_ns"] <= at_ns < window["ended_ns"] for window in windows)

    statuses = [status for status in heard["statuses"] if within(status["heard"])]
    points = [count for at_ns, count in heard["maps"] if within(at_ns)]
    return {
        "phase": phase,
        "steps": len(statuses),
        "maps": len(points),
        "map_points": max(points, default=0),
        **{what: quantiles([s[what] for s in statuses]) for what in ("step_ms", "latency_ms")},
    }


def summarize(watch: Watch, heard: dict[str, Any], window: dict[str, float]) -> dict[str, Any]:
    """Put together what node and listener have noted of the counted time."""
    began_ns, ended_ns = window["began_ns"], window["ended_ns"]
    seconds = (ended_ns - began_ns) * 1e-9
    for stamp, at_ns in heard["poses"]:
        watch.images[stamp]["heard"] = at_ns
    counted = {s: moments for s, moments in watch.images.items() if began_ns <= s < ended_ns}
    parts = parts_of(counted)
    statuses = [s for s in heard["statuses"] if began_ns <= s["heard"] < ended_ns]
    names = ("received", "processed", "replaced", "rejected", "lost_estimated")
    counts = {name: statuses[-1][name] - statuses[0][name] for name in names}
    counts["lost"] = sum(status["lost"] for status in statuses)
    return {
        "seconds": seconds,
        "tf_hz": len(parts[TOTAL]) / seconds,
        "images": counts,
        "cpu": window["cpu"],
        "parts_ms": {part: quantiles(values) for part, values in parts.items()},
        "beside_ms": {
            part: quantiles([MS * ns for at_ns, ns in spent if began_ns <= at_ns < ended_ns])
            for part, spent in watch.spent.items()
        },
        "requests_ms": {what: quantiles(values) for what, values in heard["requests"].items()},
    }


def markdown(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The tables."""
    if "phase" in rows[0]:
        return _publishing_table(rows)
    (result,) = rows
    names = [*QUANTILES, "max"]
    lines = []
    for heading, parts in (
        ("", result["parts_ms"]),
        ("beside: ", result["beside_ms"]),
        ("round trip: ", result["requests_ms"]),
    ):
        for part, row in parts.items():
            if row:
                label = f"**{part}**" if part in (TOTAL, REST) else f"{heading}{part}"
                lines.append([label, *(f"{row[name]:.2f}" for name in names)])
    images = result["images"]
    load = f"A load of {result['load_ms']:g} ms" if result["load_ms"] else "The network"
    return [
        *table(["ms", *names], lines),
        f"{load}, {result['size']} at {result['rate']:g} Hz, network's images "
        f"{result['image_size'] or 'as its weights say'}, map of {result['map_points']:,} voxels "
        f"at first: {result['tf_hz']:.1f} poses/s on /tf; of {images['received']} images received "
        f"{images['processed']} processed, {images['replaced']} replaced, {images['rejected']} "
        f"rejected, {images['lost_estimated']} lost on the way; {images['lost']} LOST; "
        f"CPU load of the node {result['cpu']:.0%} of a core. {result['seconds']:.0f} s.",
    ]


def _publishing_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    kinds = ("step_ms", "latency_ms")
    silent = rows[0]["step_ms"]["p99"]
    cells = [
        [row["phase"], row["maps"], f"{row['map_points']:,}", row["steps"]]
        + [f"{row[kind][name]:.1f}" for kind in kinds for name in QUANTILES]
        + [f"{row['step_ms']['p99'] / silent:.2f}"]
        for row in rows
    ]
    heads = [f"{kind.removesuffix('_ms')} {name} [ms]" for kind in kinds for name in QUANTILES]
    return table(["map", "maps", "points in each", "steps", *heads, "step p99 ratio"], cells)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = timing.parser("Time the node from stamp to TF.")
    result.set_defaults(threads=1)
    add = result.add_argument
    add("--load-ms", type=float, default=0.0, help="of a load in place of the network; 0: none")
    add("--size", default="640x480", metavar="WxH", help="of the camera's images")
    add("--rate", type=float, default=30.0, help="images/s")
    add("--seconds", type=float, default=30.0, help="that are counted, of each turn")
    add("--settle", type=float, default=3.0, help="seconds before them, from the first pose on")
    add("--image-size", type=int, default=0, help="of the network; 0: that of its weights")
    add("--map-points", type=int, default=200_000, help="voxels of the map at first")
    add("--map-publishing", action="store_true", help="time steps while a map is published")
    add("--rounds", type=int, default=5, help="of turns with --map-publishing")
    add("--quiet", action="store_true", help="nobody listens to depth, points and map")
    add("--requests", type=int, default=10, help="of each kind, at the end")
    add("--checkpoint", default="", help="default: the shipped one")
    add("--film", action="store_true", help=argparse.SUPPRESS)  # be the camera
    return result


def main() -> None:
    """Read the command line, measure, print."""
    arguments = parser().parse_args()
    width, height = map(int, arguments.size.split("x"))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 100 + 1))  # nobody else's images
    use_large_image_profile()
    torch.set_num_threads(arguments.threads)
    if arguments.film:
        shoot((width, height), arguments.rate)
    else:
        timing.show(measure(arguments), markdown, arguments.device, arguments.json)


if __name__ == "__main__":
    main()
