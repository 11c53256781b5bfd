# SPDX-License-Identifier: Apache-2.0
"""Camera paths through rooms, in closed form: sums of sinusoids that can be asked for any time.

Robots drive ovals and eights and look where they go; hands stand opposite to what they look at.
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
_MOUNT = 0.15  # rad at most between a robot's direction and its camera's, beside its glances
_SPEED = (0.25, 0.55)  # m/s, mean; robots whose curves are tight are slower
_NEAR_M = 0.2  # the same, of styles for rooms full of things


class _Style(NamedTuple):
    """Ranges, from ... to; angles in radians, frequencies of z, pitch and roll in rad/s."""

    height_m: tuple[float, float]
    bob_m: tuple[float, float]  # amplitude of height
    look_down: tuple[float, float]
    sway: tuple[float, float]  # amplitude of pitch and roll
    frequency: tuple[float, float]  # of height, pitch and roll
    glance: tuple[float, float]  # amplitude of yaw
    looks_ahead: bool
    # The heights are shares of the room's free space, to either side of its middle.
    in_space: bool = False
    across: tuple[float, float] = (0.1, 0.55)
    mount: float = _MOUNT
    speed: tuple[float, float] = _SPEED
    margin_m: float = MARGIN_M


_STYLES = {
    "robot": _Style(
        (1.12, 1.28), (0.0, 0.01), (-0.03, 0.15), (0.005, 0.04), (0.5, 3.0), (0.0, 0.3), True
    ),
    "handheld": _Style(
        (1.2, 1.45), (0.05, 0.2), (-0.05, 0.3), (0.05, 0.2), (0.4, 2.0), (0.2, 1.4), False
    ),
    # A hand or a drone: any height, any tilt, and no tie between where it goes and where it looks.
    "free": _Style(
        (-0.4, 0.4),
        (0.1, 0.6),
        (-0.25, 0.7),
        (0.03, 0.25),
        (0.4, 2.5),
        (0.1, 1.6),
        False,
        in_space=True,
        across=(0.0, 0.4),
        speed=(0.1, 0.7),
        margin_m=_NEAR_M,
    ),
    # Wheels: curves as robots drive them, the camera at any height and turned to any side.
    "wheeled": _Style(
        (-0.4, 0.4),
        (0.0, 0.05),
        (-0.1, 0.25),
        (0.005, 0.06),
        (0.5, 4.0),
        (0.0, 0.4),
        True,
        in_space=True,
        mount=1.6,
        speed=(0.15, 0.7),
        margin_m=_NEAR_M,
    ),
}
_ROAM = 0.6  # share of the free space: right before a wall a picture carries no scale
_LONGEST = 2.5  # times as long as wide: longer ovals turn too sharply at their ends
_WANDER = 0.1  # share of the reach by which a robot's curve changes from round to round
_FASTEST = 1.0  # m/s
_FASTEST_TURN = 1.2  # rad/s: beyond it pictures 0.1 s apart share too little
_STEERING = 0.8  # share of that for a robot's curves; the rest is for its glances


class _Waves(NamedTuple):
    """C channels, each a sum of sinusoids in time."""

    amplitude: Tensor  # [R, C, K]
    frequency: Tensor  # [R, C, K] rad/s
    phase: Tensor  # [R, C, K]

    def at(self, t: Tensor) -> Tensor:
        """[R, F] seconds -> [R, F, C]."""
        angle = self.frequency[:, None] * t[:, :, None, None] + self.phase[:, None]
        return (self.amplitude[:, None] * angle.sin()).sum(dim=3)

    def rate(self, t: Tensor) -> Tensor:
        """Their derivatives, [R, F] seconds -> [R, F, C] per second."""
        angle = self.frequency[:, None] * t[:, :, None, None] + self.phase[:, None]
        return ((self.amplitude * self.frequency)[:, None] * angle.cos()).sum(dim=3)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Paths of R cameras, one in each room. Float64, for times may be long."""

    middle: Tensor  # [R, 3] metres
    reach: Tensor  # [R, 2] metres that the path extends in x and y to either side of the middle
    across: Tensor  # [R] share of the reach taken by standing opposite to what is looked at
    angles: Tensor  # [R, 3] yaw, pitch and roll at rest; yaw to the left, pitch downwards
    turning: Tensor  # [R] rad/s of yaw beside its waves
    waves: _Waves  # of x and y (as shares of the reach), z, yaw, pitch, roll
    looks_ahead: bool  # yaw counts from the direction of travel, rather than from +x

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
        if self.looks_ahead:
            yaw = yaw + self.heading(t)
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

    def heading(self, t: Tensor) -> Tensor:
        """Direction of travel in the plane, of paths that are not `across`.

        Args:
            t: seconds, [R, F].

        Returns:
            [R, F] radians from +x to the left, in (-pi, pi].
        """
        speed = self.waves.rate(t)[..., :2] * self.reach[:, None]
        return torch.atan2(speed[..., 1], speed[..., 0])


def make_trajectory(
    seeds: int | Sequence[int], rooms: Rooms, style: str = "robot", loop_s: float | None = None
) -> Trajectory:
    """Draw a camera path for each room, at 0.05 to 0.6 m/s on average and 1 m/s at most.

    Args:
        seeds: as many as rooms; a path depends on its seed and its room alone.
        rooms: where the paths lead, R of them.
        style: "robot" (constant height, hardly any pitch and roll) or "handheld"; "free" or
            "wheeled", at the heights that a cluttered room leaves free.
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
    low, high = rooms.free_low.double().cpu(), rooms.free_high.double().cpu()
    margin = torch.tensor([_STYLES[style].margin_m] * 2 + [0.0], dtype=torch.float64)
    low, high = low + margin, high - margin
    path = _draw(draws, _STYLES[style], low, high)
    path = _paced(path, draws, _STYLES[style])
    return path if loop_s is None else _closed(path, loop_s)


def _draw(draws: Draws, style: _Style, low: Tensor, high: Tensor) -> Trajectory:
    """Paths between the corners [R, 3], in a time unit of their own."""
    bottom, space = low[:, 2:], high[:, 2:] - low[:, 2:]  # heights that are free
    low, high = low[:, :2], high[:, :2]
    reach = (high - low) / 2
    tall = space / 2 if style.in_space else torch.ones_like(space)
    size = (
        torch.ones_like(low),
        draws.uniform(*style.bob_m, 1) * tall,
        draws.uniform(*style.glance, 1),
        draws.uniform(*style.sway, 2),
    )
    weight = draws.uniform(0.2, 1.0, 6, _TERMS) * torch.tensor([1.0, 0.5, 0.3])
    amplitude = torch.cat(size, dim=1)[..., None] * weight / weight.sum(dim=2, keepdim=True)
    slowest, fastest = torch.tensor([[0.6, 1.0, 1.6], [1.0, 1.6, 2.4]])
    frequency = draws.uniform(slowest, fastest, 6, _TERMS)
    phase = draws.uniform(-math.pi, math.pi, 6, _TERMS)
    yaw = (-style.mount, style.mount) if style.looks_ahead else (-math.pi, math.pi)
    angles = [draws.uniform(*around) for around in (yaw, style.look_down, (-0.01, 0.01))]
    if style.looks_ahead:
        reach = _ROAM * torch.minimum(reach, _LONGEST * reach.flip(1))
        _steer(draws, amplitude, frequency, phase)
        across = turning = torch.zeros_like(reach[:, 0])
    else:
        across = draws.uniform(*style.across)
        turning = draws.chance(0.5) * draws.uniform(0.1, 0.5) * (1 - 2.0 * draws.chance(0.5))
    height = draws.uniform(*style.height_m, 1)
    if style.in_space:
        height = bottom + (0.5 + 0.5 * height) * space
    return Trajectory(
        middle=torch.cat(((low + high) / 2, height), dim=1),
        reach=reach,
        across=across,
        angles=torch.stack(angles, dim=1),
        turning=turning,
        waves=_Waves(amplitude, frequency, phase),
        looks_ahead=style.looks_ahead,
    )


def _steer(draws: Draws, amplitude: Tensor, frequency: Tensor, phase: Tensor) -> None:
    """Make x and y, [R, 6, K] in place, an oval or an eight that is never left standing.

    The first terms are the curve, with frequencies 1 and 1 or 1 and 2 and a phase between them
    at which they are never both at rest; the second ones let it wander.
    """
    shape = draws.choice(torch.arange(3))  # an oval, an eight along x, an eight along y
    amplitude[:, :2] = torch.tensor([1 - _WANDER, _WANDER, 0.0])
    frequency[:, 0, 0] = 1.0 + (shape == 2)
    frequency[:, 1, 0] = 1.0 + (shape == 1)
    frequency[:, :2, 1] = draws.uniform(0.3, 0.5, 2)
    begin, lead = draws.uniform(-math.pi, math.pi), draws.uniform(-0.4, 0.4)
    lead = lead + torch.where(shape == 0, math.pi / 2, 0.0)
    lead = lead * (1 - 2.0 * draws.chance(0.5))
    phase[:, 0, 0] = frequency[:, 0, 0] * begin + torch.where(shape == 2, lead, 0.0)
    phase[:, 1, 0] = frequency[:, 1, 0] * begin + torch.where(shape == 2, 0.0, lead)


def _paced(path: Trajectory, draws: Draws, style: _Style) -> Trajectory:
    """The path in seconds: x, y and yaw as fast as wanted, the rest at the style's own pace."""
    t = torch.arange(0, 60, 0.05, dtype=torch.float64)
    places = path.pose(t)[..., :2, 3]
    speed = places.diff(dim=1).norm(dim=-1) / 0.05
    rate = torch.minimum(
        draws.uniform(*style.speed) / speed.mean(dim=1), _FASTEST / speed.amax(dim=1)
    )
    steered = torch.zeros_like(rate)
    if path.looks_ahead:
        change = path.heading(t.expand(len(rate), -1)).diff(dim=1)
        steered = torch.remainder(change + math.pi, 2 * math.pi).sub(math.pi).abs().amax(dim=1)
        rate = torch.minimum(rate, _STEERING * _FASTEST_TURN / (steered / 0.05))
        steered = steered / 0.05 * rate
    amplitude, frequency, phase = path.waves
    frequency = frequency * rate[:, None, None]
    frequency[:, [2, 4, 5]] = draws.uniform(*style.frequency, 3, _TERMS)
    turning = path.turning * rate
    turn = turning.abs() + (amplitude * frequency)[:, 3].sum(dim=1)
    calm = ((_FASTEST_TURN - steered) / turn).clamp(max=1)
    amplitude = amplitude.clone()
    amplitude[:, 3] *= calm[:, None]
    return replace(path, turning=turning * calm, waves=_Waves(amplitude, frequency, phase))


def _closed(path: Trajectory, loop_s: float) -> Trajectory:
    """The path slowed down until every wave fits in the loop a whole number of times."""
    once = 2 * math.pi / loop_s
    frequency = (path.waves.frequency / once).floor().clamp(min=1) * once
    if path.looks_ahead:  # its curve must keep its shape, that of the lower frequency
        curve = path.waves.frequency[:, :2, 0]
        ratio = (curve / curve.amin(dim=1, keepdim=True)).round()
        frequency[:, :2, 0] = ratio * frequency[:, :2, 0].amin(dim=1, keepdim=True)
    turning = (path.turning / once).trunc() * once
    return replace(path, turning=turning, waves=path.waves._replace(frequency=frequency))
