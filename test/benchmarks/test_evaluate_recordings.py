# SPDX-License-Identifier: Apache-2.0
"""The table of real pictures, on a simulated bag and random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_network import small_checkpoint

from benchmarks import evaluate_recordings as subject
from ttt3r_ros.recordings.datasets.find import find_recordings
from ttt3r_ros.recordings.simulated_bag import write_simulated_bag
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions
from ttt3r_ros.types import SourceError


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "bag"
    scene = Scene(SceneOptions(seed=3, width=128, height=96))
    write_simulated_bag(path, scene, range(30), 20.0)
    return path


@pytest.fixture(scope="module")
def footage(bag):
    (recording,) = find_recordings(bag)
    return subject.read(recording, 64)


def test_a_recording_is_read_at_the_networks_size_with_its_truth(footage):
    assert footage.pictures.shape[1:] == (48, 64, 3)
    assert footage.depth_m.shape == footage.pictures.shape[:3]
    assert len(footage.poses) == len(footage.pictures) == len(footage.stamps_s) == 30
    assert np.diff(footage.stamps_s) == pytest.approx(0.05, abs=1e-3)
    assert (footage.lens.fx, footage.lens.cx) == pytest.approx((48.0, 31.5))
    assert np.isfinite(footage.depth_m).mean() > 0.99


def test_windows_overlap_by_half_and_a_faster_recording_gives_more_of_them():
    slow = subject.windows(np.arange(60) / 10, 2.0, 10.0)
    assert slow.shape[1] == 20 and (np.diff(slow, axis=1) == 1).all()
    assert slow[:, 0].tolist() == [0, 10, 20, 30, 40]
    fast = subject.windows(np.arange(120) / 30, 4.0, 10.0)
    assert (np.diff(fast, axis=1) == 3).all()
    assert sorted(fast[:, 0].tolist()) == [0, 1, 2]
    with pytest.raises(SourceError, match="shorter"):
        subject.windows(np.arange(10) / 10, 4.0, 10.0)


def test_true_answers_have_no_error_whatever_their_scale(footage):
    index = subject.windows(footage.stamps_s, 1.0, 10.0)
    poses = footage.poses[index]
    depth = 0.5 * footage.depth_m[index].astype(np.float64)
    found = (np.linalg.inv(poses[:, :1]) @ poses, depth, np.ones_like(depth))
    scores = subject.scored(footage, index, found)
    assert scores["abs_rel"] < 1e-6 < 0.05 < scores["abs_rel_constant"]
    assert scores["abs_rel_unscaled"] == pytest.approx(0.5, abs=1e-3)
    assert scores["ate_share"][0] < 1e-3


def test_the_command_prints_a_row_for_each_recording_rule_and_interval(bag, tmp_path, capsys):
    file = tmp_path / "numbers.json"
    words = [str(bag), "--checkpoint", small_checkpoint(), "--seconds", "1", "--json", str(file)]
    subject.main([*words, "--intervals", "0", "4"])
    text = capsys.readouterr().out
    rows = json.loads(file.read_text())["rows"]
    assert [(row["rule"], row["reset_interval"]) for row in rows] == [
        ("cut3r", 0), ("cut3r", 4), ("ttt3r", 0), ("ttt3r", 4)
    ]  # fmt: skip
    assert text.count("| bag |") == 4 and "| never |" in text


def test_a_recording_that_is_too_short_is_refused_by_name_of_the_limit(tmp_path, capsys):
    path = tmp_path / "short"
    write_simulated_bag(path, Scene(SceneOptions(seed=3, width=64, height=48)), range(2), 20.0)
    with pytest.raises(SystemExit):
        subject.main([str(path), "--checkpoint", small_checkpoint()])
    assert "shorter than 4 s at 10 Hz" in capsys.readouterr().err
