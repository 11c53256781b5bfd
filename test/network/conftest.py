# SPDX-License-Identifier: Apache-2.0
"""Small networks with strong synthetic weights, and the golden sets."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from types import ModuleType

import numpy as np
import pytest
import torch
from places import GOLDEN

from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.shapes_only import shapes_only

# State heads unlike image heads, an odd root of the state size, patches unlike the published 16.
TINY = {
    "enc_embed_dim": 32,
    "enc_depth": 2,
    "enc_num_heads": 2,
    "dec_embed_dim": 32,
    "dec_depth": 4,
    "dec_num_heads": 2,
    "state_dec_num_heads": 4,
    "state_size": 10,
    "local_mem_size": 6,
    "patch_size": 8,
}


@pytest.fixture(scope="session")
def check_parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_parity", GOLDEN / "check_parity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(GOLDEN))  # the module's own doing
    return module


@pytest.fixture(scope="session")
def tiny_config():
    """A function from changed fields of `TINY` to a configuration."""
    return lambda **changes: NetworkConfig(**TINY | changes)


@pytest.fixture(scope="session")
def build(check_parity, tiny_config):
    """A function from changed fields of `TINY` and arguments of `Network` to a network."""

    @cache
    def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return check_parity.recipe.param("tiny", name, shape)

    def build_tiny(config: dict | None = None, **arguments) -> Network:
        with shapes_only():
            network = Network(tiny_config(**(config or {})), **arguments)
        weights = {
            name: torch.from_numpy(weight(name, tuple(tensor.shape)).copy())
            for name, tensor in network.state_dict().items()
        }
        network.load_state_dict(weights, assign=True)
        return network

    return build_tiny


@pytest.fixture
def images() -> torch.Tensor:
    """Four images of 24 x 32 pixels, [4, 1, 3, 24, 32]."""
    return torch.rand(4, 1, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
