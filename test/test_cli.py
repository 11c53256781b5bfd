# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys

import cv2
import pytest
import yaml
from tracked_frames import frames

from ttt3r_ros.cli import main
from ttt3r_ros.config import Config, settings
from ttt3r_ros.io.trajectory import read_tum
from ttt3r_ros.run import RunSummary


@pytest.fixture
def folder(tmp_path):
    """Three images in a folder."""
    images = tmp_path / "images"
    images.mkdir()
    for i, frame in enumerate(frames(3)):
        cv2.imwrite(str(images / f"{i}.png"), frame.rgb[..., ::-1])
    return images


def test_run_processes_a_folder(folder, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["run", str(folder), "--output", str(output), "--rate", "10", "--every", "2"]) == 0
    assert read_tum(output / "trajectory.tum")[0].tolist() == [0, 200_000_000]
    assert "2 images processed (0 of them LOST), 0 rejected, 1 segments" in capsys.readouterr().out


def test_flags_beat_the_file_and_the_file_beats_the_defaults(folder, tmp_path, capsys):
    file = tmp_path / "settings.yaml"
    values = {"segment": {"reset_interval": 1}, "base_frame": "x", "use_sim_time": True}
    other = {"driver": {"ros__parameters": {"rate": 3}}}
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}, **other}))
    arguments = ["run", str(folder), "--output", str(tmp_path / "out"), "--config", str(file)]
    assert main(arguments) == 0
    assert "3 segments, " in capsys.readouterr().out
    assert main([*arguments, "--segment.reset-interval", "0"]) == 0
    assert "1 segments, " in capsys.readouterr().out


def test_loops_can_be_switched_off(folder, tmp_path, monkeypatch):
    configs = []
    monkeypatch.setattr("ttt3r_ros.pipeline.Pipeline.from_config", configs.append)
    monkeypatch.setattr("ttt3r_ros.run.run", lambda *args, **more: RunSummary(processed=1))
    arguments = ["run", str(folder), "--output", str(tmp_path / "out")]
    assert main(arguments) == main([*arguments, "--no-loops"]) == 0
    assert [config.loop.enabled for config in configs] == [True, False]


def test_images_left_out_by_choice_are_no_gap(folder, tmp_path, capsys):
    arguments = ["run", str(folder), "--output", str(tmp_path / "out"), "--rate", "0.6"]
    assert main([*arguments, "--every", "2"]) == 0  # 3.3 s apart
    assert "2 images processed (0 of them LOST), 0 rejected, 1 segments" in capsys.readouterr().out
    assert main([*arguments, "--every", "2", "--time.max-gap-s", "2"]) == 0
    assert "2 images processed (0 of them LOST), 0 rejected, 2 segments" in capsys.readouterr().out


def test_every_setting_of_the_pipeline_has_a_flag_with_its_help(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for setting in settings(Config).values():
        if setting.name != "process_all_images":  # always, offline
            assert f"--{setting.name.replace('_', '-')}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere", "--output", "out"], "nowhere: does not exist"),
        (
            ["run", ".", "--output", "out", "--map.voxel-size-m", "0"],
            "map.voxel_size_m: must be at",
        ),
        (["run", ".", "--output", "out", "--config", "no.yaml"], "no.yaml"),
        (["check", "nowhere.pth"], "nowhere.pth: no such file"),
        (["convert", "nowhere.pth", "out.safetensors"], "nowhere.pth: no such file"),
        (["play", "nowhere"], "nowhere: does not exist"),
        (["play", "nowhere", "--rate", "0"], "rate: must be positive and finite, got 0.0"),
        (["view", "nowhere"], "nowhere: neither map.ply nor map.pcd nor trajectory.tum in it"),
        (["view", "nowhere", "--node", "x"], "view: a folder or a node, not both"),
        (["view", "--max-points", "0"], "max-points: must be at least 1, got 0"),
        (["view", "--port", "70000"], "127.0.0.1:70000"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_users_error_is_one_line_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("ttt3r: ") and message in lines[-1]


def test_a_file_that_holds_no_parameters_is_named(folder, tmp_path, capsys):
    file = tmp_path / "settings.yaml"
    for content in ("[1, 2]", "/**: b", "{", "ttt3r_node: {ros__parameters: 3}"):
        file.write_text(content)
        assert main(["run", str(folder), "--output", "out", "--config", str(file)]) == 2
        assert f"ttt3r: {file}: not a ROS parameter file" in capsys.readouterr().err
    file.write_text("/robot/ttt3r_node: {ros__parameters: {map: {voxl_size: 1}}}")
    assert main(["run", str(folder), "--output", "out", "--config", str(file)]) == 2
    assert "map.voxl_size: no such setting, map.voxel_size_m?" in capsys.readouterr().err


def test_without_viser_the_view_names_the_extra_that_has_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    monkeypatch.delitem(sys.modules, "ttt3r_ros.viewer.page", raising=False)
    monkeypatch.delitem(sys.modules, "ttt3r_ros.viewer.folder", raising=False)
    assert main(["view"]) == 2
    assert "pip install 'ttt3r_ros[view]'" in capsys.readouterr().err


def test_without_ros_the_view_of_a_node_says_so(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ttt3r_ros.clients.live_view", None)
    assert main(["view", "--port", "0"]) == 2
    assert "ROS" in capsys.readouterr().err
