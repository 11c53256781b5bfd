# SPDX-License-Identifier: Apache-2.0
"""The figures of covariances, on errors whose size is known, and on a few images."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest
from small_network import small_checkpoint

from benchmarks import covariance_errors, covariance_figure, harness
from benchmarks import evaluate_covariance as subject
from ttt3r_ros.geometry import inverse, transform
from ttt3r_ros.tracking.signals import Signals
from ttt3r_ros.types import TrackingState

INITIALS = {state.name[0]: state for state in TrackingState}
QUARTER = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]  # about z


def drawn(covariance, count=4000, factor=1.0):
    """Errors whose deviations are `factor` times the predicted ones."""
    generator = np.random.default_rng(0)
    errors = factor * generator.multivariate_normal(np.zeros(6), covariance, count)
    return covariance_errors.Compared(errors, np.tile(covariance, (count, 1, 1)))


def images(states, found, true):
    """Images at `found` that are at `true`, both positions [F, 3], seen in axes of their own."""
    signals = Signals(confidence=2.0, contrast=40.0, detail=(1.0, 1.0), dt_s=0.1)
    T_odom_world = transform(QUARTER, (5.0, 6.0, 7.0))
    return [
        covariance_errors.Image(
            transform(np.eye(3), place),
            inverse(T_odom_world) @ transform(np.eye(3), truth),
            signals,
            INITIALS[letter],
            2.0,
        )
        for letter, place, truth in zip(states, found, true, strict=True)
    ]


def line(length, step):
    return [(step * i, 0.0, 0.0) for i in range(length)]


def test_errors_as_large_as_predicted_are_within_the_gaussian_shares():
    root = np.random.default_rng(1).normal(0, 1, (6, 6))
    row = subject.summary_of(drawn(root @ root.T))
    for part in ("position", "rotation"):
        assert row[part]["in_sigmas"] == pytest.approx(1, abs=0.02)
        assert row[part]["within"] == pytest.approx(subject._GAUSSIAN, abs=0.01)
        assert row[part]["rms"] == pytest.approx(row[part]["predicted_rms"], rel=0.03)


def test_errors_twice_as_large_as_predicted_are_told():
    row = subject.summary_of(drawn(np.diag([0.1, 0.2, 0.3, 0.01, 0.02, 0.03]), factor=2.0))
    assert row["position"]["in_sigmas"] == pytest.approx(2, abs=0.05)
    assert row["rotation"]["within"][0] == pytest.approx(0.383, abs=0.02)  # within σ/2


def test_errors_that_are_larger_where_more_is_predicted_lie_on_the_diagonal():
    sure, unsure = drawn(0.01 * np.eye(6)), drawn(np.eye(6))
    compared = covariance_errors.joined([sure, unsure])
    expected, actual = covariance_figure.binned(compared, covariance_errors.POSITION)
    np.testing.assert_allclose(
        expected, np.sqrt(3) * np.repeat([0.1, 1.0], covariance_figure._BINS // 2)
    )
    np.testing.assert_allclose(actual, expected, rtol=0.1)


def test_ranks_agree_wholly_when_errors_are_as_predicted_and_not_at_all_when_they_are_random():
    sigmas = np.random.default_rng(0).uniform(0.1, 1.0, 2000)
    covariances = sigmas[:, None, None] ** 2 * np.eye(6)
    for errors, expected in ((sigmas, 1.0), (np.random.default_rng(1).permutation(sigmas), 0.0)):
        compared = covariance_errors.Compared(np.repeat(errors[:, None], 6, axis=1), covariances)
        found = covariance_errors.rank_correlation(compared, covariance_errors.POSITION)
        assert found == pytest.approx(expected, abs=0.06)


def test_poses_are_compared_in_the_frame_in_which_the_first_ones_agree():
    errors = covariance_errors.pose_errors(images("ITT", line(3, 0.1), line(3, 0.3)))
    np.testing.assert_allclose(errors[:, 0], [0.0, 0.2, 0.4], atol=1e-12)
    np.testing.assert_allclose(errors[:, 1:], 0, atol=1e-12)


def test_steps_into_and_out_of_lost_images_are_not_compared():
    run = images("ITTULIUT", line(8, 0.1), line(8, 0.3))
    compared = covariance_errors.step_errors(run)
    np.testing.assert_allclose(compared.errors[:, 0], 0.2)
    assert len(compared.errors) == len(compared.covariances) == 5


def test_pieces_begin_anew_and_not_at_lost_images():
    states = "I" + "T" * 24 + "L" + "T" * 24 + "TT" + "T" * 9
    run = images(states, line(61, 0.1), line(61, 0.3))
    compared = covariance_errors.chain_errors([run], 10)  # from images 0, 25, which is LOST, and 50
    np.testing.assert_allclose(compared.errors[:, 0], [2.0, 2.0])
    np.testing.assert_allclose(compared.covariances[0], compared.covariances[1])


def test_the_command_prints_tables_and_draws_a_small_picture(tmp_path, capsys):
    numbers, figure = tmp_path / "numbers.json", tmp_path / "figure.png"
    words = ["--checkpoint", small_checkpoint(), "--rooms", "4", "--special-rooms", "1"]
    files = ["--json", str(numbers), "--figure", str(figure)]
    words += ["--images", "12", "--special", "8", "--onset", "4", "--dim", "2", "--covered", "3"]
    harness.run(subject.PROGRAM, [*words, "--first-seed", "2400000", *files])
    text, found = capsys.readouterr().out, json.loads(numbers.read_text())
    assert list(found["by_length"]) == ["step", "1 s"]
    assert list(found["by_kind"]) == [*covariance_errors.CAMERAS, *covariance_errors.SPECIAL]
    assert found["by_kind"]["covered"]["states"]["LOST"] >= 0.3
    assert f"| 1 s | {found['by_length']['1 s']['errors']} |" in text
    assert PIL.Image.open(figure).size == (1350, 820)
    assert figure.stat().st_size < 150_000
