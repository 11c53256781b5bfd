# SPDX-License-Identifier: Apache-2.0
"""From a training's checkpoint to the file that the package ships."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tools.training.settings import WIDTH
from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.convert import write_checkpoint
from ttt3r_ros.network.model import Network

LICENCE = (
    "Apache-2.0; a small demonstration model trained on simulated rooms alone: expect no sense "
    "from pictures of the real world"
)


def load_average(path: Path, config: NetworkConfig, update_rule: str) -> tuple[Network, int, float]:
    """The averaged network of a training, and what it took: images shown and minutes."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    network = Network(config, update_rule=update_rule)
    network.load_state_dict(content["average"])
    network.requires_grad_(False).eval()
    return network, content["images"], content["seconds"] / 60


def export(
    network: Network,
    target: Path,
    settings: Mapping[str, bool | int | float | str],
    source: str,
) -> None:
    """Write a network in half precision with what its users should know."""
    write_checkpoint(
        target,
        network.state_dict(),
        config=network.config,
        image_size=WIDTH,
        licence=LICENCE,
        settings=settings,
        source=source,
        dtype="float16",
    )
