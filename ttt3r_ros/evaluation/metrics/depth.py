# SPDX-License-Identifier: Apache-2.0
"""How far predicted depth is from the true one, over all pixels of a sequence.

The definitions are those of the published evaluations of CUT3R and TTT3R on video depth, so that
numbers can be set side by side: every pixel whose truth is known counts, however little the
network trusts it, and the prediction is resized to the truth with OpenCV's bicubic filter. How
predictions are scaled and shifted is in `depth_alignment` and `least_absolute_line`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from ttt3r_ros.evaluation.metrics.depth_alignment import (
    Pairs,
    median,
    published_line,
    published_scale,
)
from ttt3r_ros.evaluation.metrics.least_absolute_line import least_absolute_line
from ttt3r_ros.geometry import CropTransform
from ttt3r_ros.types import EvaluationError

if TYPE_CHECKING:
    from typing_extensions import Self

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]
_LEAST_M = 1e-5  # where a logarithm or a quotient is taken
_ASPECT = 0.01  # views whose width by height differs by a larger share are not the same view


class OtherViewError(EvaluationError):
    """True depth that is not of the images' view; what else there is can still be compared."""


@dataclass(frozen=True, slots=True)
class DepthErrors:
    """Means over pixels; p is the predicted and g the true depth in metres."""

    abs_rel: float  # |p - g| / g
    sq_rel: float  # (p - g)² / g
    rmse_m: float  # root of the mean of (p - g)²
    log_rmse: float  # root of the mean of (ln p - ln g)²
    delta_1_25: float  # share of pixels where max(p / g, g / p) is below 1.25
    delta_1_25_2: float  # below 1.25²
    delta_1_25_3: float  # below 1.25³


@dataclass(frozen=True, slots=True)
class DepthReport:
    """What `DepthComparison` found."""

    images: int  # with true depth
    pixels: int  # compared
    pixels_not_finite: int  # left out because the prediction is no number
    metric: DepthErrors  # of the predictions as they are
    scale: float  # by which `scaled` multiplies the predictions of the whole sequence
    scaled: DepthErrors
    shifted_scale: float  # `shifted` multiplies by that
    shift_m: float  # and adds that
    shifted: DepthErrors
    guess_m: float  # the median of the truth,
    guess: DepthErrors  # and the errors of predicting it everywhere


class DepthComparison:
    """Collects pairs of depth images, then compares them; a context manager.

    The scale of a sequence is known only when all of it has been seen, so the pixels wait in a
    nameless file (8 bytes each) and memory stays that of one image.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_true_m: float | None = None,
        clip_m: float | None = None,
        published_shift: bool = False,
    ) -> None:
        """Start with no images; the file is made in `folder`, which exists.

        Args:
            folder: where the file is.
            max_true_m: pixels whose truth is not below that are left out.
            clip_m: predictions are, once aligned, at most that.
            published_shift: find scale and shift by the published procedure, which goes over the
                pixels 1000 times, and not those of least absolute error.

        Raises:
            OSError: it cannot be made.
        """
        self._max_true_m, self._clip_m = max_true_m or np.inf, clip_m
        self._published_shift = published_shift
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._counts: list[int] = []  # pixels of each image
        self._not_finite = 0

    def add(self, predicted_m: Floats, true_m: Floats, crop: CropTransform) -> None:
        """Take one image.

        Args:
            predicted_m: [h, w] metres along the optical axis, of the network's image.
            true_m: [H, W] metres of the camera's whole image, at any size; not finite or not above
                0 where unknown.
            crop: how the network's image came from the camera's.

        Raises:
            OtherViewError: the truth is not of the camera's whole image; nothing of it is kept.
        """
        rows, columns = truth_window(crop, true_m.shape)
        true_m = true_m[rows, columns]
        predicted_m = resized(predicted_m, true_m.shape)
        known = np.isfinite(true_m) & (true_m > 0) & (true_m < self._max_true_m)
        finite = np.isfinite(predicted_m)
        self._not_finite += int((known & ~finite).sum())
        good = known & finite
        pairs = np.stack((predicted_m[good], true_m[good])).astype(np.float32)
        self._file.write(pairs.tobytes())
        self._counts.append(pairs.shape[1])

    def report(self) -> DepthReport | None:
        """Compare all images; None if no pixel has a truth."""
        pixels = sum(self._counts)
        if not pixels:
            return None
        scale = published_scale(self._pairs)
        guess_m = median(self._pairs, 1)
        find_line = published_line if self._published_shift else least_absolute_line
        line = find_line(self._pairs)
        return DepthReport(
            images=len(self._counts),
            pixels=pixels,
            pixels_not_finite=self._not_finite,
            metric=self._errors(lambda p: p),
            scale=scale,
            scaled=self._errors(lambda p: scale * p),
            shifted_scale=line[0],
            shift_m=line[1],
            shifted=self._errors(lambda p: line[0] * p + line[1]),
            guess_m=guess_m,
            guess=self._errors(lambda p: np.full_like(p, guess_m)),
        )

    def _errors(self, aligned: Callable[[Numbers], Numbers]) -> DepthErrors:
        return depth_errors(
            np.stack((np.minimum(aligned(p), self._clip_m or np.inf), g)) for p, g in self._pairs()
        )

    def _pairs(self) -> Iterator[Pairs]:
        """Yield the pixels of each image that has any."""
        self._file.seek(0)
        for count in self._counts:
            if count:
                values = np.frombuffer(self._file.read(8 * count), np.float32)
                yield values.reshape(2, count).astype(np.float64)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def depth_errors(images: Iterable[Pairs]) -> DepthErrors:
    """Return the errors over all pixels of all images, at least one pixel."""
    sums, count = np.zeros(7), 0
    for p, g in images:
        above_zero = np.maximum(p, _LEAST_M)
        quotient = np.maximum(above_zero / g, g / above_zero)
        squared = (p - g) ** 2
        sums += (
            (np.abs(p - g) / g).sum(),
            (squared / g).sum(),
            squared.sum(),
            (np.log(above_zero / g) ** 2).sum(),
            *((quotient < 1.25**power).sum() for power in (1, 2, 3)),
        )
        count += len(g)
    abs_rel, sq_rel, squared_mean, log_squared, *deltas = (float(s) for s in sums / count)
    return DepthErrors(abs_rel, sq_rel, squared_mean**0.5, log_squared**0.5, *deltas)


def resized(depth_m: Floats, shape: tuple[int, ...]) -> Floats:
    """Return depth [h, w] at another size (rows, columns), through OpenCV's bicubic filter."""
    if depth_m.shape == shape:
        return depth_m
    size = (shape[1], shape[0])
    return np.asarray(cv2.resize(depth_m, size, interpolation=cv2.INTER_CUBIC), np.float32)


def truth_window(crop: CropTransform, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of the truth that the network's image shows.

    The network sees the camera's image scaled and then cropped, so the same share is cut from the
    truth, whose size may differ from the image's. Without a crop it is all of it, and with one its
    borders are rounded to whole pixels of the truth.

    Args:
        crop: how the network's image came from the camera's.
        shape: rows and columns of the truth.

    Raises:
        OtherViewError: the truth is not of the camera's whole image.
    """
    require_same_view(shape, crop.source_width, crop.source_height)
    height, width = shape
    cropped = crop.fit == "crop"
    across = width / (crop.scaled_width if cropped else crop.width)
    down = height / (crop.scaled_height if cropped else crop.height)
    rows = slice(round(down * crop.top), round(down * (crop.top + crop.height)))
    columns = slice(round(across * crop.left), round(across * (crop.left + crop.width)))
    return rows, columns


def require_same_view(shape: tuple[int, ...], width: int, height: int) -> None:
    """Refuse depth of that shape (rows, columns) that cannot be of width x height images' view.

    Raises:
        OtherViewError: width by height differs.
    """
    rows, columns = shape
    if abs(columns * height / (rows * width) - 1) > _ASPECT:
        raise OtherViewError(
            f"depth: {columns}x{rows} is not the view of {width}x{height} images; it must be "
            "registered to the colour camera"
        )
