# SPDX-License-Identifier: Apache-2.0
"""A slow plain twin of the renderer's geometry in float64, and rooms with chosen solids only."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ttt3r_ros.simulation import Rooms, make_rooms
from ttt3r_ros.simulation.furniture import BOXES, CYLINDERS

BOX, CYLINDER, BALL = 1, 1 + BOXES, 1 + BOXES + CYLINDERS  # the first solid of each shape


def room_with(
    size: tuple[float, float, float],
    solids: dict[int, tuple[tuple[float, float, float], tuple[float, float, float], float]],
) -> Rooms:
    """A room of this size with solids {number: (centre, half extents, yaw)} and nothing else."""
    room = make_rooms(0)
    centre, half, yaw = room.solid_centre.clone(), room.solid_half.clone(), room.solid_yaw.clone()
    centre[:, 1:, 2] = -10.0
    centre[:, 0] = torch.tensor([0.0, 0.0, size[2] / 2])
    half[:, 0] = torch.tensor(size) / 2
    for number, (where, extent, turn) in solids.items():
        centre[:, number], half[:, number] = torch.tensor(where), torch.tensor(extent)
        yaw[:, number] = turn
    return replace(room, solid_centre=centre, solid_half=half, solid_yaw=yaw)


def first_of(room: Rooms) -> tuple[int, int]:
    """The first cylinder and the first ball among a room's solids."""
    return 1 + room.counts[0], 1 + sum(room.counts)


def camera(
    position: tuple[float, float, float], yaw: float = 0.0, pitch: float = 0.0
) -> Tensor:  # [1, 1, 4, 4]
    """An optical frame without roll; yaw to the left from +x, pitch downwards."""
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    T = torch.eye(4)
    T[:3, 0] = torch.tensor([sy, -cy, 0.0])
    T[:3, 1] = torch.tensor([-cy * sp, -sy * sp, -cp])
    T[:3, 2] = torch.tensor([cy * cp, sy * cp, -sp])
    T[:3, 3] = torch.tensor(position)
    return T[None, None]


def image_rays(intrinsics: tuple[float, ...], height: int, width: int) -> Tensor:
    """Directions (x, y, 1) of all pixels: [H, W, 3] float64."""
    fx, fy, cx, cy = intrinsics
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = (u - cx) / fx, (v - cy) / fy
    return torch.stack((x, y, torch.ones_like(x)), dim=-1).double()


def plain_depth(room: Rooms, T_world_camera: Tensor, rays: Tensor) -> Tensor:
    """Depth [H, W] of one room's picture, solid by solid and with ordinary divisions."""
    cylinder, ball = first_of(room)
    T = T_world_camera.double()
    world = rays @ T[:3, :3].T
    nearest = torch.full(rays.shape[:2], torch.inf, dtype=torch.float64)
    for number in range(room.solid_centre.shape[1]):
        half, yaw = room.solid_half[0, number].double(), float(room.solid_yaw[0, number])
        turn = torch.eye(3, dtype=torch.float64)
        turn[0, 0] = turn[1, 1] = math.cos(yaw)
        turn[0, 1], turn[1, 0] = math.sin(yaw), -math.sin(yaw)
        o = turn @ (T[:3, 3] - room.solid_centre[0, number].double())
        d = world @ turn.T
        slabs = torch.stack(((-half - o) / d, (half - o) / d))
        enter, leave = slabs.amin(0).amax(-1), slabs.amax(0).amin(-1)
        if number == 0:
            nearest = leave
            continue
        if number >= cylinder:
            k = 3 if number >= ball else 2
            a, b = (d[..., :k] ** 2).sum(-1), (d[..., :k] * o[:k]).sum(-1)
            root = b**2 - a * ((o[:k] ** 2).sum() - half[0] ** 2)
            first, second = (-b - root.sqrt()) / a, (-b + root.sqrt()) / a  # nan where missed
            if k == 3:
                enter, leave = first, second
            else:
                ends = slabs[..., 2].amin(0), slabs[..., 2].amax(0)
                enter, leave = torch.maximum(first, ends[0]), torch.minimum(second, ends[1])
        hit = (enter < leave) & (enter > 0)
        nearest = torch.where(hit & (enter < nearest), enter, nearest)
    return nearest


def clearance(room: Rooms, points: Tensor) -> Tensor:
    """Metres from points [n, 3] to the nearest of all surfaces of one room, negative inside."""
    cylinder, ball = first_of(room)
    closest = (room.solid_half[0, 0] - (points - room.solid_centre[0, 0]).abs()).amin(-1)
    for number in range(1, room.solid_centre.shape[1]):
        half, yaw = room.solid_half[0, number], float(room.solid_yaw[0, number])
        offset = points - room.solid_centre[0, number]
        x = math.cos(yaw) * offset[:, 0] + math.sin(yaw) * offset[:, 1]
        y = math.cos(yaw) * offset[:, 1] - math.sin(yaw) * offset[:, 0]
        if number >= ball:
            distance = offset.norm(dim=-1) - half[0]
        else:
            flat = torch.stack((x.abs() - half[0], y.abs() - half[1]), dim=-1)
            if number >= cylinder:
                flat = torch.hypot(x, y)[:, None] - half[0]
            over = torch.cat((flat, offset[:, 2:].abs() - half[2]), dim=-1)
            distance = over.clamp(min=0).norm(dim=-1) + over.amax(-1).clamp(max=0)
        closest = torch.minimum(closest, distance)
    return closest


def along_x(places, turn_deg=0.0):
    """Cameras at these metres, each turned about z by so much per metre."""
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    for pose, x in zip(poses, places, strict=True):
        c, s = math.cos(math.radians(turn_deg * x)), math.sin(math.radians(turn_deg * x))
        pose[:2, :2] = [[c, -s], [s, c]]
        pose[0, 3] = x
    return poses
