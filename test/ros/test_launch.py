# SPDX-License-Identifier: Apache-2.0
"""The launch files, run by the real launch. Without launch_ros, conftest.py leaves this out.

What they start are real processes, found by way of a folder laid out as CMakeLists.txt installs
the package. RViz alone has a stand-in, which makes RViz's subscriptions and shows nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from launch import LaunchContext
from launch.launch_description_sources import PythonLaunchDescriptionSource
from places import HELPERS, ROOT
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSCompatibility, qos_check_compatible
from robot import PATIENCE_S, Robot
from rviz_displays import displays
from small_network import small_checkpoint
from tf2_msgs.msg import TFMessage

from ttt3r_ros.recordings.simulated_bag import write_simulated_bag
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions

LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

file, *arguments = sys.argv[1:]
given = [tuple(text.split(":=", 1)) for text in arguments]
given += [("sigterm_timeout", "30")]  # to end after Ctrl-C, on a busy machine
source = PythonLaunchDescriptionSource(file)
service = LaunchService()
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=given)])
)
sys.exit(service.run())
"""


class Launched:
    """A launch of its own, as `ros2 launch` in a terminal."""

    def __init__(self, file: str, arguments: tuple[str, ...], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, str(ROOT / "launch" / file), *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        """Return what launch and its processes have said so far."""
        return self._log.read_text("utf-8")

    def interrupt(self) -> str:
        """End all of it by Ctrl-C; return what was said."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self.wait()

    def wait(self) -> str:
        """Return what was said once it has ended."""
        assert self._process.wait(2 * PATIENCE_S) == 0
        return self.said()

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture(scope="module")
def prefix(tmp_path_factory) -> Path:
    """The package and RViz's stand-in, laid out as installed."""
    prefix = tmp_path_factory.mktemp("prefix")
    index = prefix / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    programs = {
        "ttt3r_ros": list((ROOT / "scripts").iterdir()),
        "rviz2": [HELPERS / "rviz_displays.py"],
    }
    for package, sources in programs.items():
        (index / package).touch()
        folder = prefix / "lib" / package
        folder.mkdir(parents=True)
        for source in sources:
            program = folder / ("rviz2" if package == "rviz2" else source.name)
            program.write_text(f"#!{sys.executable}\n{source.read_text('utf-8')}", "utf-8")
            program.chmod(0o755)
    for name in ("config", "launch"):
        shutil.copytree(ROOT / name, prefix / "share/ttt3r_ros" / name)
    return prefix


@pytest.fixture
def launch(domain, prefix, tmp_path, monkeypatch) -> Iterator[Callable[..., Launched]]:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(prefix), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    running = []

    def start(file: str, *arguments: str) -> Launched:
        running.append(Launched(file, arguments, tmp_path / "launch.log"))
        return running[-1]

    yield start
    for launched in running:
        launched.kill()


def takes(robot: Robot, topic: str, node: str = "/ttt3r_node") -> bool:
    """Whether a node, by its full name, subscribes to a topic."""
    namespace, _, name = node.rpartition("/")
    return any(
        (info.node_namespace, info.node_name) == (namespace or "/", name)
        for info in robot.client.get_subscriptions_info_by_topic(topic)
    )


def parameter(robot: Robot, name: str, node: str = "/ttt3r_node") -> Any:
    client = robot.client.create_client(GetParameters, f"{node}/get_parameters")
    assert client.wait_for_service(PATIENCE_S)
    answer = robot.result_of(client.call_async(GetParameters.Request(names=[name])))
    return parameter_value_to_python(answer.values[0])


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "room"
    write_simulated_bag(path, Scene(SceneOptions(width=64, height=48)), range(30), 10.0)
    return path


@pytest.mark.parametrize("file", ["ttt3r.launch.py", "demo.launch.py"])
def test_every_argument_says_what_it_is(file, launch):
    context = LaunchContext()
    source = PythonLaunchDescriptionSource(str(ROOT / "launch" / file))
    description = source.get_launch_description(context)
    arguments = description.get_launch_arguments()
    assert {"image", "rviz"} <= {argument.name for argument in arguments}
    for argument in arguments:
        assert argument.description not in ("", "no description given"), argument.name


@pytest.mark.parametrize(
    ("section", "namespace"),
    [
        ("/**", "robot"),
        ("/**/ttt3r_node", "robot"),
        ("/robot/ttt3r_node", "robot"),
        ("ttt3r_node", ""),
    ],
)
def test_arguments_reach_the_node_and_beat_the_file(section, namespace, launch, robot, tmp_path):
    file = tmp_path / "my.yaml"
    parameters = {
        "checkpoint": small_checkpoint(),
        "device": "cpu",
        "image_transport": "raw",
        "scale_source": "odom",
        "use_sim_time": True,
    }
    file.write_text(yaml.safe_dump({section: {"ros__parameters": parameters}}), "utf-8")
    topics = {
        "image": "/camera/image_raw",
        "camera_info": "/camera/info",
        "mask": "/arm/mask",
        "odometry": "/wheels/odom",
    }
    launched = launch(
        "ttt3r.launch.py",
        f"config:={file}",
        f"namespace:={namespace}",
        "image_transport:=compressed",
        "use_sim_time:=false",
        *(f"{name}:={topic}" for name, topic in topics.items()),
    )
    topics["image"] += "/compressed"
    node = f"/{namespace}/ttt3r_node".replace("//", "/")
    robot.wait_until(lambda: all(takes(robot, topic, node) for topic in topics.values()))
    assert parameter(robot, "image_transport", node) == "compressed"
    assert parameter(robot, "use_sim_time", node) is False
    assert parameter(robot, "checkpoint", node) == parameters["checkpoint"]
    assert "finished cleanly" in launched.interrupt()


def test_a_bag_plays_to_the_node_with_its_clock_and_then_the_node_stays(launch, robot, bag):
    transforms = robot.listen(TFMessage, "/tf")
    arguments = f"checkpoint:={small_checkpoint()}", f"bag:={bag}"
    launched = launch("ttt3r.launch.py", *arguments)
    robot.wait_until(lambda: robot.client.count_publishers("/clock") > 0)
    transforms.wait(lambda message: message.transforms[0].header.frame_id == "map")
    robot.wait_until(lambda: "[player-2]: process has finished cleanly" in launched.said())
    assert parameter(robot, "use_sim_time") is True
    assert takes(robot, "/image")
    said = launched.interrupt()
    assert said.count("finished cleanly") == 2


def test_all_ends_with_the_bag_if_that_is_wanted(launch, robot, bag):
    launched = launch(
        "ttt3r.launch.py",
        f"checkpoint:={small_checkpoint()}",
        f"bag:={bag}",
        "end_with_bag:=true",
        "image:=/image",
        "namespace:=robot",
    )
    said = launched.wait()
    assert "/image: 30 messages" in said
    assert said.count("finished cleanly") == 2


def test_a_bag_that_is_not_there_ends_all(launch, bag):
    launched = launch("ttt3r.launch.py", f"checkpoint:={small_checkpoint()}", f"bag:={bag}/nothing")
    assert "nothing: does not exist" in launched.wait()


@pytest.mark.parametrize("argument", ["checkpoint", "session"])
def test_a_node_that_cannot_start_ends_all(argument, launch, bag):
    said = launch("ttt3r.launch.py", f"{argument}:=nothing", f"bag:={bag}").wait()
    assert "cannot configure: nothing" in said
    assert "process[ttt3r_node-1] was required" in said


def test_rviz_hears_the_node_and_its_camera_in_a_namespace(launch, robot, prefix):
    node = "/robot/ttt3r_node"
    launched = launch(
        "ttt3r.launch.py",
        f"checkpoint:={small_checkpoint()}",
        "namespace:=robot",
        "image:=/camera/image",
        "rviz:=true",
        "use_sim_time:=true",
    )
    robot.wait_until(lambda: takes(robot, "/camera/image", node))
    shown = [d for d in displays(prefix / "share/ttt3r_ros/config/ttt3r.rviz") if d.enabled]
    for display in shown:
        topic = f"/robot/{display.topic}"
        robot.wait_until(lambda topic=topic: takes(robot, topic, "/robot/rviz2"))
        offers = robot.client.get_publishers_info_by_topic(topic)
        (offer,) = (info for info in offers if info.node_name == "ttt3r_node")
        compatible, why = qos_check_compatible(offer.qos_profile, display.qos)
        assert compatible == QoSCompatibility.OK, why
    assert parameter(robot, "use_sim_time", "/robot/rviz2") is True
    assert "has died" not in launched.interrupt()


def test_the_demo_maps_a_room_without_rviz(launch, robot):
    transforms = robot.listen(TFMessage, "/tf")
    launched = launch("demo.launch.py", "rviz:=false", "namespace:=room", "frames:=100", "seed:=7")
    message = transforms.wait()
    assert [t.header.frame_id for t in message.transforms] == ["map", "odom"]
    assert takes(robot, "/room/image", "/room/ttt3r_node")
    said = launched.interrupt()
    assert "rviz" not in said
    assert said.count("finished cleanly") == 2
