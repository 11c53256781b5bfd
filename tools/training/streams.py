# SPDX-License-Identifier: Apache-2.0
"""Windows that go on where the last ones ended, with the state that the network then had.

A stream walks to and fro through one clip, so that it can be longer than the clip and comes back to
what it has seen; when its time is over, another begins in its place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tools.training.clips import ClipPool, Clips, Windows
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.state import RecurrentState

_SPREAD = (0.5, 1.5)  # a stream's length, as a multiple of the mean


@dataclass(slots=True)
class _Walk:
    """One stream's place in its clip."""

    clip: Clips  # a single one
    T_world_first: Tensor  # [1, 4, 4] where the stream began
    place: int  # of the next image
    step: int  # to the one after it
    mirrored: bool
    left: int  # images until the stream ends

    def take(self, images: int) -> list[int]:
        """Places of the next images; at the clip's ends the walk turns round."""
        last = len(self.clip.rgb[0]) - 1
        places = []
        for _ in range(images):
            places.append(self.place)
            if not 0 <= self.place + self.step <= last:
                self.step = -self.step
            self.place = min(max(self.place + self.step, 0), last)
        self.left -= images
        return places


class Streams:
    """Several streams of one process, their states without gradients."""

    def __init__(self) -> None:
        self._walks: list[_Walk] = []
        self._state: RecurrentState | None = None

    def windows(
        self, pool: ClipPool, count: int, images: int, mean: int, generator: torch.Generator
    ) -> tuple[Windows, Tensor]:
        """The next windows of `count` streams, and which of them begin, [count] bool.

        Args:
            pool: where streams that begin take their clips from.
            count: of streams; if it changes, all begin anew.
            images: in a window.
            mean: images of a stream that begins, in the mean.
            generator: of random numbers.
        """
        if len(self._walks) != count:
            self._walks = [self._begin(pool, mean, generator) for _ in range(count)]
            new = [True] * count
        else:
            new = [walk.left <= 0 for walk in self._walks]
            for number in range(count):
                if new[number]:
                    self._walks[number] = self._begin(pool, mean, generator)
        parts = [self._window(walk, images, generator) for walk in self._walks]
        device = parts[0].image.device
        return Windows.together(parts), torch.tensor(new, device=device)

    def state(self, network: Network, new: Tensor) -> RecurrentState:
        """The states before the windows just taken; those of beginning streams are new."""
        first = network.initial_state(len(new))
        if self._state is None or len(self._state.fresh) != len(new):
            return first
        return RecurrentState(
            torch.where(new[:, None, None], first.tokens, self._state.tokens),
            torch.where(new[:, None, None], first.memory, self._state.memory),
            new | self._state.fresh,
            self._state.rule_state,
        )

    def keep(self, state: RecurrentState) -> None:
        """Keep the states after the windows, cut off from what led to them."""
        self._state = replace(
            state, tokens=state.tokens.detach().float(), memory=state.memory.detach().float()
        )

    @staticmethod
    def _begin(pool: ClipPool, mean: int, generator: torch.Generator) -> _Walk:
        clip = pool.clip(generator)
        frames = clip.rgb.shape[1]
        place, step, mirrored, length = torch.rand(4, generator=generator).tolist()
        begin = min(int(place * frames), frames - 1)
        return _Walk(
            clip,
            clip.T_world_camera[:, begin],
            begin,
            (1 if step < 0.75 else 2) * (1 if begin < frames / 2 else -1),
            mirrored < 0.5,
            round(mean * (_SPREAD[0] + (_SPREAD[1] - _SPREAD[0]) * length)),
        )

    @staticmethod
    def _window(walk: _Walk, images: int, generator: torch.Generator) -> Windows:
        clip, index = walk.clip, walk.take(images)
        poses = torch.cat((walk.T_world_first[:, None], clip.T_world_camera[:, index]), dim=1)
        rgb, depth = clip.rgb[:, index], clip.depth_m[:, index]
        # One image more at the beginning, so that poses are told from the stream's first.
        windows = Windows.of(
            torch.cat((rgb[:, :1], rgb), 1), torch.cat((depth[:, :1], depth), 1), poses, clip.focal
        )
        windows = replace(
            windows,
            image=windows.image[:, 1:],
            depth_m=windows.depth_m[:, 1:],
            T_first_camera=windows.T_first_camera[:, 1:],
        )
        mirrored = torch.tensor([walk.mirrored], device=clip.focal.device)
        return windows.mirror(mirrored).develop(generator, clip.rough)
