# SPDX-License-Identifier: Apache-2.0
"""Training data: rendered clips, a pool of them, and windows cut out of the pool.

A clip is a function of its number alone, so a pool can be made again after an interruption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.training import workers
from tools.training.settings import HEIGHT, WIDTH
from ttt3r_ros.simulation import make_cluttered_rooms, make_rooms, make_trajectory, render
from ttt3r_ros.simulation.textures import Atlas

# Seeds from here on are kept for the choice of settings and for reported results.
FIRST_HELD_OUT_SEED = 900_000
_BACKWARDS = 0.125  # share of windows whose camera goes backwards
_SMOOTH = 8  # one group in so many is rendered with several rays per pixel, which takes long


class Domain(NamedTuple):
    """What the cameras of a group of clips have in common; pairs are the ends of a range."""

    style: str  # of the paths
    cluttered: bool  # rooms full of things, halls and corridors; else those of the robot
    view_deg: tuple[float, float]  # from left to right
    # Between two images of a clip, evenly in the logarithm; windows may skip every second one.
    period_s: tuple[float, float]
    rough: float  # how much more cameras and light vary; 0: as little as the robot's


ROBOT = Domain("robot", False, (62.0, 73.0), (0.05, 0.12), 0.0)
HANDHELD = Domain("handheld", False, (50.0, 90.0), (0.033, 0.12), 0.5)
FREE = Domain("free", True, (45.0, 100.0), (0.033, 0.15), 1.0)
WHEELED = Domain("wheeled", True, (45.0, 100.0), (0.033, 0.15), 1.0)
# Groups take them in turn.
DOMAINS = (ROBOT, FREE, ROBOT, FREE, HANDHELD, ROBOT, FREE, WHEELED, ROBOT, FREE)


@dataclass(frozen=True, slots=True)
class Clips:
    """C short sequences of F images, their depth and poses."""

    rgb: Tensor  # [C, F, H, W, 3] uint8
    depth_m: Tensor  # [C, F, H, W] float16
    T_world_camera: Tensor  # [C, F, 4, 4] float32
    focal: Tensor  # [C] pixels; the principal point is the middle
    rough: Tensor  # [C] how much more the camera's colours vary than the robot's

    def __getitem__(self, index: slice | Tensor) -> Clips:
        """The clips at these places."""
        return Clips(*(getattr(self, name)[index] for name in Clips.__slots__))


def focal_share(view_deg: Tensor) -> Tensor:
    """Focal lengths as shares of the image's width, from angles from left to right."""
    return 0.5 / torch.tan(torch.deg2rad(view_deg / 2))


def principal_point() -> tuple[float, float]:
    """The middle of the image in pixels, centres of pixels being integers."""
    return (WIDTH - 1) / 2, (HEIGHT - 1) / 2


def render_clips(
    seeds: list[int],
    times_s: Tensor,
    focal: Tensor,
    *,
    domain: Domain = ROBOT,
    supersampling: int = 1,
    device: torch.device | str = "cpu",
    atlas: Atlas | None = None,
) -> Clips:
    """Render one clip per seed.

    Args:
        seeds: of rooms and paths, C of them.
        times_s: [C, F] when images are taken.
        focal: [C] pixels.
        domain: rooms, paths and camera.
        supersampling: as `render`.
        device: where to render and to keep the clips.
        atlas: of textures; without one, that of the domain's rooms.
    """
    rooms = (make_cluttered_rooms if domain.cluttered else make_rooms)(seeds, device, atlas)
    poses = make_trajectory(seeds, rooms, domain.style).pose(times_s)
    focal = focal.float()
    centre = focal.new_tensor(principal_point()).expand(len(seeds), 2)
    lens = torch.cat((focal[:, None].expand(-1, 2), centre), dim=1)[:, None]
    rgb, depth = render(rooms, poses, lens.to(device), HEIGHT, WIDTH, supersampling=supersampling)
    return Clips(
        rgb=(rgb * 255).round().byte(), depth_m=depth.half(), T_world_camera=poses.to(device),
        focal=focal.to(device), rough=torch.full_like(focal, domain.rough).to(device),
    )  # fmt: skip


def training_clips(group: int, count: int, frames: int, device: torch.device | str) -> Clips:
    """Group number `group` of `count` clips each, all from rooms of their own."""
    generator = torch.Generator().manual_seed(group)
    seeds = [(group * count + i) % FIRST_HELD_OUT_SEED for i in range(count)]
    first, period, view = torch.rand(3, count, 1, generator=generator, dtype=torch.float64)
    domain = DOMAINS[group % len(DOMAINS)]
    shortest, longest = domain.period_s
    period = shortest * (longest / shortest) ** period
    narrowest, widest = domain.view_deg
    view = narrowest + (widest - narrowest) * view[:, 0]
    times = 60 * first + period * torch.arange(frames, dtype=torch.float64)
    return render_clips(
        seeds,
        times,
        WIDTH * focal_share(view),
        domain=domain,
        supersampling=2 if group % _SMOOTH == 0 else 1,
        device=device,
    )


class ClipPool:
    """The latest clips, oldest ones replaced first."""

    def __init__(
        self, capacity: int, group_size: int, frames: int, device: torch.device | str
    ) -> None:
        self.groups = 0  # rendered so far
        self._group_size, self._frames, self._device = group_size, frames, device
        self._slots = max(1, capacity // group_size)
        capacity = self._slots * group_size
        grid = (capacity, frames, HEIGHT, WIDTH)
        self._clips = Clips(
            rgb=torch.empty(*grid, 3, dtype=torch.uint8, device=device),
            depth_m=torch.empty(grid, dtype=torch.float16, device=device),
            T_world_camera=torch.empty(capacity, frames, 4, 4, device=device),
            focal=torch.empty(capacity, device=device),
            rough=torch.empty(capacity, device=device),
        )

    def __len__(self) -> int:
        return min(self.groups, self._slots) * self._group_size

    def grow(self) -> None:
        """Render the next group; each process has groups of its own."""
        self._put(self.groups)
        self.groups += 1

    def restore(self, groups: int) -> None:
        """Become the pool that has grown `groups` times."""
        for group in range(max(0, groups - self._slots), groups):
            self._put(group)
        self.groups = groups

    def windows(self, count: int, images: int, generator: torch.Generator) -> Windows:
        """Cut windows out of clips chosen at random, half of them mirrored, a few reversed."""
        longest = (self._frames - 1) // max(1, images - 1)
        stride = torch.randint(1, min(2, longest) + 1, (count,), generator=generator)
        room = self._frames - (images - 1) * stride
        start = (torch.rand(count, generator=generator) * room).long()
        index = start[:, None] + stride[:, None] * torch.arange(images)
        backwards = torch.rand(count, generator=generator) < _BACKWARDS
        index = torch.where(backwards[:, None], index.flip(1), index).to(self._device)
        clip = torch.randint(len(self), (count,), generator=generator).to(self._device)[:, None]
        mirrored = (torch.rand(count, generator=generator) < 0.5).to(self._device)
        source = self._clips
        windows = Windows.of(
            source.rgb[clip, index],
            source.depth_m[clip, index],
            source.T_world_camera[clip, index],
            source.focal[clip[:, 0]],
        )
        return windows.mirror(mirrored).develop(generator, source.rough[clip[:, 0]])

    def clip(self, generator: torch.Generator) -> Clips:
        """A copy of one clip chosen at random."""
        index = torch.randint(len(self), (1,), generator=generator).to(self._device)
        return self._clips[index]

    def _put(self, group: int) -> None:
        number = group * workers.count() + workers.rank()
        clips = training_clips(number, self._group_size, self._frames, self._device)
        start = group % self._slots * self._group_size
        part = slice(start, start + self._group_size)
        for name in Clips.__slots__:
            getattr(self._clips, name)[part] = getattr(clips, name)


@dataclass(frozen=True, slots=True)
class Windows:
    """B short sequences as the network takes them, with what it should answer."""

    image: Tensor  # [B, T, 3, H, W] in [-1, 1]
    depth_m: Tensor  # [B, T, H, W]
    T_first_camera: Tensor  # [B, T, 4, 4] pose of each camera in the first one's frame
    T_world_first: Tensor  # [B, 4, 4] of the room's world
    focal: Tensor  # [B] pixels

    @classmethod
    def of(cls, rgb: Tensor, depth_m: Tensor, T_world_camera: Tensor, focal: Tensor) -> Windows:
        """Windows from rows of `Clips`."""
        first = T_world_camera[:, :1]
        return cls(
            image=rgb.permute(0, 1, 4, 2, 3).float() / 127.5 - 1,
            depth_m=depth_m.float(),
            T_first_camera=torch.linalg.inv(first.double()).matmul(T_world_camera.double()).float(),
            T_world_first=first[:, 0],
            focal=focal,
        )

    def mirror(self, chosen: Tensor) -> Windows:
        """Swap left and right in the chosen windows, [B] bool. The mirror image of a room is one.

        Of `T_world_first` only height and gravity stay meaningful.
        """
        flip = torch.diag(self.focal.new_tensor([-1.0, 1, 1, 1]))
        gravity = torch.diag(self.focal.new_tensor([1.0, -1, 1, 1]))  # y of the world
        pick = chosen[:, None, None, None]
        return Windows(
            image=torch.where(pick[..., None], self.image.flip(-1), self.image),
            depth_m=torch.where(pick, self.depth_m.flip(-1), self.depth_m),
            T_first_camera=torch.where(
                pick, flip @ self.T_first_camera @ flip, self.T_first_camera
            ),
            T_world_first=torch.where(
                pick[..., 0], gravity @ self.T_world_first @ flip, self.T_world_first
            ),
            focal=self.focal,
        )

    def develop(self, generator: torch.Generator, rough: Tensor | None = None) -> Windows:
        """Vary exposure, contrast, tint and noise, as other cameras would.

        Args:
            generator: of random numbers.
            rough: [B] from 0, as little as the robot's, to 1: twice as much, and colours, vignette
                and blur too.
        """
        batch, images = self.image.shape[:2]

        if rough is None:
            rough = self.image.new_zeros(batch)
        rough = rough[:, None, None, None, None]

        def drawn(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator).to(self.image.device)

        def around_one(spread: float, *shape: int) -> Tensor:
            return torch.exp(spread * (1 + rough) * (2 * drawn(*shape) - 1))

        rgb = (self.image + 1) / 2
        if rough.any():
            each = (batch, 1, 1, 1, 1)
            grey = rgb.mean(dim=2, keepdim=True)
            rgb = torch.lerp(rgb, grey, rough * (0.8 * drawn(*each) - 0.1))
            soft = F.avg_pool2d(
                rgb.flatten(0, 1), 3, stride=1, padding=1, count_include_pad=False
            ).view_as(rgb)
            blur = (2 * drawn(batch, images, 1, 1, 1) - 1).clamp(min=0) * drawn(*each)
            rgb = torch.lerp(rgb, soft, rough * blur)
            v = torch.linspace(-0.6, 0.6, rgb.shape[-2], device=rgb.device)[:, None]
            u = torch.linspace(-0.8, 0.8, rgb.shape[-1], device=rgb.device)
            rgb = rgb * (1 - rough * 0.5 * drawn(*each) * (u * u + v * v))
        gain = around_one(0.2, batch, 1, 1, 1, 1) * around_one(0.05, batch, 1, 3, 1, 1)
        gain = gain * around_one(0.03, batch, images, 1, 1, 1)
        rgb = rgb.clamp(min=1e-3).pow(around_one(0.15, batch, 1, 1, 1, 1)) * gain
        sigma = 0.015 * (1 + rough) * drawn(batch, 1, 1, 1, 1)
        noise = torch.randn(rgb.shape, generator=generator).to(rgb.device)
        rgb = (rgb + sigma * noise).clamp(0, 1)
        return Windows(
            2 * rgb - 1, self.depth_m, self.T_first_camera, self.T_world_first, self.focal
        )

    @classmethod
    def together(cls, parts: Sequence[Windows]) -> Windows:
        """All windows of several batches with equally many images each."""
        rows = ([getattr(part, name) for part in parts] for name in cls.__slots__)
        return cls(*(torch.cat(tensors) for tensors in rows))

    def rays(self) -> Tensor:
        """Points at 1 m depth, [B, H, W, 3]."""
        cx, cy = principal_point()
        u = torch.arange(WIDTH, device=self.focal.device) - cx
        v = torch.arange(HEIGHT, device=self.focal.device) - cy
        x = (u / self.focal[:, None])[:, None, :].expand(-1, HEIGHT, -1)
        y = (v / self.focal[:, None])[:, :, None].expand(-1, -1, WIDTH)
        return torch.stack((x, y, torch.ones_like(x)), dim=-1)


def evaluation_windows(
    seeds: list[int],
    images: int,
    rate_hz: float = 10.0,
    device: torch.device | str = "cpu",
    *,
    domain: Domain = ROBOT,
    view_deg: float | None = None,
    atlas: Atlas | None = None,
) -> Windows:
    """Sequences of held-out rooms for the choice of settings, without noise.

    Args:
        seeds: of rooms and paths.
        images: of each.
        rate_hz: images per second.
        device: where to render and to keep them.
        domain: rooms and paths.
        view_deg: from left to right; without it, 67 degrees.
        atlas: of textures; without one, that of the domain's rooms.
    """
    if min(seeds) < FIRST_HELD_OUT_SEED:
        raise ValueError(f"seeds: must be at least {FIRST_HELD_OUT_SEED}, got {min(seeds)}")
    times = torch.arange(images, dtype=torch.float64) / rate_hz
    parts = []
    for i in range(0, len(seeds), 4):
        some = seeds[i : i + 4]
        share = 0.75 if view_deg is None else float(focal_share(torch.tensor(view_deg)))
        focal = torch.full((len(some),), share * WIDTH)
        clips = render_clips(
            some, times, focal, domain=domain, supersampling=2, device=device, atlas=atlas
        )
        parts.append((clips.rgb, clips.depth_m, clips.T_world_camera, clips.focal))
    return Windows.of(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
