# SPDX-License-Identifier: Apache-2.0
"""From settings to a network that is ready to step, and what must be said about its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ttt3r_ros.config import Config, ConfigError
from ttt3r_ros.network.checkpoint import build_network, read_checkpoint
from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.model import Network

_UNTRAINED = NetworkConfig(
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
_UNTRAINED_IMAGE_SIZE = 128
_UNTRAINED_NOTE = (
    "no checkpoint given: the weights are UNTRAINED. Everything runs, but poses, depth and map "
    "are meaningless; docs/weights.md says where trained weights are"
)


@dataclass(frozen=True, slots=True)
class Model:
    """A network with what its weights ask for."""

    network: Network
    device: torch.device
    image_size: int  # long edge of the network's image in pixels
    settings: Mapping[str, bool | int | float | str]  # recommended, by dotted name
    note: str  # to be shown to whoever uses the weights; empty: nothing to say


def load_model(config: Config) -> Model:
    """Load the weights that the settings name; without a name, small untrained ones.

    Raises:
        CheckpointError: the file cannot be used.
        ConfigError: the device does not exist, or the image size is below a patch.
    """
    device = find_device(config.device)
    if config.checkpoint:
        checkpoint = read_checkpoint(config.checkpoint)
        network = build_network(
            checkpoint,
            device=device,
            update_rule=config.update_rule,
            half_rotary=config.half_rotary,
        )
        size, settings = checkpoint.image_size, checkpoint.settings
        note = checkpoint.licence and f"{config.checkpoint}: {checkpoint.licence}"
    else:
        network = untrained_network(config.update_rule, config.half_rotary).to(device)
        size, settings, note = _UNTRAINED_IMAGE_SIZE, {}, _UNTRAINED_NOTE
    patch_size = network.config.patch_size
    if 0 < config.image_size < patch_size:
        raise ConfigError(
            f"image_size: must be 0 or at least the patch size, {patch_size}, "
            f"got {config.image_size}"
        )
    return Model(network, device, config.image_size or size, settings, note)


def find_device(name: str) -> torch.device:
    """Return the device of the setting `device`.

    Raises:
        ConfigError: it is not a device of this machine.
    """
    cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device: must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device: {name!r} is not there; torch {torch.__version__} finds "
            f"{torch.cuda.device_count()} CUDA devices"
        )
    return device


def untrained_network(update_rule: str = "ttt3r", half_rotary: bool = False) -> Network:
    """Return a small network of random weights, the same at every call."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = Network(_UNTRAINED, update_rule=update_rule, half_rotary=half_rotary)
    return network.requires_grad_(False).eval()
