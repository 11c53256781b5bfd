# SPDX-License-Identifier: Apache-2.0
"""The page of a running node: what the node says over DDS arrives at a browser."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browser import PATIENCE_S, Browser
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Path
from preloaded import new_process
from rclpy.executors import SingleThreadedExecutor
from robot import Robot, image_message, stamp
from sensor_msgs.msg import Image, PointCloud2, PointField

from ttt3r_ros.cli import main
from ttt3r_ros.clients.live_view import LiveView
from ttt3r_ros.clients.reading import points_of, transform_of
from ttt3r_ros.clients.view_client import TOPICS, ViewClient
from ttt3r_ros.geometry import transform
from ttt3r_ros.mapping.voxel_map import MapCloud
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.ros.conversions import map_message
from ttt3r_ros.ros.transforms import pose_message
from ttt3r_ros.viewer.page import Page

NOBODY = f"/nobody_{os.getpid()}"  # a name of its own, whoever else is on this domain
OWN = {"image_rect", "path"}  # published here where the node does not


class Viewer:
    """A page of the node of a robot, drawn in a thread of its own, and a browser that shows it."""

    def __init__(self, robot: Robot, node: str = "ttt3r_node") -> None:
        self.page = Page("127.0.0.1", 0, max_points=1_000_000)
        self.browser = Browser(self.page)
        self._client = ViewClient(node, context=robot.client.context)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._draw)
        self._thread.start()

    def _draw(self) -> None:
        view = LiveView(self.page, self._client)
        executor = SingleThreadedExecutor(context=self._client.context)
        executor.add_node(self._client)
        while not self._stop.is_set():
            executor.spin_once(timeout_sec=0.02)
            view.draw()
        executor.shutdown()

    def meet(self, robot: Robot) -> None:
        """Wait until the node knows of every subscription that it publishes for."""
        topics = [f"ttt3r_node/{topic}" for topic in TOPICS if topic not in OWN]
        robot.wait_until(lambda: all(robot.node.count_subscribers(topic) for topic in topics))

    def wait_for(self, *texts: str) -> None:
        self.browser.wait(lambda b: all(text in b.text for text in texts))

    def thing(self, name: str) -> dict[str, Any]:
        return self.browser.things.get(name, {})

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._client.destroy_node()
        self.browser.close()
        self.page.close()


@pytest.fixture
def viewer(robot) -> Iterator[Viewer]:
    viewer = Viewer(robot)
    yield viewer
    viewer.close()


def test_a_node_that_is_not_there_is_waited_for_by_the_names_of_its_topics(robot):
    viewer = Viewer(robot, node=NOBODY)
    viewer.wait_for(NOBODY, "not there", "status, pose, path", "depth/image_rect")
    node = NodeLike(robot, NOBODY, status=TrackingStatus)
    viewer.wait_for("no image yet")
    node.say(status=status_message(1, 1))
    viewer.wait_for("1 processed")
    viewer.close()


def test_map_camera_path_depth_and_status_arrive(robot, viewer):
    robot.start(map__publish_hz=20.0)
    viewer.meet(robot)
    for i in range(1, 4):
        status = robot.send(at_s=0.1 * i)
    assert status.map_points > 0
    viewer.wait_for(f"{status.map_points:,} points", "3 processed", "3 images since reset")
    browser = viewer.browser
    browser.wait(lambda b: len(viewer.thing("/map").get("points", ())) == status.map_points)
    browser.wait(lambda b: len(viewer.thing("/path").get("points", ())) == 2 * 2)
    browser.wait(lambda b: viewer.thing("/camera").get("visible"))
    browser.wait(lambda b: any(name.startswith("Depth,") for name in b.panel))
    (depth,) = (props for name, props in browser.panel.items() if name.startswith("Depth,"))
    browser.wait(lambda b: depth["visible"])


@pytest.mark.parametrize("odom_source", ["camera", "tf"])
def test_the_camera_stands_on_the_robot_where_tf_says(robot, viewer, odom_source):
    robot.publish_tf(("base", "camera", (0.1, 0.2, 0.5)))
    robot.start(odom_source=odom_source, base_frame="base")
    viewer.meet(robot)
    poses = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    robot.send(at_s=0.1)
    T_map_base = transform_of(poses.wait().pose.pose)
    viewer.browser.wait(lambda b: viewer.thing("/camera").get("visible"))
    expected = T_map_base @ (0.1, 0.2, 0.5, 1.0)
    assert viewer.thing("/camera")["position"] == pytest.approx(expected[:3])


def test_a_reset_clears_the_view_but_for_the_first_new_image(robot, viewer):
    robot.start(map__publish_hz=20.0)
    viewer.meet(robot)
    for i in range(1, 4):
        status = robot.send(at_s=0.1 * i)
    viewer.browser.wait(lambda b: len(viewer.thing("/map").get("points", ())) == status.map_points)
    viewer.browser.wait(lambda b: len(viewer.thing("/path").get("points", ())) == 2 * 2)
    robot.call("reset")
    status = robot.send(at_s=0.4)
    viewer.wait_for("Last reset", "1 images since reset")
    viewer.browser.wait(lambda b: len(viewer.thing("/path")["points"]) == 0)
    viewer.browser.wait(lambda b: len(viewer.thing("/map")["points"]) == status.map_points)
    viewer.browser.wait(lambda b: viewer.thing("/map")["visible"] and viewer.thing("/camera"))


class NodeLike:
    """Says what a node does, by hand."""

    def __init__(self, robot: Robot, node: str = "ttt3r_node", **topics: type) -> None:
        create = robot.client.create_publisher
        self._publishers = {t: create(kind, f"{node}/{t}", 10) for t, kind in topics.items()}
        publishers = self._publishers.values()
        robot.wait_until(lambda: all(p.get_subscription_count() for p in publishers))

    def say(self, **messages: Any) -> None:
        for name, message in messages.items():
            self._publishers[name].publish(message)


def status_message(seconds: float, received: int) -> TrackingStatus:
    status = TrackingStatus(received=received, processed=received, images_since_reset=received)
    status.header.stamp, status.header.frame_id = stamp(seconds), "camera"
    status.state = TrackingStatus.TRACKING
    return status


def test_the_image_that_the_node_publishes_is_shown(robot, viewer):
    node = NodeLike(robot, image_rect=Image)
    node.say(image_rect=image_message())
    viewer.browser.wait(lambda b: b.panel.get("Image", {}).get("visible"))


def test_an_image_that_cannot_be_read_harms_nothing(robot, viewer):
    node = NodeLike(robot, image_rect=Image)
    node.say(image_rect=image_message(encoding="smell8"))
    node.say(image_rect=image_message())
    viewer.browser.wait(lambda b: b.panel.get("Image", {}).get("visible"))


def test_the_path_is_drawn_though_nobody_knows_where_the_camera_is_on_the_robot(robot, viewer):
    node = NodeLike(robot, path=Path, pose=PoseWithCovarianceStamped)
    path = Path(poses=[PoseStamped(pose=pose_message(shifted(x))) for x in (5.0, 6.0, 7.0)])
    for i, pose in enumerate(path.poses):
        pose.header.stamp = stamp(i)
    node.say(path=path)
    pose = PoseWithCovarianceStamped()
    pose.header.stamp, pose.pose.pose = stamp(3), pose_message(shifted(8.0))
    node.say(pose=pose)
    viewer.browser.wait(lambda b: len(viewer.thing("/path").get("points", ())) == 2 * 3)
    # By the node's own path, and behind its end by poses.
    assert set(viewer.thing("/path")["points"][:, 0]) == {5.0, 6.0, 7.0, 8.0}
    assert not viewer.thing("/camera")["visible"]


def test_a_node_that_starts_again_begins_with_an_empty_view(robot, viewer):
    node = NodeLike(robot, status=TrackingStatus, image_rect=Image)
    node.say(status=status_message(1, 40), image_rect=image_message())
    viewer.browser.wait(lambda b: b.panel.get("Image", {}).get("visible"))
    viewer.wait_for("40 processed")
    node.say(status=status_message(2, 1))
    viewer.browser.wait(lambda b: not b.panel["Image"]["visible"])
    viewer.wait_for("1 processed")


def shifted(x: float) -> np.ndarray:
    return transform(np.eye(3), (x, 0, 0))


def test_a_map_with_further_fields_is_read():
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    plain = map_message(MapCloud(values, np.arange(4)), 1, "map")
    size = plain.point_step
    more = PointCloud2(point_step=size + 3, width=4, height=1)
    more.fields = [*plain.fields, PointField(name="hits", offset=size, datatype=4, count=1)]
    rows = np.frombuffer(plain.data, np.uint8).reshape(4, size)
    more.data = np.hstack([rows, np.full((4, 3), 255, np.uint8)]).tobytes()
    for cloud in (plain, more):
        points, colours = points_of(cloud)
        np.testing.assert_array_equal(points, values[:, :3])
        np.testing.assert_array_equal(colours, values[:, 3:].astype(np.uint8))


def test_a_name_that_no_node_can_have_is_an_error_of_the_users(capsys):
    for name in ("my node", "a-b", "2nd", "~/node"):
        assert main(["view", "--port", "0", "--node", name]) == 2
        assert f"ttt3r: --node: {name!r} is no name of a node" in capsys.readouterr().err


def test_several_views_have_names_of_their_own(domain, program):
    names = set()
    for _ in range(2):
        code = (
            "from rclpy import init; from ttt3r_ros.clients.view_client import ViewClient; init(); "
        )
        code += "print(ViewClient('ttt3r_node').get_name())"
        command = program("-c", code)
        names.add(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(names) == 2 and all(name.startswith("ttt3r_view_") for name in names)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_well_when_it_is_interrupted(domain, program, number):
    start = new_process if number == signal.SIGINT else program
    command = start("-m", "ttt3r_ros.cli", "view", "--port", "0", "--node", "my_node")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    line = next(line for line in process.stderr if "waiting for" in line)
    assert "/my_node/status" in line and "/my_node/cloud_map" in line
    process.send_signal(number)
    _, rest = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest
