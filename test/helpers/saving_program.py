# SPDX-License-Identifier: Apache-2.0
"""A program that closes loops and saves all that can be saved, until it is killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from seen_again import EAGER, recognise_every_place
from tracked_frames import CONFIG, frames

from ttt3r_ros import run as running
from ttt3r_ros import session as saving
from ttt3r_ros.config import with_values
from ttt3r_ros.geometry import Intrinsics
from ttt3r_ros.loading import load_model
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.pose_graph import loop_closer

CAMERA = Intrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)
IMAGES = 12
STAGES = ("image", "solve", "save", "rename")
"""What the program says that it begins with; "round" when all of it is done."""


def save_again_and_again(output: Path, checkpoint: str, say: Connection) -> None:
    """Write what `ttt3r run --depth --save-session` does over what is there."""
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    recognise_every_place(patch)

    def announced(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            say.send(stage)
            return function(*arguments, **more)

        return call

    for module, name, stage in (
        (Pipeline, "track", "image"),
        (loop_closer, "solve_again", "solve"),
        (loop_closer, "solve_robustly", "solve"),
        (running, "save_session", "save"),
        (saving, "_put_in_place", "rename"),
    ):
        patch.setattr(module, name, announced(stage, getattr(module, name)))
    config = with_values(CONFIG, {**EAGER, "checkpoint": checkpoint})
    model = load_model(config)
    images = [replace(frame, intrinsics=CAMERA) for frame in frames(IMAGES)]
    while True:
        pipeline = Pipeline(model, config)
        running.run(images, pipeline, output, depth_images=True, save_to_session=True)
        say.send("round")
