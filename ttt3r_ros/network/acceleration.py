# SPDX-License-Identifier: Apache-2.0
"""How a network's steps are run: as they are, recorded as CUDA graphs, or compiled as well."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ttt3r_ros.network.model import Network
from ttt3r_ros.network.recorded import CudaGraphs, RecordedNetwork

ACCELERATIONS = ("none", "graphs", "compile")


def accelerated(network: Network, how: str, device: torch.device) -> Network | RecordedNetwork:
    """Return what steps a network fast.

    Args:
        network: to be stepped. It is not changed: "compile" makes another of the same weights.
        how: one of ACCELERATIONS, or "auto": graphs on a GPU, as long as they work, else none.
        device: of the network.

    Raises:
        ValueError: the device cannot.
    """
    cuda = device.type == "cuda"
    if how not in ("auto", *ACCELERATIONS):
        raise ValueError(f"acceleration: must be auto or one of {ACCELERATIONS}, got {how!r}")
    if how == "graphs" and not cuda:
        raise ValueError(f"acceleration: only CUDA devices have graphs, the device is {device}")
    if how == "compile":
        network = compiled(network)
    if cuda and how != "none":
        return RecordedNetwork(network, strict=how != "auto", record=CudaGraphs(device))
    return network


def compiled(network: Network) -> Network:
    """Return a network of the same weights, whose blocks torch.compile has fused in themselves.

    Blocks of one kind share what is compiled, so it takes a fraction of the time that a whole
    step would. For the third image size, and for further ones, torch compiles no more of them.
    """
    weights = [*network.parameters(), *network.buffers()]
    network = copy.deepcopy(network, {id(weight): weight for weight in weights})
    memory = network.pose_retriever
    for blocks in (
        network.enc_blocks,
        network.dec_blocks,
        network.dec_blocks_state,
        memory.read_blocks,
        memory.write_blocks,
    ):
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            block.compile(dynamic=False)
    return network
