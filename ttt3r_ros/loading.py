# SPDX-License-Identifier: Apache-2.0
"""From settings to a network that is ready to step, and what must be said about its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ttt3r_ros.config import Config, ConfigError
from ttt3r_ros.network.checkpoint import build_network, read_checkpoint
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.precision import LOWER, precision_of
from ttt3r_ros.network.state import Ttt3r, UpdateRule, find_update_rule

SHIPPED = Path(__file__).parent / "assets" / "demo.safetensors"
"""The weights that come with the package; docs/demo_model.md is about them."""

_SHIPPED_NOTE = (
    "no checkpoint given: this is the small demo model, trained on simulated rooms alone. It is "
    "for trying things out and of little use on real images; docs/weights.md says where weights "
    "for those are"
)


@dataclass(frozen=True, slots=True)
class Model:
    """A network with what its weights ask for."""

    network: Network
    device: torch.device
    image_size: int  # long edge of the network's image in pixels
    settings: Mapping[str, bool | int | float | str]  # recommended, by dotted name
    note: str  # to be shown to whoever uses the weights; empty: nothing to say

    @property
    def reset_interval(self) -> int:
        """Images in a segment that the weights ask for; 0: they are never to be reset."""
        return int(self.settings.get("segment.reset_interval", 0))


def load_model(config: Config) -> Model:
    """Load the weights that the settings name; without a name, those of the package.

    Raises:
        CheckpointError: the file cannot be used.
        ConfigError: the device does not exist or cannot have the `dtype`, the image size is below
            a patch, or `damping` is set for a rule that has none.
    """
    device = find_device(config.device)
    checkpoint = read_checkpoint(config.checkpoint or SHIPPED)
    network = build_network(
        checkpoint,
        device=device,
        update_rule=_update_rule(config),
        rope_float16=config.rope_float16,
    )
    prepare(network, config.dtype, device)
    note = _SHIPPED_NOTE
    if config.checkpoint:
        note = checkpoint.licence and f"{config.checkpoint}: {checkpoint.licence}"
    patch_size = network.config.patch_size
    if 0 < config.image_size < patch_size:
        raise ConfigError(
            f"image_size: must be 0 or at least the patch size, {patch_size}, "
            f"got {config.image_size}"
        )
    image_size = config.image_size or checkpoint.image_size
    return Model(network, device, image_size, checkpoint.settings, note)


def prepare(network: Network, dtype: str, device: torch.device) -> None:
    """Let a network multiply as precisely as the setting `dtype` says, and fast on its device.

    Raises:
        ConfigError: the device cannot have it.
    """
    try:
        precision = precision_of(dtype, device)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    network.tf32 = device.type == "cuda" and precision != "float32"
    if precision in LOWER:
        network.keep_weights_in(LOWER[precision])
    if device.type == "cuda":  # as tensor cores want it; oneDNN on a CPU is indifferent
        network.downstream_head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _update_rule(config: Config) -> UpdateRule:
    if config.update_rule == "ttt3r":
        return Ttt3r(config.damping)
    if config.damping != 1:
        raise ConfigError(
            f"damping: only update_rule ttt3r has one, got {config.damping:g} "
            f"with {config.update_rule}"
        )
    return find_update_rule(config.update_rule)


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
