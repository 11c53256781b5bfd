# SPDX-License-Identifier: Apache-2.0
"""Map and trajectory as files: by services, beside tracking, and at the node's end."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from preloaded import new_process
from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from robot import PATIENCE_S, image_message
from small_network import small_checkpoint
from std_srvs.srv import Trigger

from ttt3r_ros.io.point_cloud import CLOUD_WRITERS
from ttt3r_ros.io.trajectory import read_tum
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.ros.saving import SAVED

SUCCESS = TransitionCallbackReturn.SUCCESS


def points_in(path):
    """How many points a PLY or PCD file says to have."""
    key = {".ply": b"element vertex ", ".pcd": b"POINTS "}[path.suffix]
    return int(path.read_bytes().split(key)[1].split(b"\n")[0])


def files_of(folder):
    """The kinds of what was saved, among them anything that was left behind."""
    return sorted(f"{path.name.partition('_')[0]}{path.suffix}" for path in folder.iterdir())


def call_async(robot, name):
    client = robot.client.create_client(Trigger, f"ttt3r_node/{name}")
    assert client.wait_for_service(PATIENCE_S)
    return client.call_async(Trigger.Request())


@pytest.mark.parametrize("form", ["ply", "pcd"])
def test_the_map_is_saved_in_the_format_that_is_set_now(robot, tmp_path, form):
    robot.start(output_dir=str(tmp_path / "not" / "there"))
    points = robot.send(at_s=1.0).map_points
    client = robot.client.create_client(SetParameters, "ttt3r_node/set_parameters")
    client.wait_for_service()
    parameter = Parameter("map_format", value=form).to_parameter_msg()
    request = SetParameters.Request(parameters=[parameter])
    assert robot.result_of(client.call_async(request)).results[0].successful
    answer = robot.call("save_map")
    assert answer.success, answer.message
    path = Path(answer.message)
    assert path.parent == tmp_path / "not" / "there" and path.suffix == f".{form}"
    assert points_in(path) == points
    assert files_of(path.parent) == [f"map.{form}"]


def test_the_trajectory_is_saved_with_the_poses_in_the_map(robot, tmp_path):
    robot.start(output_dir=str(tmp_path), process_all_images=True)
    for i in range(3):
        robot.send(at_s=1 + i / 10)
    answer = robot.call("save_trajectory")
    assert answer.success, answer.message
    stamps, poses = read_tum(answer.message)
    assert stamps.tolist() == [1_000_000_000, 1_100_000_000, 1_200_000_000]
    # The executor's thread may read it: no image comes any more.
    kept = [T_map_camera for _, T_map_camera in robot.node._worker._pipeline.trajectory()]
    np.testing.assert_allclose(poses, kept, atol=1e-8)
    assert files_of(tmp_path) == ["trajectory.tum"]


@pytest.mark.parametrize("what", ["map", "trajectory"])
def test_where_nothing_is_there_is_nothing_to_save_yet(robot, tmp_path, what):
    robot.start(output_dir=str(tmp_path / "out"))
    answer = robot.call(f"save_{what}")
    empty = {
        "map": "no voxel of the map was seen by 1 images",
        "trajectory": "the trajectory is empty",
    }
    assert not answer.success and answer.message == empty[what]
    assert not (tmp_path / "out").exists()
    robot.send(at_s=1.0)
    assert robot.call(f"save_{what}").success


@pytest.mark.parametrize("what", SAVED)
def test_a_node_that_is_not_configured_has_nothing_to_save(robot, what):
    robot.start(autostart=False)
    answer = robot.call(f"save_{what}")
    assert not answer.success and "not configured" in answer.message


@pytest.mark.parametrize("what", ["map", "trajectory"])
def test_a_folder_that_cannot_be_made_is_an_answer_and_tracking_goes_on(robot, tmp_path, what):
    (tmp_path / "file").write_text("")
    robot.start(output_dir=str(tmp_path / "file"))
    robot.send(at_s=1.0)
    answer = robot.call(f"save_{what}")
    assert not answer.success and str(tmp_path / "file") in answer.message
    assert robot.send(at_s=1.1).processed == 2


@pytest.mark.parametrize("where", ["copy", "write"])
def test_whatever_goes_wrong_with_saving_there_is_an_answer(robot, tmp_path, monkeypatch, where):
    def fail(*arguments):
        raise RuntimeError("out of something")

    robot.start(output_dir=str(tmp_path))
    robot.send(at_s=1.0)
    if where == "copy":
        monkeypatch.setattr(Pipeline, "trajectory", fail)
    else:
        monkeypatch.setattr("ttt3r_ros.ros.saving.TumWriter", fail)
    for _ in range(2):  # the first one that fails does not stop the next
        answer = robot.call("save_trajectory")
        assert not answer.success and "out of something" in answer.message
    assert files_of(tmp_path) == []


def test_images_resets_and_other_saves_go_on_while_a_map_is_written(robot, tmp_path, monkeypatch):
    entered, released = threading.Event(), threading.Event()
    write = CLOUD_WRITERS["ply"]

    def held(*arguments):
        entered.set()
        assert released.wait(PATIENCE_S)
        write(*arguments)

    monkeypatch.setattr("ttt3r_ros.ros.saving.CLOUD_WRITERS", {"ply": held})
    robot.start(output_dir=str(tmp_path))
    points = robot.send(at_s=1.0).map_points
    saving = call_async(robot, "save_map")
    assert entered.wait(PATIENCE_S)
    assert robot.call("save_trajectory").success
    assert robot.call("reset").success
    assert robot.send(at_s=1.1).images_since_reset == 1
    robot.send(at_s=1.2)
    assert not saving.done() and files_of(tmp_path) == ["trajectory.tum"]
    released.set()
    answer = robot.result_of(saving)
    assert answer.success and points_in(Path(answer.message)) == points


def test_the_worker_does_not_end_before_what_is_being_saved(robot, tmp_path, monkeypatch):
    entered, ended = threading.Event(), threading.Event()
    write = CLOUD_WRITERS["ply"]

    def held(*arguments):
        entered.set()
        assert not ended.wait(0.5)
        write(*arguments)

    monkeypatch.setattr("ttt3r_ros.ros.saving.CLOUD_WRITERS", {"ply": held})
    robot.start(output_dir=str(tmp_path))
    points = robot.send(at_s=1.0).map_points
    saving = call_async(robot, "save_map")
    assert entered.wait(PATIENCE_S)
    robot.in_node(robot.node.trigger_deactivate)
    assert robot.in_node(robot.node.trigger_cleanup) == SUCCESS
    ended.set()
    answer = robot.result_of(saving)
    assert answer.success and points_in(Path(answer.message)) == points


@pytest.mark.parametrize("transition", ["cleanup", "shutdown"])
def test_the_node_saves_at_its_end_once_if_that_is_wanted(robot, tmp_path, transition):
    robot.start(output_dir=str(tmp_path), save_on_shutdown=True, recovery__keyframes=0)
    robot.send(at_s=1.0)
    assert robot.in_node(robot.node.trigger_deactivate) == SUCCESS
    assert files_of(tmp_path) == []
    assert robot.in_node(getattr(robot.node, f"trigger_{transition}")) == SUCCESS
    assert files_of(tmp_path) == ["map.ply", "trajectory.tum"]
    robot.shutdown()  # and destroys the node
    assert files_of(tmp_path) == ["map.ply", "trajectory.tum"]


def test_one_thing_that_cannot_be_saved_at_the_end_keeps_neither_the_others_nor_the_end(
    robot, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr("ttt3r_ros.ros.saving.CLOUD_WRITERS", {"ply": lambda *_: 1 / 0})
    robot.start(output_dir=str(tmp_path), save_on_shutdown=True, recovery__keyframes=0)
    robot.send(at_s=1.0)
    robot.in_node(robot.node.trigger_deactivate)
    assert robot.in_node(robot.node.trigger_cleanup) == SUCCESS
    assert files_of(tmp_path) == ["trajectory.tum"]
    log = capfd.readouterr().err
    assert "map not saved: division by zero" in log and "saved " in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_saves_when_it_is_interrupted_and_ends_well(robot, program, tmp_path, number):
    start = new_process if number == signal.SIGINT else program
    settings = {
        "checkpoint": small_checkpoint(),
        "device": "cpu",
        "image_reliability": "reliable",
        "tf_wait_s": 0.0,
        "output_dir": tmp_path / "out",
        "save_on_shutdown": "true",
        "map.edge_filter": "0.0",  # the depth of random weights is nothing but edges
    }
    arguments = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
    with subprocess.Popen(
        start("-m", "ttt3r_ros.ros.node", "--ros-args", *arguments),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            robot.meet()
            robot.hear_process()
            message = image_message(1.0)
            robot.images.publish(message)
            points = robot.status_at(message.header.stamp).map_points
            running.send_signal(number)
            log = running.communicate(timeout=PATIENCE_S)[1]
        finally:
            running.kill()
    assert running.returncode == 0 and "Traceback" not in log, log
    saved = {path.name.partition("_")[0]: path for path in (tmp_path / "out").iterdir()}
    assert points_in(saved["map"]) == points and len(read_tum(saved["trajectory"])[0]) == 1
    for path in saved.values():
        assert f"saved {path}" in log
