# SPDX-License-Identifier: Apache-2.0
"""The way of the robot, as the node publishes it."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Path
from robot import LATCHED, stamp
from tolerant import TOLERANT

from ttt3r_ros.geometry import optical_extrinsics
from ttt3r_ros.ros.outputs import Outputs
from ttt3r_ros.ros.path import PathMessages
from ttt3r_ros.ros.transforms import Extrinsics
from ttt3r_ros.ros.worker import Worker

FAST = {"path.rate_hz": 50.0, "process_all_images": True, **TOLERANT}


def length(poses):
    return lambda message: len(message.poses) == poses


def test_the_path_is_that_of_the_base_in_the_map_and_reaches_those_who_join_late(robot):
    robot.start(base_frame="base", camera_pose=[0.3, 0.0, 0.5, 0.0, 0.2, 0.0], **FAST)
    poses = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    for i in range(3):
        robot.send(at_s=1 + i / 10)
    path = robot.listen_to_node(Path, "path", LATCHED).wait(length(3))
    late = robot.listen_to_node(Path, "path", LATCHED).wait()  # nothing has changed since
    assert late == path
    assert path.header.frame_id == "map" and path.header.stamp == stamp(1.2)
    poses.wait(lambda message: message.header.stamp == stamp(1.2))
    assert [pose.header for pose in path.poses] == [pose.header for pose in poses.messages]
    assert [pose.pose for pose in path.poses] == [pose.pose.pose for pose in poses.messages]


def test_the_path_is_thinned_evenly_and_begins_anew_after_a_reset(robot):
    robot.start(path__max_poses=5, **FAST)
    paths = robot.listen_to_node(Path, "path", LATCHED)
    for i in range(20):
        robot.send(at_s=1 + i / 10)
    whole = paths.wait(lambda m: m.poses and m.poses[-1].header.stamp == stamp(2.9))
    at = [0, 8, 16, 19]
    assert [pose.header.stamp for pose in whole.poses] == [stamp(1 + i / 10) for i in at]
    assert max(len(message.poses) for message in paths.messages) <= 5
    assert not robot.set_parameter("path.max_poses", 2001).successful
    assert robot.set_parameter("path.max_poses", 20).successful
    paths.wait(length(20))
    assert robot.call("reset").success
    paths.wait(lambda m: not m.poses and m.header.stamp == stamp(2.9))
    robot.send(at_s=3.0)
    assert paths.wait(lambda m: m.header.stamp == stamp(3.0)).poses[0].header.stamp == stamp(3.0)


def test_lost_images_are_not_in_the_path(robot):
    robot.start(**{**FAST, "tracking.lost_contrast": 2.0})
    paths = robot.listen_to_node(Path, "path", LATCHED)
    dark = np.zeros((48, 64, 3), np.uint8)
    for i, rgb in enumerate((None, dark, None)):
        robot.send(at_s=1 + i / 10, rgb=rgb)
    path = paths.wait(lambda m: m.poses and m.poses[-1].header.stamp == stamp(1.2))
    assert [pose.header.stamp for pose in path.poses] == [stamp(1.0), stamp(1.2)]


def test_a_path_is_sent_only_when_it_has_changed_and_somebody_listens(robot, monkeypatch):
    sent = []
    send = Outputs.path
    monkeypatch.setattr(Outputs, "path", lambda self, *args: (sent.append(1), send(self, *args)))
    robot.start(**{**FAST, "path.rate_hz": 0.01})  # only when the test asks for it

    def when_due():
        robot.in_node(robot.node._on_path_due)
        robot.node._worker._output._thread.submit(lambda: None).result()
        robot.in_node(lambda: None)  # after what the output thread has left for the executor
        return len(sent)

    robot.send(at_s=1.0)
    assert when_due() == 0
    robot.listen_to_node(Path, "path", LATCHED)
    assert [when_due() for _ in range(3)] == [1, 1, 1]
    robot.send(at_s=1.1)
    assert [when_due() for _ in range(3)] == [2, 2, 2]


def test_messages_of_poses_are_made_once_for_each_extrinsics():
    def extrinsics(x):
        T = optical_extrinsics((x, 0, 0, 0, 0, 0))
        return Extrinsics("base", T, T, is_published=True)

    poses = [(i, np.eye(4)) for i in range(3)]
    messages, first = PathMessages("map"), extrinsics(1.0)
    before = messages.path(poses[:2], first, 1)
    after = messages.path(poses, first, 2)
    assert all(a is b for a, b in zip(before.poses, after.poses[:2], strict=True))
    assert [pose.header.stamp.nanosec for pose in after.poses] == [0, 1, 2]
    moved = messages.path(poses, extrinsics(2.0), 3)
    assert [pose.pose.position.z for pose in moved.poses] != [
        pose.pose.position.z for pose in after.poses
    ]


def test_a_path_has_the_stamp_of_its_newest_image_before_that_is_in_the_map(robot, monkeypatch):
    publish = Worker._publish_pose

    def after_the_path(self, *arguments):
        self.send_path()
        self._output._thread.submit(lambda: None).result()
        publish(self, *arguments)

    monkeypatch.setattr(Worker, "_publish_pose", after_the_path)
    robot.start(**{**FAST, "path.rate_hz": 0.01})  # only when the test asks for it
    paths = robot.listen_to_node(Path, "path", LATCHED)
    for poses, at_s in enumerate((1.0, 1.1), start=1):
        robot.send(at_s=at_s)
        assert paths.wait(length(poses)).header.stamp == stamp(at_s)
