# SPDX-License-Identifier: Apache-2.0
"""Trains the small network that the package ships, on rendered rooms, and writes it.

Run from the repository's root; see tools/README.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

# Before torch is loaded: a thread that waits for others must not keep a core from them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `tools` and the package

from tools.training import workers
from tools.training.clips import FIRST_HELD_OUT_SEED, evaluation_windows
from tools.training.settings import DEMO_NETWORK, TrainingSettings, settings_from_weights
from tools.training.trainer import LAST, Trainer
from ttt3r_ros.network.checkpoint import load_network
from ttt3r_ros.network.decoder import DecoderBlock
from ttt3r_ros.network.encoder import EncoderBlock

_ROOMS, _IMAGES = 12, 64


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="directory for everything")
    parser.add_argument("--minutes", type=float, required=True, help="time to spend in all")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of the CPU")
    parser.add_argument("--frames-per-step", type=int, help="images per step")
    parser.add_argument(
        "--from", type=Path, metavar="WEIGHTS", dest="weights", help=".safetensors to go on from"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--compile", action="store_true", help="fuse operations; needs a compiler")
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    workers.join(arguments.device)
    arguments.output.mkdir(parents=True, exist_ok=True)
    if (arguments.output / LAST).exists() and not arguments.resume:
        parser.error(f"{arguments.output / LAST} exists: --resume, or another --output")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    make_settings = settings_from_weights if arguments.weights else TrainingSettings
    settings = make_settings(minutes=arguments.minutes, seed=arguments.seed)
    if arguments.frames_per_step:
        settings = replace(settings, frames_per_step=arguments.frames_per_step)
    if arguments.compile:
        torch._dynamo.config.recompile_limit = 64  # stages, streams and kinds of blocks differ
        for block in (DecoderBlock, EncoderBlock):
            setattr(block, "forward", torch.compile(block.forward, dynamic=False))  # noqa: B010
    seeds = list(range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + _ROOMS))
    held_out = None
    if workers.rank() == 0:
        held_out = evaluation_windows(seeds, _IMAGES, device=arguments.device)
    weights = load_network(arguments.weights).state_dict() if arguments.weights else None
    trainer = Trainer(DEMO_NETWORK, settings, arguments.output, arguments.device, held_out, weights)
    if arguments.resume:
        trainer.restore()
    trainer.train()


if __name__ == "__main__":
    main()
