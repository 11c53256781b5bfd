# SPDX-License-Identifier: Apache-2.0
"""`ttt3r view` of a running node: what is heard of it on the page. Who listens is `view_client`."""

from __future__ import annotations

import logging
import time

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from ttt3r_ros.clients.listening import interruption
from ttt3r_ros.clients.reading import depth_of, intrinsics_of, points_of, rgb_of
from ttt3r_ros.clients.view_client import TOPICS, ViewClient
from ttt3r_ros.geometry import Intrinsics
from ttt3r_ros.types import FrameRejected, TrackingState
from ttt3r_ros.viewer.page import Colour, Page

_DRAW_S = 0.1  # between two drawings at least
_CLOUD_S = 0.5  # between two of the map
_LOOK_S = 1.0  # between two looks at who publishes what
_SILENT_S = 3.0  # without an image there is no rate
_COLOURS: dict[TrackingState, Colour] = {
    TrackingState.INITIALIZING: (130, 130, 130),
    TrackingState.TRACKING: (20, 140, 60),
    TrackingState.UNCERTAIN: (220, 140, 0),
    TrackingState.LOST: (200, 30, 30),
}

_log = logging.getLogger(__name__)


def view_live(page: Page, node: str) -> None:
    """Show what a node says, until SIGINT or SIGTERM; it may start, end and start again meanwhile.

    To be called in the main thread.

    Args:
        page: shows it.
        node: its name.

    Raises:
        ViewError: no node can have that name.
    """
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    try:
        client = ViewClient(node, context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(client)
        view = LiveView(page, client)
        with interruption() as interrupted:
            while not interrupted.is_set():
                executor.spin_once(timeout_sec=_DRAW_S)
                view.draw()
        executor.shutdown()
        client.destroy_node()
    finally:
        context.try_shutdown()


class LiveView:
    """Draws what a client has heard, no more often than a browser can follow."""

    def __init__(self, page: Page, client: ViewClient) -> None:
        """Begin with nothing heard."""
        self._page, self._client = page, client
        self._drawn_s = self._cloud_s = self._looked_s = -np.inf
        self._lens: Intrinsics | None = None
        self._missing: list[str] | None = None
        self._complaint = ""

    def draw(self) -> None:
        """Draw what is new, if it is time to."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            self._look()
        if now_s - self._drawn_s < _DRAW_S:
            return
        self._drawn_s = now_s
        if self._client.is_new_origin:
            self._client.is_new_origin = False
            self._page.clear()
        self._draw_camera()
        self._draw_pictures()
        if now_s - self._cloud_s >= _CLOUD_S and (cloud := self._client.taken("cloud_map")):
            self._page.show_cloud(*points_of(cloud))
            self._cloud_s = time.monotonic()  # a large one takes its time, others need some too
        self._page.show_text(self._rows())

    def _look(self) -> None:
        """Say which topics are waited for when that changes."""
        self._client.look()
        missing = [topic for topic in TOPICS if topic not in self._client.published]
        if missing != self._missing:
            self._missing = missing
            name = self._client.name
            if missing:
                _log.info("waiting for %s", ", ".join(f"{name}/{topic}" for topic in missing))
            else:
                _log.info("listening to %s", name)

    def _draw_camera(self) -> None:
        if info := self._client.taken("depth/camera_info"):
            self._lens = intrinsics_of(info)
        status, T_map_camera = self._client.status, self._client.taken_camera()
        if T_map_camera is not None:
            self._page.show_camera(T_map_camera, self._lens)
        if (path := self._client.taken_path()) is not None:
            self._page.show_path(path)
        if status is not None:
            self._page.colour_camera(_COLOURS[TrackingState(status.state)])

    def _draw_pictures(self) -> None:
        try:
            if image := self._client.taken("image_rect"):
                self._page.show_image(rgb_of(image))
            if depth := self._client.taken("depth/image_rect"):
                self._page.show_depth(depth_of(depth))
        except FrameRejected as error:
            if str(error) != self._complaint:  # not for every image
                _log.warning("%s: %s", self._client.name, error)
            self._complaint = str(error)

    def _rows(self) -> dict[str, str]:
        client, status = self._client, self._client.status
        rows = {"Node": client.name}
        missing = ", ".join(self._missing or ())
        if "status" not in client.published:
            rows["State"] = "not there, waiting for it"
            rows["Waiting for"] = missing
            return rows
        if missing:
            rows["Not published"] = missing
        if status is None:
            rows["State"] = "no image yet"
            return rows
        rows["State"] = TrackingState(status.state).name
        if status.message:
            rows["Message"] = status.message
        received_hz, processed_hz = client.rates_hz()
        silent_s = client.silent_s()
        rows["Rate"] = (
            f"{received_hz:.1f} images/s, {processed_hz:.1f} processed"
            if silent_s < _SILENT_S
            else f"no image for {silent_s:.0f} s"
        )
        rows["Images"] = (
            f"{status.processed:,} processed, {status.replaced:,} replaced, "
            f"{status.rejected:,} rejected, {status.lost_estimated:,} never arrived"
        )
        rows["Latency"] = f"{status.latency_ms:.0f} ms; network {status.step_ms:.0f} ms"
        rows["Segment"] = f"{status.segment}, {status.images_since_reset:,} images since reset"
        rows["Confidence"] = f"{status.median_confidence:.2f}"
        rows["Scale"] = f"{status.scale:.3g}"
        rows["Map"] = f"{status.map_points:,} points"
        if status.last_reset_reason:
            rows["Last reset"] = status.last_reset_reason
        return rows
