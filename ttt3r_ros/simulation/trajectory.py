# SPDX-License-Identifier: Apache-2.0
"""Camera paths through rooms, in closed form: sums of sinusoids that can be asked for any time.

Paths stay in the space that a room leaves free by construction; nothing is tried and rejected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ttt3r_ros.simulation.draws import Draws
from ttt3r_ros.simulation.room import Rooms

_PURPOSE, _NUMBERS_PER_PATH = 2, 100
_TERMS = 3  # sinusoids summed for each channel
MARGIN_M = 0.35  # kept between the camera and everything else


class _Style(NamedTuple):
    """Ranges, from ... to; angles in radians, frequencies of z, pitch and roll in rad/s."""

    height_m: tuple[float, float]
    bob_m: tuple[float, float]  # amplitude of height
    look_down: tuple[float, float]
    sway: tuple[float, float]  # amplitude of pitch and roll
    frequency: tuple[float, float]  # of height, pitch and roll


_STYLES = {
    "robot": _Style((1.12, 1.28), (0.0, 0.01), (-0.03, 0.15), (0.005, 0.04), (0.5, 3.0)),
    "handheld": _Style((1.2, 1.45), (0.05, 0.2), (-0.05, 0.3), (0.05, 0.2), (0.4, 2.0)),
}
_SPEED = (0.25, 0.55)  # m/s, mean
_FASTEST = 1.0  # m/s
_FASTEST_TURN = 1.2  # rad/s: beyond it pictures 0.1 s apart share too little


class _Waves(NamedTuple):
    """C channels, each a sum of sinusoids in time."""

    amplitude: Tensor  # [R, C, K]
    frequency: Tensor  # [R, C, K] rad/s
    phase: Tensor  # [R, C, K]

    def at(self, t: Tensor) -> Tensor:
        """[R, F] seconds -> [R, F, C]."""
        angle = self.frequency[:, None] * t[:, :, None, None] + self.phase[:, None]
        return (self.amplitude[:, None] * angle.sin()).sum(dim=3)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Paths of R cameras, one in each room. Float64, for times may be long."""

    middle: Tensor  # [R, 3] metres
    reach: Tensor  # [R, 2] metres that the path extends in x and y to either side of the middle
    across: Tensor  # [R] share of the reach taken by standing opposite to what is looked at
    angles: Tensor  # [R, 3] yaw, pitch and roll at rest; yaw to the left, pitch downwards
    turning: Tensor  # [R] rad/s of yaw beside its waves
    waves: _Waves  # of x and y (as shares of the reach), z, yaw, pitch, roll

    def pose(self, t: Tensor) -> Tensor:
        """T_world_camera of the optical frame: x right, y down, z forward.

        Args:
            t: seconds, [F] for all or [R, F] for each path.

        Returns:
            [R, F, 4, 4] float32.
        """
        t = t.to(self.middle).expand(len(self.middle), t.shape[-1])
        x, y, z, *turns = self.waves.at(t).unbind(-1)
        yaw, pitch, roll = (turn + self.angles[:, i, None] for i, turn in enumerate(turns))
        yaw = yaw + self.turning[:, None] * t
        cy, sy, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
        cr, sr = roll.cos(), roll.sin()
        across, (reach_x, reach_y) = self.across[:, None], self.reach[..., None].unbind(1)
        position = torch.stack(
            (reach_x * ((1 - across) * x - across * cy),
             reach_y * ((1 - across) * y - across * sy), z), dim=-1
        ) + self.middle[:, None]  # fmt: skip
        right = torch.stack((sy * cr - cy * sp * sr, -cy * cr - sy * sp * sr, -cp * sr), dim=-1)
        down = torch.stack((-cy * sp * cr - sy * sr, cy * sr - sy * sp * cr, -cp * cr), dim=-1)
        forward = torch.stack((cy * cp, sy * cp, -sp), dim=-1)
        top = torch.stack((right, down, forward, position), dim=-1)
        bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:2], 1, 4)
        return torch.cat((top, bottom), dim=2).float()


def make_trajectory(
    seeds: int | Sequence[int], rooms: Rooms, style: str = "robot", loop_s: float | None = None
) -> Trajectory:
    """Draw a camera path for each room, at 0.2 to 0.6 m/s on average and 1 m/s at most.

    Args:
        seeds: as many as rooms; a path depends on its seed and its room alone.
        rooms: where the paths lead, R of them.
        style: "robot" (constant height, hardly any pitch and roll) or "handheld".
        loop_s: if given, the camera is where it began, and moves as it began, after this many
            seconds. That slows the camera down, or hurries it where the loop is too short for
            its waves, since each must fit a whole number of times.

    Raises:
        ValueError: an unknown style, a loop not above 0, or another number of seeds than rooms.
    """
    if style not in _STYLES:
        raise ValueError(f"style: must be one of {sorted(_STYLES)}, got {style!r}")
    if loop_s is not None and not loop_s > 0:
        raise ValueError(f"loop_s: must be above 0, got {loop_s!r}")
    draws = Draws(seeds, _PURPOSE, _NUMBERS_PER_PATH, torch.float64)
    if len(draws.seeds) != len(rooms):
        raise ValueError(f"seeds: {len(draws.seeds)} given for {len(rooms)} rooms")
    low, high = rooms.free_low.double().cpu() + MARGIN_M, rooms.free_high.double().cpu() - MARGIN_M
    path = _draw(draws, _STYLES[style], low[:, :2], high[:, :2])
    path = _paced(path, draws, _STYLES[style])
    return path if loop_s is None else _closed(path, loop_s)


def _draw(draws: Draws, style: _Style, low: Tensor, high: Tensor) -> Trajectory:
    """Paths between the corners [R, 2], in a time unit of their own."""
    size = (
        torch.ones_like(low),
        draws.uniform(*style.bob_m, 1),
        draws.uniform(0.2, 1.4, 1),
        draws.uniform(*style.sway, 2),
    )
    weight = draws.uniform(0.2, 1.0, 6, _TERMS) * torch.tensor([1.0, 0.5, 0.3])
    amplitude = torch.cat(size, dim=1)[..., None] * weight / weight.sum(dim=2, keepdim=True)
    slowest, fastest = torch.tensor([[0.6, 1.0, 1.6], [1.0, 1.6, 2.4]])
    yaw, pitch, roll = (-math.pi, math.pi), style.look_down, (-0.01, 0.01)
    return Trajectory(
        middle=torch.cat(((low + high) / 2, draws.uniform(*style.height_m, 1)), dim=1),
        reach=(high - low) / 2,
        across=draws.uniform(0.1, 0.55),
        angles=torch.stack([draws.uniform(*around) for around in (yaw, pitch, roll)], dim=1),
        turning=draws.chance(0.5) * draws.uniform(0.1, 0.5) * (1 - 2.0 * draws.chance(0.5)),
        waves=_Waves(
            amplitude,
            draws.uniform(slowest, fastest, 6, _TERMS),
            draws.uniform(-math.pi, math.pi, 6, _TERMS),
        ),
    )


def _paced(path: Trajectory, draws: Draws, style: _Style) -> Trajectory:
    """The path in seconds: x, y and yaw as fast as wanted, the rest at the style's own pace."""
    places = path.pose(torch.linspace(0, 60, 601))[..., :2, 3]
    speed = places.diff(dim=1).norm(dim=-1) / 0.1
    rate = torch.minimum(draws.uniform(*_SPEED) / speed.mean(dim=1), _FASTEST / speed.amax(dim=1))
    amplitude, frequency, phase = path.waves
    frequency = frequency * rate[:, None, None]
    frequency[:, [2, 4, 5]] = draws.uniform(*style.frequency, 3, _TERMS)
    turning = path.turning * rate
    turn = turning.abs() + (amplitude * frequency)[:, 3].sum(dim=1)
    calm = (_FASTEST_TURN / turn).clamp(max=1)
    amplitude = amplitude.clone()
    amplitude[:, 3] *= calm[:, None]
    return replace(path, turning=turning * calm, waves=_Waves(amplitude, frequency, phase))


def _closed(path: Trajectory, loop_s: float) -> Trajectory:
    """The path slowed down until every wave fits in the loop a whole number of times."""
    once = 2 * math.pi / loop_s
    frequency = (path.waves.frequency / once).floor().clamp(min=1) * once
    turning = (path.turning / once).trunc() * once
    return replace(path, turning=turning, waves=path.waves._replace(frequency=frequency))
