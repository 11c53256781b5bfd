# SPDX-License-Identifier: Apache-2.0
"""Memory and step time of one pipeline over very many images.

    python benchmarks/bench_long_run.py --images 100000

A simulated robot drives laps through one room at 10 Hz, all through `Pipeline.process` as in the
node: segments, tracking state, keyframes, map. The pictures of one lap are rendered before, so that
nothing but the pipeline takes time or memory afterwards; each gets new noise, so that no two laps
are the same. Every thousandth image a row is printed.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions
from ttt3r_ros.types import Frame

SEED = 2_700_000
RATE_HZ = 10.0
LAP_S = 60.0
_BLOCK = 1000  # images of a row
_NOISE = 4  # grey levels, uniform, most
_PERIOD_NS = round(1e9 / RATE_HZ)
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One block of images."""

    images: int  # since the start
    step_ms: float  # median of the block, the tracker's
    cpu_ms: float  # mean processor time of the whole process per image
    host_mib: float  # resident now
    device_mib: float  # allocated by torch on the GPU, else 0
    map_points: int
    segments: int
    lost: int  # images of the block


def lap(images: int, width: int) -> list[npt.NDArray[np.uint8]]:
    """The pictures of one lap, uint8 [H, W, 3]."""
    options = SceneOptions(seed=SEED, width=width, height=3 * width // 4, loop_s=LAP_S)
    scene = Scene(options)
    return [scene.view(LAP_S * i / images).rgb.numpy() for i in range(images)]


def noisy(picture: npt.NDArray[np.uint8], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A picture with new noise."""
    noise = random.integers(-_NOISE, _NOISE + 1, picture.shape, np.int16)
    added: npt.NDArray[np.int16] = picture.astype(np.int16) + noise
    return added.clip(0, 255).astype(np.uint8)


def run(pipeline: Pipeline, pictures: Sequence[npt.NDArray[np.uint8]], images: int) -> list[Row]:
    """Drive so many images, and print and return a row for each block."""
    random = np.random.default_rng(SEED)
    rows: list[Row] = []
    print("images | step ms | CPU ms | host MiB | device MiB | map points | segments | LOST")
    steps_s: list[float] = []
    states: Counter[str] = Counter()
    cpu_s = time.process_time()
    for i in range(images):
        picture = noisy(pictures[i % len(pictures)], random)
        result = pipeline.process(Frame(i * _PERIOD_NS, picture))
        steps_s.append(result.step_s)
        states[result.state.name] += 1
        if (i + 1) % _BLOCK == 0:
            spent_s = time.process_time() - cpu_s
            row = Row(
                images=i + 1,
                step_ms=1e3 * statistics.median(steps_s),
                cpu_ms=1e3 * spent_s / _BLOCK,
                host_mib=_resident_mib(),
                device_mib=torch.cuda.memory_allocated() / _MIB if _cuda(pipeline) else 0.0,
                map_points=len(pipeline.map),
                segments=result.segment + 1,
                lost=states["LOST"],
            )
            rows.append(row)
            print(
                f"{row.images} | {row.step_ms:.2f} | {row.cpu_ms:.2f} | {row.host_mib:.1f} | "
                f"{row.device_mib:.1f} | {row.map_points} | {row.segments} | {row.lost}",
                flush=True,
            )
            steps_s.clear()
            states.clear()
            cpu_s = time.process_time()
    return rows


def summary(rows: Sequence[Row], lost: int) -> str:
    """First and last block side by side."""
    first, second, last = rows[0], rows[min(1, len(rows) - 1)], rows[-1]
    return "\n".join(
        [
            "| | first 1000 images | last 1000 | ratio |",
            "|---|---|---|---|",
            _compared("step, median [ms]", first.step_ms, last.step_ms),
            _compared("processor time per image [ms]", first.cpu_ms, last.cpu_ms),
            _compared("host memory at their end [MiB]", first.host_mib, last.host_mib),
            _compared("device memory at their end [MiB]", first.device_mib, last.device_mib),
            "",
            f"{last.images} images, {last.segments} segments, {lost} images LOST, "
            f"{last.map_points} points in the map (after 2000: {second.map_points}).",
        ]
    )


def _compared(name: str, first: float, last: float) -> str:
    ratio = f"{last / first:.3f}" if first else "-"
    return f"| {name} | {first:.2f} | {last:.2f} | {ratio} |"


def _cuda(pipeline: Pipeline) -> bool:
    return pipeline.model.device.type == "cuda"


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096 / _MIB


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--images", type=int, default=100_000, help=f"a multiple of {_BLOCK}")
    add("--device", default="cpu", help="cpu or cuda")
    add("--csv", type=Path, metavar="FILE", help="write the rows here")
    arguments = parser.parse_args(words)
    if arguments.images < _BLOCK or arguments.images % _BLOCK:
        parser.error(f"--images: must be a multiple of {_BLOCK}, got {arguments.images}")

    config = Config(device=arguments.device)
    pipeline = Pipeline.from_config(config)
    pictures = lap(round(LAP_S * RATE_HZ), pipeline.model.image_size)
    began_s = time.perf_counter()
    rows = run(pipeline, pictures, arguments.images)
    print(f"\n{summary(rows, sum(row.lost for row in rows))}")
    print(
        f"{run_metadata.described(pipeline.model.device)}, {time.perf_counter() - began_s:.0f} s, "
        f"{date.today().isoformat()}, commit {run_metadata.commit()}"
    )
    if arguments.csv:
        with arguments.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([entry.name for entry in fields(Row)])
            writer.writerows(astuple(row) for row in rows)


if __name__ == "__main__":
    main()
