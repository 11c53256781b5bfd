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
from dataclasses import replace
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


class Acceptance:
    """The limits of a stream."""

    def __init__(self, limits: Limits | None = None) -> None:
        """Start with limits that are not the stream's own yet."""
        self._first = limits or Limits()
        self._right = deque[tuple[float, float]](maxlen=_KEPT)  # disagreement, atanh of correlation
        self._errors = deque[float](maxlen=_KEPT)  # of right answers, squared, in variances
        self._wrong = deque[float](maxlen=_KEPT)  # atanh of correlations

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
            self._right.append((evidence.disagreement, correlation))
            self._errors.append(squared_error)

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
        count = len(self._errors)
        if not count:
            return 1.0
        share = count / (count + _PRIOR)
        own = math.sqrt(median(self._errors) / _MEDIAN_SQUARED_ERROR)
        return min(max(1.0, share * own + 1 - share), _MOST_DOUBT)

    def _least_correlation(self) -> float:
        """On the way from the end of wrong answers to right ones in the median, in atanh."""
        count = min(self.samples)
        if not count:
            return self._first.min_photometric_correlation
        right = median(photometric_correlation for _, photometric_correlation in self._right)
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
        own = _DISAGREEMENT * median(disagreement for disagreement, _ in self._right)
        limit = share * own + (1 - share) * self._first.max_disagreement
        return min(max(limit, _LEAST_DISAGREEMENT), _MOST_DISAGREEMENT)


def _straightened(photometric_correlation: float) -> float:
    """Fisher's transformation of a correlation, in which errors are alike everywhere."""
    return math.atanh(min(max(photometric_correlation, -0.999), 0.999))


def _quantile(values: deque[float], share: float) -> float:
    """As if normal: a high quantile of a few samples is otherwise their greatest."""
    spread = float(np.std(values)) if len(values) > 1 else 0.0
    return fmean(values) + NormalDist().inv_cdf(share) * spread
