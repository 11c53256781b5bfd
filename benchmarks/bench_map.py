# SPDX-License-Identifier: Apache-2.0
"""Time and memory of putting one image into the map, beside Open3D and KISS-ICP.

    python benchmarks/bench_map.py
    python benchmarks/bench_map.py --quick --json
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

`speedup_vs_best_peer` is the time of the best peer that does the same work divided by ours, at
the map's default stride of 2 and in the size where it is least; `speedup_vs` has all the others.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import importlib.metadata
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Protocol

# Idle threads of torch sleep: spinning, they would take time from those of the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the package

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ttt3r_ros.evaluation import run_metadata as run_metadata
from ttt3r_ros.geometry import Intrinsics, Transform, orthonormal
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.simulation import make_rooms, make_trajectory, render

VOXEL_M = 0.05
SEED = 2_600_000  # of the room
FAR_M = 20.0  # the room is smaller
ROOM_CELLS = 300_000  # more than an image has points and the room cells
DEFAULT_STRIDE = 2
OURS = "VoxelMap"

Cells = npt.NDArray[np.int64]  # [N, 3]
Cloud = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # points [N, 3], colours [N, 3]


class PeerMissing(RuntimeError):
    """A library to compare with cannot be used here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image as each contestant wants it, every `stride`-th pixel."""

    points: Tensor  # float32 [N, 3] metres in the world
    colours: Tensor  # uint8 [N, 3]
    weights: Tensor  # float32 [N]
    depth_m: Tensor  # float32 [H, W, 1]
    rgb: Tensor  # float32 [H, W, 3] from 0 to 1
    lens: Intrinsics
    T_world_camera: Transform


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
        for part in _parts(cells):
            points = torch.from_numpy(_centres(part)).to(self._device)
            self.map.insert(points, torch.full_like(points, 128), torch.ones_like(points[:, 0]))

    def insert(self, image: Image) -> None:
        """Put an image in."""
        self.map.insert(image.points, image.colours, image.weights)

    def cloud(self) -> Cloud:
        """Return the means."""
        cloud = self.map.cloud()
        return cloud.points.astype(np.float64), cloud.colours.astype(np.float64)


class HashMapOfPoints:
    """Sums of points by voxel in Open3D's hash map."""

    def __init__(self, capacity: int) -> None:
        """Make an empty one with all the memory that it will need."""
        self._core = open3d().core
        self._map = self._hash_map(capacity, columns=7)

    def fill(self, cells: Cells) -> None:
        """Add the cells."""
        for part in _parts(cells):
            self._map.activate(self._core.Tensor(part.astype(np.int32)))

    def insert(self, image: Image) -> None:
        """Add each point, its colour and 1."""
        values = torch.empty(len(image.points), 7)
        values[:, :3], values[:, 3:6], values[:, 6] = image.points, image.colours, 1.0
        self._add(self._map, _cells(image), values)

    def cloud(self) -> Cloud:
        """Return the means of voxels that have points."""
        rows = torch.from_numpy(self._map.active_buf_indices().numpy()).long()
        sums = self._values(self._map)[rows].double().numpy()
        sums = sums[sums[:, 6] > 0]
        return sums[:, :3] / sums[:, 6:], sums[:, 3:6] / sums[:, 6:]

    def _hash_map(self, capacity: int, columns: int) -> Any:
        core = self._core
        result = core.HashMap(capacity, core.int32, (3,), (core.float32,), ((columns,),))
        self._values(result).zero_()
        return result

    def _values(self, hash_map: Any) -> Tensor:
        """Return its buffer [rows, columns] as torch sees it."""
        return torch.from_numpy(hash_map.value_tensor().numpy())

    def _add(self, hash_map: Any, cells: Tensor, values: Tensor) -> None:
        keys = self._core.Tensor.from_numpy(cells.numpy())
        hash_map.activate(keys)
        rows, _ = hash_map.find(keys)
        self._values(hash_map).index_add_(0, torch.from_numpy(rows.numpy()), values)


class HashMapOfImages(HashMapOfPoints):
    """Sums of images' means by voxel: one hash map for the image, one for all."""

    def insert(self, image: Image) -> None:
        """Add up what lies in a voxel, and add what that is for each point to the map."""
        values = torch.empty(len(image.points), 8)
        values[:, :3], values[:, 3:6], values[:, 6] = image.points, image.colours, 1.0
        values *= image.weights[:, None]
        values[:, 7] = 1.0
        one = self._hash_map(len(values), columns=8)  # it has no way to be emptied
        self._add(one, _cells(image), values)
        rows = torch.from_numpy(one.active_buf_indices().numpy()).long()
        cells = torch.from_numpy(one.key_tensor().numpy()).index_select(0, rows)
        sums = self._values(one).index_select(0, rows)
        self._add(self._map, cells, sums[:, :7] / sums[:, 7:])


class DownsampledCloud:
    """One cloud, thinned with every image."""

    def __init__(self) -> None:
        """Make an empty one."""
        self._core = open3d().core
        self._new = open3d().t.geometry.PointCloud
        self._cloud: Any = None

    def fill(self, cells: Cells) -> None:
        """Put one point into each voxel."""
        points = torch.from_numpy(_centres(cells))
        self._cloud = self._of(points, torch.full_like(points, 128))

    def insert(self, image: Image) -> None:
        """Append the points and thin the whole."""
        new = self._of(image.points, image.colours.float())
        whole = new if self._cloud is None else self._cloud.append(new)
        self._cloud = whole.voxel_down_sample(VOXEL_M)

    def cloud(self) -> Cloud:
        """Return the means."""
        points, colours = self._cloud.point.positions, self._cloud.point.colors
        return points.numpy().astype(np.float64), colours.numpy().astype(np.float64)

    def _of(self, points: Tensor, colours: Tensor) -> Any:
        cloud = self._new(self._core.Tensor.from_numpy(points.numpy()))
        cloud.point.colors = self._core.Tensor.from_numpy(colours.numpy())
        return cloud


class DistanceGrid:
    """Open3D's truncated signed distances."""

    def __init__(self, edge: int, truncation: float, blocks: int) -> None:
        """Make an empty one of blocks of `edge`^3 voxels, truncated at so many voxels."""
        self._edge, self._truncation = edge, truncation
        self._core, self._image = open3d().core, open3d().t.geometry.Image
        kind = self._core.float32
        self.grid = open3d().t.geometry.VoxelBlockGrid(
            ("tsdf", "weight", "color"), (kind,) * 3, ((1), (1), (3)), VOXEL_M, edge, blocks
        )

    def fill(self, cells: Cells) -> None:
        """Make the blocks of the cells."""
        for part in _parts(np.unique(cells // self._edge, axis=0)):
            self.grid.hashmap().activate(self._core.Tensor(part.astype(np.int32)))

    def insert(self, image: Image) -> None:
        """Integrate depth and colour."""
        tensor = self._core.Tensor
        depth = self._image(tensor.from_numpy(image.depth_m.numpy()))
        colour = self._image(tensor.from_numpy(image.rgb.numpy()))
        lens, T_camera_world = (
            tensor(image.lens.matrix()),
            tensor(np.linalg.inv(image.T_world_camera)),
        )
        pinhole, limits = (lens, T_camera_world), (1.0, FAR_M, self._truncation)
        blocks = self.grid.compute_unique_block_coordinates(depth, *pinhole, *limits)
        self.grid.integrate(blocks, depth, colour, *pinhole, *limits)


class KissPoints:
    """KISS-ICP's map of points."""

    def __init__(self) -> None:
        """Make an empty one that forgets nothing."""
        module = _library("kiss_icp.mapping", "KISS-ICP")
        self.map = module.VoxelHashMap(VOXEL_M, max_distance=1e9, max_points_per_voxel=20)

    def fill(self, cells: Cells) -> None:
        """Put one point into each voxel."""
        self.map.add_points(_centres(cells).astype(np.float64))

    def insert(self, image: Image) -> None:
        """Add the points; it wants them in double precision."""
        self.map.add_points(image.points.double().numpy())


def open3d() -> Any:
    """Return Open3D's module.

    Raises:
        PeerMissing: it is not there, or a system library that it needs.
    """
    # Its wheel needs the system's libusb without saying so; this one brings it along.
    with contextlib.suppress(ImportError):
        path = importlib.import_module("libusb_package").get_library_path()
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    module = _library("open3d", "Open3D")
    module.utility.set_max_threads(torch.get_num_threads())
    return module


def _library(name: str, title: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise PeerMissing(f"{title} cannot be used here: {error}") from error


def film(images: int, stride: int, width: int = 512) -> list[Image]:
    """Render images of a room, each from a place a second further on the camera's way."""
    rooms = make_rooms(SEED)
    times = torch.arange(images, dtype=torch.float64)
    poses = make_trajectory(SEED, rooms, loop_s=60.0).pose(times)  # [1, F, 4, 4]
    height, focal = 3 * width // 4, 0.75 * width
    centre = ((width - 1) / 2, (height - 1) / 2)
    seen = render(rooms, poses, (focal, focal, *centre), height, width)
    lens = Intrinsics(
        *(focal / stride, focal / stride, centre[0] / stride, centre[1] / stride),
        *(-(-width // stride), -(-height // stride)),
    )
    v, u = torch.meshgrid(
        torch.arange(lens.height) - lens.cy, torch.arange(lens.width) - lens.cx, indexing="ij"
    )
    result = []
    for pose, depth, rgb in zip(poses[0], seen.depth_m[0], seen.rgb[0], strict=True):
        z, rgb = depth[::stride, ::stride].float(), rgb[::stride, ::stride].float().contiguous()
        T = orthonormal(pose.double().numpy())
        rotation, translation = torch.from_numpy(T[:3, :3]).float(), torch.from_numpy(T[:3, 3])
        rays = torch.stack([u / lens.fx, v / lens.fy, torch.ones_like(z)], dim=-1)
        points = (rays * z[..., None]).reshape(-1, 3) @ rotation.T + translation.float()
        colours = (255 * rgb).round().byte().reshape(-1, 3)
        weights = z.reshape(-1).clamp(min=0.5).square().reciprocal()  # as the pipeline's
        result.append(Image(points, colours, weights, z[..., None].contiguous(), rgb, lens, T))
    return result


def elsewhere(images: Sequence[Image], count: int, first: int = 0) -> Cells:
    """Return cells of other places: the room as these images see it, again and again beside it.

    Args:
        images: whose cells are copied.
        count: number of cells.
        first: number of the first copy; places of other copies differ.
    """
    points = torch.cat([image.points for image in images])
    room = np.unique(np.floor(points.numpy() / VOXEL_M).astype(np.int64), axis=0)
    numbers = first + np.arange(-(-count // len(room)))
    at = np.stack([numbers % 40 + 1, numbers // 40, np.zeros_like(numbers)], axis=1)
    step = math.ceil(2 * FAR_M / VOXEL_M)
    return (room + step * at[:, None]).reshape(-1, 3)[:count]


def measure(
    contestants: Mapping[str, Contestant],
    images: Sequence[Image],
    rounds: int,
    device: torch.device,
    limit_s: float = math.inf,
) -> dict[str, list[float]]:
    """Return seconds of each insertion by contestant.

    All take each image in turn, in changing order, after a round that is not counted. Who needs
    more than `limit_s` for the very first image gets no other image of a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names, slow = list(contestants), set()
    for number in range(1 + rounds):
        for k, image in enumerate(images):
            first = (number + k) % len(names)
            for name in (*names[first:], *names[:first]):
                if k and name in slow:
                    continue
                elapsed = _seconds(partial(contestants[name].insert, image), device)
                if number:
                    seconds[name].append(elapsed)
                elif elapsed > limit_s:
                    slow.add(name)
    return seconds


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def max_points_exceeded(voxels: VoxelMap, cells: Cells, max_points: int) -> bool:
    """Insert cells, more than fit, and tell whether the map ever holds more than it may.

    Raises:
        ValueError: there are too few cells to tell.
    """
    if len(cells) <= max_points:
        raise ValueError(f"{len(cells)} cells say nothing about a bound of {max_points}")
    most = 0
    for part in _parts(cells, max(1, len(cells) // 10)):
        points = torch.from_numpy(_centres(part))
        voxels.insert(points, torch.zeros_like(points), torch.ones(len(points)))
        most = max(most, len(voxels), len(voxels.cloud().points))
    return most > max_points


def memory(images: Sequence[Image], max_points: int) -> dict[str, Any]:
    """Fill a map beyond its bound; return what it takes, and whether it kept the bound."""
    cells = elsewhere(images, max_points + max_points // 5)
    voxels = VoxelMap(VOXEL_M, max_points, "cpu")
    exceeded = max_points_exceeded(voxels, cells, max_points)
    return {
        "bytes_per_point": voxels.nbytes / max_points,
        "max_points_exceeded": exceeded,
    }


def row_of(
    scene: str, stride: int, voxels: int, points: int, seconds: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Return one row of the table; by contestant numbers, or None where there are none."""
    times: dict[str, dict[str, float] | None] = dict.fromkeys((OURS, *PEERS))
    for name, values in seconds.items():
        median, p95 = (1e3 * float(np.quantile(values, q)) for q in (0.5, 0.95))
        times[name] = {"median_ms": median, "p95_ms": p95, "runs": len(values)}
    return {"scene": scene, "stride": stride, "voxels": voxels, "points": points, "times": times}


def speedup(rows: Sequence[dict[str, Any]], peers: Sequence[str]) -> float | None:
    """Return how many times faster than the best of these peers ours is, in its worst row."""
    ratios = []
    for row in rows:
        found = [row["times"][name] for name in peers]
        medians = [times["median_ms"] for times in found if times]
        if medians:
            ratios.append(min(medians) / row["times"][OURS]["median_ms"])
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

SAME_WORK = ("Open3D HashMap",)
# By name how to make one for a map of so many voxels.
PEERS: dict[str, Callable[[int], Contestant]] = {
    SAME_WORK[0]: lambda voxels: HashMapOfImages(voxels + ROOM_CELLS),
    "Open3D HashMap, points": lambda voxels: HashMapOfPoints(voxels + ROOM_CELLS),
    "Open3D PointCloud": lambda voxels: DownsampledCloud(),
    "Open3D VoxelBlockGrid": lambda voxels: DistanceGrid(16, 8.0, voxels // 140 + 2_000),
    "Open3D VoxelBlockGrid, leanest": lambda voxels: DistanceGrid(8, 2.0, voxels // 45 + 5_000),
    "KISS-ICP VoxelHashMap": lambda voxels: KissPoints(),
}


def run(plan: Plan, device: torch.device, with_peers: bool = True) -> dict[str, Any]:
    """Measure, and return what `--json` prints; without peers their numbers are None.

    Raises:
        PeerMissing: there are to be peers, and one cannot be used.
    """
    peers = PEERS if with_peers else {}
    for make in peers.values():
        make(0)  # now, not after minutes
    films = {stride: film(plan.images, stride, plan.width) for stride in plan.strides}
    room = films[min(films)]
    about_memory = memory(room, plan.full)
    rows = []
    for voxels in plan.sizes:
        contestants: dict[str, Contestant] = {OURS: Ours(voxels + ROOM_CELLS, device)}
        contestants |= {name: make(voxels) for name, make in peers.items()}
        for one in contestants.values():
            one.fill(elsewhere(room, voxels))
        for stride, images in films.items():
            images = [_on(image, device) for image in images]
            seconds = measure(contestants, images, plan.rounds, device, limit_s=0.1)
            rows.append(row_of("known room", stride, voxels, len(images[0].points), seconds))
            print(f"{voxels} voxels, stride {stride}: done", file=sys.stderr, flush=True)
    at_default = [row for row in rows if row["stride"] == DEFAULT_STRIDE]
    rows += [making_room(images, stride, plan, device) for stride, images in films.items()]
    return {
        "speedup_vs_best_peer": speedup(at_default, SAME_WORK),
        "speedup_vs": {name: speedup(at_default, [name]) for name in PEERS},
        **about_memory,
        "rows": rows,
        "hardware": run_metadata.hardware(device),
        "load_average": os.getloadavg()[0],
        "versions": {**run_metadata.versions(), **_peer_versions()},
        "date": date.today().isoformat(),
        "commit": run_metadata.commit(),
    }


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
        image = _on(replace(image, points=image.points + beside), device)
        elapsed = _seconds(partial(ours.insert, image), device)
        if number >= len(images):
            seconds.append(elapsed)
    points = len(images[0].points)
    return row_of("new places, map full", stride, plan.full, points, {OURS: seconds})


def markdown(result: dict[str, Any]) -> str:
    """The result as a table with its run_metadata below."""
    lines = [
        f"| median (p95), ms | stride | voxels in the map | {OURS} | " + " | ".join(PEERS) + " |",
        "|---" * (4 + len(PEERS)) + "|",
    ]
    for row in result["rows"]:
        cells = [
            f"{times['median_ms']:.1f} ({times['p95_ms']:.1f})" if times else "-"
            for times in row["times"].values()
        ]
        head = f"| {row['scene']} | {row['stride']} | {row['voxels'] / 1e6:g} M | "
        lines.append(head + " | ".join(cells) + " |")
    hardware, versions = result["hardware"], result["versions"]
    runs = max(row["times"][OURS]["runs"] for row in result["rows"])
    ratios = [
        f"{name} {ratio:.1f}" for name, ratio in result["speedup_vs"].items() if ratio is not None
    ]
    lines += [
        "",
        f"Time of others divided by ours at stride {DEFAULT_STRIDE}, the worst size: "
        f"{', '.join(ratios) or 'not measured'}. The map reserves "
        f"{result['bytes_per_point']:.0f} bytes for each point of `max_points` and "
        f"{'held more of them' if result['max_points_exceeded'] else 'never held more of them'}.",
        "",
        f"{runs} runs at most. {hardware['gpu'] or hardware['cpu']}, threads: "
        f"{hardware['threads']}, load average {result['load_average']:.1f}, "
        + ", ".join(f"{name} {versions[name]}" for name in ("torch", *_PEER_PACKAGES))
        + f", {result['date']}, commit {result['commit']}.",
    ]
    return "\n".join(lines)


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


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send to standard error whatever is written to standard output, by libraries in C++ too."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Time putting an image into the map.")
    add = parser.add_argument
    add("--device", default="cpu", help="cpu or cuda; the peers run on a CPU only")
    # One: with more, whatever else runs beside holds up those who wait for all of their threads.
    add("--threads", type=int, default=1, help="of each contestant")
    add("--quick", action="store_true", help="fewer sizes and strides, under a minute")
    add("--without-peers", action="store_true", help="measure only the map of this package")
    add("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(words)
    device, with_peers = torch.device(arguments.device), not arguments.without_peers
    if with_peers and device.type != "cpu":
        parser.error("--device: the peers run on a CPU only; leave them out with --without-peers")
    if not with_peers:
        print("peers: not measured, for --without-peers is given", file=sys.stderr)
    try:
        with quiet_stdout(), limited_to(arguments.threads):
            result = run(QUICK if arguments.quick else Plan(), device, with_peers)
    except PeerMissing as missing:
        parser.error(
            f"{missing}\nInstall what this is compared with, pip install 'ttt3r_ros[benchmark]', "
            "or leave it out with --without-peers"
        )
    print(json.dumps(result, indent=1) if arguments.json else markdown(result))


def _on(image: Image, device: torch.device) -> Image:
    names = ("points", "colours", "weights")
    return replace(image, **{name: getattr(image, name).to(device) for name in names})


def _cells(image: Image) -> Tensor:
    return torch.floor(image.points / VOXEL_M).int()


def _parts(cells: Cells, size: int = 100_000) -> Iterator[Cells]:
    for start in range(0, len(cells), size):
        yield cells[start : start + size]


def _centres(cells: Cells) -> npt.NDArray[np.float32]:
    return ((cells + 0.5) * VOXEL_M).astype(np.float32)


_PEER_PACKAGES = ("open3d-cpu", "kiss-icp")


def _peer_versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in _PEER_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


if __name__ == "__main__":
    main()
