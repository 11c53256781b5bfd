# SPDX-License-Identifier: Apache-2.0
"""The voxel map as a plain dictionary of cells: slow, obvious. It looks at every voxel."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

SIZE = 0.1


def cell_of(point) -> tuple[int, ...]:
    return tuple(math.floor(np.float32(c) / np.float32(SIZE)) for c in point)


class DictionaryMap:
    def __init__(self, max_points: int) -> None:
        self.voxels: dict[tuple[int, ...], dict] = {}
        self.max_points = max_points
        self.images = 0
        self.camera = None

    def insert(self, points, colours, weights, segment=0, camera=None) -> None:
        self.images += 1
        self.camera = camera if camera is not None else self.camera
        seen: dict[tuple[int, ...], list[int]] = {}
        for i, point in enumerate(points):
            if np.isfinite(point).all():
                seen.setdefault(cell_of(point), []).append(i)
        new = {}
        for cell in sorted(seen):
            i = seen[cell]
            values = np.concatenate([points[i], colours[i]], axis=1).astype(np.float64)
            new[cell] = dict(
                mean=(values * weights[i, None]).sum(0) / weights[i].sum(),
                weight=weights[i].mean(),
                votes={segment: weights[i].mean()},
                hits=1,
                seen=self.images,
            )
        for cell in new.keys() & self.voxels.keys():
            if self.voxels[cell]["hits"] == 100:
                self.voxels[cell]["weight"] *= 0.99
        self._merge(new)

    def move(self, T_by_segment) -> None:
        moved = []
        for segment, T in T_by_segment.items():
            for cell in [c for c, v in self.voxels.items() if leader(v) == segment]:
                voxel = self.voxels.pop(cell)
                before = voxel["mean"][:3].copy()
                voxel["mean"][:3] = T[:3, :3] @ before + T[:3, 3]
                moved.append((cell_of(voxel["mean"][:3]), before, voxel))
        cells = settle(moved, self.voxels.keys())
        for segment in T_by_segment:
            groups: dict[tuple[int, ...], list[dict]] = {}
            for cell, (_, _, voxel) in zip(cells, moved, strict=True):
                if leader(voxel) == segment:
                    groups.setdefault(cell, []).append(voxel)
            self._merge({cell: self._as_one(group, segment) for cell, group in groups.items()})

    @staticmethod
    def _as_one(group, segment) -> dict:
        weights = [v["weight"] for v in group]
        return dict(
            mean=np.average([v["mean"] for v in group], axis=0, weights=weights),
            weight=max(weights),
            votes={segment: max(v["votes"][segment] for v in group)},
            hits=max(v["hits"] for v in group),
            seen=max(v["seen"] for v in group),
        )

    def carve(self, depth, intrinsics, T_map_camera, margin=0.05) -> None:
        height, width = depth.shape
        for cell, voxel in list(self.voxels.items()):
            x, y, z = np.linalg.inv(T_map_camera)[:3] @ np.append(voxel["mean"][:3], 1)
            if z <= SIZE or voxel["seen"] == self.images:
                continue
            column = round(x / z * intrinsics.fx + intrinsics.cx)
            row = round(y / z * intrinsics.fy + intrinsics.cy)
            if not (0 <= column < width and 0 <= row < height):
                continue
            around = depth[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            if (around > 0).all() and z < around.min() * (1 - margin) - SIZE:
                voxel["hits"] -= 1
                if voxel["hits"] == 0:
                    del self.voxels[cell]

    def _merge(self, new) -> None:
        for cell in new.keys() & self.voxels.keys():
            old, other = self.voxels[cell], new.pop(cell)
            total = old["weight"] + other["weight"]
            old["mean"] = old["mean"] + (other["mean"] - old["mean"]) * other["weight"] / total
            old["weight"] = total
            (one, lead), (segment, vote) = *old["votes"].items(), *other["votes"].items()
            if segment != one:
                vote = -vote
            lead += vote
            old["votes"] = {one if lead >= 0 else segment: min(abs(lead), total)}
            old["hits"] = min(old["hits"] + other["hits"], 100)
            old["seen"] = max(old["seen"], other["seen"])
        excess = len(self.voxels) + len(new) - self.max_points
        if excess > 0:
            excess = max(excess, self.max_points // 256)
            for cell in sorted(self.voxels, key=self._usefulness)[:excess]:
                del self.voxels[cell]
        self.voxels |= new

    def _usefulness(self, cell) -> float:
        voxel = self.voxels[cell]
        score = voxel["hits"] / (1 + (self.images - voxel["seen"]) / 100)
        if self.camera is None:
            return score
        return score / (1 + np.linalg.norm(voxel["mean"][:3] - self.camera) / (200 * SIZE))


def settle(moved, standing) -> list[tuple[int, ...]]:
    """The cells of (cell, place before, voxel): neighbours that have met part again."""
    keepers = {}
    for cell, before, voxel in moved:
        if cell not in keepers or voxel["weight"] > keepers[cell][1]["weight"]:
            keepers[cell] = before, voxel
    cells, waiting = [cell for cell, _, _ in moved], []
    for i, (cell, before, voxel) in enumerate(moved):
        keeper_before, keeper = keepers[cell]
        was_near = np.linalg.norm(before - keeper_before) < 1.75 * SIZE
        if was_near and np.linalg.norm((voxel["mean"] - keeper["mean"])[:3]) >= 0.5 * SIZE:
            waiting.append((i, around(voxel["mean"][:3] / SIZE)))
    taken = {*cells, *standing}
    for turn in range(7):
        wanted: dict[tuple[int, ...], list[int]] = {}
        for i, choice in waiting:
            wanted.setdefault(choice[turn], []).append(i)
        for cell in wanted.keys() - taken:
            cells[max(wanted[cell], key=lambda i: moved[i][2]["weight"])] = cell
        taken |= wanted.keys()
        waiting = [(i, choice) for i, choice in waiting if cells[i] == moved[i][0]]
    return cells


def around(place) -> list[tuple[int, ...]]:
    """The seven cells next to a place's own on its side, the nearest first; in edges."""
    own = np.floor(place)
    side = np.where(place - own < 0.5, -1, 1)
    steps = [np.array(step) for step in itertools.product((0, 1), repeat=3) if any(step)]
    off = np.minimum(place - own, own + 1 - place)
    steps.sort(key=lambda step: (step * off**2).sum())
    return [tuple((own + step * side).astype(int).tolist()) for step in steps]


def leader(voxel) -> int:
    return next(iter(voxel["votes"]))


def insert(voxel_map, points, colours, weights, **more) -> None:
    voxel_map.insert(*(torch.from_numpy(a) for a in (points, colours, weights)), **more)


def random_image(rng, n=400, spread=1.0, at=(0, 0, 0)):
    points = rng.normal(at, spread, (n, 3)).astype(np.float32)
    return points, rng.integers(0, 256, (n, 3)), rng.uniform(0.5, 5, n).astype(np.float32)


def assert_same(voxel_map, twin) -> None:
    """Compare all that is known of every voxel."""
    tensors = {name: tensor.numpy() for name, tensor in voxel_map.to_tensors().items()}
    offset, mask = 1 << 20, (1 << 21) - 1
    cells = [((k >> 42) - offset, (k >> 21 & mask) - offset, (k & mask) - offset)
             for k in tensors["key"].tolist()]  # fmt: skip
    assert set(cells) == twin.voxels.keys() and len(cells) == len(set(cells)) == len(voxel_map)
    expected = [twin.voxels[cell] for cell in cells]
    for name in ("hits", "seen"):
        np.testing.assert_array_equal(tensors[name], [v[name] for v in expected], name)
    np.testing.assert_array_equal(tensors["segment"], [leader(v) for v in expected])
    leads = [v["votes"][leader(v)] for v in expected]
    np.testing.assert_allclose(tensors["lead"], leads, rtol=1e-4, atol=1e-4)
    for name, atol in (("weight", 1e-4), ("mean", 1e-3)):  # mean: colours
        np.testing.assert_allclose(tensors[name], [v[name] for v in expected], 1e-5, atol, name)
    positions = [v["mean"][:3] for v in expected]
    np.testing.assert_allclose(tensors["mean"][:, :3], positions, atol=1e-5)
