# SPDX-License-Identifier: Apache-2.0
"""Reading and converting a file of official size: time, memory and one step of the network.

    python benchmarks/bench_checkpoint.py --directory /somewhere/with/10/GB

The weights are random, under the official names and shapes; the files are removed at the end.
Each row is a process of its own. "Anonymous" is memory that only this process holds, "file" is
what it has mapped from files, which the system may drop and read again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch

from ttt3r_ros.camera.preprocessing import resize_and_crop, to_network_input
from ttt3r_ros.check import picture
from ttt3r_ros.network.checkpoint import build_network, read_checkpoint
from ttt3r_ros.network.convert import convert

NAMES = Path(__file__).parents[1] / "test" / "data" / "golden" / "official_params.json"
MODEL_TEXT = (
    "ARCroco3DStereo(ARCroco3DStereoConfig(state_size=768, pos_embed='RoPE100', pose_head=True, "
    "img_size=({size}, {size}), head_type='{head}', output_mode='pts3d+pose', "
    "enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, "
    "dec_embed_dim=768, dec_depth=12, dec_num_heads=12))"
)


def write_official_size(path: Path, size: str) -> None:
    """Write random weights in the official layout."""
    torch.manual_seed(0)
    tensors = {}
    for name, shape in json.loads(NAMES.read_text())[size].items():
        if ".scratch.layer_rn." not in name:  # second names of other tensors
            norm = "norm" in name and name.endswith("weight") and len(shape) == 1
            tensors[f"module.{name}"] = torch.ones(shape) if norm else 0.02 * torch.randn(shape)
    text = MODEL_TEXT.format(size=size, head="dpt" if size == "512" else "linear")
    torch.save({"model": tensors, "args": argparse.Namespace(model=text)}, path)


def load_and_step(path: Path) -> str:
    """Load a file, step the network twice, and say what that took."""
    imported = _memory()["RssAnon"]
    start = time.perf_counter()
    checkpoint = read_checkpoint(path)
    network = build_network(checkpoint)
    load_s = time.perf_counter() - start
    loaded = _memory()
    rgb, _ = resize_and_crop(picture(), checkpoint.image_size)
    image = to_network_input(rgb)
    state = network.initial_state()
    steps = []
    with torch.inference_mode():
        for _ in range(2):
            start = time.perf_counter()
            state, _ = network.step(state, image)
            steps.append(time.perf_counter() - start)
    stepped = _memory()
    return (
        f"load {load_s:.2f} s, steps {steps[0]:.1f} and {steps[1]:.1f} s; MB: "
        f"imports {imported}, loaded {loaded['RssAnon']} anonymous + {loaded['RssFile']} file, "
        f"stepped {stepped['RssAnon']} + {stepped['RssFile']}, peak {stepped['VmHWM']}"
    )


def convert_to(path: Path, target: Path, dtype: str) -> str:
    """Convert a file and say what that took."""
    start = time.perf_counter()
    convert(path, target, dtype=dtype)
    spent = time.perf_counter() - start
    memory = _memory()
    return f"{spent:.1f} s, {target.stat().st_size / 1e6:.0f} MB; peak {memory['VmHWM']} MB in all"


def _memory() -> dict[str, int]:
    """Return this process's memory in MB by the names of /proc (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(text.split()[0]) // 1000 for name, text in pairs if text.endswith("kB")}


def _alone(work: Callable[..., object], *arguments: object) -> object:
    """Run `work` in a fresh process, so that memory is its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def main() -> None:
    """Print a line per step of the way from an official file to an image's points."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--directory", type=Path, help="for the files; default: a temporary one")
    parser.add_argument("--size", choices=("512", "224"), default="512", help="which official file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        official = Path(directory) / "official.pth"
        _alone(write_official_size, official, arguments.size)
        print(f"official .pth, {official.stat().st_size / 1e6:.0f} MB")
        print(f"  {_alone(load_and_step, official)}", flush=True)
        for dtype in ("float32", "float16"):
            target = Path(directory) / f"{dtype}.safetensors"
            print(f"converted to {dtype}")
            print(f"  {_alone(convert_to, official, target, dtype)}")
            print(f"  {_alone(load_and_step, target)}", flush=True)


if __name__ == "__main__":
    main()
