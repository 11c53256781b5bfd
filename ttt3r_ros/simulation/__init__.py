# SPDX-License-Identifier: Apache-2.0
"""Procedural rooms with exact depth and pose: rooms, camera paths and a renderer. No ROS here.

What is named here is loaded when it is first asked for: the command line needs only the options of
a scene, which need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttt3r_ros.simulation.camera_path import Trajectory, make_trajectory
    from ttt3r_ros.simulation.renderer import Rendering, add_noise, render
    from ttt3r_ros.simulation.room import Rooms, make_cluttered_rooms, make_rooms

__all__ = [
    "Rendering",
    "Rooms",
    "Trajectory",
    "add_noise",
    "make_cluttered_rooms",
    "make_rooms",
    "make_trajectory",
    "render",
]

_MODULES = {
    **dict.fromkeys(("Rendering", "add_noise", "render"), "renderer"),
    **dict.fromkeys(("Rooms", "make_cluttered_rooms", "make_rooms"), "room"),
    **dict.fromkeys(("Trajectory", "make_trajectory"), "camera_path"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
