# SPDX-License-Identifier: Apache-2.0
"""What an answer must be like to be believed, by what the stream itself shows.

Two kinds of answers are known for free: a keyframe passed a moment ago is in view and where
odometry says, and one that looks elsewhere is not. How alike and how far apart in depth right and
wrong answers are differs with weights, rooms and cameras; limits follow what was seen, beginning
from those of `relocalization`, which count as some samples of each kind.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, median

import numpy as np

from ttt3r_ros.relocalization.relocalize import Evidence, Limits

_KEPT = 64  # samples of each kind
_PRIOR = 10  # samples that the first limits count as
# Of 982 answers in simulated rooms (900104, 900105, 900107, 900108, two files of weights) half way,
# 0.85, lets through none that is wrong; a third, 0.8, only such as `loop_closer` holds too far off.
_TOWARDS_RIGHT = 1 / 3
_WRONG_SHARE = 0.01  # wrong answers that are more alike than what counts as their end
_DISAGREEMENT = 2.5  # times that of right answers in the median
_MEDIAN_SQUARED_ERROR = 5.35  # of chi-square with 6 degrees of freedom
_MOST_DOUBT = 4.0
_LEAST_CORRELATION, _MOST_CORRELATION = 0.75, 0.97  # bounds of the limits, against odd streams
_LEAST_DISAGREEMENT, _MOST_DISAGREEMENT = 0.08, 0.3


@dataclass(frozen=True, slots=True)
class KnownAnswers:
    """What was seen of answers whose truth was known, the oldest first; a session keeps it."""

    # Of right ones: disagreement, atanh of the correlation, and the squared error in variances.
    right: tuple[tuple[float, float, float], ...] = ()
    wrong: tuple[float, ...] = ()  # atanh of correlations

    def __post_init__(self) -> None:
        numbers = [*self.wrong, *(number for answer in self.right for number in answer)]
        if not all(len(answer) == 3 for answer in self.right) or not np.isfinite(numbers).all():
            raise ValueError(f"answers: expected finite numbers, 3 of each right one, got {self}")


class Acceptance:
    """The limits of a stream."""

    def __init__(self, limits: Limits | None = None, known: KnownAnswers | None = None) -> None:
        """Start with limits that are not the stream's own yet.

        Args:
            limits: these.
            known: what an earlier stream has seen in the same place with the same weights.
        """
        known = known or KnownAnswers()
        self._first = limits or Limits()
        # As in `KnownAnswers`.
        self._right = deque[tuple[float, float, float]](known.right, maxlen=_KEPT)
        self._wrong = deque[float](known.wrong, maxlen=_KEPT)

    @property
    def known(self) -> KnownAnswers:
        """What was seen, of the last answers of each kind."""
        return KnownAnswers(tuple(self._right), tuple(self._wrong))

    @property
    def samples(self) -> tuple[int, int]:
        """Right and wrong answers seen, of the last ones."""
        return len(self._right), len(self._wrong)

    def add_right(self, evidence: Evidence, squared_error: float) -> None:
        """Take an answer that is known to be right.

        Args:
            evidence: for it.
            squared_error: Mahalanobis' distance, squared, from where odometry puts the camera.
        """
        if math.isfinite(evidence.disagreement) and math.isfinite(squared_error):
            correlation = _straightened(evidence.photometric_correlation)
            self._right.append((evidence.disagreement, correlation, squared_error))

    def add_wrong(self, evidence: Evidence) -> None:
        """Take an answer that is known to be wrong."""
        if math.isfinite(evidence.photometric_correlation):
            self._wrong.append(_straightened(evidence.photometric_correlation))

    def limits(self) -> Limits:
        """What is believed now."""
        return replace(
            self._first,
            min_photometric_correlation=self._least_correlation(),
            max_disagreement=self._most_disagreement(),
        )

    def doubt(self) -> float:
        """How many times the usual errors this stream's answers have, at least 1."""
        count = len(self._right)
        if not count:
            return 1.0
        share = count / (count + _PRIOR)
        own = math.sqrt(median(squared for *_, squared in self._right) / _MEDIAN_SQUARED_ERROR)
        return min(max(1.0, share * own + 1 - share), _MOST_DOUBT)

    def _least_correlation(self) -> float:
        """On the way from the end of wrong answers to right ones in the median, in atanh."""
        count = min(self.samples)
        if not count:
            return self._first.min_photometric_correlation
        right = median(photometric_correlation for _, photometric_correlation, _ in self._right)
        wrong = _quantile(self._wrong, 1 - _WRONG_SHARE)
        own = math.tanh(wrong + _TOWARDS_RIGHT * (right - wrong))
        share = count / (count + _PRIOR)
        limit = share * own + (1 - share) * self._first.min_photometric_correlation
        return min(max(limit, _LEAST_CORRELATION), _MOST_CORRELATION)

    def _most_disagreement(self) -> float:
        count = len(self._right)
        if not count:
            return self._first.max_disagreement
        share = count / (count + _PRIOR)
        own = _DISAGREEMENT * median(disagreement for disagreement, *_ in self._right)
        limit = share * own + (1 - share) * self._first.max_disagreement
        return min(max(limit, _LEAST_DISAGREEMENT), _MOST_DISAGREEMENT)


def _straightened(photometric_correlation: float) -> float:
    """Fisher's transformation of a correlation, in which errors are alike everywhere."""
    return math.atanh(min(max(photometric_correlation, -0.999), 0.999))


def _quantile(values: deque[float], share: float) -> float:
    """As if normal: a high quantile of a few samples is otherwise their greatest."""
    spread = float(np.std(values)) if len(values) > 1 else 0.0
    return fmean(values) + NormalDist().inv_cdf(share) * spread
