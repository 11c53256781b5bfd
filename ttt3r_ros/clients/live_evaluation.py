# SPDX-License-Identifier: Apache-2.0
"""`ttt3r evaluate --live`: listens to a running node and to the truth, and writes the same report.

It says what the robot would have had: with images replaced because the node was busy, with the
latency there was, and with depth as it is published, unknown where the network is unsure. Who
listens is `live_client`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import rclpy
from nav_msgs.msg import Path as PathMessage
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from ttt3r_ros.clients.listening import interruption
from ttt3r_ros.clients.live_client import LiveClient
from ttt3r_ros.clients.live_depth import LiveDepth
from ttt3r_ros.clients.reading import points_of, transform_of
from ttt3r_ros.evaluation import run_metadata
from ttt3r_ros.evaluation.collector import Collector, Comparison, Heard, compare, series_of
from ttt3r_ros.evaluation.evaluate import write_report
from ttt3r_ros.evaluation.metrics.depth import DepthComparison
from ttt3r_ros.evaluation.metrics_json import depth_metrics, quantiles_ms
from ttt3r_ros.evaluation.report.data import SequenceReport
from ttt3r_ros.geometry import Transform
from ttt3r_ros.recordings.pose_track import PoseTrack
from ttt3r_ros.recordings.recording import Poses, Stamps, Truth
from ttt3r_ros.ros.conversions import stamp_ns
from ttt3r_ros.types import EvaluationError, TrackingState

if TYPE_CHECKING:
    from typing_extensions import Self

Cloud = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]  # points and colours [N, 3]

_LOOK_S = 0.05  # between looks at the topics there are
_FIND_NODE_S = 10.0  # for the node to appear
_FIND_TRUTH_S = 10.0  # for truth and TF, once the node speaks
_ARRIVING_S = 0.5  # what has been sent before an interrupt is still heard
_OTHER_CLOCK_MS = 600e3  # latencies beyond that are differences of two clocks

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """What is listened to, and for how long."""

    output: Path
    node: str = "ttt3r_node"
    image_topic: str = "image"  # for examples in the report
    pose_topic: str = ""  # empty: the only one there
    depth_topic: str = ""  # empty: the only one there whose name has "depth" in it, if any
    seconds: float | None = None  # None: until nothing has come for `idle_s`, or Ctrl-C
    idle_s: float = 10.0
    alignment: str = "se3"
    examples: int = 6  # of depth, in the report
    depth_step: int = 1  # every n-th row and column of true depth is compared: n² times faster


@dataclass(frozen=True, slots=True)
class LiveResult:
    """What came of listening."""

    report: SequenceReport
    online: Collector  # images since the last reset, with the poses that the robot had
    collected: Collector  # the same with those that they have after all loops
    comparison: Comparison  # of these with the truth
    cloud: Cloud | None  # the map


def evaluate_live(request: LiveRequest, about: dict[str, Any] | None = None) -> SequenceReport:
    """Listen, then compare and write the report; to be called in the main thread.

    It ends as `LiveRequest` says; SIGINT and SIGTERM end the listening, not the report.

    Args:
        request: what is listened to.
        about: further entries of `report.json`.

    Raises:
        EvaluationError: nothing was heard, or it is not clear which topics are meant.
        OSError: a file cannot be written.
    """
    with LiveEvaluation(request) as live:
        with interruption() as interrupted:
            live.listen(interrupted)
        return live.finish(about or {}).report


class LiveEvaluation:
    """Listens to a node and to the truth, then compares them; a context manager.

    Attributes:
        client: who listens, and what it has heard.
    """

    def __init__(self, request: LiveRequest) -> None:
        """Begin to listen: subscribe to all topics that are known by name."""
        self._request = request
        request.output.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._depth_comparison = stack.enter_context(DepthComparison(request.output))
            self._depth = LiveDepth(self._depth_comparison, request.examples, request.depth_step)
            context = Context()
            rclpy.init(context=context)
            stack.callback(context.try_shutdown)
            self.client = LiveClient(
                request.node,
                request.image_topic,
                request.pose_topic,
                request.depth_topic,
                self._depth,
                context=context,
            )
            self._executor = SingleThreadedExecutor(context=context)
            stack.callback(self._executor.shutdown, 0.0)
            self._executor.add_node(self.client)
            self._looked_s = time.monotonic()
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def spin_once(self) -> None:
        """Take a message, if one comes soon; now and then look for topics and transforms."""
        self._executor.spin_once(timeout_sec=_LOOK_S)
        if time.monotonic() - self._looked_s >= _LOOK_S:
            self._looked_s = time.monotonic()
            self.client.look()

    def listen(self, interrupted: threading.Event) -> None:
        """Listen until the time is over, or nothing has come for a while after something has.

        Raises:
            EvaluationError: what is needed is not there.
        """
        client, request = self.client, self._request
        began_s = time.monotonic()
        ends_s = math.inf if request.seconds is None else began_s + request.seconds
        _log.info("listening to %s", client.resolve_topic_name(request.node))
        while True:
            self.spin_once()
            now_s = time.monotonic()
            if interrupted.is_set():
                ends_s = min(ends_s, now_s + _ARRIVING_S)
            if client.last is None:
                if now_s - began_s > _FIND_NODE_S:
                    client.check_node()
            else:
                if now_s - client.first_heard_s > _FIND_TRUTH_S:
                    client.check_truth()
                    client.check_extrinsics()
                if now_s - client.last_heard_s > request.idle_s:
                    break
            if now_s > ends_s:
                break

    def finish(self, about: dict[str, Any]) -> LiveResult:
        """Listen no more; compare and write the report.

        Args:
            about: further entries of `report.json`.

        Raises:
            EvaluationError: what is needed has not been heard.
            OSError: a file cannot be written.
        """
        client = self.client
        client.look()
        if client.last is None:
            client.check_node()
            status = f"{client.resolve_topic_name(self._request.node)}/status"
            raise EvaluationError(f"{status}: nothing heard")
        client.check_truth()
        client.check_extrinsics()
        self._executor.remove_node(client)
        client.destroy_node()
        self._depth.finish()
        return _result(client, self._depth, self._depth_comparison, self._request, about)


class _LiveTruth(Truth):
    """The true poses that were heard; depth has been compared when it came."""

    def __init__(self, client: LiveClient) -> None:
        self.pose_source, self.depth_source = client.search_pose.topic, client.search_depth.topic
        T_base_camera = client.true_base.T
        if client.true_base.parent and (T_base_camera is None or client.true_base.moves):
            _log.warning(
                "%s: no fixed transforms of TF join its child frame %r with the images' %r: its "
                "poses are taken as the camera's, in optical axes",
                self.pose_source,
                client.true_base.parent,
                client.true_base.child,
            )
            T_base_camera = None
        extrinsics = np.eye(4) if T_base_camera is None else T_base_camera
        poses = ((stamp, T @ extrinsics) for stamp, T in client.true_poses.items())
        self._track = PoseTrack(self.pose_source, poses)
        self._track.warn_of_left_out()

    def poses(self, stamps_ns: Stamps) -> Poses:
        """Return the true poses nearest to stamps."""
        return self._track.near(stamps_ns)

    def depth(self, stamp_ns: int) -> npt.NDArray[np.float32] | None:
        """Return None: nothing is kept."""
        return None

    def close(self) -> None:
        """Do nothing."""


def _result(
    client: LiveClient,
    depth: LiveDepth,
    depth_comparison: DepthComparison,
    request: LiveRequest,
    about: dict[str, Any],
) -> LiveResult:
    online, segments = _collect(client)
    truth = _LiveTruth(client)
    collected, as_it_was = online, None
    if client.last and client.last.loops_closed and client.path and client.path.poses:
        path = _path_of(client.path, _T_base_camera(client))
        had = dict(zip(online.stamps_ns.tolist(), online.poses, strict=True))
        collected = online.with_poses({stamp: T for stamp, T in path.items() if stamp in had})
        online = online.with_poses({stamp: T for stamp, T in had.items() if stamp in path})
        as_it_was = compare(online, truth, request.alignment).metrics
        if len(path) < len(had):
            _log.info("%d of %d poses are in ~/path and compared", len(online.poses), len(had))
    comparison = compare(collected, truth, request.alignment)
    if comparison.metrics and comparison.metrics["poses"] < len(collected.poses):
        _log.warning(
            "%d of %d poses have a true one; a topic that is named is listened to from the "
            "beginning: --ground-truth-topic, --depth-topic",
            comparison.metrics["poses"],
            len(collected.poses),
        )
    found = depth_comparison.report()
    statuses, counts = client.statuses, client.counts
    metrics = {
        "sequence": request.node,
        "configuration": "live",
        "trajectory": comparison.metrics,
        "trajectory_online": as_it_was,
        "depth": found and depth_metrics(found),
        "map": None,
        "not_compared": {
            "trajectory": comparison.reason,
            "depth": "" if found else "no true depth was heard",
            "map": "this takes a recording",
        },
        "images": counts["processed"],
        "images_before_reset": collected.before_reset,
        "images_received": counts["processed"] + counts["replaced"] + counts["rejected"],
        "images_replaced": counts["replaced"],
        "images_rejected": counts["rejected"],
        "images_never_arrived": counts["lost_estimated"],
        "images_lost": sum(status.state == TrackingState.LOST for status in statuses),
        "segments": segments,
        "map_points": client.last.map_points if client.last else 0,
        "runtime": {
            "images_per_second": _rate(client),
            **quantiles_ms("step", [1e-3 * status.step_ms for status in statuses]),
            **quantiles_ms("latency", _latencies_s(client)),
        },
        "ground_truth": {"poses": truth.pose_source, "depth": truth.depth_source},
        "versions": run_metadata.versions(),
        "date": date.today().isoformat(),
        **about,
    }
    cloud = points_of(client.cloud) if client.cloud is not None else None
    report = write_report(
        metrics,
        request.output,
        series_of(collected, comparison),
        depth.sampler.views(),
        cloud,
        comparison.T_truth_map,
    )
    return LiveResult(report, online, collected, comparison, cloud)


def _collect(client: LiveClient) -> tuple[Collector, int]:
    """Return the images since the last reset, and the number of segments since the first."""
    collected, segments, segment = Collector(), 0, 0
    T_base_camera = _T_base_camera(client)
    for status in client.statuses:
        stamp, first = stamp_ns(status.header.stamp), status.images_since_reset == 1
        lost = status.state == TrackingState.LOST
        T_map_base = None if lost else client.poses.get(stamp)
        heard = Heard(
            stamp_ns=stamp,
            T_map_camera=None if T_map_base is None else T_map_base @ T_base_camera,
            state=TrackingState(status.state),
            segment=status.segment,
            gain=status.mean_gain,
            confidence=status.median_confidence,
            scale=status.scale,
            step_s=1e-3 * status.step_ms,
        )
        collected.add(heard, status.images_since_reset)
        if not lost:
            segments += first or status.segment != segment or not segments
            segment = status.segment
    return collected, segments


def _T_base_camera(client: LiveClient) -> Transform:
    return np.eye(4) if client.base.T is None else client.base.T


def _path_of(message: PathMessage, T_base_camera: Transform) -> dict[int, Transform]:
    """Return poses of the camera in the map by stamp."""
    return {
        stamp_ns(pose.header.stamp): transform_of(pose.pose) @ T_base_camera
        for pose in message.poses
    }


def _rate(client: LiveClient) -> float:
    """Return the images processed per second between the first and the last status heard."""
    seconds = client.last_heard_s - client.first_heard_s
    return (len(client.statuses) - 1) / seconds if seconds > 0 else float("nan")


def _latencies_s(client: LiveClient) -> list[float]:
    latencies_ms = [status.latency_ms for status in client.statuses]
    if latencies_ms and abs(np.median(latencies_ms)) > _OTHER_CLOCK_MS:
        _log.warning(
            "latency is not known: the stamps of the images are not of the node's clock; while a "
            "bag plays it needs use_sim_time"
        )
        return []
    return [1e-3 * latency for latency in latencies_ms]


def counts_text(metrics: Mapping[str, Any]) -> str:
    """Return in one line what only a running node has."""
    text = f"{metrics['images_received']} images received, {metrics['images_replaced']} replaced"
    runtime = metrics["runtime"]
    if "latency_ms_p50" in runtime:
        shown = ", ".join(f"{runtime[f'latency_ms_{p}']:.0f}" for p in ("p50", "p95", "p99"))
        text += f"; latency p50, p95, p99: {shown} ms"
    return text
