# SPDX-License-Identifier: Apache-2.0
"""What a simulated camera films and how: its options, and their flags on command lines.

Filming is `simulation.scene`'s. Nothing slow is imported here.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from ttt3r_ros.config import ConfigError

STYLES = ("robot", "handheld")
MOST_MOVING = 4


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """What is filmed and how.

    Raises:
        ConfigError: a value is out of bounds.
    """

    seed: int = 71  # of the room and the path
    width: int = 320  # pixels
    height: int = 240
    style: str = "robot"  # of the path, one of STYLES
    loop_s: float | None = None  # the camera is back where it began after so long
    noise: float = 0.0  # standard deviation, colours being 0 to 1
    exposure: float = 0.0  # brightness goes up and down slowly, by exp(±this)
    blur_s: float = 0.0  # how long the shutter is open, the stamp in the middle
    distortion: tuple[float, float] = (0.0, 0.0)  # k1, k2 of plumb_bob
    moving: int = 0  # balls and boxes that move on the floor

    def __post_init__(self) -> None:
        for name, low, high in (
            ("seed", 0, math.inf),
            ("width", 1, 10_000),
            ("height", 1, 10_000),
            ("noise", 0, 1),
            ("exposure", 0, 3),
            ("blur_s", 0, 1),
            ("moving", 0, MOST_MOVING),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}: must be {low} to {high}, got {getattr(self, name)}")
        if self.style not in STYLES:
            raise ConfigError(f"style: must be one of {STYLES}, got {self.style!r}")
        if self.loop_s is not None and not self.loop_s > 0:
            raise ConfigError(f"loop_s: must be above 0, got {self.loop_s}")


def add_scene_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each option."""
    default = SceneOptions()
    add = parser.add_argument_group("scene").add_argument
    add("--seed", type=int, default=default.seed, help="of the room and the path")
    size = (default.width, default.height)
    add("--size", type=_size, default=size, metavar="WxH", help="of the images [px]")
    add("--style", choices=STYLES, default=default.style, help="of the path")
    add("--loop", type=float, metavar="S", help="come back to the start after so long [s]")
    add("--noise", type=float, default=0.0, metavar="SIGMA", help="of colours from 0 to 1")
    add("--exposure", type=float, default=0.0, metavar="A", help="brightness goes by exp(+-A)")
    add("--blur", type=float, default=0.0, metavar="S", help="the shutter is open so long [s]")
    distortion = "of the lens, as plumb_bob; an image takes 40 times as long"
    add("--distortion", type=float, nargs="+", default=[0.0], metavar=("K1", "K2"), help=distortion)
    add("--moving", type=int, default=0, metavar="N", help=f"0 to {MOST_MOVING} things that move")


def scene_options(args: argparse.Namespace) -> SceneOptions:
    """Return what the flags say.

    Raises:
        ConfigError: a value is out of bounds.
    """
    if len(args.distortion) > 2:
        raise ConfigError(f"distortion: one or two numbers, got {len(args.distortion)}")
    k1, k2 = (*args.distortion, 0.0)[:2]
    width, height = args.size
    return SceneOptions(
        seed=args.seed,
        width=width,
        height=height,
        style=args.style,
        loop_s=args.loop,
        noise=args.noise,
        exposure=args.exposure,
        blur_s=args.blur,
        distortion=(k1, k2),
        moving=args.moving,
    )


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height
