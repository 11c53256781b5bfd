# SPDX-License-Identifier: Apache-2.0
"""The demonstration: node and simulated camera as processes, heard by a client over DDS.

What the client records is in `demo_client`; report and picture are `evaluation`'s.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

import cv2
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.utilities import get_rmw_implementation_identifier
from tqdm import tqdm

from ttt3r_ros.clients.demo_client import DemoClient
from ttt3r_ros.clients.demo_picture import draw_picture
from ttt3r_ros.clients.demo_recording import Recording
from ttt3r_ros.clients.demo_report import accuracy, report
from ttt3r_ros.clients.simulated_camera import RATE_HZ
from ttt3r_ros.clients.transport import use_large_image_profile
from ttt3r_ros.config import Config
from ttt3r_ros.io.point_cloud import write_ply
from ttt3r_ros.io.trajectory import TumWriter
from ttt3r_ros.loading import Model, load_model

# There is no robot whose transforms could be waited for.
NODE = (sys.executable, "-m", "ttt3r_ros.ros.node", "--ros-args", "-p", "tf_wait_s:=0.0")
# Both start at once: the camera waits until the node and the client subscribe to its images.
# Its path is a loop, on which a drift is easy to see.
CAMERA = (
    *(sys.executable, "-m", "ttt3r_ros.clients.simulated_camera"),
    *("--subscribers", "2", "--loop", "60"),
)
_FILES = {
    "picture.png": "the map from above, both paths, some views with their depth",
    "report.md": "how many images, how fast, how near to the truth",
    "map.ply": "the map, for MeshLab, CloudCompare or Blender",
    "trajectory.tum": "where the camera was at which time",
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
        recording = _record(output, seconds, seed)
        _write(output, recording, model, seed)
    except DemoError as error:
        print(f"ttt3r demo: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _record(output: Path, seconds: float, seed: int) -> Recording:
    """Run node and camera and listen until the last image has been dealt with."""
    node_log, camera_log = output / "node.log", output / "camera.log"
    path = ("--seconds", str(seconds), "--seed", str(seed))
    context = Context()
    rclpy.init(context=context)
    with (
        TumWriter(output / "trajectory.tum") as trajectory,
        _running(NODE, node_log) as node,
        _running((*CAMERA, *path), camera_log) as camera,
    ):
        client = DemoClient(trajectory, context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(client)

        def listen_until(condition: Callable[[], bool], timeout_s: float) -> bool:
            deadline_s = time.monotonic() + timeout_s
            while not condition():
                if (status := node.poll()) is not None:
                    raise DemoError(f"the node ended with status {status}{_end_of(node_log)}")
                if time.monotonic() > deadline_s:
                    return False
                executor.spin_once(timeout_sec=0.1)
            return True

        try:
            if not listen_until(client.node_is_active, _START_S):
                raise DemoError(
                    f"the node did not become active in {_START_S:g} s{_end_of(node_log)}"
                )
            client.begin()
            with _progress(seconds) as show:
                listen_until(lambda: show(client) or camera.poll() is not None, 2 * seconds + 60)
                if camera.returncode != 0:
                    raise DemoError(f"the camera did not end well{_end_of(camera_log)}")
                if not listen_until(client.has_everything, _SETTLE_S):
                    print(f"The node was not done {_SETTLE_S:g} s after the last image.")
                show(client)
        finally:
            context.try_shutdown()
    recording = client.finish()
    if not recording.views or not recording.poses:
        raise DemoError(f"nothing came from the node{_end_of(node_log)}")
    return recording


@contextmanager
def _progress(seconds: float) -> Iterator[Callable[[DemoClient], None]]:
    """Show a line of progress; yields what brings it up to date."""
    line = "{desc}: {n_fmt}/{total_fmt} images |{bar:20}| {elapsed}{postfix}"
    with tqdm(total=round(seconds * RATE_HZ), desc="mapping", bar_format=line) as bar:

        def show(client: DemoClient) -> None:
            rate, points = client.recording.rate_hz(), client.map_points
            processed = client.recording.counts.get("processed", 0)
            bar.set_postfix_str(f"{processed} processed, {rate:.1f}/s, {points:,} points", False)
            bar.update(len(client.recording.true_poses) - bar.n)

        yield show


def _write(output: Path, recording: Recording, model: Model, seed: int) -> None:
    """Write all files but the trajectory and say what is in them."""
    note = model.note
    write_ply(output / "map.ply", recording.points, recording.colours)
    picture = draw_picture(recording, note.partition(". ")[0], voxel_m=Config().map.voxel_size_m)
    if not cv2.imwrite(str(output / "picture.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{output / 'picture.png'}: cannot be written")
    text = report(recording, note=note, device=model.device, ros=_ros_version(), seed=seed)
    (output / "report.md").write_text(text, encoding="utf-8")
    print(f"\nNOTE: {note}.\n" if note else "")
    for what, value in accuracy(recording).items():
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
