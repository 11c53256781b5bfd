# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from ttt3r_ros.pose_graph.acceptance import Acceptance
from ttt3r_ros.relocalization.relocalize import Evidence, Limits


def evidence(photometric_correlation: float = 0.9, disagreement: float = 0.05) -> Evidence:
    return Evidence(photometric_correlation, disagreement, share_seen=0.8, confidence=1.0)


def wrong(subject: Acceptance, mean: float, count: int = 64) -> None:
    for _ in range(count):
        subject.add_right(evidence(photometric_correlation=0.95), squared_error=5.35)
    for noise in np.random.default_rng(0).normal(0, 0.1, count):
        subject.add_wrong(evidence(photometric_correlation=mean + noise))


def test_before_anything_is_known_the_first_limits_hold() -> None:
    assert Acceptance().limits() == Limits()
    assert Acceptance().doubt() == 1.0
    assert Acceptance().samples == (0, 0)


def test_where_wrong_answers_look_more_alike_more_likeness_is_asked_for() -> None:
    limits = []
    for mean in (0.2, 0.5, 0.7):
        subject = Acceptance()
        wrong(subject, mean)
        limits.append(subject.limits().min_photometric_correlation)
    assert limits == sorted(limits) and limits[2] > limits[0] + 0.05


def test_wrong_answers_of_the_kind_seen_are_not_believed() -> None:
    subject = Acceptance()
    wrong(subject, 0.6)
    limit = subject.limits().min_photometric_correlation
    draws = 0.6 + np.random.default_rng(1).normal(0, 0.1, 10_000)
    assert np.mean(draws > limit) < 0.03


def test_limits_move_with_the_number_of_samples() -> None:
    few, many = Acceptance(), Acceptance()
    wrong(few, 0.2, count=2)
    wrong(many, 0.2)
    first = Limits().min_photometric_correlation
    limits = [subject.limits().min_photometric_correlation for subject in (many, few)]
    assert limits[0] < limits[1] < first


def test_where_right_answers_look_less_alike_less_likeness_is_asked_for() -> None:
    limits = []
    for photometric_correlation in (0.8, 0.98):
        subject = Acceptance()
        for _ in range(64):
            subject.add_right(
                evidence(photometric_correlation=photometric_correlation), squared_error=5.35
            )
            subject.add_wrong(evidence(photometric_correlation=0.7))
        limits.append(subject.limits().min_photometric_correlation)
    assert limits[0] < limits[1] - 0.05


def test_without_both_kinds_of_answers_the_first_limit_holds() -> None:
    subject = Acceptance()
    for _ in range(64):
        subject.add_wrong(evidence(photometric_correlation=0.4))
    assert subject.limits().min_photometric_correlation == Limits().min_photometric_correlation


def test_where_right_answers_disagree_more_more_is_let_through_within_bounds() -> None:
    limits = []
    for disagreement in (0.01, 0.06, 0.1, 1.0):
        subject = Acceptance()
        for _ in range(64):
            subject.add_right(evidence(disagreement=disagreement), squared_error=6.0)
        limits.append(subject.limits().max_disagreement)
    assert limits == sorted(limits) and limits[0] == 0.08 and limits[-1] == 0.3
    assert limits[1] == pytest.approx(0.15, abs=0.01)


def test_doubt_grows_with_the_errors_of_right_answers() -> None:
    subject = Acceptance()
    for _ in range(64):
        subject.add_right(evidence(), squared_error=4 * 5.35)
    assert subject.doubt() == pytest.approx(2.0, abs=0.2)


def test_small_errors_are_no_reason_for_less_doubt_than_usual() -> None:
    subject = Acceptance()
    for _ in range(64):
        subject.add_right(evidence(), squared_error=0.1)
    assert subject.doubt() == 1.0


def test_what_is_not_finite_teaches_nothing() -> None:
    subject = Acceptance()
    subject.add_right(evidence(disagreement=math.nan), squared_error=1.0)
    subject.add_right(evidence(), squared_error=math.nan)
    subject.add_wrong(evidence(photometric_correlation=math.nan))
    assert subject.samples == (0, 0)


def test_only_the_last_samples_count() -> None:
    subject = Acceptance()
    wrong(subject, 0.7)
    wrong(subject, 0.2)
    fresh = Acceptance()
    wrong(fresh, 0.2)
    assert subject.limits() == fresh.limits()
