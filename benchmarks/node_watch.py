# SPDX-License-Identifier: Apache-2.0
"""What `bench_node.py` puts into a node of its process: clocks, a fixed load, a full map."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sensor_msgs.msg import Image
from torch import Tensor

from ttt3r_ros import pipeline as pipeline_module
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.ros import outputs as outputs_module
from ttt3r_ros.ros import worker as worker_module
from ttt3r_ros.ros.conversions import stamp_ns
from ttt3r_ros.ros.node import TTT3RNode

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
# Moments on an image's way, and what lies before each of them.
WAY = {
    "received": "camera to node",
    "taken": "queueing",  # but for waiting
    "begun": "decoding",
    "stepped": "step",
    "sent": "publishing TF",
    "heard": "node to listener",
}
WAITING = "waiting for the step before"
TOTAL, REST = "stamp to TF", "all but waiting and step"
_WALL_M = 3.0  # from the camera
MS = 1e-6  # of a nanosecond
_ROOM_M = (60.0, 60.0, 4.0)  # that the first voxels are strewn over
_AT_ONCE = 100_000


class FixedLoad:
    """What the tracker asks of a network, answered after a fixed time."""

    def __init__(self, network: Network, device: torch.device, load_s: float) -> None:
        self._width, self._patch = network.config.enc_embed_dim, network.config.patch_size
        self._load_s = load_s
        self._matrix = torch.rand(256, 256, device=device)
        self._product = torch.empty_like(self._matrix)
        self._state: RecurrentState | None = None
        self._images = 0
        self._first_x_m = 0.0

    def replace(self, network: Network) -> None:
        """Answer in its place from now on."""
        for method in (self.encode, self.advance):
            setattr(network, method.__name__, method)

    def encode(self, image: Tensor) -> Tensor:
        """The time begins; features [1, H / patch, W / patch, C]."""
        self._began_s = time.perf_counter()
        self._images += 1
        height, width = image.shape[-2] // self._patch, image.shape[-1] // self._patch
        return torch.zeros(1, height, width, self._width, device=image.device)

    def advance(
        self, state: RecurrentState, features: Tensor, *, update: bool = True
    ) -> tuple[RecurrentState, Prediction]:
        """Be busy until the time is up; the same image again has no time left."""
        x_m = 0.5 * float(np.sin(self._images / 30))
        if state is not self._state:  # a first image of a segment
            self._state, self._first_x_m = state, x_m
        pose = torch.eye(4, device=features.device)[None]
        pose[0, 0, 3] = x_m - self._first_x_m
        quaternion = torch.tensor([[0.0, 0, 0, 1, 0, 0, 0]], device=features.device)
        quaternion[:, :3] = pose[:, :3, 3]
        batch = len(state.tokens)  # more than one where places are compared
        points = self._wall(features).expand(batch, -1, -1, -1)
        answer = Prediction(
            points=points,
            confidence=torch.full(points.shape[:3], 5.0, device=features.device),
            pose=quaternion.expand(batch, -1),
            pose_matrix=pose.repeat(batch, 1, 1),
            gain=torch.full(state.tokens.shape[:2], 0.5, device=features.device),
        )
        while time.perf_counter() - self._began_s < self._load_s:
            torch.mm(self._matrix, self._matrix, out=self._product)
            if features.device.type == "cuda":
                torch.cuda.synchronize(features.device)
        return state, answer

    def _wall(self, features: Tensor) -> Tensor:
        height, width = (self._patch * n for n in features.shape[1:3])
        row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        focal = 0.8 * width
        rays = [(column - width / 2) / focal, (row - height / 2) / focal, torch.ones(row.shape)]
        return _WALL_M * torch.stack(rays, dim=-1)[None].to(features.device)


class Watch:
    """Notes when what happens within a node of this process.

    Attributes:
        images: moments in nanoseconds since 1970 by name, by the image's stamp.
        spent: (when it began, how long it took), both in nanoseconds, by name of a part.
    """

    def __init__(self, node: TTT3RNode) -> None:
        """Attach; the node is configured and not active."""
        self.images: defaultdict[int, dict[str, int]] = defaultdict(dict)
        self.spent: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self._in_work: dict[str, int] = {}
        worker, outputs = node._configured_worker(), node._outputs
        pipeline = worker._pipeline
        self._around(worker._mailbox, "put", before=self._on_put)
        self._around(worker_module, "decode", before=self._on_taken)
        self._around(pipeline._tracker, "step", self._note("begun"), self._note("stepped"))
        self._around(outputs._frames, "publish_pose", after=self._note("sent"))
        for owner, name, part in (
            (pipeline_module, "insert_image", "map: inserting"),
            (pipeline.map, "cloud", "map: copying"),
            (outputs, "map", "map: publishing"),
            (outputs, "pose", "TF, odometry, pose"),
            (outputs_module, "depth_message", "depth: message"),
            (outputs._depth, "publish", "depth: publishing"),
            (outputs_module, "points_message", "points: message"),
            (outputs._points, "publish", "points: publishing"),
            (outputs, "status", "status"),
        ):
            self._time(owner, name, part)

    def _around(
        self,
        owner: Any,
        name: str,
        before: Callable[..., None] | None = None,
        after: Callable[..., None] | None = None,
    ) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if before:
                before(*args)
            result = original(*args, **kwargs)
            if after:
                after(*args)
            return result

        setattr(owner, name, watched)

    def _time(self, owner: Any, name: str, part: str) -> None:
        began_ns = [0]

        def before(*_: Any) -> None:
            began_ns[0] = time.time_ns()

        def after(*_: Any) -> None:
            self.spent[part].append((began_ns[0], time.time_ns() - began_ns[0]))

        self._around(owner, name, before, after)

    def _on_put(self, waiting: Any) -> None:
        self.images[stamp_ns(waiting.message.header.stamp)]["received"] = time.time_ns()

    def _on_taken(self, message: Image, *_: Any) -> None:
        self._in_work = self.images[stamp_ns(message.header.stamp)]
        self._in_work["taken"] = time.time_ns()

    def _note(self, moment: str) -> Callable[..., None]:
        def note(*_: Any) -> None:
            self._in_work[moment] = time.time_ns()

        return note


def fill(voxels: VoxelMap, points: int, device: torch.device) -> None:
    """Put voxels anywhere in a large room until there are as many as wanted."""
    random = torch.Generator().manual_seed(0)
    size = torch.tensor(_ROOM_M)
    while (missing := points - len(voxels)) > 0:
        count = min(_AT_ONCE, missing)
        where = (torch.rand(count, 3, generator=random) * size).to(device)
        colours = torch.randint(0, 256, (count, 3), generator=random).to(device)
        voxels.insert(where, colours, torch.ones(count, device=device))


def parts_of(images: dict[int, dict[str, int]]) -> dict[str, list[float]]:
    """Split each image's time from stamp to TF.

    Args:
        images: moments by stamp; images that lack one do not count.

    Returns:
        Milliseconds by part, one for each image; parts add up to `TOTAL`.
    """
    parts: dict[str, list[float]] = {name: [] for name in (TOTAL, WAITING, *WAY.values(), REST)}
    stepped = 0
    for stamp in sorted(stamp for stamp, moments in images.items() if WAY.keys() <= moments.keys()):
        moments, last = images[stamp], stamp
        split = {}
        for moment, part in WAY.items():
            split[part] = (moments[moment] - last) * MS
            last = moments[moment]
        waiting = max(0, stepped - moments["received"]) * MS
        split["queueing"] -= waiting
        split[WAITING] = waiting
        split[TOTAL] = (last - stamp) * MS
        split[REST] = split[TOTAL] - waiting - split["step"]
        stepped = moments["stepped"]
        for part, value in split.items():
            parts[part].append(value)
    return parts
