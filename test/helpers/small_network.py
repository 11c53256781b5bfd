# SPDX-License-Identifier: Apache-2.0
"""A small network of known random weights, and a file of it."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch

from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.convert import write_checkpoint
from ttt3r_ros.network.model import Network

IMAGE_SIZE = 128
_folder = tempfile.TemporaryDirectory(prefix="ttt3r_ros-test-")  # until the process ends
CONFIG = NetworkConfig(
    enc_embed_dim=192,
    enc_depth=4,
    enc_num_heads=6,
    dec_embed_dim=128,
    dec_depth=4,
    dec_num_heads=4,
    state_dec_num_heads=4,
    state_size=64,
    local_mem_size=32,
)


def small_network() -> Network:
    """The network, the same at every call."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = Network(CONFIG)
    return network.requires_grad_(False).eval()


def write_small_checkpoint(path: Path, **settings: int) -> Path:
    """Write its file, which recommends `settings`."""
    write_checkpoint(
        path,
        small_network().state_dict(),
        config=CONFIG,
        image_size=IMAGE_SIZE,
        licence="",
        settings={name.replace("__", "."): value for name, value in settings.items()},
        source="",
    )
    return path


@cache
def small_checkpoint() -> str:
    """The path of a file of it that recommends nothing."""
    return str(write_small_checkpoint(Path(_folder.name) / "small.safetensors"))
