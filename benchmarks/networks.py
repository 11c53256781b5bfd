# SPDX-License-Identifier: Apache-2.0
"""Networks of the published sizes, and tiny ones, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ttt3r_ros.loading import prepare
from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.shapes_only import shapes_only


@dataclass(frozen=True, slots=True)
class Size:
    """An image's size and the network for it."""

    width: int
    height: int
    config: NetworkConfig

    def image(self) -> Tensor:
        """A random image, [1, 3, H, W]."""
        return torch.rand(1, 3, self.height, self.width) * 2 - 1


_PUBLISHED: dict[str, Any] = dict(
    enc_embed_dim=1024,
    enc_depth=24,
    enc_num_heads=16,
    dec_embed_dim=768,
    dec_depth=12,
    dec_num_heads=12,
    state_size=768,
)
_TINY: dict[str, Any] = dict(
    enc_embed_dim=32,
    enc_depth=2,
    enc_num_heads=2,
    dec_embed_dim=48,
    dec_depth=4,
    dec_num_heads=3,
    state_size=10,
    state_dec_num_heads=4,
    local_mem_size=6,
)
# The published files by the image they are fed; and sizes to try a benchmark with.
SIZES = {
    "512x384": Size(512, 384, NetworkConfig(head_type="dpt", **_PUBLISHED)),
    "224x224": Size(224, 224, NetworkConfig(head_type="linear", **_PUBLISHED)),
    "tiny-dpt": Size(48, 32, NetworkConfig(head_type="dpt", **_TINY)),
    "tiny-linear": Size(48, 32, NetworkConfig(head_type="linear", **_TINY)),
}


def random_weights(network: nn.Module, device: torch.device) -> None:
    """Give a network on the meta device weights, each drawn so that activations stay near 1."""
    network.to_empty(device=device).requires_grad_(False).eval()
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:  # the gain of a normalisation, or a bias
            parameter.data.fill_(float("norm" in name and name.endswith("weight")))
        else:
            bound = float(parameter[0].numel()) ** -0.5
            parameter.data.uniform_(-bound, bound)


def share_random_weights(
    everything: Network, others: Sequence[Network], device: torch.device
) -> None:
    """Give networks on the meta device random weights, which exist once in memory.

    Args:
        everything: has all parameters.
        others: have some of them, under the same names.
        device: of the weights.
    """
    random_weights(everything, device)
    weights = everything.state_dict()
    for network in others:
        own = {name: weights[name] for name in network.state_dict()}
        network.load_state_dict(own, assign=True)
        network.requires_grad_(False).eval()


def in_precision(network: Network, dtype: str, device: torch.device) -> Network:
    """A network of the same weights that multiplies as the setting `dtype` says."""
    with shapes_only():
        other = Network(network.config)
    other.load_state_dict(network.state_dict(), assign=True)
    prepare(other.requires_grad_(False).eval(), dtype, device)
    return other
