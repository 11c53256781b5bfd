# SPDX-License-Identifier: Apache-2.0
"""Lets `test/data/golden/check_parity.py` drive the network, the way a tracker would.

    python test/data/golden/check_parity.py --set test/data/golden/B_linear \
        --adapter test/helpers/parity_adapter.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

# check_parity.py is run by path, from anywhere.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ttt3r_ros.network.checkpoint import load_network
from ttt3r_ros.network.model import Network

DEVICE = "cpu"


def load(checkpoint_path: str, update_type: str, variant: str) -> Stream:
    network = load_network(
        checkpoint_path,
        update_rule=update_type,
        device=DEVICE,
        rope_float16=variant == "half",
        world_points_head=True,
    )
    return Stream(network)


def step(stream: Stream, rgb: np.ndarray, reset: bool, update: bool) -> dict[str, np.ndarray]:
    return stream.step(rgb, reset, update)


class Stream:
    """A network with its state, the base pose of its segment and what it computed on the way."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.state = network.initial_state()
        self.base = torch.eye(4, dtype=torch.float64, device=network.pose_token.device)
        self.seen: dict[str, torch.Tensor] = {}
        self._watch("enc_feat", network.enc_norm)
        self._watch("state_new", network.dec_norm_state)
        for number, block in enumerate(network.dec_blocks[:-1], start=1):
            self._watch(f"dec_img_layer{number}", block)
        self._watch(f"dec_img_layer{network.config.dec_depth}", network.dec_norm)

        def watch_pose_token(_module, inputs) -> None:
            self.seen["pose_token_in"] = inputs[0][0, :1]

        network.dec_blocks[0].register_forward_pre_hook(watch_pose_token)

    def _watch(self, name: str, module: torch.nn.Module) -> None:
        def keep(_module, _inputs, output) -> None:
            self.seen[name] = (output[0] if isinstance(output, tuple) else output)[0]

        module.register_forward_hook(keep)

    @torch.inference_mode()
    def step(self, rgb: np.ndarray, reset: bool, update: bool) -> dict[str, np.ndarray]:
        pixels = torch.from_numpy(rgb).to(self.base.device).permute(2, 0, 1)
        image = (pixels[None].float() / 255 - 0.5) / 0.5
        self.state, seen = self.network.step(self.state, image, update)
        pose_world = self.base @ seen.pose_matrix[0].double()
        if reset:
            self.state = self.network.initial_state()
            self.base = pose_world
        results = self.seen | {
            "pts3d_in_self_view": seen.points[0],
            "conf_self": seen.confidence[0],
            "camera_pose": seen.pose[0],
            "pts3d_in_other_view": seen.points_in_world[0],
            "conf": seen.confidence_in_world[0],
            "beta": seen.gain[0],
            "state": self.state.tokens[0],
            "mem": self.state.memory[0],
            "cam_to_world": pose_world,
        }
        return {name: tensor.numpy(force=True).copy() for name, tensor in results.items()}
