# SPDX-License-Identifier: Apache-2.0
"""Writing our files of weights: the tensors inference needs, all settings in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ttt3r_ros.io.atomic import atomic_write, sha256
from ttt3r_ros.network.checkpoint import FORMAT, parameter_shapes, read_checkpoint
from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.safetensors_writer import write_safetensors
from ttt3r_ros.network.shapes_only import shapes_only
from ttt3r_ros.types import CheckpointError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def convert(
    source: str | Path,
    target: str | Path,
    *,
    dtype: str = "float32",
    world_points_head: bool = False,
) -> None:
    """Write the part of a checkpoint that inference needs as `.safetensors`.

    Args:
        source: an official `.pth`, or a `.safetensors` of ours.
        target: the file to write, ending in .safetensors; replaced whole if it exists.
        dtype: of the tensors in the file, a key of `DTYPES`. Loading widens them to float32.
        world_points_head: keep the head for points in the frame of a segment's first camera too.

    Raises:
        CheckpointError: the source cannot be used, a value does not fit in `dtype`, or the target
            cannot be written.
    """
    checkpoint = read_checkpoint(source)
    with shapes_only():
        network = Network(checkpoint.config, world_points_head=world_points_head)
    write_checkpoint(
        target,
        checkpoint.select(parameter_shapes(network)),
        config=checkpoint.config,
        image_size=checkpoint.image_size,
        licence=checkpoint.licence,
        settings=checkpoint.settings,
        source=f"{checkpoint.path.name} sha256:{sha256(checkpoint.path)}",
        dtype=dtype,
    )


def write_checkpoint(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    *,
    config: NetworkConfig,
    image_size: int,
    licence: str,
    settings: Mapping[str, bool | int | float | str],
    source: str = "",
    dtype: str = "float32",
) -> None:
    """Write a `.safetensors` file that `read_checkpoint` reads.

    The file appears whole or not at all: it is written beside `path` and then moved there.

    Args:
        path: the file to write, ending in .safetensors.
        tensors: by official name, floating point.
        config: the network's dimensions.
        image_size: long edge of the network's image in pixels; 224: square.
        licence: shown to whoever loads the file; empty: nothing.
        settings: recommended settings by dotted name.
        source: what the file was made from.
        dtype: of the tensors in the file, a key of `DTYPES`.

    Raises:
        CheckpointError: wrong suffix or dtype, a value that is not finite in `dtype`, or the file
            cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: the file to write must end in .safetensors")
    if not path.parent.is_dir():
        raise CheckpointError(f"{path}: the directory {path.parent} does not exist")
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype: must be one of {', '.join(DTYPES)}, got {dtype!r}")
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(config)),
        "image_size": str(image_size),
        "licence": licence,
        "settings": json.dumps(dict(settings)),
        "source": source,
    }
    try:
        with atomic_write(path) as unfinished:
            write_safetensors(unfinished, tensors, metadata, DTYPES[dtype])
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be written: {error}") from error
