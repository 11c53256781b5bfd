# SPDX-License-Identifier: Apache-2.0
"""Time and memory of putting one image into the map, beside Open3D and KISS-ICP.

    python benchmarks/bench_map.py
    python benchmarks/bench_map.py --quick
    python benchmarks/bench_map.py --device cuda --without-peers

Images of 512x384 of a simulated room, at strides 1, 2 and 4, go into maps that hold 0.1, 1 and 5
million voxels of 5 cm of other places. All contestants take turns with each image, in changing
order, on the same CPU cores and with as many threads; the first round, in which memory comes from
the system and the room becomes known, is not counted. Time runs from tensors in memory (for
Open3D's grid: the depth image) to the updated map.

Two do the same work: in each voxel the mean position and colour over all images that saw it,
where an image counts by the mean weight of its points there, however many they are.

- `VoxelMap`, ours. Does besides: hits, time and segment of each voxel, a bound to memory, and it
  takes points that are not finite.
- Open3D `HashMap`: the cells of an image's points go into an `o3d.core.HashMap`, their weighted
  sums into its buffer; then these cells go into the map's and are added there. Open3D's tensors
  cannot add by index in Python, so torch does that, in Open3D's memory.

The others do something else. They are there because one would take them for the purpose.

- Open3D `HashMap`, points: the same without images. All points go into the map's buffer at once,
  so that a close look with its many points outweighs all others. No weights.
- Open3D `PointCloud`: `append` and `voxel_down_sample` of the whole map, the nearest that Open3D
  has ready. What was a mean of many points counts as one of the next. No weights.
- Open3D `VoxelBlockGrid`: `integrate` with colour. No points: each voxel near a surface looks up
  one pixel and averages its distance to it. So the number of pixels hardly matters; it needs the
  depth image of a pinhole; and points come out only by a search for the surface, not timed here.
  With its defaults (blocks of 16^3 voxels, truncated at 8), and as lean as can be (8^3, 2).
- KISS-ICP `VoxelHashMap`: keeps up to 20 of the points themselves in a voxel. No means, no colour.

Those have to be installed, `pip install 'ttt3r_ros[benchmark]'`; the program first makes sure that
the one that does the same work has the same result.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

# Idle threads of torch sleep: spinning, they would take time from those of the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

import numpy as np
import torch

from benchmarks import timing
from benchmarks.harness import table
from benchmarks.map_images import (
    FAR_M,
    VOXEL_M,
    Cells,
    Cloud,
    Image,
    centres,
    elsewhere,
    film,
    parts,
)
from benchmarks.map_peers import PEERS, ROOM_CELLS, SAME_WORK, PeerMissing
from benchmarks.timing import spent
from ttt3r_ros.mapping.voxel_map import VoxelMap

DEFAULT_STRIDE = 2
OURS = "VoxelMap"
_SLOW_S = 0.1  # for a first image; who needs more gets one image of a round
_LEAST_EQUAL = 1e-4  # metres by which the means of the same work may differ


class Contestant(Protocol):
    """A map under test."""

    def fill(self, cells: Cells) -> None:
        """Make voxels known in which no image has points."""

    def insert(self, image: Image) -> None:
        """Put an image in: what is timed."""


class Ours:
    """The map of this package."""

    def __init__(self, max_points: int, device: torch.device) -> None:
        """Make an empty one."""
        self.map = VoxelMap(VOXEL_M, max_points, device)
        self._device = device

    def fill(self, cells: Cells) -> None:
        """Put one point into each voxel."""
        for part in parts(cells):
            points = torch.from_numpy(centres(part)).to(self._device)
            self.map.insert(points, torch.full_like(points, 128), torch.ones_like(points[:, 0]))

    def insert(self, image: Image) -> None:
        """Put an image in."""
        self.map.insert(image.points, image.colours, image.weights)

    def cloud(self) -> Cloud:
        """Return the means."""
        cloud = self.map.cloud()
        return cloud.points.astype(np.float64), cloud.colours.astype(np.float64)


def measure(
    contestants: Mapping[str, Contestant],
    images: Sequence[Image],
    rounds: int,
    device: torch.device,
) -> dict[str, list[float]]:
    """Return seconds of each insertion by contestant.

    All take each image in turn, in changing order, after a round that is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names, slow = list(contestants), set()
    for number in range(1 + rounds):
        for k, image in enumerate(images):
            first = (number + k) % len(names)
            for name in (*names[first:], *names[:first]):
                if k and name in slow:
                    continue
                elapsed, _ = spent(partial(contestants[name].insert, image), device)
                if number:
                    seconds[name].append(elapsed)
                elif elapsed > _SLOW_S:
                    slow.add(name)
    return seconds


def row_of(
    scene: str, stride: int, voxels: int, points: int, seconds: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Return one row of the table; by contestant numbers, or None where there are none."""
    times: dict[str, dict[str, float] | None] = dict.fromkeys((OURS, *PEERS))
    for name, values in seconds.items():
        median, p95 = timing.quantiles(values)
        times[name] = {"median_ms": median, "p95_ms": p95, "runs": len(values)}
    return {"scene": scene, "stride": stride, "voxels": voxels, "points": points, "times": times}


def speedup(rows: Sequence[dict[str, Any]], peer: str) -> float | None:
    """Return how many times faster than a peer ours is at the default stride, in its worst row."""
    ratios = [
        row["times"][peer]["median_ms"] / row["times"][OURS]["median_ms"]
        for row in rows
        if row["stride"] == DEFAULT_STRIDE and row["times"][peer]
    ]
    return min(ratios, default=None)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    sizes: tuple[int, ...] = (100_000, 1_000_000, 5_000_000)  # voxels
    strides: tuple[int, ...] = (1, 2, 4)
    images: int = 8
    rounds: int = 5
    width: int = 512  # of the images, in pixels; three quarters of it high
    full: int = 1_000_000  # voxels of the map that has to make room


QUICK = Plan(sizes=(100_000, 1_000_000), strides=(DEFAULT_STRIDE,), images=4)
TINY = Plan(sizes=(3000,), strides=(DEFAULT_STRIDE,), images=2, rounds=1, width=64, full=4000)
PLANS = {"whole": Plan(), "quick": QUICK, "tiny": TINY}


def check_same_work(width: int = 64) -> None:
    """Make sure that who is said to do the same work has the same means.

    Raises:
        PeerMissing: a peer cannot be used.
        RuntimeError: they differ.
    """
    for make in PEERS.values():
        make(0)  # now, not after minutes
    ours, peer = Ours(ROOM_CELLS, torch.device("cpu")), PEERS[SAME_WORK](0)
    for image in film(3, 1, width):
        ours.insert(image)
        peer.insert(image)
    if not equal_clouds(ours.cloud(), peer.cloud()):
        raise RuntimeError(f"{SAME_WORK} has other means than {OURS}")


def equal_clouds(one: Cloud, other: Cloud) -> bool:
    """Whether two maps have the same voxels with the same means; colours may be rounded."""
    if len(one[0]) != len(other[0]):
        return False
    points, colours = (
        [c[k][np.lexsort(np.floor(c[0] / VOXEL_M).T)] for c in (one, other)] for k in (0, 1)
    )
    far, off = np.abs(points[0] - points[1]).max(), np.abs(colours[0] - colours[1]).max()
    return bool(far < _LEAST_EQUAL and off < 0.51)


def run(plan: Plan, device: torch.device, with_peers: bool = True) -> Iterator[dict[str, Any]]:
    """Measure and yield row after row; without peers their numbers are None.

    Raises:
        PeerMissing: there are to be peers, and one cannot be used.
    """
    peers = PEERS if with_peers else {}
    if with_peers:
        check_same_work()
    films = {stride: film(plan.images, stride, plan.width) for stride in plan.strides}
    room = films[min(films)]
    for voxels in plan.sizes:
        contestants: dict[str, Contestant] = {OURS: Ours(voxels + ROOM_CELLS, device)}
        contestants |= {name: make(voxels) for name, make in peers.items()}
        for one in contestants.values():
            one.fill(elsewhere(room, voxels))
        for stride, images in films.items():
            images = [on_device(image, device) for image in images]
            seconds = measure(contestants, images, plan.rounds, device)
            yield row_of("known room", stride, voxels, len(images[0].points), seconds)
    for stride, images in films.items():
        yield making_room(images, stride, plan, device)


def making_room(
    images: Sequence[Image], stride: int, plan: Plan, device: torch.device
) -> dict[str, Any]:
    """Time images of places that a full map does not know; the peers have no bound."""
    ours = Ours(plan.full, device)
    ours.fill(elsewhere(images, plan.full))
    seconds = []
    for number in range((1 + plan.rounds) * len(images)):
        image = images[number % len(images)]
        beside = torch.tensor([0.0, 0.0, FAR_M * (1 + number)])
        image = on_device(replace(image, points=image.points + beside), device)
        elapsed, _ = spent(partial(ours.insert, image), device)
        if number >= len(images):
            seconds.append(elapsed)
    points = len(images[0].points)
    return row_of("new places, map full", stride, plan.full, points, {OURS: seconds})


def on_device(image: Image, device: torch.device) -> Image:
    """The image with what our map takes on a device."""
    names = ("points", "colours", "weights")
    return replace(image, **{name: getattr(image, name).to(device) for name in names})


def markdown(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The table."""
    cells = [
        [row["scene"], row["stride"], f"{row['voxels'] / 1e6:g} M"]
        + [
            f"{times['median_ms']:.1f} ({times['p95_ms']:.1f})" if times else "-"
            for times in row["times"].values()
        ]
        for row in rows
    ]
    ratios = {name: speedup(rows, name) for name in PEERS}
    measured = ", ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items() if ratio)
    voxels = VoxelMap(VOXEL_M, 1000, "cpu")
    return [
        *table(["median (p95), ms", "stride", "voxels in the map", OURS, *PEERS], cells),
        f"Time of others divided by ours at stride {DEFAULT_STRIDE}, the worst size: "
        f"{measured or 'not measured'}. The map reserves {voxels.nbytes / 1000:.0f} bytes for "
        f"each point of `max_points`. {max(row['times'][OURS]['runs'] for row in rows)} runs at "
        "most.",
    ]


@contextlib.contextmanager
def limited_to(threads: int) -> Iterator[None]:
    """Give this process so many cores, and each library that is loaded within as many threads.

    Cores too, for not every library asks how many threads it may have.
    """
    before, cores = torch.get_num_threads(), None
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(cores)[:threads])
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if cores:
            os.sched_setaffinity(0, cores)


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = timing.parser("Time putting an image into the map; the peers run on a CPU only.")
    # One: with more, whatever else runs beside holds up those who wait for all of their threads.
    parser.set_defaults(threads=1)
    add = parser.add_argument
    add("--quick", dest="plan", action="store_const", const="quick", help="fewer sizes, strides")
    add("--plan", choices=PLANS, default="whole", help="tiny: only to see whether it runs")
    add("--without-peers", action="store_true", help="measure only the map of this package")
    arguments = parser.parse_args(words)
    device, with_peers = torch.device(arguments.device), not arguments.without_peers
    if with_peers and device.type != "cpu":
        parser.error("--device: the peers run on a CPU only; leave them out with --without-peers")
    try:
        with limited_to(arguments.threads):
            rows = run(PLANS[arguments.plan], device, with_peers)
            timing.show(rows, markdown, device, arguments.json)
    except PeerMissing as missing:
        parser.error(str(missing))


if __name__ == "__main__":
    main()
