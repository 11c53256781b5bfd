# SPDX-License-Identifier: Apache-2.0
"""Does a file of weights work on this machine? One built-in image, a few steps, a short report."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ttt3r_ros.camera.preprocessing import RgbImage, resize_and_crop, to_network_input
from ttt3r_ros.loading import prepare
from ttt3r_ros.network.checkpoint import Checkpoint, build_network, read_checkpoint
from ttt3r_ros.network.prediction import Prediction

_TIMED_STEPS = 3  # official weights need seconds per step without a GPU


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found."""

    checkpoint: Checkpoint
    file_bytes: int
    parameters: int  # of the network as built, heads that are not needed left out
    device: str  # by name
    image: tuple[int, int]  # width and height of the network's image, pixels
    finite: bool  # points, confidence and pose of every step
    step_s: float  # median of a few steps after the first, the device's work included


def check(path: str | Path, *, device: str | torch.device = "cpu") -> CheckReport:
    """Load a file of weights and step the network over a built-in image.

    Args:
        path: as `read_checkpoint`.
        device: where to run.

    Raises:
        CheckpointError: the file cannot be used.
    """
    device = torch.device(device)
    checkpoint = read_checkpoint(path)
    network = build_network(checkpoint, device=device)
    prepare(network, "auto", device)
    rgb, plan = resize_and_crop(
        picture(), checkpoint.image_size, patch_size=checkpoint.config.patch_size
    )
    durations = []
    finite = True
    with torch.inference_mode():
        image = to_network_input(rgb, device)
        state = network.initial_state()
        for _ in range(1 + _TIMED_STEPS):
            _wait_for(device)
            start = time.perf_counter()
            state, prediction = network.step(state, image)
            _wait_for(device)
            durations.append(time.perf_counter() - start)
            finite = finite and _is_finite(prediction)
    return CheckReport(
        checkpoint=checkpoint,
        file_bytes=checkpoint.path.stat().st_size,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        image=(plan.width, plan.height),
        finite=finite,
        step_s=statistics.median(durations[1:]),
    )


def format_report(report: CheckReport) -> str:
    """Return the report as text of several lines."""
    checkpoint, config = report.checkpoint, report.checkpoint.config
    dtypes = sorted({str(t.dtype).removeprefix("torch.") for t in checkpoint.tensors.values()})
    lines = {
        "file": f"{checkpoint.path} ({report.file_bytes / 1e6:.1f} MB, {', '.join(dtypes)})",
        "licence": checkpoint.licence or "not stated",
        "converted from": checkpoint.source,
        "head": config.head_type,
        "encoder": f"{config.enc_depth} x {config.enc_embed_dim}, {config.enc_num_heads} heads",
        "decoder": f"{config.dec_depth} x {config.dec_embed_dim}, heads: "
        f"{config.dec_num_heads} image, {config.state_dec_num_heads} state",
        "state": f"{config.state_size} tokens, {config.local_mem_size} memory slots",
        "parameters": f"{report.parameters:,}",
        "not understood": ", ".join(checkpoint.unknown),
        "recommended": ", ".join(f"{k}={v}" for k, v in checkpoint.settings.items()),
        "image": f"{report.image[0]} x {report.image[1]} from 640 x 480",
        "outputs": "finite" if report.finite else "NOT FINITE: these weights are of no use",
        "speed": f"{report.step_s:.3g} s per image on {report.device}",
    }
    return "\n".join(f"{name + ':':16}{text}" for name, text in lines.items() if text)


def picture() -> RgbImage:
    """Return the built-in image, uint8 [480, 640, 3]: a chequered floor before a shaded wall."""
    row, column = np.mgrid[0:480, 0:640]
    depth = 200.0 / np.maximum(row - 239.5, 1.0)  # of the floor, which begins in the middle
    across = (column - 319.5) * depth / 320
    floor = np.where((np.floor(3 * across) + np.floor(depth)) % 2, 200.0, 60.0)
    wall = 90 + 0.25 * column + 30 * np.sin(row / 17) * np.sin(column / 23)
    grey = np.where(row >= 240, floor, wall)
    rgb: RgbImage = np.stack((grey, 0.9 * grey, 0.75 * grey), axis=-1).clip(0, 255).astype(np.uint8)
    return rgb


def _is_finite(prediction: Prediction) -> bool:
    outputs = (prediction.points, prediction.confidence, prediction.pose)
    return all(bool(output.isfinite().all()) for output in outputs)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
