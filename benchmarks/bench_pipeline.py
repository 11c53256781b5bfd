# SPDX-License-Identifier: Apache-2.0
"""Images per second through `Pipeline.process`, and where the time goes.

    python benchmarks/bench_pipeline.py                               # the shipped model
    python benchmarks/bench_pipeline.py --network 512x384 --images 5  # of the published size
    python benchmarks/bench_pipeline.py --device cuda --dtype float32 bfloat16

Images of a simulated room go the way that they go in the node and offline. Whole images are timed
by themselves; the parts in further images, on a GPU with a wait for it after each part. Networks of
a published size have random weights: whatever they say counts as tracked, and their points, which
lie anywhere, all go into the map, which is more work there than points of a room.
"""

from __future__ import annotations

import argparse
import functools
import gc
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

import cv2
import numpy as np
import numpy.typing as npt
import torch

from benchmarks import timing
from benchmarks.harness import table
from benchmarks.networks import SIZES, random_weights
from ttt3r_ros.config import (
    ConfidenceConfig,
    Config,
    DepthConfig,
    RecoveryConfig,
    TrackingConfig,
)
from ttt3r_ros.loading import Model, find_device, prepare
from ttt3r_ros.network.acceleration import ACCELERATIONS
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.precision import PRECISIONS
from ttt3r_ros.network.shapes_only import shapes_only
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions
from ttt3r_ros.types import Frame, TrackingState

SHIPPED = "shipped"
SEED = 2_700_000
RATE_HZ = 10.0
PARTS = ("preprocessing", "network", "download", "tracking state", "map")
_WARM_UP = 3
_FILM_S = 6.0
_NEVER_LOST = TrackingConfig(
    lost_contrast=0.0,
    odd_similarity=-1.0,
    lost_similarity=-1.0,
    odd_repeats=0,
    odd_confidence=0.0,
    odd_jump=1e9,
    odd_share_seen=0.0,
)


@functools.cache
def scene(width: int, height: int) -> Scene:
    """A robot's camera in a room."""
    return Scene(SceneOptions(seed=SEED, width=width, height=height))


@functools.cache
def picture(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """One picture [H, W, 3] of its path, rendered once, at a quarter of the size."""
    small = scene(width // 4, height // 4).view(index / RATE_HZ).rgb.numpy()
    return np.asarray(cv2.resize(small, (width, height)), np.uint8)


def film(width: int, height: int) -> Iterator[Frame]:
    """Images of the path, there and back without end."""
    last = round(_FILM_S * RATE_HZ) - 1
    for index in count():
        place = index % (2 * last)
        rgb = picture(min(place, 2 * last - place), width, height)
        yield Frame(round(index * 1e9 / RATE_HZ), rgb)


def make_pipeline(
    network: str,
    dtype: str,
    device: torch.device,
    process_all_images: bool,
    acceleration: str = "auto",
) -> Pipeline:
    """In front of its first image."""
    config = Config(
        device=str(device),
        dtype=dtype,
        process_all_images=process_all_images,
        acceleration=acceleration,
    )
    if network == SHIPPED:
        return Pipeline.from_config(config)
    size = SIZES[network]
    with shapes_only():
        made = Network(size.config)
    random_weights(made, device)
    prepare(made, dtype, device)
    config = replace(
        config,
        tracking=_NEVER_LOST,
        recovery=RecoveryConfig(keyframes=0),
        confidence=ConfidenceConfig(min=1.0),
        depth=DepthConfig(max_m=1000.0),
        map=replace(config.map, edge_filter=0.0),
    )
    return Pipeline(Model(made, device, size.width, {}, ""), config)


@contextmanager
def parts_timed(pipeline: Pipeline) -> Iterator[dict[str, float]]:
    """Add up the seconds of each part while this lasts."""
    spent: dict[str, float] = defaultdict(float)
    device = pipeline.model.device
    tracker = pipeline._tracker
    found: tuple[tuple[Any, str, str], ...] = (
        (tracker._preprocessor, "image", "preprocessing"),
        (tracker._network, "encode", "network"),
        (tracker._network, "advance", "network"),
        (tracker, "_download", "download"),
        (tracker.monitor, "observe", "tracking state"),
        (pipeline, "integrate", "map"),
    )
    originals = [getattr(owner, name) for owner, name, _ in found]
    for (owner, name, part), original in zip(found, originals, strict=True):
        setattr(owner, name, _timed(original, part, spent, device))
    try:
        yield spent
    finally:
        for owner, name, _ in found:
            delattr(owner, name)  # the class's own is behind it


def _timed(original: Any, part: str, spent: dict[str, float], device: torch.device) -> Any:
    @functools.wraps(original)
    def timed(*args: Any, **kwargs: Any) -> Any:
        began_s = time.perf_counter()
        result = original(*args, **kwargs)
        timing.synchronize(device)
        spent[part] += time.perf_counter() - began_s
        return result

    return timed


def run(pipeline: Pipeline, frames: Iterator[Frame], images: int) -> dict[str, Any]:
    """Time so many whole images, then the parts of as many."""
    timing.reset_memory(pipeline.model.device)
    for frame in islice(frames, _WARM_UP):
        pipeline.process(frame)
    times_ms, lost = [], 0
    for frame in islice(frames, images):
        began_s = time.perf_counter()
        result = pipeline.process(frame)
        timing.synchronize(pipeline.model.device)
        times_ms.append(1e3 * (time.perf_counter() - began_s))
        lost += result.state is TrackingState.LOST
    with parts_timed(pipeline) as spent:
        for frame in islice(frames, images):
            pipeline.process(frame)
    return {
        "network_image": f"{result.rgb.shape[1]}x{result.rgb.shape[0]}",
        "images": images,
        "images_lost": lost,
        "images_per_s": 1e3 * images / sum(times_ms),
        "median_ms": statistics.median(times_ms),
        "p95_ms": float(np.quantile(times_ms, 0.95)),
        "parts_ms": {part: 1e3 * spent[part] / images for part in PARTS},
        "map_points": len(pipeline.map),
        "memory_bytes": timing.memory_bytes(pipeline.model.device),
    }


def measure(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each network, dtype and camera."""
    device = find_device(arguments.device)
    for network in arguments.network:
        for dtype in arguments.dtype:
            for camera in arguments.camera:
                width, height = map(int, camera.split("x"))
                pipeline = make_pipeline(
                    network, dtype, device, arguments.exact, arguments.acceleration
                )
                row = run(pipeline, film(width, height), arguments.images)
                yield {"network": network, "dtype": dtype, "camera": camera, **row}
                del pipeline
                gc.collect()


def markdown(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table."""
    heads = ["network", "its image", "dtype", "camera", "images/s", "median (p95) [ms]", *PARTS]
    return [
        *table(
            [*heads, "memory [GB]", "images LOST"],
            (
                [
                    *(row[name] for name in ("network", "network_image", "dtype", "camera")),
                    f"**{row['images_per_s']:.1f}**",
                    f"{row['median_ms']:.1f} ({row['p95_ms']:.1f})",
                    *(f"{row['parts_ms'][part]:.2f}" for part in PARTS),
                    timing.in_gigabytes(row["memory_bytes"]),
                    f"{row['images_lost']} of {row['images']}",
                ]
                for row in rows
            ),
        ),
        "Parts: mean ms. Memory: the most so far, on a GPU since the row began.",
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = timing.parser("Time images through the pipeline.")
    add = parser.add_argument
    networks = (SHIPPED, *SIZES)
    add("--network", nargs="+", choices=networks, default=[SHIPPED], help="default: %(default)s")
    add("--dtype", nargs="+", choices=PRECISIONS, default=["float32"])
    add("--acceleration", choices=("auto", *ACCELERATIONS), default="auto", help="see config.py")
    add("--camera", nargs="+", default=["640x480"], metavar="WxH", help="size of the images")
    add("--images", type=int, default=150, help="that are counted")
    add("--exact", action="store_true", help="preprocessing as published, as offline runs do it")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    timing.show(measure(arguments), markdown, arguments.device, arguments.json)


if __name__ == "__main__":
    main()
