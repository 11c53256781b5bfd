# SPDX-License-Identifier: Apache-2.0
"""Files of weights: the official `.pth` layout and this package's `.safetensors`.

Both end as a `Checkpoint`, whose tensors stay mapped from the file, and as a `Network` through
`load_network`. Writing is `convert`'s; pickles are read by `pickle_reader`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.model_string import MODEL_PREFIX, parse_model_string
from ttt3r_ros.network.pickle_reader import read_torch_file, strings_in
from ttt3r_ros.network.shapes_only import shapes_only
from ttt3r_ros.network.state import UpdateRule
from ttt3r_ros.types import CheckpointError

FORMAT = "ttt3r_ros 1"
"""The value of `format` in the metadata of our `.safetensors` files."""

OFFICIAL_LICENCE = "CC BY-NC-SA 4.0: non-commercial use only (weights of CUT3R)"

# Published long-sequence results of the official weights reset the state every 100 images.
OFFICIAL_SETTINGS: Mapping[str, bool | int | float | str] = {"segment.reset_interval": 100}

_log = logging.getLogger(__name__)

_WORLD_HEAD = "downstream_head.final_transform."

_LISTED = 8  # names in an error message; a wrong file misses a thousand


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file of weights, read but not yet built into a network."""

    path: Path
    config: NetworkConfig
    image_size: int  # long edge of the network's image in pixels; 224: square
    tensors: Mapping[str, Tensor]  # by official name, on the CPU, mapped from the file
    licence: str  # to be shown to whoever uses the weights; empty: nothing to say
    settings: Mapping[str, bool | int | float | str]  # recommended, by dotted name
    source: str  # what the file was converted from, "name sha256:..."; empty: nothing
    unknown: tuple[str, ...]  # "key=value" of the model string that were not understood

    def select(self, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
        """Return the tensors of these names.

        Raises:
            CheckpointError: names are missing or have other shapes; the message lists them.
        """
        problems = []
        for name, shape in shapes.items():
            tensor = self.tensors.get(name)
            if tensor is None:
                problems.append(f"{name} is missing")
            elif tensor.shape != shape:
                problems.append(f"{name} is {list(tensor.shape)}, expected {list(shape)}")
            elif not tensor.is_floating_point():
                problems.append(f"{name} is {tensor.dtype}, expected floating point")
        if problems:
            more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
            raise CheckpointError(
                f"{self.path}: {len(problems)} of {len(shapes)} tensors do not fit the network: "
                f"{'; '.join(problems[:_LISTED])}{more}"
            )
        return {name: self.tensors[name] for name in shapes}


def load_network(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    update_rule: UpdateRule | str = "ttt3r",
    rope_float16: bool = False,
    world_points_head: bool = False,
) -> Network:
    """Read a file of weights into a network; arguments as `build_network`.

    Raises:
        CheckpointError: the file cannot be used; the message names it and the reason.
    """
    return build_network(
        read_checkpoint(path),
        device=device,
        update_rule=update_rule,
        rope_float16=rope_float16,
        world_points_head=world_points_head,
    )


def build_network(
    checkpoint: Checkpoint,
    *,
    device: str | torch.device = "cpu",
    update_rule: UpdateRule | str = "ttt3r",
    rope_float16: bool = False,
    world_points_head: bool = False,
) -> Network:
    """Build the network of a checkpoint for inference, its parameters float32 on `device`.

    On the CPU float32 tensors stay mapped from the file, so the weights exist in memory once, as
    pages that the system may drop and read again.

    Args:
        checkpoint: from `read_checkpoint`.
        device: where the parameters go.
        update_rule: as `Network`.
        rope_float16: as `Network`.
        world_points_head: also build the head for points in the frame of a segment's first camera.

    Raises:
        CheckpointError: tensors are missing or have other shapes.
        ValueError: no update rule of that name.
    """
    if world_points_head and not any(_WORLD_HEAD in name for name in checkpoint.tensors):
        raise CheckpointError(
            f"{checkpoint.path}: has no head for points in the world frame; "
            "convert the official file again with --world-points-head"
        )
    with shapes_only():
        network = Network(
            checkpoint.config,
            update_rule=update_rule,
            rope_float16=rope_float16,
            world_points_head=world_points_head,
        )
    tensors = checkpoint.select(parameter_shapes(network))
    # Moved before it is widened: half of the bytes to transfer for files in half precision.
    weights = {name: tensor.to(device).to(torch.float32) for name, tensor in tensors.items()}
    network.load_state_dict(weights, assign=True)
    return network.requires_grad_(False).eval()


def parameter_shapes(network: Network) -> dict[str, torch.Size]:
    """Return the shape of every tensor of a network by official name."""
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read what a file of weights says, without reading the weights themselves.

    Args:
        path: our `.safetensors`; any other suffix is taken for the official `.pth` layout.

    Raises:
        CheckpointError: no such file, damaged, of another kind, or unsafe.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        if path.stat().st_size == 0:
            raise CheckpointError(f"{path}: empty file")
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_official(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


def _read_official(path: Path) -> Checkpoint:
    content = read_torch_file(path)
    tensors = content.get("model")
    if not isinstance(tensors, dict) or not tensors:
        raise CheckpointError(f"{path}: no weights, expected a dictionary under 'model'")
    texts = {text.strip() for text in strings_in(content.get("args"))}
    models = [text for text in texts if text.startswith(MODEL_PREFIX)]
    if len(models) != 1:
        raise CheckpointError(
            f"{path}: expected one string beginning with {MODEL_PREFIX} in 'args', "
            f"found {len(models)}"
        )
    try:
        model = parse_model_string(models[0])
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if model.unknown:
        _log.warning("%s: model string: ignored %s", path, ", ".join(model.unknown))
    return Checkpoint(
        path=path,
        config=model.config,
        image_size=model.image_size,
        tensors=_official_names(tensors),
        licence=OFFICIAL_LICENCE,
        settings=OFFICIAL_SETTINGS,
        source="",
        unknown=model.unknown,
    )


def _official_names(tensors: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Undo a wrapper's prefix, and add the tensors a file may leave to be derived."""
    result = {str(name): value for name, value in tensors.items() if torch.is_tensor(value)}
    if all(name.startswith("module.") for name in result):
        result = {name.removeprefix("module."): tensor for name, tensor in result.items()}
    # The four reducing convolutions of a DPT head stand under two names; one is enough.
    for name in [name for name in result if ".scratch.layer_rn." in name]:
        other = re.sub(r"layer_rn\.(\d)", lambda found: f"layer{int(found[1]) + 1}_rn", name)
        result.setdefault(other, result[name])
    # Older files have one decoder for both streams.
    if not any(name.startswith("dec_blocks_state") for name in result):
        for name in [name for name in result if name.startswith("dec_blocks.")]:
            copy = name.replace("dec_blocks", "dec_blocks_state", 1)
            result[copy] = result[name].clone()
    return result


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged .safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: metadata 'format' must be {FORMAT!r}, got {metadata.get('format')!r}; "
            "official files are converted with `ttt3r convert`"
        )
    try:
        return Checkpoint(
            path=path,
            config=NetworkConfig(**json.loads(metadata["config"])),
            image_size=int(metadata["image_size"]),
            tensors=tensors,
            licence=metadata["licence"],
            settings=dict(json.loads(metadata["settings"])),
            source=metadata["source"],
            unknown=(),
        )
    except KeyError as error:
        raise CheckpointError(f"{path}: metadata {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: wrong metadata: {error}") from error
