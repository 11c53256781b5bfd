# SPDX-License-Identifier: Apache-2.0
"""Scale from many ratios, and by a known height."""

from __future__ import annotations

import numpy as np
import pytest

from ttt3r_ros.tracking.floor import FloorEstimate
from ttt3r_ros.tracking.scale_source import HeightScale, ScaleSource


class Ratios(ScaleSource):
    """Samples as they are given."""

    def __init__(self, *ratios, window=100, fewest=1):
        super().__init__(window, fewest)
        for ratio in ratios:
            self._add(ratio, 1.0)


def test_too_few_samples_say_nothing():
    source = Ratios(2.0, 2.0, fewest=3)
    assert source.estimate() is None
    assert source.trusted(10.0) is None
    source._add(2.0, 1.0)
    assert source.estimate().samples == 3


def test_too_long_and_too_short_count_alike():
    found = Ratios(0.5, 1.0, 2.0, 4.0).estimate()
    assert found.scale == pytest.approx(2**0.5)
    assert Ratios(1.0, 2.0, 2.0, 2.0, 1e6).estimate().scale == pytest.approx(2.0)


def test_the_spread_is_the_standard_deviation_of_normal_errors():
    ratios = np.exp(np.random.default_rng(3).normal(np.log(3.0), 0.1, 2001))
    found = Ratios(*ratios, window=2001).estimate()
    assert found.spread == pytest.approx(0.1, rel=0.1)
    assert found.scale == pytest.approx(3.0, rel=0.01)


def test_a_scale_is_trusted_up_to_a_spread():
    source = Ratios(*np.exp(np.random.default_rng(4).normal(0.0, 0.1, 100)))
    assert source.trusted(0.2) == source.estimate().scale
    assert source.trusted(0.05) is None


def test_a_known_height_gives_the_scale():
    source = HeightScale(1.2, window=20, fewest=5)
    heights = 0.6 * np.exp(np.random.default_rng(5).normal(0, 0.05, 40))
    for i, height in enumerate(heights):
        source.add(None)
        table = i % 4 == 0
        source.add(FloorEstimate(0.2 if table else float(height), spread=0.05, share=0.2))
    found = source.estimate()
    assert found.samples == 20
    assert found.scale == pytest.approx(2.0, rel=0.06)  # a quarter of it is wrong
    assert found.spread < 0.15


def test_images_without_a_floor_are_no_samples():
    source = HeightScale(1.2)
    for _ in range(100):
        source.add(None)
    assert source.estimate() is None


def test_a_unit_that_changes_takes_the_scale_with_it():
    source = Ratios(1.9, 2.0, 2.2)
    spread = source.estimate().spread
    source.unit_changed(1.5)
    assert source.estimate().scale == pytest.approx(3.0)
    assert source.estimate().spread == pytest.approx(spread)
    source.reset()
    assert source.estimate() is None


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match=r"camera_height_m: must be above 0 and finite, got 0"):
        HeightScale(0)
    with pytest.raises(ValueError, match=r"1 <= fewest <= window, got 9, 8"):
        HeightScale(1.0, window=8, fewest=9)
    with pytest.raises(ValueError, match=r"ratio: must be above 0 and finite, got nan"):
        Ratios(1.0).unit_changed(float("nan"))
