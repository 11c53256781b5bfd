# SPDX-License-Identifier: Apache-2.0
"""How near a map of points is to the true surface, and whether walls stand in it twice.

Distances, precision, recall and F-score are those of Tanks and Temples (Knapitsch et al., ACM TOG
2017) and DTU (Jensen et al., CVPR 2014), Chamfer distance and normal consistency those of
Mescheder et al. (Occupancy Networks, CVPR 2019), taken from points instead of meshes. Nothing is
aligned, cropped or thinned here. Where the true surface comes from is `true_surface`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ttt3r_ros.types import EvaluationError

Points = npt.NDArray[np.float64]  # [N, 3] metres
Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

THRESHOLDS_M = (0.05, 0.10)
NEIGHBOURS = 12  # that a normal is estimated from, the point itself among them
REACH_M = 0.5  # what is farther from the surface is no layer of it
TOLERANCE_M = 0.05  # what is nearer to the surface is right
PATCH_M = 0.2  # distance of the patches that are looked at for layers
TUBE_M = 0.1  # radius about a patch's normal
BIN_M = 0.025  # of signed distances; layers have at least two empty ones in between
LEAST_LAYER = 3  # points of a layer at least
_LEAST_BIN = 1 / 3  # as a share of the fullest bin; emptier ones count as empty


@dataclass(frozen=True, slots=True)
class Surface:
    """Points evenly spread over a surface, with its normals there."""

    points: Points  # [M, 3] metres
    normals: Points  # [M, 3] of length 1, to either side


@dataclass(frozen=True, slots=True)
class Score:
    """Shares of points that are near, each from 0 to 1."""

    threshold_m: float
    precision: float  # of the map's points, those nearer to the surface than the threshold
    recall: float  # of the surface's points, those nearer to the map than the threshold
    f_score: float  # 2 precision recall / (precision + recall)


@dataclass(frozen=True, slots=True)
class MapErrors:
    """What `map_errors` found."""

    map_points: int
    surface_points: int
    accuracy_m: float  # mean distance of the map's points to the surface
    completeness_m: float  # mean distance of the surface's points to the map
    chamfer_m: float  # mean of these two
    normal_consistency: float  # 0 to 1, see `normal_consistency`
    scores: tuple[Score, ...]
    off_surface: float  # 0 to 1, see `off_surface`
    doubled: float  # 0 to 1, see `doubled`


class Neighbours:
    """Finds the nearest of some points, exactly."""

    def __init__(self, points: Points) -> None:
        """Index points [N, 3].

        Raises:
            EvaluationError: there are none, or some are not finite.
        """
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            raise EvaluationError(f"points: expected [N, 3] and at least one, got {points.shape}")
        if not np.isfinite(points).all():
            raise EvaluationError("points: some are not finite")
        self._points = points
        # Single precision is millimetres at 10 km from the origin, so it is counted from within.
        self._middle = np.median(points, axis=0)
        # FLANN's single k-d tree (4), unlike its others, searches exactly; it keeps no copy.
        self._single = self._near_zero(points)
        self._tree = cv2.flann.Index(self._single, {"algorithm": 4, "leaf_max_size": 10})

    def nearest(self, queries: Points, count: int = 1) -> tuple[Numbers, Indices]:
        """Return distances in metres and places [Q, count] of the points nearest to [Q, 3]."""
        places = self._tree.knnSearch(self._near_zero(queries), count, params={})[0].astype(
            np.int64
        )
        return np.linalg.norm(self._points[places] - queries[:, None], axis=2), places

    def within(self, centre: Numbers, radius_m: float) -> Indices:
        """Return the places [K] of all points in a ball, from the nearest on."""
        query = self._near_zero(centre[None])
        count, found, _ = self._tree.radiusSearch(query, radius_m**2, len(self._points), params={})
        if not count:
            return np.empty(0, np.int64)
        places: Indices = found.reshape(-1)[:count].astype(np.int64)
        return places

    def _near_zero(self, points: Points) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(points - self._middle, np.float32)


def map_errors(
    points: Points,
    surface: Surface,
    *,
    thresholds_m: Sequence[float] = THRESHOLDS_M,
    distances_m: Numbers | None = None,
) -> MapErrors:
    """Compare a map with the true surface.

    Args:
        points: [N, 3] of the map, metres in the frame of the surface.
        surface: what the map should have, and nothing more: only what could be seen.
        thresholds_m: of the scores.
        distances_m: [N] of the points to the true surface, where they are known exactly, perhaps
            to more of the surface than could be seen. Without them, those to the nearest point of
            `surface`, which are too long by up to the spacing of its points.

    Raises:
        EvaluationError: no points, points that are not finite, or distances of other points.
    """
    in_map, on_surface = Neighbours(points), Neighbours(surface.points)
    to_surface, place = on_surface.nearest(points)
    to_map, place_in_map = in_map.nearest(surface.points)
    to_map = to_map[:, 0]
    distances = to_surface[:, 0] if distances_m is None else np.abs(distances_m)
    if distances.shape != (len(points),):
        raise EvaluationError(f"distances_m: expected [{len(points)}], got {distances.shape}")
    normals = estimated_normals(points, in_map)
    return MapErrors(
        map_points=len(points),
        surface_points=len(surface.points),
        accuracy_m=float(distances.mean()),
        completeness_m=float(to_map.mean()),
        chamfer_m=float(distances.mean() + to_map.mean()) / 2,
        normal_consistency=normal_consistency(
            normals, surface.normals, place[:, 0], place_in_map[:, 0]
        ),
        scores=tuple(_score(distances, to_map, threshold) for threshold in thresholds_m),
        off_surface=off_surface(distances),
        doubled=doubled(in_map, points, surface, distances),
    )


def _score(to_surface: Numbers, to_map: Numbers, threshold_m: float) -> Score:
    precision = float((to_surface < threshold_m).mean())
    recall = float((to_map < threshold_m).mean())
    both = precision + recall
    return Score(threshold_m, precision, recall, 2 * precision * recall / both if both else 0.0)


def estimated_normals(points: Points, neighbours: Neighbours | None = None) -> Points:
    """Estimate normals: the direction in which a point's nearest `NEIGHBOURS` spread least.

    Args:
        points: [N, 3].
        neighbours: their index, if there is one.

    Returns:
        [N, 3] of length 1, to either side.
    """
    neighbours = neighbours or Neighbours(points)
    _, places = neighbours.nearest(points, min(NEIGHBOURS, len(points)))
    near = points[places]
    near = near - near.mean(axis=1, keepdims=True)
    _, axes = np.linalg.eigh(near.transpose(0, 2, 1) @ near)  # the least spread comes first
    normals: Points = axes[:, :, 0]
    return normals


def normal_consistency(
    normals: Points, true_normals: Points, place: Indices, place_in_map: Indices
) -> float:
    """Return how well normals agree: |n · n'| of nearest points, 1 at best, 0.5 by chance.

    The mean over the map's points and their nearest of the surface, and the mean over the
    surface's points and their nearest of the map; of these two the mean (Mescheder et al. 2019).

    Args:
        normals: [N, 3] of the map.
        true_normals: [M, 3] of the surface.
        place: [N] the surface's point nearest to each of the map.
        place_in_map: [M] the map's point nearest to each of the surface.
    """
    there = np.abs((normals * true_normals[place]).sum(axis=1)).mean()
    back = np.abs((true_normals * normals[place_in_map]).sum(axis=1)).mean()
    return float(there + back) / 2


def off_surface(distances_m: Numbers) -> float:
    """Return the share of points beside the surface: 0 for thin walls, 1 if all stand beside.

    Of the points no farther than `REACH_M` from the surface, those farther than `TOLERANCE_M`.
    Second walls count, but so do thick, noisy and displaced ones; `doubled` tells them apart. NaN
    if no point is that near.

    Args:
        distances_m: [N] of the map's points to the surface.
    """
    near = distances_m[distances_m <= REACH_M]
    return float((near > TOLERANCE_M).mean()) if len(near) else float("nan")


def doubled(in_map: Neighbours, points: Points, surface: Surface, distances_m: Numbers) -> float:
    """Return the share of the surface that stands in the map twice or more: 0 if none, 1 if all.

    The surface is looked at in patches, one every `PATCH_M` and main direction. A patch's points
    are those no farther than `TUBE_M` from the line along its normal and no farther than `REACH_M`
    from its plane that are right here (within `TOLERANCE_M` of the plane) or nowhere (farther than
    that from the whole surface); what is right elsewhere, such as the front of a wardrobe before a
    wall, plays no part. Their signed distances from the plane are counted in bins of `BIN_M`. Bins
    with less than a third of the fullest one's points count as empty, and two empty ones in a row
    end a layer, which has at least `LEAST_LAYER` points. So a thick or displaced wall is one
    layer, and two are told apart from 10 cm on if the noise of their points is 1 cm (standard
    deviation), from 15 cm on if it is 2 cm, from 20 cm on if it is 3 cm. The share is that of the
    patches with two layers or more among those with any; NaN if there is none.

    Args:
        in_map: index of the map's points.
        points: [N, 3] of the map.
        surface: the true one.
        distances_m: [N] of the map's points to the whole surface.
    """
    layers = [
        _layers(points[near], distances_m[near], centre, normal)
        for centre, normal in _patches(surface)
        if len(near := in_map.within(centre, float(np.hypot(REACH_M, TUBE_M))))
    ]
    counts = np.array([count for count in layers if count])
    return float((counts > 1).mean()) if len(counts) else float("nan")


def _patches(surface: Surface) -> list[tuple[Numbers, Numbers]]:
    """Return centres and normals: one point of the surface in each cell and main direction."""
    direction = np.abs(surface.normals).argmax(axis=1)
    cells = np.column_stack((np.floor(surface.points / PATCH_M).astype(np.int64), direction))
    _, first = np.unique(cells, axis=0, return_index=True)
    return list(zip(surface.points[first], surface.normals[first], strict=True))


def _layers(points: Points, distances_m: Numbers, centre: Numbers, normal: Numbers) -> int:
    """Count the layers that points [K, 3] around a patch form, see `doubled`."""
    offset = points - centre
    height = offset @ normal
    aside = np.linalg.norm(offset - height[:, None] * normal, axis=1)
    ours = (np.abs(height) <= TOLERANCE_M) | (distances_m > TOLERANCE_M)
    height = height[ours & (aside <= TUBE_M) & (np.abs(height) <= REACH_M)]
    if not len(height):
        return 0
    counts = np.bincount(np.round((height + REACH_M) / BIN_M).astype(np.int64))
    full = np.flatnonzero(counts >= max(1.0, _LEAST_BIN * counts.max()))
    runs = np.split(full, np.flatnonzero(np.diff(full) > 2) + 1)
    return sum(int(counts[run].sum()) >= LEAST_LAYER for run in runs)
