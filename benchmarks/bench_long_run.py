# SPDX-License-Identifier: Apache-2.0
"""Memory and step time of one pipeline over very many images.

    python benchmarks/bench_long_run.py --images 100000

A simulated robot drives laps through one room at 10 Hz, all through `Pipeline.process` as in the
node: segments, tracking state, keyframes, map. The pictures of one lap are rendered before, so that
nothing but the pipeline takes time or memory afterwards; each gets new noise, so that no two laps
are the same. With `--json` a row is printed every thousandth image.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

from benchmarks import timing
from benchmarks.harness import table
from ttt3r_ros.config import Config
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions
from ttt3r_ros.types import Frame

SEED = 2_700_000
RATE_HZ = 10.0
LAP_S = 60.0
_NOISE = 4  # grey levels, uniform, most
_PERIOD_NS = round(1e9 / RATE_HZ)
_MIB = 1 << 20


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


def run(
    pipeline: Pipeline, pictures: Sequence[npt.NDArray[np.uint8]], images: int, block: int
) -> Iterator[dict[str, Any]]:
    """Drive so many images and yield a row for each block of them.

    Yields:
        `images` since the start; of the block `step_ms`, the tracker's median, `cpu_ms`, mean
        processor time of the whole process per image, and images `lost`; at its end `host_mib`,
        resident, `device_mib`, allocated by torch on a GPU, `map_points` and `segments`.
    """
    random = np.random.default_rng(SEED)
    steps_s: list[float] = []
    states: Counter[str] = Counter()
    cuda = pipeline.model.device.type == "cuda"
    cpu_s = time.process_time()
    for i in range(images):
        picture = noisy(pictures[i % len(pictures)], random)
        result = pipeline.process(Frame(i * _PERIOD_NS, picture))
        steps_s.append(result.step_s)
        states[result.state.name] += 1
        if (i + 1) % block == 0:
            yield {
                "images": i + 1,
                "step_ms": 1e3 * statistics.median(steps_s),
                "cpu_ms": 1e3 * (time.process_time() - cpu_s) / block,
                "host_mib": _resident_mib(),
                "device_mib": torch.cuda.memory_allocated() / _MIB if cuda else 0.0,
                "map_points": len(pipeline.map),
                "segments": result.segment + 1,
                "lost": states["LOST"],
            }
            steps_s.clear()
            states.clear()
            cpu_s = time.process_time()


def markdown(rows: Sequence[dict[str, Any]]) -> list[str]:
    """First and last block side by side."""
    first, second, last = rows[0], rows[min(1, len(rows) - 1)], rows[-1]
    names = {
        "step_ms": "step, median [ms]",
        "cpu_ms": "processor time per image [ms]",
        "host_mib": "host memory at their end [MiB]",
        "device_mib": "device memory at their end [MiB]",
    }
    block = first["images"]
    compared = [
        [
            what,
            f"{first[name]:.2f}",
            f"{last[name]:.2f}",
            f"{last[name] / first[name]:.3f}" if first[name] else "-",
        ]
        for name, what in names.items()
    ]
    return [
        *table(["", f"first {block} images", f"last {block}", "ratio"], compared),
        f"{last['images']} images, {last['segments']} segments, "
        f"{sum(row['lost'] for row in rows)} images LOST, {last['map_points']} points in the map "
        f"(after {second['images']}: {second['map_points']}).",
    ]


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096 / _MIB


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, run, print."""
    parser = timing.parser(__doc__)
    add = parser.add_argument
    add("--images", type=int, default=100_000, help="a multiple of those of a block")
    add("--block", type=int, default=1000, help="images of a row")
    arguments = parser.parse_args(words)
    if arguments.images < arguments.block or arguments.images % arguments.block:
        parser.error(f"--images: must be a multiple of {arguments.block}, got {arguments.images}")
    torch.set_num_threads(arguments.threads)
    pipeline = Pipeline.from_config(Config(device=arguments.device))
    count = min(arguments.images, round(LAP_S * RATE_HZ))
    pictures = lap(count, pipeline.model.image_size)
    rows = run(pipeline, pictures, arguments.images, arguments.block)
    timing.show(rows, markdown, arguments.device, arguments.json)


if __name__ == "__main__":
    main()
