# SPDX-License-Identifier: Apache-2.0
"""The table of relocalization, on random weights and a few pictures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from small_network import small_checkpoint

from benchmarks import evaluate_relocalization as subject
from benchmarks import harness
from ttt3r_ros.geometry import inverse, rotation_vector
from ttt3r_ros.relocalization.relocalize import Evidence, Limits


def answer(photometric_correlation=0.95, error_m=0.1, error_deg=1.0):
    return subject.Try(Evidence(photometric_correlation, 0.05, 0.9, 1.0), error_m, error_deg)


def question(kind, *tries):
    return subject.Question(kind, list(tries), 10.0)


def test_the_answer_is_the_best_of_those_that_suffice():
    asked = question("second round", answer(0.9), answer(0.97, error_m=0.2), answer(0.5))
    assert asked.believed(Limits()).error_m == 0.2
    assert question("second round", answer(0.5)).believed(Limits()) is None


def test_right_and_wrong_are_counted_by_kind_of_place():
    kind = "25 cm, 10°"
    questions = [
        question(kind, answer()),
        question(kind, answer(error_m=0.4)),  # neither right nor wrong
        question(kind, answer(error_deg=30.0)),
        question(kind, answer(photometric_correlation=0.2)),  # right, not believed
        question(kind),
    ]
    row = subject.summary_of(questions, Limits())["places"][kind]
    counts = [row[name] for name in ("asked", "accepted", "right", "wrong", "possible")]
    assert counts == [5, 3, 1, 1, 2]
    assert row["error_m"][0] == 0.1


def test_whatever_is_accepted_in_another_room_is_wrong():
    nowhere = answer(error_m=math.nan, error_deg=math.nan)
    questions = [question(subject.OTHER, nowhere), question(subject.OTHER)]
    row = subject.summary_of(questions, Limits())["places"][subject.OTHER]
    assert (row["asked"], row["accepted"], row["right"], row["wrong"]) == (2, 1, 0, 1)
    assert row["error_m"] is None


def test_poses_beside_the_path_are_as_far_off_as_said():
    poses = subject.Studio((950_000, 950_001), 64, 20.0).poses(3.0)
    moved = subject.beside(poses, 0.25, 10.0, np.random.default_rng(0))
    for before, after in zip(poses.numpy(), moved.numpy(), strict=True):
        off = after[:3, 3] - before[:3, 3]
        assert np.linalg.norm(off) == pytest.approx(0.25) and off[2] == 0
        turn = after @ inverse(before)
        assert np.degrees(rotation_vector(turn)) == pytest.approx([0, 0, 10], abs=1e-4) or (
            np.degrees(rotation_vector(turn)) == pytest.approx([0, 0, -10], abs=1e-4)
        )


def test_the_second_round_leads_past_the_same_places():
    studio = subject.Studio((950_000,), 64, 20.0)
    torch.testing.assert_close(studio.poses(1.7), studio.poses(21.7), atol=1e-5, rtol=0)


def test_the_command_prints_tables_and_writes_every_number(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(subject, "PLACES", {"second round": (0, 0), "turned by 90°": (0.0, 90.0)})
    file = tmp_path / "numbers.json"
    words = ["--checkpoint", small_checkpoint(), "--rooms", "3", "--first-seed", "950000"]
    words += ["--pictures", "1", "--loop", "0.5", "--capacity", "4", "--json", str(file)]
    harness.run(subject.PROGRAM, words)
    text, numbers = capsys.readouterr().out, json.loads(file.read_text())
    assert len(numbers["keyframes"]) == 3 and set(numbers["keyframes"]) <= {1, 2, 3, 4}
    assert len(numbers["questions"]) == 2 * 3 * 3  # places, rooms, the own room and two others
    assert numbers["places"]["another room"]["asked"] == 12
    assert f"| second round | 3 | {numbers['places']['second round']['accepted']} (" in text
    assert f"commit {numbers['commit']}" in text
