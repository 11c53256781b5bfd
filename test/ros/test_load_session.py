# SPDX-License-Identifier: Apache-2.0
"""A session is loaded while the node runs, and the map is left as it is if that is wanted."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from nav_msgs.msg import Path
from revisit import AGAIN, ANOTHER_SEED, MOST_DEG, MOST_M, Room, error
from robot import LATCHED, camera_info_message, image_message
from seen_again import EAGER, recognise_every_place
from sensor_msgs.msg import CameraInfo, PointCloud2
from tolerant import TOLERANT
from tracked_frames import frames, pipeline

from ttt3r_ros.config import Config
from ttt3r_ros.geometry import Intrinsics, optical_extrinsics, transform_from_quaternion
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.ros.conversions import stamp_ns
from ttt3r_ros.ros.mailbox import Mailbox
from ttt3r_ros.ros.session_service import read_beside
from ttt3r_ros.session import made_for, save_session
from ttt3r_ros.tracking.tracker import Tracker

CAMERA = Intrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)
LATER_NS = 100 * 10**9
MANY = 10


def start(robot, camera, **parameters):
    robot.start(process_all_images=True, path__rate_hz=50.0, **parameters)
    info = robot.client.create_publisher(CameraInfo, "camera_info", 1)
    robot.wait_until(lambda: info.get_subscription_count() > 0)
    message = camera_info_message(128, 96)
    message.k = camera.matrix().flatten()
    info.publish(message)


def send(robot, frame):
    return robot.send(image_message(frame.stamp_ns / 1e9, frame.rgb))


def save(subject, folder):
    save_session(folder, subject.session(), made_for(subject.config, subject.model.image_size))
    return folder


def small_session(folder):
    """Of the small network: (folder, poses in its path)."""
    subject = pipeline(**TOLERANT)
    for frame in frames(MANY):
        subject.process(replace(frame, intrinsics=CAMERA))
    return save(subject, folder)


@pytest.fixture(scope="module")
def room():
    return Room()


@pytest.fixture(scope="module")
def session(room, tmp_path_factory):
    """The folder, and T_map_camera of the image whose place is seen again."""
    subject = Pipeline.from_config(Config(device="cpu", process_all_images=True))
    subject.place_first_camera(optical_extrinsics())
    results = [subject.process(view.frame) for view in room.way()]
    return save(subject, tmp_path_factory.mktemp("room") / "session"), results[AGAIN].T_map_camera


def test_the_camera_is_found_in_a_session_that_is_loaded_while_the_node_runs(robot, room, session):
    folder, then = session
    start(robot, room.camera, checkpoint="", localization_only=True)
    elsewhere = Room(ANOTHER_SEED)
    for i in range(3):
        assert send(robot, elsewhere.view(i / 10, i * 10**8).frame).map_points == 0
    assert robot.set_parameter("session", str(folder)).successful
    answer = robot.call("load_session")
    assert answer.success and "looking for one of its" in answer.message, answer.message
    paths = robot.listen_to_node(Path, "path", LATCHED)
    maps = robot.listen_to_node(PointCloud2, "cloud_map", LATCHED)
    assert len(maps.wait().data) > 0  # though no image has come since
    voxels = robot.node._worker._pipeline.map.to_tensors()
    for view in room.again(LATER_NS):
        status = send(robot, view.frame)
    assert status.state == TrackingStatus.TRACKING
    assert status.last_reset_reason == f"session {folder}"
    path = paths.wait(lambda m: m.poses and m.poses[-1].header.stamp == status.header.stamp)
    p, q = path.poses[-1].pose.position, path.poses[-1].pose.orientation
    now = transform_from_quaternion((p.x, p.y, p.z), (q.w, q.x, q.y, q.z))
    metres, degrees = error(then, room.way()[AGAIN], now, view)
    assert metres < MOST_M and degrees < MOST_DEG
    assert stamp_ns(path.poses[0].header.stamp) == 0  # the session's path comes first
    assert status.map_points == len(voxels["key"])
    after = robot.node._worker._pipeline.map.to_tensors()
    assert all(bool((after[name] == voxels[name]).all()) for name in voxels)


def test_the_map_is_left_alone_as_long_as_localization_only_says_so(robot):
    start(robot, CAMERA, **TOLERANT)
    images = frames(12)
    for frame in images[:4]:
        before = send(robot, frame).map_points
    kept = len(robot.node._worker._pipeline._tracker.places.keyframes)
    assert before > 0 and kept > 0
    assert robot.set_parameter("localization_only", True).successful
    assert {send(robot, frame).map_points for frame in images[4:8]} == {before}
    assert len(robot.node._worker._pipeline._tracker.places.keyframes) == kept
    assert robot.set_parameter("localization_only", False).successful
    for frame in images[8:]:
        assert send(robot, frame).map_points > before
    assert len(robot.node._worker._pipeline._tracker.places.keyframes) > kept


def test_loops_in_a_sessions_map_move_the_camera_and_leave_the_map_to_the_last_bit(
    tmp_path, monkeypatch
):
    folder = small_session(tmp_path / "session")
    recognise_every_place(monkeypatch)
    subject = pipeline(**EAGER, session=str(folder), localization_only=True)
    before, went = subject.map.to_tensors(), len(subject.trajectory())
    subject.set_pose(optical_extrinsics(), np.eye(6))
    for frame in frames(20):
        subject.process(replace(frame, intrinsics=CAMERA))
    assert subject.loops.counts.corrections > 0
    after = subject.map.to_tensors()
    assert all(bool((after[name] == before[name]).all()) for name in before)
    assert len(subject.trajectory()) == went + 20


def nowhere(folder):
    return folder.with_name("nowhere"), "no session"


def of_other_weights(folder):
    about = json.loads((folder / "session.json").read_text())
    about["made_for"]["checkpoint_sha256"] = "0" * 64
    (folder / "session.json").write_text(json.dumps(about))
    return folder, "checkpoint_sha256: must be"


def damaged(folder):
    path = folder / "keyframes.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return folder, "damaged session"


def without_a_name(folder):
    return "", "session: the parameter is empty"


@pytest.mark.parametrize("make", [nowhere, of_other_weights, damaged, without_a_name])
def test_a_session_that_cannot_be_used_leaves_everything_as_it_was(robot, tmp_path, make):
    folder, reason = make(small_session(tmp_path / "session"))
    start(robot, CAMERA, **TOLERANT)
    before = [send(robot, frame) for frame in frames(4)][-1]
    assert robot.set_parameter("session", str(folder)).successful
    answer = robot.call("load_session")
    assert not answer.success and reason in answer.message, answer.message
    after = send(robot, frames(5)[4])
    assert (after.state, after.images_since_reset) == (TrackingStatus.TRACKING, 5)
    assert after.map_points >= before.map_points > 0 and after.last_reset_reason == ""


def test_a_session_with_another_voxel_size_is_refused_with_both(robot, tmp_path):
    folder = small_session(tmp_path / "session")
    start(robot, CAMERA, map__voxel_size_m=0.1, **TOLERANT)
    send(robot, frames(1)[0])
    robot.set_parameter("session", str(folder))
    answer = robot.call("load_session")
    assert not answer.success
    assert "must be 0.05 as in the session's map, got 0.1" in answer.message


def test_without_a_configured_node_there_is_an_answer(robot):
    robot.start(autostart=False)
    answer = robot.call("load_session")
    assert not answer.success and "not configured" in answer.message


def test_what_cannot_be_taken_changes_nothing(tmp_path, monkeypatch):
    subject = pipeline(**TOLERANT)
    session = subject.session_reader(str(small_session(tmp_path / "session")))()
    for frame in frames(3):
        subject.process(replace(frame, intrinsics=CAMERA))
    before = (subject.map, subject._tracker.resets, len(subject.trajectory()))
    monkeypatch.setattr(Tracker, "resume_from", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        subject.go_on_from(session, "session")
    assert (subject.map, subject._tracker.resets, len(subject.trajectory())) == before


def test_a_session_read_when_the_node_has_ended_is_answered(tmp_path):
    mailbox, done = Mailbox[str](1), []
    mailbox.close()
    folder = str(small_session(tmp_path / "session"))
    read_beside(folder, lambda _: mailbox.request(lambda: None), done.append, pipeline())
    for thread in [t for t in threading.enumerate() if t.name == "ttt3r_session"]:
        thread.join()
    (error,) = done
    assert "cleaned up" in str(error)
