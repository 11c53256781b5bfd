# SPDX-License-Identifier: Apache-2.0
"""The demonstration: node and simulated camera as processes, heard by a client over DDS.

It is listened to and compared with the truth as by `ttt3r evaluate --live` (`live_evaluation`).
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
from rclpy.utilities import get_rmw_implementation_identifier
from tqdm import tqdm

from ttt3r_ros.clients.demo_picture import VIEWS, draw_picture
from ttt3r_ros.clients.demo_report import accuracy, demo_text
from ttt3r_ros.clients.live_client import LiveClient
from ttt3r_ros.clients.live_evaluation import LiveEvaluation, LiveRequest, LiveResult
from ttt3r_ros.clients.simulated_camera import RATE_HZ
from ttt3r_ros.clients.transport import use_large_image_profile
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import run_metadata
from ttt3r_ros.evaluation.report.files import TEXT
from ttt3r_ros.io.atomic import atomic_write
from ttt3r_ros.io.point_cloud import write_ply
from ttt3r_ros.io.trajectory import TumWriter
from ttt3r_ros.loading import Model, load_model
from ttt3r_ros.ros.conversions import stamp_ns
from ttt3r_ros.types import EvaluationError, TrackingState

# There is no robot whose transforms could be waited for.
NODE = (sys.executable, "-m", "ttt3r_ros.ros.node", "--ros-args", "-p", "tf_wait_s:=0.0")
# Both start at once: the camera waits until the node and the client subscribe to its images.
# Its path is a loop, on which a drift is easy to see.
CAMERA = (
    *(sys.executable, "-m", "ttt3r_ros.clients.simulated_camera"),
    *("--subscribers", "2", "--loop", "60"),
)
_FILES = {
    "picture.png": "the map from above, the paths, some views with their depth",
    "report.md": "how many images, how fast, how near to the truth",
    "report.html": "the same with charts; report.json: all numbers",
    "map.ply": "the map, for MeshLab, CloudCompare or Blender",
    "trajectory.tum": "where the camera was at which time, after all loops",
    "node.log": "what the node said; camera.log: what the camera said",
}
_START_S = 90.0  # at most, until the node takes images: weights are read from a slow disk
_SETTLE_S = 30.0  # at most, for what is still to come after the last image
_END_S = 10.0  # at most, for a process to end when it is asked to
_TAIL = 15  # lines of a log


class DemoError(RuntimeError):
    """Why there is nothing to show, with the end of a log."""


def demo(output: Path, *, seconds: float, seed: int) -> int:
    """Map a simulated room and write what came of it; tell on the screen how it goes.

    Args:
        output: folder for a trajectory, a map, a picture, a report and logs; made if need be.
        seconds: length of the camera's path in time; after each minute it is where it began.
        seed: of the room and the path.

    Returns:
        0, or 1 if there is nothing to show; the screen then says why.

    Raises:
        OSError: a file cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    use_large_image_profile()
    # Whoever ends this process wants its own processes to end, too.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        model = load_model(Config())
        if model.note:
            print(f"NOTE: {model.note}.\n", flush=True)
        result = _record(output, seconds, seed, model)
        _write(output, result, model.note, seed)
    except DemoError as error:
        print(f"ttt3r demo: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _record(output: Path, seconds: float, seed: int, model: Model) -> LiveResult:
    """Run node and camera, listen until the last image has been dealt with, and compare."""
    node_log, camera_log = output / "node.log", output / "camera.log"
    path = ("--seconds", str(seconds), "--seed", str(seed))
    request = LiveRequest(
        output,
        pose_topic="ground_truth/pose",
        depth_topic="ground_truth/depth/image_rect",
        examples=VIEWS,
        depth_step=4,  # of so smooth a depth that tells as much, and nobody likes to wait
    )
    with (
        LiveEvaluation(request) as live,
        _running(NODE, node_log) as node,
        _running((*CAMERA, *path), camera_log) as camera,
    ):
        client = live.client

        def listen_until(condition: Callable[[], bool], timeout_s: float) -> bool:
            deadline_s = time.monotonic() + timeout_s
            while not condition():
                if (status := node.poll()) is not None:
                    raise DemoError(f"the node ended with status {status}{_end_of(node_log)}")
                if time.monotonic() > deadline_s:
                    return False
                live.spin_once()
            return True

        if not listen_until(lambda: _takes_images(client, request.node), _START_S):
            raise DemoError(f"the node did not become active in {_START_S:g} s{_end_of(node_log)}")
        with _progress(seconds) as show:
            listen_until(lambda: show(client) or camera.poll() is not None, 2 * seconds + 60)
            if camera.returncode != 0:
                raise DemoError(f"the camera did not end well{_end_of(camera_log)}")
            if not listen_until(lambda: _has_everything(client), _SETTLE_S):
                print(f"The node was not done {_SETTLE_S:g} s after the last image.")
            show(client)
        try:
            result = live.finish(_about(client, model))
        except EvaluationError as error:
            raise DemoError(f"{error}{_end_of(node_log)}") from error
    if not result.report.views or not result.comparison.metrics:
        raise DemoError(f"nothing came from the node{_end_of(node_log)}")
    return result


def _takes_images(client: LiveClient, node: str) -> bool:
    """Whether the node of the demonstration is active."""
    subscribers = client.get_subscriptions_info_by_topic(client.resolve_topic_name("image"))
    return any(info.node_name == node for info in subscribers)


def _has_everything(client: LiveClient) -> bool:
    """Whether the last image sent has been dealt with, and the map has what came of it."""
    if client.last is None or client.cloud is None or client.base.T is None:
        return False
    lost = sum(status.state == TrackingState.LOST for status in client.statuses)
    return (
        stamp_ns(client.last.header.stamp) == max(client.true_poses, default=-1)
        and len(client.poses) + lost == client.counts["processed"]
        and stamp_ns(client.cloud.header.stamp) == max(client.poses, default=-1)
        and client.path is not None
        and stamp_ns(client.path.header.stamp) == max(client.poses, default=-1)
    )


def _about(client: LiveClient, model: Model) -> dict[str, Any]:
    """Return what the report says beside the errors."""
    return {
        "note": model.note,
        "images_sent": len(client.true_poses),
        "checkpoint": run_metadata.checkpoint(Config()),
        "hardware": run_metadata.hardware(model.device),
        "versions": {**run_metadata.versions(), "ros": _ros_version()},
        "system": platform.platform(),
    }


@contextmanager
def _progress(seconds: float) -> Iterator[Callable[[LiveClient], None]]:
    """Show a line of progress; yields what brings it up to date."""
    line = "{desc}: {n_fmt}/{total_fmt} images |{bar:20}| {elapsed}{postfix}"
    with tqdm(total=round(seconds * RATE_HZ), desc="mapping", bar_format=line) as bar:

        def show(client: LiveClient) -> None:
            processed, points = client.counts["processed"], 0
            if client.last is not None:
                points = client.last.map_points
            heard_s = client.last_heard_s - client.first_heard_s
            rate = (processed - 1) / heard_s if heard_s > 0 else 0.0
            bar.set_postfix_str(f"{processed} processed, {rate:.1f}/s, {points:,} points", False)
            bar.update(len(client.true_poses) - bar.n)

        yield show


def _write(output: Path, result: LiveResult, note: str, seed: int) -> None:
    """Write the files that are the demonstration's own and say what is in all of them."""
    if result.cloud is not None:
        write_ply(output / "map.ply", *result.cloud)
    with TumWriter(output / "trajectory.tum") as trajectory:
        poses = zip(result.collected.stamps_ns.tolist(), result.collected.poses, strict=True)
        for stamp, T_map_camera in poses:
            trajectory.append(stamp, T_map_camera)
    picture = draw_picture(result, note.partition(". ")[0], voxel_m=Config().map.voxel_size_m)
    if not cv2.imwrite(str(output / "picture.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{output / 'picture.png'}: cannot be written")
    with atomic_write(output / TEXT) as unfinished:
        unfinished.write_text(demo_text(result, seed=seed), encoding="utf-8")
    print(f"\nNOTE: {note}.\n" if note else "")
    for what, value in accuracy(result).items():
        print(f"{what}: {value}")
    print()
    for name, what in _FILES.items():
        print(f"{output / name!s:32} {what}")


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that writes a log, and end it at the end."""
    with log.open("wb") as file:
        # A session of its own: Ctrl-C is for this process, which then ends that one, once.
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
        finally:
            process.kill()
            process.wait()


def _end_of(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
    return "\n".join([f"; the end of {log}:", *(f"  {line}" for line in lines)])


def _ros_version() -> str:
    try:
        version = f"rclpy {metadata.version('ros-rclpy')}"  # of the wheels
    except metadata.PackageNotFoundError:
        version = os.environ.get("ROS_DISTRO", "unknown")
    return f"{version}, {get_rmw_implementation_identifier()}"
