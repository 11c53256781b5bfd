# SPDX-License-Identifier: Apache-2.0
"""The tables of merged sessions, on a few images."""

from __future__ import annotations

import pytest

from benchmarks import evaluate_merge as subject
from benchmarks.harness import Context
from ttt3r_ros.config import Config

SEED = 950_000


@pytest.fixture(scope="module")
def room():
    context = Context(
        Config(device="cpu", process_all_images=True), subject.Options(images=12), SEED, 1
    )
    return context, subject.evaluate_rooms(context, [SEED])


def test_what_follows_at_once_is_one_room_and_another_one_is_not(room):
    (numbers,) = room[1]
    assert numbers["is_merged"] and not numbers["is_wrongly_merged"]
    assert numbers["loops"] >= numbers["right"] > 0
    apart, merged = (numbers[f"{kind} map_points"] for kind in (subject.APART, subject.MERGED))
    assert 0 < merged <= apart
    assert numbers["merged ate_m"] < 0.3 and numbers["merged off_m"] < 0.5


def test_the_tables_have_both_and_count_the_loops(room):
    context, numbers = room
    report = {
        **subject.summarize(context, numbers),
        "rooms": 1,
        "first_seed": SEED,
        "size": "128x96",
        "plan": {"images": 12},
        "checkpoint": {"name": "x", "sha256": "y"},
        "hardware": {"gpu": "", "cpu": "z", "threads": 1},
        "versions": {"torch": "1"},
        "processes": 1,
        "seconds": 1.0,
        "date": "today",
        "commit": "abc",
    }
    text = "\n".join(subject.markdown(report))
    for kind in (subject.APART, subject.MERGED):
        assert f"| {kind} |" in text
    assert f"| 1 | 1 | 0 | {numbers[0]['loops']} |" in text
