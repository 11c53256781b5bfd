# SPDX-License-Identifier: Apache-2.0
"""How the node is, once a second on /diagnostics, whatever its lifecycle state.

Plain messages: diagnostic_updater has no wheel. `Health` is judged by `Diagnosis`, which knows no
topic; `DiagnosticsPublisher` sends it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]  # Humble: only here
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.task import Future

from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.pose_graph.exchange import LoopCounts
from ttt3r_ros.ros.parameters import OVERRIDABLE
from ttt3r_ros.ros.stream import MANY_LOST, StreamCounts
from ttt3r_ros.types import NS_PER_S, TrackingState

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
RECENT_S = 5.0  # what "in the last seconds" means, and the rate of images is taken over

_BASE_FRAME = "base frame"  # key of a value
_PERIOD_S = 1.0
_ACKNOWLEDGED_WITHIN_S = 1.0
_MB = 1e6
_STATISTICS = Path("/proc/self/statm")  # of this process, on Linux


@dataclass(frozen=True, slots=True)
class Health:
    """What the node knows of itself at one moment."""

    lifecycle: str  # unconfigured, inactive or active
    problem: str  # what has kept it from being active, else empty
    device: str  # as `torch.device` takes it, once configured
    counts: StreamCounts | None  # of the images since it was activated; None: it is not active
    status: TrackingStatus | None  # the last one; None: it is not configured
    loops: LoopCounts | None  # since the last reset; None: it is not configured
    rejection: str  # why the last image that was rejected was
    max_points: int  # of the map
    base_frame: str  # that poses are of; empty: not known yet
    process_all_images: bool  # none is meant to be replaced
    camera_info: str = ""  # what is known of the camera; empty: nothing
    mask: str = ""  # the last one; empty: there is none
    failures: int = 0  # messages that could not be taken, since the node is there
    failure: str = ""  # what the last of them has raised
    wrong_type: str = ""  # what to set, where images come by another transport


class Diagnosis:
    """Judges one state of health after another."""

    def __init__(self) -> None:
        """Start with an empty history."""
        self._past: deque[tuple[float, StreamCounts]] = deque()  # seconds, of this activation

    def judge(self, health: Health, now_s: float) -> DiagnosticStatus:
        """Return level, reasons and values.

        Args:
            health: now.
            now_s: on a clock that never goes back.
        """
        seconds, recent = self._recent(health.counts, now_s)
        findings = [*_findings(health, seconds, recent)]
        level = max((level for level, _ in findings), default=OK)
        result = DiagnosticStatus(level=level, hardware_id=health.device)
        worst_first = sorted(findings, key=lambda finding: finding[0], reverse=True)
        result.message = "; ".join(reason for _, reason in worst_first) or _all_is_well(health)
        rate_hz = recent.received / seconds if seconds else 0.0
        result.values = [
            KeyValue(key=key, value=value) for key, value in _values(health, rate_hz).items()
        ]
        return result

    def _recent(self, counts: StreamCounts | None, now_s: float) -> tuple[float, StreamCounts]:
        """Return over how many seconds what has been counted, of the last ones."""
        past = self._past
        if counts is None:
            past.clear()
            return 0.0, StreamCounts()
        if past and min(astuple(counts.since(past[-1][1]))) < 0:  # another activation
            past.clear()
        past.append((now_s, counts))
        while len(past) > 1 and now_s - past[1][0] >= RECENT_S:
            past.popleft()
        return now_s - past[0][0], counts.since(past[0][1])


class DiagnosticsPublisher:
    """Sends the diagnosis of a node once a second, for as long as the node is there."""

    def __init__(self, node: Node, health: Callable[[], Health]) -> None:
        """Begin.

        Args:
            node: that is told about.
            health: of it; called in its executor's thread.
        """
        self._node = node
        self._health = health
        self._diagnosis = Diagnosis()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._waiting: list[Future[None]] = []
        # Not a lifecycle publisher, for those are silent while their node is not active.
        self._publisher = node.create_publisher(
            DiagnosticArray, "/diagnostics", 10, qos_overriding_options=OVERRIDABLE
        )
        self._timer = node.create_timer(_PERIOD_S, self._publish, clock=self._steady)

    def heard(self) -> Future[None]:
        """Return what is done once somebody has heard one more diagnosis."""
        self._waiting.append(Future())
        return self._waiting[-1]

    def stop(self) -> None:
        """Send no more."""
        self._timer.cancel()

    def _publish(self) -> None:
        if not self._node.context.ok():  # the process is ending
            return
        status = self._diagnosis.judge(self._health(), self._steady.now().nanoseconds / NS_PER_S)
        status.name = _status_name(self._node.get_fully_qualified_name())
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)
        if self._waiting and self._publisher.get_subscription_count():
            self._publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGED_WITHIN_S))
            while self._waiting:
                self._waiting.pop().set_result(None)


def base_frame_of(node: str, message: DiagnosticArray) -> str:
    """Return the frame that a node's poses are of, empty where a message does not tell.

    Args:
        node: its full name.
        message: from /diagnostics.
    """
    for status in message.status:
        if status.name == _status_name(node):
            return next((item.value for item in status.values if item.key == _BASE_FRAME), "")
    return ""


def _status_name(node: str) -> str:
    return f"{node.lstrip('/')}: tracking"


def _findings(health: Health, seconds: float, recent: StreamCounts) -> Iterator[tuple[bytes, str]]:
    """Yield level and reason of all that is not well; `recent`: counted in the last seconds."""
    if health.problem:
        yield ERROR, health.problem
    if health.counts is None or health.status is None:
        return
    if health.wrong_type:
        yield WARN, health.wrong_type
    if health.failures:
        yield WARN, f"{health.failure} ({health.failures} in all)"
    state, said = health.status.state, health.status.message
    if state == TrackingStatus.LOST:
        yield ERROR, f"tracking is lost: {said}"
    elif state == TrackingStatus.UNCERTAIN:
        yield WARN, f"tracking is uncertain: {said}"
    if seconds >= RECENT_S and not recent.received:
        yield WARN, f"no images in the last {RECENT_S:g} s"
    elif seconds >= RECENT_S and not recent.processed + recent.rejected:
        yield WARN, f"images arrive, none was done with in the last {RECENT_S:g} s"
    if recent.rejected:
        yield WARN, f"{recent.rejected} images rejected lately, the last one: {health.rejection}"
    if recent.lost_share > MANY_LOST:
        yield WARN, f"{recent.lost_share:.0%} of the images lost on the way"
    if health.process_all_images and recent.replaced:
        yield WARN, f"{recent.replaced} images replaced: more wait than queue_size"
    if recent.without_odometry:
        yield WARN, f"no odometry of the time of {recent.without_odometry} images lately"


def _all_is_well(health: Health) -> str:
    if health.counts is None or health.status is None:
        return health.lifecycle
    if not health.counts.received:
        return "active, no image yet"
    return TrackingState(health.status.state).name


def _values(health: Health, rate_hz: float) -> dict[str, str]:
    values = {"lifecycle": health.lifecycle}
    if health.base_frame:
        values[_BASE_FRAME] = health.base_frame
    values["camera_info"] = health.camera_info or "none"
    values["mask"] = health.mask or "none"
    values["messages that failed"] = str(health.failures)
    status, counts = health.status, health.counts
    if status is not None:
        values["tracking state"] = TrackingState(status.state).name
        values["step [ms]"] = f"{status.step_ms:.1f}"
        values["latency [ms]"] = f"{status.latency_ms:.1f}"
        values["map points"] = f"{status.map_points} of {health.max_points}"
    if counts is not None:
        values["input rate [Hz]"] = f"{rate_hz:.1f}"
        values["images received"] = str(counts.received)
        values["images processed"] = str(counts.processed)
        values["images replaced"] = str(counts.replaced)
        values["images rejected"] = str(counts.rejected)
        values["images lost (estimated)"] = str(counts.lost_estimated)
    if health.loops is not None:
        values["loops asked"] = str(health.loops.asked)
        values["loops accepted"] = str(health.loops.accepted)
        values["loops gated"] = str(health.loops.gated)
        values["loop corrections"] = str(health.loops.corrections)
    memory = {}
    if _STATISTICS.exists():
        pages = int(_STATISTICS.read_text(encoding="ascii").split()[1])
        memory["process memory"] = pages * os.sysconf("SC_PAGE_SIZE")
    if status is not None and health.device.startswith("cuda"):
        memory["device memory allocated"] = torch.cuda.memory_allocated(health.device)
        memory["device memory reserved"] = torch.cuda.memory_reserved(health.device)
    return values | {f"{name} [MB]": f"{size / _MB:.0f}" for name, size in memory.items()}
