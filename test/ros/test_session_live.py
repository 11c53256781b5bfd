# SPDX-License-Identifier: Apache-2.0
"""A session is saved by a service, and another node goes on from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as NavPath
from revisit import AGAIN, MOST_DEG, MOST_M, Room, error
from robot import LATCHED, Robot, camera_info_message, image_message, stamp
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage

from ttt3r_ros.config import Config
from ttt3r_ros.geometry import optical_extrinsics, transform_from_quaternion
from ttt3r_ros.io.trajectory import read_tum
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.ros.conversions import stamp_ns

SHIPPED = {"checkpoint": "", "process_all_images": True}
LATER_S = 100.0


def pose(message):
    """T_frame_camera of a pose of the camera's frame, which is the base itself."""
    p, q = message.pose.pose.position, message.pose.pose.orientation
    return transform_from_quaternion((p.x, p.y, p.z), (q.w, q.x, q.y, q.z))


def start(robot, room, **parameters):
    robot.start(**SHIPPED, **parameters)
    info = robot.client.create_publisher(CameraInfo, "camera_info", 1)
    robot.wait_until(lambda: info.get_subscription_count() > 0)
    message = camera_info_message(128, 96)
    message.k = room.camera.matrix().flatten()
    info.publish(message)


def send(robot, view):
    return robot.send(image_message(view.frame.stamp_ns / 1e9, view.frame.rgb))


@pytest.fixture(scope="module")
def room():
    return Room()


@pytest.fixture
def another_robot(domain):
    robot = Robot(domain % 100 + 101)
    yield robot
    robot.shutdown()


def test_a_node_started_from_a_session_is_back_in_the_same_map(
    robot, another_robot, room, tmp_path
):
    start(robot, room, output_dir=str(tmp_path / "not" / "there" / "yet"))
    poses = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    way = room.way()
    for view in way:
        assert send(robot, view).state != TrackingStatus.LOST
    saved = robot.call("save_session")
    assert saved.success, saved.message
    folder = Path(saved.message)
    assert folder.parent == tmp_path / "not" / "there" / "yet"
    assert {path.name for path in folder.iterdir()} == {
        *("session.json", "keyframes.safetensors", "map.safetensors", "map.ply"),
        *("trajectory.tum", "graph.json"),
    }
    then = poses.wait(lambda m: m.header.stamp == stamp(way[AGAIN].frame.stamp_ns / 1e9))

    start(another_robot, room, session=str(folder), path__rate_hz=20.0)
    paths = another_robot.listen_to_node(NavPath, "path", LATCHED)
    poses = another_robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    odometry = another_robot.listen_to_node(Odometry, "odom")
    tf = another_robot.listen(TFMessage, "/tf")
    another_robot.wait_until(lambda: another_robot.node.count_subscribers("/tf") > 1)
    for view in room.again(int(LATER_S * 1e9)):
        status = send(another_robot, view)
    assert status.state == TrackingStatus.TRACKING
    now = poses.wait(lambda m: m.header.stamp == status.header.stamp)
    assert now.header.frame_id == "map"
    metres, degrees = error(pose(then), way[AGAIN], pose(now), view)
    assert metres < MOST_M and degrees < MOST_DEG
    went, _ = read_tum(folder / "trajectory.tum")
    path = paths.wait(lambda m: m.poses and m.poses[-1].header.stamp == status.header.stamp)
    stamps = [stamp_ns(pose.header.stamp) for pose in path.poses]
    assert stamps[: len(went)] == went.tolist() and len(stamps) > len(went) > 0
    # odom begins anew, and map -> odom says where that is.
    first = odometry.wait(lambda m: m.header.stamp == stamp(LATER_S))
    assert pose(first) == pytest.approx(optical_extrinsics(), abs=1e-9)
    last = next(m for m in tf.messages if m.transforms[0].header.stamp == status.header.stamp)
    t = last.transforms[0].transform
    T_map_odom = transform_from_quaternion(
        (t.translation.x, t.translation.y, t.translation.z),
        (t.rotation.w, t.rotation.x, t.rotation.y, t.rotation.z),
    )
    last_odom = odometry.wait(lambda m: m.header.stamp == status.header.stamp)
    assert pose(now) == pytest.approx(T_map_odom @ pose(last_odom), abs=1e-6)


def test_without_a_place_to_come_back_to_nothing_is_saved(robot, tmp_path):
    robot.start(output_dir=str(tmp_path / "out"))
    answer = robot.call("save_session")
    assert not answer.success and "no place is remembered yet" in answer.message
    assert not (tmp_path / "out").exists()


def test_a_session_that_cannot_be_written_is_an_answer(robot, room, tmp_path):
    (tmp_path / "file").write_text("")
    start(robot, room, output_dir=str(tmp_path / "file"))
    for view in room.way()[:5]:
        send(robot, view)
    answer = robot.call("save_session")
    assert not answer.success and "file" in answer.message
    assert send(robot, room.view(0.6, 600_000_000)).state == TrackingStatus.TRACKING


def test_a_session_is_among_what_is_saved_at_the_nodes_end(robot, room, tmp_path):
    start(robot, room, output_dir=str(tmp_path), save_on_shutdown=True, map_format="pcd")
    for view in room.way()[:5]:
        send(robot, view)
    robot.in_node(robot.node.trigger_deactivate)
    robot.in_node(robot.node.trigger_cleanup)
    kinds = sorted(f"{path.name.partition('_')[0]}{path.suffix}" for path in tmp_path.iterdir())
    assert kinds == ["map.pcd", "session", "trajectory.tum"]
    (folder,) = tmp_path.glob("session_*")
    assert Pipeline.from_config(Config(session=str(folder), device="cpu")).trajectory()


def test_a_session_that_does_not_exist_is_one_error(robot, tmp_path, capfd):
    robot.start(session=str(tmp_path / "nowhere"))
    assert not robot.started
    assert "nowhere: no session" in capfd.readouterr().err
