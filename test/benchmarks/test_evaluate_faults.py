# SPDX-License-Identifier: Apache-2.0
"""The table of faults, on random weights and a few images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_network import small_checkpoint

from benchmarks import evaluate_faults as subject
from benchmarks import harness
from benchmarks.harness import Context
from ttt3r_ros.config import Config
from ttt3r_ros.geometry import transform
from ttt3r_ros.loading import load_model
from ttt3r_ros.types import TrackingState

CONFIG = Config(checkpoint=small_checkpoint(), device="cpu", process_all_images=True)
SMALL = dict(clean=12, good=4, onset=8, duration=3, after=6)
INITIALS = {state.name[0]: state for state in TrackingState}


def flags(options):
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def judged(states, **compared):
    return [subject.Judged(INITIALS[letter], compared, np.eye(4)) for letter in states]


def run(states, first, stop, cut=False):
    return subject.Run(judged(states), first, stop, cut, [], [])


def test_times_are_counted_from_the_fault_and_from_its_end():
    runs = [run("ITTTLLLIT" + "T" * 8, 3, 6), run("ITTTTULUT" + "T" * 8, 3, 6)]
    found = subject.summarize_fault(runs)
    names = ("noticed", "images_to_notice", "most_images_to_notice")
    assert [found[name] for name in names] == [1, 2.5, 3]
    assert (found["lost"], found["images_to_lost"], found["losses"]) == (0.5, 2, 1)
    assert (found["recovered"], found["images_to_recover"]) == (1, 3)


def test_what_is_not_noticed_is_not_recovered_and_recovery_after_15_images_is_none():
    runs = [run("IT" + "T" * 20, 2, 5), run("ITLLL" + "U" * 15 + "T", 2, 5)]
    found = subject.summarize_fault(runs)
    assert (found["noticed"], found["recovered"], found["images_to_recover"]) == (0.5, 0, 16)


def test_a_cut_may_be_noticed_some_images_later_and_returns_count_after_that():
    found = subject.summarize_fault([run("ITTTUTTTT", 2, 3, cut=True)])
    assert (found["noticed"], found["images_to_notice"], found["images_to_recover"]) == (1, 3, 3)
    assert subject.summarize_fault([run("ITTTTTTTU", 2, 3, cut=True)])["noticed"] == 0


def test_false_alarms_are_per_thousand_images():
    found = subject.summarize_good([judged("ITTTUUTTTT"), judged("ITLLITTLIT")])
    assert found == {
        "images": 20,
        "uncertain_per_1000": 100.0,
        "lost_per_1000": 150.0,
        "losses_per_1000": 100.0,
    }


def test_quantiles_tell_good_images_and_the_first_faulty_ones_apart():
    good = {"film": [judged("TTT", contrast=30.0)]}
    images = judged("TT", contrast=20.0) + judged("L", contrast=1.0) + judged("L", contrast=2.0)
    table = subject.signal_quantiles(good, {"covered": [subject.Run(images, 2, 4, False, [], [])]})
    medians = {group: row["quantiles"][3] for group, row in table["contrast"].items()}
    assert medians == {"good": 30.0, "covered, first": 1.0, "covered, later": 2.0}


@pytest.fixture(scope="module")
def room():
    context = Context(CONFIG, subject.Options(**SMALL), 950_001, 1)
    return subject.evaluate_room(context, 950_001)


def test_every_fault_shares_the_run_before_it_and_has_its_length(room):
    good, runs = room.good, room.runs
    assert tuple(good) == subject.GOOD and tuple(runs) == subject.FAULTS
    before = [image.compared for image in good["robot or hand"][:9]]
    for name, found in runs.items():
        assert (found.first, found.stop) == (9, 10 if name in subject.CUTS else 12)
        assert len(found.images) == found.first + (6 if name in subject.CUTS else 9)
        assert [image.compared for image in found.images[:9]] == before


def test_faults_are_in_the_pictures_that_are_judged(room):
    runs = room.runs
    states = {name: found.images[found.first].state for name, found in runs.items()}
    for name in ("covered", "lights off", "noise", *subject.CUTS):
        assert states[name] is TrackingState.LOST, name
    assert runs["frozen"].images[11].compared["repeats"] == 3
    detail = [image.compared["detail"] for image in runs["blur"].images[8:10]]
    assert detail[1] < 0.4 < detail[0]


def test_a_split_follower_goes_on_as_the_whole_one():
    model = load_model(CONFIG)
    film = subject.Studio(950_000, 128)
    pictures = film.pictures(film.path.pose(subject._times(6)))
    whole = subject.follow(subject.TrackedStream(model, CONFIG), pictures)
    stream = subject.TrackedStream(model, CONFIG)
    subject.follow(stream, pictures[:3])
    for twin in (stream.split(), stream):
        parts = subject.follow(twin, pictures[3:], 300_000_000)
        for one, other in zip(parts, whole[3:], strict=True):
            np.testing.assert_array_equal(one.T_odom_camera, other.T_odom_camera)


def test_step_errors_are_of_images_that_have_poses():
    images = [
        subject.Judged(INITIALS[letter], {}, transform(np.eye(3), (0.1 * i, 0, 0)))
        for i, letter in enumerate("TTULTT")
    ]
    truth = np.stack([transform(np.eye(3), (0.3 * i, 0, 0)) for i in range(6)])
    errors = list(subject._step_errors(images, truth, 1, 6))
    assert errors == [pytest.approx((0.2, 0.0))] * 3  # not into the lost image nor out of it


def test_the_command_prints_tables_and_writes_every_number(tmp_path, capsys):
    file = tmp_path / "numbers.json"
    words = ["--checkpoint", small_checkpoint(), "--rooms", "1", "--first-seed", "950000"]
    words += ["--faults", "covered", "180 degrees", "--json", str(file)]
    harness.run(subject.PROGRAM, [*words, *flags(SMALL)])
    text, numbers = capsys.readouterr().out, json.loads(file.read_text())
    assert list(numbers["faults"]) == ["covered", "180 degrees"]
    assert numbers["states"]["covered"][0][8] == "L"
    row = numbers["good"]["robot or hand"]
    assert f"| robot or hand | 12 | {row['uncertain_per_1000']:.1f} |" in text
    assert "| covered | 100% | 1 (1) | 100% | 1 |" in text
    assert f"commit {numbers['commit']}" in text
