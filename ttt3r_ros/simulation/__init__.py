# SPDX-License-Identifier: Apache-2.0
"""Procedural rooms with exact depth and pose: rooms, camera paths and a renderer. No ROS here."""

from __future__ import annotations

from ttt3r_ros.simulation.renderer import Rendering, add_noise, render
from ttt3r_ros.simulation.room import Rooms, make_cluttered_rooms, make_rooms
from ttt3r_ros.simulation.trajectory import Trajectory, make_trajectory

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
