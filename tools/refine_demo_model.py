# SPDX-License-Identifier: Apache-2.0
"""Trains the refiner of a trained demo model alone, so that no seams are left between patches.

Everything before it stays as it is, so a step is cheap, and the loss can insist on slopes.
Run from the repository's root; see tools/README.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import cast

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `tools` and the package

from tools.training.clips import ClipPool
from tools.training.export import load_average
from tools.training.losses import point_losses
from tools.training.settings import DEMO_NETWORK
from tools.training.trainer import LAST
from ttt3r_ros.network.heads import LinearHeads

_BATCH, _RATE, _SLOPE_WEIGHT = 32, 4e-3, 6.0
_FIRST_GROUPS, _STEPS_PER_GROUP = 12, 4


def main() -> None:
    """Parse the command line, train and write the checkpoint with the refined weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("training", type=Path, help="the --output of the training")
    parser.add_argument("output", type=Path, help="directory for the refined last.pt")
    parser.add_argument("--minutes", type=float, required=True)
    arguments = parser.parse_args()

    network, _, _ = load_average(arguments.training / LAST, DEMO_NETWORK, "ttt3r")
    refiner = cast(nn.Module, cast(LinearHeads, network.downstream_head).refiner)
    parameters = list(refiner.requires_grad_(True).parameters())
    optimizer = torch.optim.Adam(parameters, _RATE, betas=(0.9, 0.98))
    pool = ClipPool(4000, 8, 16, "cpu")
    pool.restore(_FIRST_GROUPS)
    generator = torch.Generator().manual_seed(0)
    started, step, progress = time.monotonic(), 0, 0.0
    while progress < 1:
        if step % _STEPS_PER_GROUP == 0:
            pool.grow()
        windows = pool.windows(_BATCH, 1, generator)
        with torch.autocast("cpu", torch.bfloat16):
            _, prediction = network.step(network.initial_state(_BATCH), windows.image[:, 0])
        target = windows.depth_m[:, 0, ..., None] * windows.rays()
        losses = point_losses(prediction.points, prediction.confidence, target)
        (losses["points"] + _SLOPE_WEIGHT * losses["slope"]).backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 20) * min(1.0, 1.5 * (1 - progress))
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 20 == 1:
            print(step, *(f"{name} {float(loss):.4f}" for name, loss in losses.items()), flush=True)
        progress = (time.monotonic() - started) / (60 * arguments.minutes)
    content = torch.load(arguments.training / LAST, map_location="cpu", weights_only=True)
    content["average"] = network.state_dict()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.save(content, arguments.output / LAST)
    print(f"{step} steps")


if __name__ == "__main__":
    main()
