# SPDX-License-Identifier: Apache-2.0
"""From an image's stamp to its pose on /tf, with the whole node between them.

    python benchmarks/bench_node.py                 # with the shipped model
    python benchmarks/bench_node.py --load-ms 45    # with a fixed load in place of the network

The node runs as on a robot, over DDS: a camera that publishes raw images, whoever listens to /tf
and whoever takes depth, points and the map are processes of their own, with the same clock. The
time from stamp to TF is the sum of its parts, which are noted within the node. Waiting is for the
step before alone: where other work of the node holds up an image, that is overhead. What is done
beside, while the next image is tracked or in the executor's thread, is listed too. At the end
`~/reset` and `~/change_state` are called while images flow.

The load stands for a network of that time on a CPU: it multiplies matrices until its time is up, on
one core and outside of Python's lock, and answers with a wall that the camera moves along.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date
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
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks.bench_map_publishing import fill
from ttt3r_ros.clients.simulated_camera import FRAME, _image_message, _info_message
from ttt3r_ros.clients.transport import use_large_image_profile
from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.ros import outputs as outputs_module
from ttt3r_ros.ros import worker as worker_module
from ttt3r_ros.ros.conversions import stamp_message, stamp_ns
from ttt3r_ros.ros.node import TTT3RNode
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions

SEED = 2_700_000
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
# Moments on an image's way, and what lies before each of them.
WAY = {
    "received": "camera to node",
    "taken": "queueing",  # but for waiting
    "begun": "decoding",
    "stepped": "step",
    "sent": "publishing TF",
    "heard": "node to listener",
}
WAITING = "waiting for the step before"
TOTAL, REST = "stamp to TF", "all but waiting and step"
_PATIENCE_S = 60.0
_FILM_S = 4.0
_WALL_M = 3.0  # from the camera
_MS = 1e-6  # of a nanosecond


class FixedLoad:
    """What the tracker asks of a network, answered after a fixed time."""

    def __init__(self, network: Network, device: torch.device, load_s: float) -> None:
        self._width, self._patch = network.config.enc_embed_dim, network.config.patch_size
        self._load_s = load_s
        self._matrix = torch.rand(256, 256, device=device)
        self._product = torch.empty_like(self._matrix)
        self._state: RecurrentState | None = None
        self._images = 0
        self._first_x_m = 0.0

    def replace(self, network: Network) -> None:
        """Answer in its place from now on."""
        for method in (self.encode, self.advance):
            setattr(network, method.__name__, method)

    def encode(self, image: Tensor) -> Tensor:
        """The time begins; features [1, H / patch, W / patch, C]."""
        self._began_s = time.perf_counter()
        self._images += 1
        height, width = image.shape[-2] // self._patch, image.shape[-1] // self._patch
        return torch.zeros(1, height, width, self._width, device=image.device)

    def advance(
        self, state: RecurrentState, features: Tensor, *, update: bool = True
    ) -> tuple[RecurrentState, Prediction]:
        """Be busy until the time is up; the same image again has no time left."""
        x_m = 0.5 * float(np.sin(self._images / 30))
        if state is not self._state:  # a first image of a segment
            self._state, self._first_x_m = state, x_m
        pose = torch.eye(4, device=features.device)[None]
        pose[0, 0, 3] = x_m - self._first_x_m
        quaternion = torch.tensor([[0.0, 0, 0, 1, 0, 0, 0]], device=features.device)
        quaternion[:, :3] = pose[:, :3, 3]
        batch = len(state.tokens)  # more than one where places are compared
        points = self._wall(features).expand(batch, -1, -1, -1)
        answer = Prediction(
            points=points,
            confidence=torch.full(points.shape[:3], 5.0, device=features.device),
            pose=quaternion.expand(batch, -1),
            pose_matrix=pose.repeat(batch, 1, 1),
            gain=torch.full(state.tokens.shape[:2], 0.5, device=features.device),
        )
        while time.perf_counter() - self._began_s < self._load_s:
            torch.mm(self._matrix, self._matrix, out=self._product)
            if features.device.type == "cuda":
                torch.cuda.synchronize(features.device)
        return state, answer

    def _wall(self, features: Tensor) -> Tensor:
        height, width = (self._patch * n for n in features.shape[1:3])
        row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        focal = 0.8 * width
        rays = [(column - width / 2) / focal, (row - height / 2) / focal, torch.ones(row.shape)]
        return _WALL_M * torch.stack(rays, dim=-1)[None].to(features.device)


class Watch:
    """Notes when what happens within a node of this process.

    Attributes:
        images: moments in nanoseconds since 1970 by name, by the image's stamp.
        spent: (when it began, how long it took), both in nanoseconds, by name of a part.
    """

    def __init__(self, node: TTT3RNode) -> None:
        """Attach; the node is configured and not active."""
        self.images: defaultdict[int, dict[str, int]] = defaultdict(dict)
        self.spent: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self._in_work: dict[str, int] = {}
        worker, outputs = node._configured_worker(), node._outputs
        pipeline = worker._pipeline
        self._around(worker._mailbox, "put", before=self._on_put)
        self._around(worker_module, "frame_from_image", before=self._on_taken)
        self._around(pipeline._tracker, "step", self._note("begun"), self._note("stepped"))
        self._around(outputs._frames, "publish_pose", after=self._note("sent"))
        for owner, name, part in (
            (pipeline, "_insert", "map: inserting"),
            (pipeline.map, "cloud", "map: copying"),
            (outputs, "map", "map: publishing"),
            (outputs, "pose", "TF, odometry, pose"),
            (outputs_module, "depth_message", "depth: message"),
            (outputs._depth, "publish", "depth: publishing"),
            (outputs_module, "points_message", "points: message"),
            (outputs._points, "publish", "points: publishing"),
            (outputs, "status", "status"),
        ):
            self._time(owner, name, part)

    def _around(
        self,
        owner: Any,
        name: str,
        before: Callable[..., None] | None = None,
        after: Callable[..., None] | None = None,
    ) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if before:
                before(*args)
            result = original(*args, **kwargs)
            if after:
                after(*args)
            return result

        setattr(owner, name, watched)

    def _time(self, owner: Any, name: str, part: str) -> None:
        began_ns = [0]

        def before(*_: Any) -> None:
            began_ns[0] = time.time_ns()

        def after(*_: Any) -> None:
            self.spent[part].append((began_ns[0], time.time_ns() - began_ns[0]))

        self._around(owner, name, before, after)

    def _on_put(self, waiting: Any) -> None:
        self.images[stamp_ns(waiting.message.header.stamp)]["received"] = time.time_ns()

    def _on_taken(self, message: Image, *_: Any) -> None:
        self._in_work = self.images[stamp_ns(message.header.stamp)]
        self._in_work["taken"] = time.time_ns()

    def _note(self, moment: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            self._in_work[moment] = time.time_ns()

        return note


def parts_of(images: dict[int, dict[str, int]]) -> dict[str, list[float]]:
    """Split each image's time from stamp to TF.

    Args:
        images: moments by stamp; images that lack one do not count.

    Returns:
        Milliseconds by part, one for each image; parts add up to `TOTAL`.
    """
    parts: dict[str, list[float]] = {name: [] for name in (TOTAL, WAITING, *WAY.values(), REST)}
    stepped = 0
    for stamp in sorted(stamp for stamp, moments in images.items() if WAY.keys() <= moments.keys()):
        moments, last = images[stamp], stamp
        split = {}
        for moment, part in WAY.items():
            split[part] = (moments[moment] - last) * _MS
            last = moments[moment]
        waiting = max(0, stepped - moments["received"]) * _MS
        split["queueing"] -= waiting
        split[WAITING] = waiting
        split[TOTAL] = (last - stamp) * _MS
        split[REST] = split[TOTAL] - waiting - split["step"]
        stepped = moments["stepped"]
        for part, value in split.items():
            parts[part].append(value)
    return parts


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


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the node and its company; return what `--json` prints of the node."""
    rclpy.init()
    values = {
        "device": arguments.device,
        "checkpoint": arguments.checkpoint,
        "image_size": arguments.image_size,
        "autostart": False,
        "tf_wait_s": 0.0,
    }
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = TTT3RNode(parameter_overrides=overrides)
    node.trigger_configure()
    pipeline = node._configured_worker()._pipeline  # no client can do this
    if arguments.load_ms:
        device = pipeline.model.device
        network = pipeline.model.network
        FixedLoad(network, device, 1e-3 * arguments.load_ms).replace(network)
    fill(pipeline.map, arguments.map_points, pipeline.model.device)
    watch = Watch(node)
    node.trigger_activate()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    here = Path(__file__).resolve().parent
    listener = str(here / "node_listener.py")
    commands = {
        "listener": [listener, "listen", str(arguments.requests)],
        "camera": [__file__, "--film", *sys.argv[1:]],
    }
    if not arguments.quiet:
        commands["taker"] = [listener, "take"]
    path = os.pathsep.join(filter(None, [str(here.parent), os.environ.get("PYTHONPATH")]))
    company = {
        role: subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE if role == "listener" else None,
            stdout=subprocess.PIPE if role == "listener" else subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        for role, command in commands.items()
    }
    window: dict[str, float] = {}
    heard = []

    def direct() -> None:
        try:
            deadline_s = time.monotonic() + _PATIENCE_S
            while not any("sent" in moments for moments in list(watch.images.values())):
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"no pose within {_PATIENCE_S:g} s")
                time.sleep(0.1)
            time.sleep(arguments.settle)
            began_s, cpu_s = time.time(), time.process_time()
            time.sleep(arguments.seconds)
            ended_s = time.time()
            window.update(
                began_ns=1e9 * began_s,
                ended_ns=1e9 * ended_s,
                cpu=(time.process_time() - cpu_s) / (ended_s - began_s),
            )
            heard.append(company["listener"].communicate("\n")[0])
        finally:
            for process in company.values():
                process.terminate()
            executor.create_task(rclpy.shutdown)

    director = threading.Thread(target=direct)
    director.start()
    with suppress(ExternalShutdownException):
        executor.spin()
    director.join()
    for process in company.values():
        process.wait()
    node.destroy_node()
    if not heard:
        raise RuntimeError("the listener ended early")
    return summarize(watch, json.loads(heard[0]), window)


def summarize(watch: Watch, heard: dict[str, Any], window: dict[str, float]) -> dict[str, Any]:
    """Put together what node and listener have noted of the counted time."""
    began_ns, ended_ns = window["began_ns"], window["ended_ns"]
    seconds = (ended_ns - began_ns) * 1e-9
    for stamp, at_ns in heard["poses"]:
        watch.images[stamp]["heard"] = at_ns
    counted = {s: moments for s, moments in watch.images.items() if began_ns <= s < ended_ns}
    parts = parts_of(counted)
    statuses = [s for s in heard["statuses"] if began_ns <= s["heard"] < ended_ns]
    counts = {name: statuses[-1][name] - statuses[0][name] for name in statuses[0]}
    counts["lost"] = sum(status["lost"] for status in statuses)
    return {
        "seconds": seconds,
        "tf_hz": len(parts[TOTAL]) / seconds,
        "images": {name: count for name, count in counts.items() if name != "heard"},
        "cpu": window["cpu"],
        "parts_ms": {part: quantiles(values) for part, values in parts.items()},
        "beside_ms": {
            part: quantiles([_MS * ns for at_ns, ns in spent if began_ns <= at_ns < ended_ns])
            for part, spent in watch.spent.items()
        },
        "requests_ms": {what: quantiles(values) for what, values in heard["requests"].items()},
    }


def markdown(result: dict[str, Any]) -> str:
    """The tables with their run_metadata below."""
    names = [*QUANTILES, "max"]
    lines = ["| ms | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for heading, rows in (
        ("", result["parts_ms"]),
        ("beside: ", result["beside_ms"]),
        ("round trip: ", result["requests_ms"]),
    ):
        for part, row in rows.items():
            if row:
                label = f"**{part}**" if part in (TOTAL, REST) else f"{heading}{part}"
                cells = " | ".join(f"{row[name]:.2f}" for name in names)
                lines.append(f"| {label} | {cells} |")
    images = result["images"]
    load = f"A load of {result['load_ms']:g} ms" if result["load_ms"] else "The network"
    lines += [
        "",
        f"{load}, {result['camera']} at {result['rate_hz']:g} Hz, network's images "
        f"{result['network_image']}, map of {result['map_points']:,} voxels at first: "
        f"{result['tf_hz']:.1f} poses/s on /tf; of {images['received']} images received "
        f"{images['processed']} processed, {images['replaced']} replaced, {images['rejected']} "
        f"rejected, {images['lost_estimated']} lost on the way; {images['lost']} LOST; "
        f"CPU load of the node {result['cpu']:.0%} of a core.",
        "",
        f"{result['seconds']:.0f} s, {result['hardware']}, load average "
        f"{result['load_average']:.1f}, torch {result['torch']}, {result['date']}, "
        f"commit {result['commit']}.",
    ]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description="Time the node from stamp to TF.")
    add = result.add_argument
    add("--load-ms", type=float, default=0.0, help="of a load in place of the network; 0: none")
    add("--size", default="640x480", metavar="WxH", help="of the camera's images")
    add("--rate", type=float, default=30.0, help="images/s")
    add("--seconds", type=float, default=30.0, help="that are counted")
    add("--settle", type=float, default=3.0, help="seconds before them, from the first pose on")
    add("--image-size", type=int, default=0, help="of the network; 0: that of its weights")
    add("--map-points", type=int, default=200_000, help="voxels of the map at first")
    add("--quiet", action="store_true", help="nobody listens to depth, points and map")
    add("--requests", type=int, default=10, help="of each kind, at the end")
    add("--device", default="cpu", help="cpu or cuda")
    add("--checkpoint", default="", help="default: the shipped one")
    add("--threads", type=int, default=1, help="of torch")
    add("--json", action="store_true", help="print JSON instead of tables")
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
        result = {
            **measure(arguments),
            "load_ms": arguments.load_ms,
            "camera": arguments.size,
            "rate_hz": arguments.rate,
            "network_image": arguments.image_size or "as its weights say",
            "map_points": arguments.map_points,
            "hardware": run_metadata.described(torch.device(arguments.device)),
            "load_average": os.getloadavg()[0],
            "torch": torch.__version__,
            "date": date.today().isoformat(),
            "commit": run_metadata.commit(),
        }
        print(json.dumps(result, indent=1) if arguments.json else markdown(result))


if __name__ == "__main__":
    main()
