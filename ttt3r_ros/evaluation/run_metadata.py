# SPDX-License-Identifier: Apache-2.0
"""What a result was made with: versions, hardware and weights."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import torch

import ttt3r_ros
from ttt3r_ros.config import Config
from ttt3r_ros.io.atomic import sha256
from ttt3r_ros.loading import SHIPPED


def versions() -> dict[str, str | None]:
    """Return the versions of what results depend on; None for what is not installed."""
    found: dict[str, str | None] = {"ttt3r_ros": ttt3r_ros.__version__}
    for name in ("torch", "numpy", "evo"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return {**found, "python": platform.python_version()}


def hardware(device: torch.device) -> dict[str, Any]:
    """Return what computed, by name."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"cpu": _cpu(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu}


def commit() -> str:
    """Return the commit of this checkout, marked when files differ from it; else "unknown"."""
    command = ["git", "describe", "--always", "--dirty"]
    here = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return "unknown"
    return done.stdout.strip() or "unknown"


def described(device: torch.device) -> str:
    """Return in words what computes, and with how many threads."""
    found = hardware(device)
    return f"{found['gpu'] or found['cpu']}, {found['threads']} threads"


def checkpoint(config: Config) -> dict[str, str]:
    """Return the name of the weights' file, "shipped" for the package's own, and its SHA-256."""
    path = Path(config.checkpoint or SHIPPED)
    return {"name": path.name if config.checkpoint else "shipped", "sha256": sha256(path)}


def of_run(config: Config, device: torch.device) -> dict[str, Any]:
    """Return what the numbers of a benchmark were got with, weights and date among it."""
    return {
        "checkpoint": checkpoint(config),
        "hardware": hardware(device),
        "versions": versions(),
        "date": date.today().isoformat(),
        "commit": commit(),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not on Linux
        pass
    return platform.processor() or platform.machine()
