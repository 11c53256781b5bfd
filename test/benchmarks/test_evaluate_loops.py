# SPDX-License-Identifier: Apache-2.0
"""The table of loops, on a few images."""

from __future__ import annotations

import numpy as np
import pytest
from graph_examples import noise

from benchmarks import evaluate_loops as subject
from benchmarks.harness import Context
from ttt3r_ros.config import Config

SEED = 950_000


@pytest.fixture(scope="module")
def room():
    options = subject.Options(images=24, timed=22)
    context = Context(Config(device="cpu", process_all_images=True), options, SEED, 1)
    return context, subject.evaluate_rooms(context, [SEED])


def test_without_a_place_seen_again_all_paths_and_maps_are_alike(room):
    (numbers,) = room[1]
    assert numbers["accepted"] == numbers["believed"] == 0 < numbers["asked"]
    for name in ("ate_m", "doubled", "f_score_5cm", "map_points"):
        without = numbers[f"{subject.WITHOUT} {name}"]
        assert numbers[f"{subject.FINAL} {name}"] == pytest.approx(without, rel=1e-6)
    assert numbers["true poses ate_m"] < 1e-6 < numbers["final ate_m"]
    assert numbers["true poses map_points"] > 0
    assert numbers["online ate_m"] < 2 * numbers["resting_m"]


def test_the_tables_have_every_path(room):
    context, numbers = room
    report = {
        **subject.summarize(context, numbers),
        "rooms": 1,
        "first_seed": SEED,
        "size": "128x96",
        "plan": {"images": 24, "places": "one"},
        "checkpoint": {"name": "x", "sha256": "y"},
        "hardware": {"gpu": "", "cpu": "z", "threads": 1},
        "versions": {"torch": "1"},
        "processes": 1,
        "seconds": 1.0,
        "date": "today",
        "commit": "abc",
    }
    text = "\n".join(subject.markdown(report))
    for kind in (subject.WITHOUT, subject.ONLINE, subject.FINAL, subject.TRUE):
        assert f"| {kind} |" in text


def test_a_path_is_laid_on_the_truth_whatever_its_frame():
    generator = np.random.default_rng(0)
    true = [noise(generator, 1.0, 1.0) for _ in range(20)]
    frame = noise(generator, 3.0, 1.0)
    T, off_m = subject._laid_on([frame @ pose for pose in true], true)
    np.testing.assert_allclose(T @ frame, np.eye(4), atol=1e-9)
    assert off_m == pytest.approx(0.0, abs=1e-9)
