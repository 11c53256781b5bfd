# SPDX-License-Identifier: Apache-2.0
"""The thread for all about an image that its pose need not wait for.

That is its way into the map, depth, points and status, and the copies of map and path that the
executor serialises. On a GPU it has a stream of its own.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from rclpy.node import Node
from rclpy.task import Future as RosFuture
from std_msgs.msg import Header

from ttt3r_ros.config import NodeConfig
from ttt3r_ros.geometry import Transform
from ttt3r_ros.io.trajectory import subsample
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.pose_graph.exchange import LoopCounts
from ttt3r_ros.ros.activation import Activation
from ttt3r_ros.ros.outputs import Outputs
from ttt3r_ros.ros.side_stream import SideStream
from ttt3r_ros.ros.stream import MANY_LOST, StreamCounts
from ttt3r_ros.types import FrameResult

T = TypeVar("T")

_LOSS_WARNING_PERIOD_S = 60.0

Guard = Callable[[Callable[[], None]], None]
"""Calls something and tells of whatever it raises."""


def call_in_executor(node: Node, callback: Callable[..., None], *arguments: object) -> None:
    """Let a callback be called in the thread of the node's executor, if it still has one."""
    executor = node.executor
    if executor is not None:
        executor.create_task(callback, *arguments)


def set_result(node: Node, future: RosFuture[T], result: T) -> None:
    """Give a callback of the node, in whatever thread, what it waits for."""
    future.set_result(result)
    call_in_executor(node, lambda: None)  # wakes it, so that it looks at the future


class OutputThread:
    """Takes what the worker's thread has tracked to map and topics, one image behind it.

    `image`, `rejected`, `wait` and `end` are called in the worker's thread, `send_map` and
    `send_path` in the executor's; the methods with an underscore run in the thread itself.

    Attributes:
        node_config: the settings in force; set by the worker's thread after `wait`.
    """

    def __init__(
        self,
        node: Node,
        pipeline: Pipeline,
        outputs: Outputs,
        node_config: NodeConfig,
        guard: Guard,
    ) -> None:
        """Start the thread.

        Args:
            node: for its logger and its executor.
            pipeline: whose map and settings are used.
            outputs: what is published through.
            node_config: the settings in force.
            guard: that everything is called through.
        """
        self.node_config = node_config
        self._node = node
        self._pipeline = pipeline
        self._outputs = outputs
        self._guard = guard
        self._thread = ThreadPoolExecutor(1, "ttt3r_output")
        self._side_stream = SideStream(pipeline.model.device)
        self._last: Future[None] | None = None  # what was submitted last by the worker's thread
        self._requested: set[str] = set()  # by the executor's thread, and not begun yet
        self._last_stamp_ns = 0  # of the last tracked image
        # What told the last map and the last path sent from others. None: those of a thread before
        # may still be latched, so that empty ones are news.
        self._sent_map: tuple[object, ...] | None = None
        self._sent_path: list[tuple[int, Transform]] | None = None

    def image(
        self,
        activation: Activation,
        result: FrameResult,
        counts: StreamCounts,
        loops: LoopCounts,
        latency_ms: float,
    ) -> None:
        """Take an image that was tracked, once all about the one before is done."""
        mark = self._side_stream.mark()
        self.wait()
        work = partial(self._image, activation, result, counts, loops, latency_ms)
        self._submit(partial(self._on_side_stream, mark, work))

    def rejected(self, header: Header, reason: str, counts: StreamCounts, *, is_lost: bool) -> None:
        """Publish the status of an image that was rejected, in the order of the images."""
        self.wait()
        self._submit(partial(self._outputs.rejected, header, reason, counts, lost=is_lost))

    def wait(self) -> None:
        """Wait until all about the images that were given is done."""
        if self._last:
            self._last.result()

    def end(self) -> None:
        """Do what was asked for, then end the thread."""
        self._thread.shutdown()

    def send_map(self) -> None:
        """Publish the map with the last image in it, if it has changed."""
        self._request_once("map", self._take_map)

    def send_path(self, activation: Activation | None) -> None:
        """Publish the path up to the last image, if it has changed."""
        if activation is not None:
            self._request_once("path", partial(self._take_path, activation))

    def _submit(self, work: Callable[[], None]) -> None:
        self._last = self._thread.submit(self._guard, work)

    def _request_once(self, name: str, take: Callable[[], None]) -> None:
        def once() -> None:
            self._requested.discard(name)
            take()

        if name not in self._requested:
            self._requested.add(name)
            self._thread.submit(self._guard, once)

    def _on_side_stream(self, mark: torch.cuda.Event | None, work: Callable[[], None]) -> None:
        with self._side_stream.after(mark):
            work()

    def _image(
        self,
        activation: Activation,
        result: FrameResult,
        counts: StreamCounts,
        loops: LoopCounts,
        latency_ms: float,
    ) -> None:
        self._last_stamp_ns = result.stamp_ns
        self._pipeline.integrate(result)
        if activation.is_over:
            return
        self._outputs.points(result, self._pipeline.config, self.node_config)
        self._outputs.status(
            result,
            counts,
            loops,
            latency_ms=latency_ms,
            map_points=len(self._pipeline.map),
            last_reset_reason=self._pipeline.last_reset_reason,
        )
        if counts.lost_share > MANY_LOST:
            self._node.get_logger().warning(
                f"{counts.lost_estimated} images were lost on the way, {counts.received} arrived: "
                "use compressed images, or see 'Large images' in docs/ros.md",
                throttle_duration_sec=_LOSS_WARNING_PERIOD_S,
            )

    def _take_map(self) -> None:
        """Copy the map for the executor's thread, which serialises it."""
        shown = self._pipeline.config.map
        voxels = weakref.ref(self._pipeline.map)  # a session brings another one
        limits = (shown.min_hits, shown.publish_max_points)
        current = (voxels, self._pipeline.map.revision, *limits)
        if current != self._sent_map:
            self._sent_map = current
            with self._side_stream.after(None):  # images in the map have been waited for
                cloud = self._pipeline.map.cloud(shown.min_hits, shown.publish_max_points)
            call_in_executor(self._node, self._outputs.map, cloud, self._last_stamp_ns)

    def _take_path(self, activation: Activation) -> None:
        """Copy the path for the executor's thread, which makes messages of it."""
        path = subsample(self._pipeline.trajectory(), self.node_config.path.max_poses)
        if activation.is_over or (path and activation.extrinsics is None):
            return
        sent = self._sent_path
        if sent is None or len(path) != len(sent) or any(map(operator.is_not, path, sent)):
            self._sent_path = path
            stamp_ns = self._last_stamp_ns
            newest_ns = path[-1][0] if path else stamp_ns
            if stamp_ns < newest_ns <= (activation.last_received_ns or 0):
                stamp_ns = newest_ns  # of an image that is in the path and not yet in the map
            call_in_executor(self._node, self._outputs.path, path, activation.extrinsics, stamp_ns)
