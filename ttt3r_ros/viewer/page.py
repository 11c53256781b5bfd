# SPDX-License-Identifier: Apache-2.0
"""What is shown: the map, the path and the camera in space; pictures, text and controls beside it.

The only module that knows viser. Everything is in the map's frame, in metres, z up; the camera's
pose is its optical frame's. What is shown replaces what was shown, so memory is bounded by the
points and the poses there may be.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from html import escape
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Intrinsics, Transform, Vector, quaternion
from ttt3r_ros.io.depth_colours import colour_depth, depth_range
from ttt3r_ros.types import ViewError

_OUTLIERS = 2.0  # percent of the points on each side of an axis that need not be in the view
_SAMPLE = 100_000  # points are enough to find that out
_DIRECTION = np.array([-0.55, -0.35, 0.75])  # from behind of a robot that looked along +x
_DISTANCE = 0.85  # in diagonals of the box


class Bounds(NamedTuple):
    """The box [3] of nearly all points, in metres."""

    low: Vector
    high: Vector


class Viewpoint(NamedTuple):
    """Where the viewer is and where it looks, [3] in metres in the map."""

    position: Vector
    look_at: Vector


START = Viewpoint(np.array([-2.5, -1.0, 2.0]), np.array([1.5, 0.0, 0.0]))
"""Over the shoulder of a robot at the origin that looks along +x."""


def bounds(points: npt.NDArray[np.float32]) -> Bounds | None:
    """Return the box of nearly all points [N, 3]; None if there are none."""
    if not len(points):
        return None
    sample = points[:: max(1, len(points) // _SAMPLE)]
    low, high = np.percentile(sample, (_OUTLIERS, 100 - _OUTLIERS), axis=0)
    return Bounds(low, high)


def overview(box: Bounds) -> Viewpoint:
    """Return a place above and behind a box from which all of it is seen."""
    centre = (box.low + box.high) / 2
    diagonal = max(float(np.linalg.norm(box.high - box.low)), 1.0)
    away = _DIRECTION / np.linalg.norm(_DIRECTION)
    return Viewpoint(centre + _DISTANCE * diagonal * away, centre)


def stride(count: int, most: int) -> int:
    """Return the least step that leaves at most so many of `count` rows.

    Where neighbours stand together, as in a map or a path, every place is thinned alike; and from
    one message to the next the same rows stay as long as the step does, so nothing shimmers.

    Raises:
        ValueError: `most` is below 1.
    """
    if most < 1:
        raise ValueError(f"at most {most} rows: must be at least 1")
    return max(1, -(-count // most))


def subsample(rows: npt.NDArray[Any], most: int) -> npt.NDArray[Any]:
    """Return every first, second, third, ... row [N, ...], at most so many; a view."""
    return rows[:: stride(len(rows), most)]


try:
    import viser
except ImportError as error:
    raise ViewError(
        f"viser cannot be imported ({error}); install it: pip install 'ttt3r_ros[view]'"
    ) from error

if TYPE_CHECKING:
    from typing_extensions import Self

Picture = npt.NDArray[np.uint8]  # [H, W, 3]
Colour = tuple[int, int, int]

MAX_PATH = 2000  # poses that are drawn: more cannot be told apart
_PATH_COLOUR = (240, 130, 20)
_CAMERA_COLOUR = (30, 90, 200)
_FOV_RAD, _ASPECT = np.radians(50.0), 4 / 3  # of a camera whose lens is not known
_GRID_COLOUR = (225, 225, 225)
_NO_PICTURE = np.full((3, 4, 3), 225, np.uint8)
_PICTURE_ORDER = {"Image": 1000.0, "Depth": 1001.0}  # below all controls: they are large
_PICTURE_WIDTH = 300  # pixels in the panel, of pictures that are smaller
_NO_POINTS = np.zeros((0, 3), np.float32)
_JPEG_QUALITY = 80


class Page:
    """A page that browsers show while it is served; a context manager."""

    def __init__(self, host: str, port: int, max_points: int) -> None:
        """Serve an empty page.

        Args:
            host: address to listen at.
            port: to listen at; 0 is any that is free.
            max_points: of the map that are drawn at most.

        Raises:
            ViewError: `max_points` is below 1.
            OSError: the address is not this machine's, or the port is taken.
        """
        if max_points < 1:
            raise ViewError(f"max-points: must be at least 1, got {max_points}")
        _check_address(host, port)
        self._max_points = max_points
        self._points, self._colours = _NO_POINTS, _NO_POINTS.astype(np.uint8)
        self._lock = Lock()  # controls are heard in other threads
        self._server = _Server(host, port, label="ttt3r", verbose=False)
        self._server.gui.configure_theme(show_logo=False, show_share_button=False)
        self._server.initial_camera.position = START.position
        self._server.initial_camera.look_at = START.look_at
        self._add_space()
        self._add_panel()

    def _add_space(self) -> None:
        scene = self._server.scene
        scene.world_axes.visible = True
        scene.world_axes.axes_length, scene.world_axes.axes_radius = 0.3, 0.01
        self._grid = scene.add_grid(
            "/grid",
            infinite_grid=True,
            cell_size=1.0,
            cell_color=_GRID_COLOUR,
            section_size=5.0,
            section_color=_GRID_COLOUR,
            section_thickness=2.0,
            fade_distance=30.0,
        )
        self._cloud = scene.add_point_cloud(
            "/map",
            np.zeros((1, 3), np.float32),
            np.zeros((1, 3), np.uint8),
            precision="float32",
            point_shading="flat",
            visible=False,
        )
        self._path = scene.add_line_segments(
            "/path",
            np.zeros((0, 2, 3), np.float32),
            _PATH_COLOUR,
            thickness=3.0,
            thickness_units="screen",
        )
        self._camera = scene.add_camera_frustum(
            "/camera",
            _FOV_RAD,
            _ASPECT,
            thickness=2.0,
            thickness_units="screen",
            color=_CAMERA_COLOUR,
            jpeg_quality=_JPEG_QUALITY,
            visible=False,
        )

    def _add_panel(self) -> None:
        gui = self._server.gui
        self._text = gui.add_html("")
        show_all = gui.add_button("Show all")
        self._follow = gui.add_checkbox("Follow camera", initial_value=False)
        with gui.add_folder("Sizes", expand_by_default=False):
            height = gui.add_slider("Height [%]", 5, 100, 1, 100, hint="hide what is higher")
            point = gui.add_slider("Points [cm]", 0.5, 20.0, 0.5, 3.0)
            camera = gui.add_slider("Camera [m]", 0.05, 5.0, 0.05, 0.3)
        self._height, self._point_size, self._camera_size = height, point, camera
        height.on_update(lambda _: self._draw_cloud())
        point.on_update(lambda _: self._size())
        camera.on_update(lambda _: self._size())
        show_all.on_click(self._on_show_all)
        self._server.on_client_connect(self._show_all)
        self._size()
        self._image, self._depth = (
            gui.add_image(
                _NO_PICTURE, label=label, jpeg_quality=_JPEG_QUALITY, visible=False, order=order
            )
            for label, order in _PICTURE_ORDER.items()
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self._server.get_host(), self._server.get_port()

    def add_timeline(self, count: int) -> Timeline:
        """Add a slider along `count` poses."""
        return Timeline(self._server.gui, count)

    def show_text(self, rows: Mapping[str, str]) -> None:
        """Show a table of names and values."""
        cells = (
            f"<tr><td style='opacity:.6;padding-right:.8em;white-space:nowrap;vertical-align:top'>"
            f"{escape(name)}</td><td>{escape(value)}</td></tr>"
            for name, value in rows.items()
        )
        table = f"<table style='font-size:.85em;margin:0 .8em .5em'>{''.join(cells)}</table>"
        if table != self._text.content:
            self._text.content = table

    def show_image(self, rgb: Picture) -> None:
        """Show what the camera sees [H, W, 3], in the panel and in front of the camera."""
        self._image.image = _enlarged(rgb)
        self._image.visible = True
        self._camera.image = rgb

    def show_depth(self, depth_m: npt.NDArray[np.float32]) -> None:
        """Show depth [H, W], NaN where unknown."""
        near_m, far_m = depth_range([depth_m])
        self._depth.label = f"Depth, {near_m:g} m (red) to {far_m:g} m"
        self._depth.image = _enlarged(colour_depth(depth_m, (near_m, far_m)))
        self._depth.visible = True

    def show_camera(self, T_map_camera: Transform, lens: Intrinsics | None = None) -> None:
        """Show where the camera is, and take viewers along that follow it."""
        moved = T_map_camera[:3, 3] - self._camera.position
        if self._follow.value and self._camera.visible:
            for client in self._server.get_clients().values():
                client.camera.position = client.camera.position + moved
        with self._server.atomic():
            self._camera.wxyz, self._camera.position = quaternion(T_map_camera), T_map_camera[:3, 3]
            if lens:
                self._camera.fov = 2 * float(np.arctan(lens.height / 2 / lens.fy))
                self._camera.aspect = lens.width / lens.fx / (lens.height / lens.fy)
            self._camera.visible = True
        self._size()

    def colour_camera(self, colour: Colour) -> None:
        """Show the camera in a colour."""
        self._camera.color = colour

    def show_path(self, positions: npt.NDArray[np.floating]) -> None:
        """Show a path along positions [N, 3], the last one always among those drawn."""
        corners = subsample(positions[::-1], MAX_PATH).astype(np.float32)
        self._path.points = np.stack([corners[:-1], corners[1:]], axis=1)

    def show_cloud(self, points: npt.NDArray[np.float32], colours: Picture) -> None:
        """Show points [N, 3] with their colours [N, 3]."""
        kept = np.isfinite(points := subsample(points, self._max_points)).all(axis=1)
        with self._lock:
            self._points, self._colours = points[kept], subsample(colours, self._max_points)[kept]
        self._draw_cloud()

    def clear(self) -> None:
        """Show nothing but the text."""
        self.show_cloud(_NO_POINTS, _NO_POINTS.astype(np.uint8))
        self.show_path(_NO_POINTS)
        self._camera.visible, self._camera.image = False, None
        self._image.visible = self._depth.visible = False

    def close(self) -> None:
        """Serve no more."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _draw_cloud(self) -> None:
        with self._lock:
            points, colours = self._points, self._colours
            box = bounds(points)
            if box is not None:
                self._grid.position = (0.0, 0.0, float(box.low[2]))
            if box is not None and self._height.value < 100:
                share = self._height.value / 100
                below = points[:, 2] <= box.low[2] + share * (box.high[2] - box.low[2])
                points, colours = points[below], colours[below]
            self._cloud.visible = len(points) > 0
            if len(points):  # viser's page complains of none
                with self._server.atomic():
                    self._cloud.points, self._cloud.colors = points, colours

    def _size(self) -> None:
        self._cloud.point_size = self._point_size.value / 100
        depth = self._camera.compute_canonical_frustum_size()[2]
        self._camera.scale = self._camera_size.value / depth

    def _on_show_all(self, event: viser.GuiEvent[Any]) -> None:
        if event.client:
            self._show_all(event.client)

    def _show_all(self, client: viser.ClientHandle) -> None:
        if box := bounds(self._points):
            view = overview(box)
            with client.atomic():
                client.camera.position, client.camera.look_at = view.position, view.look_at


class _Server(viser.ViserServer):
    """Keeps shut viser's tunnel to the internet, which every browser could ask for."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        """Open nothing."""
        return None


class Timeline:
    """A slider along a path, and whether it is to move by itself."""

    def __init__(self, gui: viser.GuiApi, count: int) -> None:
        """Add it to a panel, at the first of `count` poses."""
        self._slider = gui.add_slider("Pose", 0, max(count - 1, 1), 1, 0)
        self._plays = gui.add_checkbox("Play", initial_value=False)
        self._last = count - 1

    @property
    def index(self) -> int:
        """Of the pose."""
        return min(self._slider.value, self._last)

    @index.setter
    def index(self, value: int) -> None:
        self._slider.value = value  # type: ignore[misc]  # viser's setter is apart from its getter

    @property
    def plays(self) -> bool:
        """Whether it is to move by itself."""
        return self._plays.value

    @plays.setter
    def plays(self, value: bool) -> None:
        self._plays.value = value  # type: ignore[misc]


def _enlarged(picture: Picture) -> Picture:
    """Return a small picture with larger pixels, for the panel shows all in their own size."""
    factor = -(-_PICTURE_WIDTH // picture.shape[1])
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def _check_address(host: str, port: int) -> None:
    """Say why nobody can listen there; viser would try others, and not say so."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family):
            pass
    except (OSError, OverflowError) as error:
        number = error.errno if isinstance(error, OSError) else None
        raise OSError(
            number or errno.EINVAL, f"cannot listen: {error}; see --host, --port", f"{host}:{port}"
        ) from error
