# SPDX-License-Identifier: Apache-2.0
"""What is remembered of places, so that a lost camera can come back to them.

Choosing what to keep and finding what looks alike is done here; stepping the network from a
keyframe and judging the answer is `relocalization`'s, files are `session`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil, sqrt

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ttt3r_ros.geometry import Intrinsics, Transform, orthonormal
from ttt3r_ros.network.state import RecurrentState

Descriptor = npt.NDArray[np.float32]  # [C], of length 1

GRID = (2, 3)  # cells of a descriptor, rows and columns
_SAMPLES = 3072  # points kept of an image, at most


@dataclass(frozen=True, slots=True)
class Novelty:
    """How far two views are apart: the greater of their distances in place and in looks.

    Views less than 1 apart show the same. A pose alone does not tell, since it may be that of a
    camera that got lost; looks alone do not, since walls look alike.
    """

    translation: float = 0.1  # as a share of the depth that is seen: 25 cm at 2.5 m
    rotation_rad: float = 0.26  # 15 degrees
    looks: float = 0.3  # length of the difference of descriptors


@dataclass(frozen=True, slots=True, eq=False)
class Keyframe:
    """The recurrent state after one image, and what it takes to recognize the place.

    Tensors stay on the network's device. A state is 4 MB with the published networks, a picture
    0.6 MB.
    """

    stamp_ns: int
    segment: int
    state: RecurrentState  # batch 1; not copied, for a step leaves it untouched
    scale: float  # metres per unit of the network
    T_map_segment: Transform  # of the camera in which the state's world begins, metres
    T_map_camera: Transform
    points: Tensor  # [h, w, 3] float16, metres in the camera's optical frame
    confidence: Tensor  # [h, w] float16
    rgb: npt.NDArray[np.uint8]  # [h, w, 3]
    intrinsics: Intrinsics  # of the three above
    picture: npt.NDArray[np.uint8]  # [H, W, 3], what the network saw, of which `rgb` is a part
    median_confidence: float  # of the whole image
    depth_m: float  # median
    descriptor: Descriptor

    @property
    def picture_intrinsics(self) -> Intrinsics:
        """Those of the picture."""
        height, width = self.picture.shape[:2]
        first = (stride := _stride(height, width)) // 2
        small = self.intrinsics
        return Intrinsics(
            small.fx * stride,
            small.fy * stride,
            small.cx * stride + first,
            small.cy * stride + first,
            width,
            height,
        )

    def moved(self, T: Transform) -> Keyframe:
        """The same keyframe elsewhere in the map, by [4, 4] on the left."""
        return replace(
            self,
            T_map_segment=orthonormal(T @ self.T_map_segment),
            T_map_camera=orthonormal(T @ self.T_map_camera),
        )

    def to(self, device: torch.device | str) -> Keyframe:
        """The same keyframe with its tensors on another device."""
        return replace(
            self,
            state=self.state.to(device),
            points=self.points.to(device),
            confidence=self.confidence.to(device),
        )


def describe(features: Tensor, width: int) -> Tensor:
    """Say what an image looks like as a whole.

    Args:
        features: [1, gh, gw, E], from `Network.encode`.
        width: channels used, from the first; pixels may follow the encoder's own.

    Returns:
        [C] on the same device, of length 1: the mean over each cell of a coarse grid. Nothing
        waits for the device.
    """
    channels = features[..., :width].float().permute(0, 3, 1, 2)  # [1, E, gh, gw]
    return F.normalize(F.adaptive_avg_pool2d(channels, GRID).flatten(), dim=0)


def subsample(image: Tensor) -> Tensor:
    """Leave every n-th row and column of an image [H, W, ...], about 3000 pixels: [h, w, ...]."""
    stride = _stride(*image.shape[:2])
    return image[stride // 2 :: stride, stride // 2 :: stride]


def subsample_picture(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The colours around the pixels that `subsample` leaves, [H, W, 3] → [h, w, 3]."""
    stride = _stride(*rgb.shape[:2])
    averaged = cv2.blur(rgb, (stride, stride))
    return np.ascontiguousarray(averaged[stride // 2 :: stride, stride // 2 :: stride])


def subsample_intrinsics(intrinsics: Intrinsics) -> Intrinsics:
    """Those of the image that `subsample` leaves."""
    first = (stride := _stride(intrinsics.height, intrinsics.width)) // 2
    return Intrinsics(
        intrinsics.fx / stride,
        intrinsics.fy / stride,
        (intrinsics.cx - first) / stride,
        (intrinsics.cy - first) / stride,
        len(range(first, intrinsics.width, stride)),
        len(range(first, intrinsics.height, stride)),
    )


def _stride(height: int, width: int) -> int:
    return ceil(sqrt(height * width / _SAMPLES))


class KeyframeStore:
    """A bounded number of keyframes, spread over the places that were seen.

    When it is full, a view must be farther from all that are kept than the nearest two of them are
    from each other, and one of these two goes.
    """

    def __init__(self, capacity: int = 64, novelty: Novelty | None = None) -> None:
        """Start empty.

        Raises:
            ValueError: `capacity` is below 1.
        """
        if capacity < 1:
            raise ValueError(f"capacity: must be at least 1, got {capacity}")
        self._capacity = capacity
        self._novelty = novelty or Novelty()
        self.clear()

    def __len__(self) -> int:
        return len(self._keyframes)

    @property
    def keyframes(self) -> tuple[Keyframe, ...]:
        """All of them, the oldest first."""
        return tuple(self._keyframes)

    def clear(self) -> None:
        """Forget all."""
        self._keyframes: list[Keyframe] = []
        self._in_place = self._in_looks = np.empty((0, 0))  # distances [N, N], see `Novelty`

    def restore(self, keyframes: Iterable[Keyframe]) -> None:
        """Keep these and no others, the oldest first; of too many, those most apart."""
        self.clear()
        for keyframe in keyframes:
            self._add(keyframe)

    def offer(
        self,
        *,
        stamp_ns: int,
        segment: int,
        state: RecurrentState,
        scale: float,
        T_map_segment: Transform,
        T_map_camera: Transform,
        points: Tensor,
        confidence: Tensor,
        rgb: npt.NDArray[np.uint8],
        intrinsics: Intrinsics,
        median_confidence: float,
        descriptor: Tensor,
    ) -> bool:
        """Keep a keyframe of an image just tracked, unless one of the same view is kept already.

        Only `descriptor` is downloaded to find out, and that only if a keyframe is near by its
        pose. Nothing else is copied before that is known.

        Args:
            stamp_ns: of the image.
            segment: number of the state's segment.
            state: batch 1, after the image; nobody must write into it later.
            scale: metres per unit of the network.
            T_map_segment: pose of the segment's first camera, metres.
            T_map_camera: pose of the image's camera, metres.
            points: [H, W, 3] metres, in the camera's optical frame.
            confidence: [H, W].
            rgb: [H, W, 3] as the network saw it.
            intrinsics: of the network's image.
            median_confidence: of `confidence`.
            descriptor: [C] from `describe`.

        Returns:
            Whether it was kept. What is not finite or lies behind the camera never is.
        """
        least = 1.0
        if len(self._keyframes) == self._capacity > 1:
            least = max(least, self._apart().min())
        near = self._apart_in_place(T_map_camera) < least
        if near.any():
            looks = descriptor.cpu().numpy()
            if (self._apart_in_looks(looks, near.nonzero()[0]) < least).any():
                return False
        points = subsample(points)
        numbers = torch.cat((descriptor, points[..., 2].median()[None])).cpu().numpy()
        if not (np.isfinite(numbers).all() and numbers[-1] > 0):
            return False
        self._add(
            Keyframe(
                stamp_ns=stamp_ns,
                segment=segment,
                state=state,
                scale=scale,
                T_map_segment=T_map_segment,
                T_map_camera=T_map_camera,
                points=points.half(),
                confidence=subsample(confidence).half(),
                rgb=subsample_picture(rgb),
                intrinsics=subsample_intrinsics(intrinsics),
                picture=rgb.copy(),  # it may be page-locked, or part of a message
                median_confidence=median_confidence,
                depth_m=float(numbers[-1]),
                descriptor=numbers[:-1],
            )
        )
        return True

    def move(self, T_by_segment: Mapping[int, Transform], numbers: Mapping[int, int]) -> None:
        """Move the keyframes of segments in the map, then give segments other numbers.

        Args:
            T_by_segment: [4, 4], from where things are to where they shall be.
            numbers: the new ones by the old ones.
        """
        for i, keyframe in enumerate(self._keyframes):
            T = T_by_segment.get(keyframe.segment)
            if T is not None:
                keyframe = keyframe.moved(T)
            if keyframe.segment in numbers:
                keyframe = replace(keyframe, segment=numbers[keyframe.segment])
            self._keyframes[i] = keyframe
        if T_by_segment:
            rows = [self._apart_in_place(k.T_map_camera) for k in self._keyframes]
            younger = np.tril(np.array(rows).reshape(len(self), len(self)), -1)
            self._in_place = younger + younger.T  # by the older one's depth

    def most_alike(self, descriptor: Descriptor, count: int) -> list[Keyframe]:
        """Return the keyframes that look most like a descriptor, at most `count`, best first."""
        order = np.argsort(self._apart_in_looks(descriptor), kind="stable")
        return [self._keyframes[i] for i in order[:count]]

    def _add(self, keyframe: Keyframe) -> None:
        in_place = self._apart_in_place(keyframe.T_map_camera)
        self._in_place = _extended(self._in_place, in_place)
        self._in_looks = _extended(self._in_looks, self._apart_in_looks(keyframe.descriptor))
        self._keyframes.append(keyframe)
        if len(self._keyframes) > self._capacity:
            dispensable = self._dispensable()
            del self._keyframes[dispensable]
            kept = np.delete(np.arange(len(self._in_place)), dispensable)
            self._in_place = self._in_place[np.ix_(kept, kept)]
            self._in_looks = self._in_looks[np.ix_(kept, kept)]

    def _apart(self) -> npt.NDArray[np.float64]:
        """Distances of all from each other, [N, N], infinite on the diagonal."""
        apart: npt.NDArray[np.float64] = np.maximum(self._in_place, self._in_looks)
        np.fill_diagonal(apart, np.inf)
        return apart

    def _dispensable(self) -> int:
        """Which of the two nearest to each other has another one near, or else is older.

        Always dropping the older would eat up an even row of views from its old end.
        """
        apart = self._apart()
        one, other = sorted(np.unravel_index(apart.argmin(), apart.shape))
        others = np.delete(apart[[one, other]], [one, other], axis=1)  # [2, N - 2]
        to_one, to_other = others.min(axis=1, initial=np.inf)
        return int(other if to_other < to_one else one)

    def _apart_in_place(self, T_map_camera: Transform) -> npt.NDArray[np.float64]:
        """Distances [N] of a pose from those that are kept."""
        poses = np.array([s.T_map_camera for s in self._keyframes]).reshape(-1, 4, 4)
        depth_m = np.array([s.depth_m for s in self._keyframes])
        moved_m = np.linalg.norm(poses[:, :3, 3] - T_map_camera[:3, 3], axis=1)
        cosine = (np.einsum("nij,ij->n", poses[:, :3, :3], T_map_camera[:3, :3]) - 1) / 2
        turned_rad = np.arccos(cosine.clip(-1, 1))
        limits = self._novelty
        apart: npt.NDArray[np.float64] = np.hypot(
            moved_m / (limits.translation * depth_m), turned_rad / limits.rotation_rad
        )
        return apart

    def _apart_in_looks(
        self, descriptor: Descriptor, among: Iterable[int] | None = None
    ) -> npt.NDArray[np.float64]:
        """Distances [N] of a descriptor from those that are kept, or from some of them."""
        some = self._keyframes if among is None else [self._keyframes[i] for i in among]
        kept = np.array([s.descriptor for s in some]).reshape(-1, len(descriptor))
        apart: npt.NDArray[np.float64] = np.linalg.norm(kept - descriptor, axis=1)
        return apart / self._novelty.looks


def _extended(
    distances: npt.NDArray[np.float64], row: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """A symmetric matrix [N, N] with one row [N] and column more."""
    return np.block([[distances, row[:, None]], [row[None], np.zeros((1, 1))]])
