# SPDX-License-Identifier: Apache-2.0
"""What launch files, parameter file and RViz configuration name is there, and fits the node.

The launch files are read here, not run: there is no wheel of launch. `test_launch` runs them.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from places import ROOT
from rclpy.qos import (
    QoSCompatibility,
    QoSDurabilityPolicy,
    QoSReliabilityPolicy,
    qos_check_compatible,
)
from rviz_displays import displays, read

from ttt3r_ros.cli import _parser
from ttt3r_ros.config import Config, NodeConfig, settings

LAUNCH_FILES = sorted((ROOT / "launch").iterdir())
RVIZ_FILE = ROOT / "config/ttt3r.rviz"
OF_EVERY_NODE = {"use_sim_time": bool}
OPTIONAL_PACKAGES = {"rviz2"}  # for machines with a screen, not declared for every robot
ROBOT_FRAMES = {"base_link"}  # REP-105's name of what base_frame is on most robots


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def calls(path: Path, name: str) -> list[ast.Call]:
    """Return all calls of a class in a launch file."""
    found = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    return [call for call in found if isinstance(call.func, ast.Name) and call.func.id == name]


def first_texts(path: Path, name: str) -> set[str]:
    """Return the first arguments, where they are texts, of all calls of a class."""
    arguments = [call.args[0] for call in calls(path, name) if call.args]
    return {text.value for text in arguments if isinstance(text, ast.Constant)}


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def table(path: Path, name: str) -> ast.Dict:
    """Return a dictionary that a launch file gives a name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == [name]:
            assert isinstance(node.value, ast.Dict)
            return node.value
    raise AssertionError(f"{path.name} has no {name}")


def keys(dictionary: ast.Dict) -> list[str]:
    return [key.value for key in dictionary.keys if isinstance(key, ast.Constant)]


def declared_arguments(path: Path) -> set[str]:
    """Return the keys of the tables from which a launch file declares its arguments."""
    tables = [node.value for node in tree(path).body if isinstance(node, ast.Assign)]
    own = {key for value in tables if isinstance(value, ast.Dict) for key in keys(value)}
    included = declared_arguments(NODE_FILE) if calls(path, "IncludeLaunchDescription") else set()
    return own | included


def command(call: ast.Call) -> list[str]:
    """Return the arguments of a program; "1" in place of what is not known before."""
    elements = [
        part
        for element in keywords(call)["arguments"].elts
        for part in (element.value.elts if isinstance(element, ast.Starred) else [element])
    ]
    return [part.value if isinstance(part, ast.Constant) else "1" for part in elements]


NODE_FILE = ROOT / "launch/ttt3r.launch.py"
DEMO_FILE = ROOT / "launch/demo.launch.py"
PROGRAMS = [call for path in LAUNCH_FILES for call in calls(path, "Node")]


@pytest.fixture
def topics(robot) -> dict[str, set[str]]:
    """The subscriptions and publications of a node that is active, with their types."""
    node = robot.start(scale_source="odom")
    name, namespace = node.get_name(), node.get_namespace()
    return {
        "in": dict(node.get_subscriber_names_and_types_by_node(name, namespace)),
        "out": dict(node.get_publisher_names_and_types_by_node(name, namespace)),
    }


def test_there_are_two_launch_files():
    assert LAUNCH_FILES == [DEMO_FILE, NODE_FILE]


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_argument_that_a_launch_file_uses_is_declared(path):
    used = first_texts(path, "LaunchConfiguration")
    used |= set(re.findall(r'values\["(\w+)"\]', path.read_text("utf-8")))
    assert used
    assert used <= declared_arguments(path)


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_argument_is_declared_with_a_description(path):
    declarations = calls(path, "DeclareLaunchArgument")
    assert declarations
    assert all("description" in keywords(call) for call in declarations)
    assert len(declared_arguments(path)) > len(declarations)


def test_every_program_that_is_started_is_one_that_the_package_installs():
    ours = set()
    for call in PROGRAMS:
        package, executable = (keywords(call)[key].value for key in ("package", "executable"))
        if package == "ttt3r_ros":
            ours.add(executable)
        else:
            assert package in OPTIONAL_PACKAGES
    assert ours == {path.name for path in (ROOT / "scripts").iterdir()}


def test_every_package_that_launch_files_import_is_declared():
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {tag.text for tag in manifest if tag.tag in ("depend", "exec_depend")}
    imported = {
        node.module.split(".")[0]
        for path in LAUNCH_FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__"
    }
    assert imported == {"launch", "launch_ros"}
    assert imported <= declared
    assert not OPTIONAL_PACKAGES & declared


def test_every_file_that_launch_files_name_is_shared():
    named = [
        [part.value for part in call.args[0].elts if isinstance(part, ast.Constant)]
        for path in LAUNCH_FILES
        for call in calls(path, "PathJoinSubstitution")
    ]
    assert len(named) == 3
    assert all((ROOT.joinpath(*parts)).is_file() for parts in named)
    assert {parts[0] for parts in named} == {"config", "launch"}  # which are installed whole
    assert {name for path in LAUNCH_FILES for name in first_texts(path, "FindPackageShare")} == {
        "ttt3r_ros"
    }


def test_every_file_to_share_is_shared_by_both_builds(monkeypatch):
    monkeypatch.chdir(ROOT)
    cmake = (ROOT / "CMakeLists.txt").read_text("utf-8")
    assert "install(DIRECTORY config launch DESTINATION share/${PROJECT_NAME})" in cmake
    for folder in ("config", "launch"):  # setup.py takes all with a dot in their names
        assert f'shared("{folder}")' in (ROOT / "setup.py").read_text("utf-8")
        files = [path for path in Path(folder).iterdir() if path.is_file()]
        assert sorted(files) == sorted(Path(folder).glob("*.*"))


def test_what_the_node_is_started_as_is_its_name(robot):
    (call,) = (c for c in PROGRAMS if keywords(c)["executable"].value == "ttt3r_node")
    assert keywords(call)["name"].value == robot.start(autostart=False).get_name()


def test_every_parameter_that_may_be_an_argument_has_the_node_with_that_type(robot):
    given = table(NODE_FILE, "PARAMETERS")
    kinds = {
        key: ast.unparse(pair.elts[0]) for key, pair in zip(keys(given), given.values, strict=True)
    }
    node = robot.start(autostart=False)
    for name, kind in kinds.items():
        assert type(node.get_parameter(name).value).__name__ == kind, name


def test_every_parameter_of_the_file_has_the_node(robot):
    node = robot.start(autostart=False)
    content = yaml.safe_load((ROOT / "config/ttt3r.yaml").read_text("utf-8"))
    values = content["/**"]["ros__parameters"]
    flat = {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in values.items()
        for key in (value if isinstance(value, dict) else [""])
    }
    assert flat == set(settings(Config, NodeConfig))
    assert all(node.has_parameter(name) for name in flat)


def test_every_topic_that_may_be_renamed_is_one_that_the_node_takes(topics):
    names = keys(table(NODE_FILE, "TOPICS"))
    assert {f"/{name}" for name in names} <= topics["in"].keys()
    others = {"/tf", "/tf_static", "/clock", "/parameter_events", "/ttt3r_node/set_pose"}
    assert topics["in"].keys() - others - {f"/{name}" for name in names} == set()


def test_the_camera_of_the_demo_takes_its_arguments_and_publishes_what_is_renamed():
    (call,) = calls(DEMO_FILE, "Node")
    args = _parser().parse_args([*command(call), "--ros-args", "-r", "image:=/camera/image"])
    assert (args.publish, args.loop) == (True, 60.0)
    camera = (ROOT / "ttt3r_ros/clients/simulated_camera.py").read_text("utf-8")
    renamed = [key.value for key in ast.walk(keywords(call)["remappings"]) if is_text(key)]
    assert renamed == ["image", "camera_info"]
    assert all(f'"{name}", qos)' in camera for name in renamed)


def test_the_room_of_the_demo_is_that_of_the_command():
    arguments = ast.literal_eval(table(DEMO_FILE, "ARGUMENTS"))
    assert int(arguments["seed"][0]) == _parser().parse_args(["demo"]).seed
    assert arguments["frames"][0] == "600"


def test_the_player_takes_its_arguments():
    (call,) = (c for c in calls(NODE_FILE, "Node") if keywords(c)["executable"].value == "ttt3r")
    args = _parser().parse_args([*command(call), "--ros-args", "-r", "/image:=/camera/image"])
    assert (args.bag, args.wait) == (Path("1"), 120.0)


def test_every_display_hears_what_the_node_publishes_or_the_camera(robot):
    node = robot.start()
    problems = {}
    for display in displays(RVIZ_FILE):
        sender = robot.client if display.topic == "image" else node
        topic = node.resolve_topic_name(display.topic)
        offers = [
            offer
            for offer in node.get_publishers_info_by_topic(topic)
            if offer.node_name == sender.get_name()
        ]
        if not offers:
            problems[display.name] = f"no publisher of {topic}"
            continue
        (offer,) = offers
        package = display.kind.__module__.split(".")[0]
        if offer.topic_type != f"{package}/msg/{display.kind.__name__}":
            problems[display.name] = f"{topic} is {offer.topic_type}"
        compatible, why = qos_check_compatible(offer.qos_profile, display.qos)
        if compatible != QoSCompatibility.OK:
            problems[display.name] = why
    assert problems == {}


def test_what_is_latched_is_shown_to_those_who_come_late(robot):
    node = robot.start()
    missed = {
        display.name
        for display in displays(RVIZ_FILE)
        for info in node.get_publishers_info_by_topic(node.resolve_topic_name(display.topic))
        if info.qos_profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
        and display.qos.durability != QoSDurabilityPolicy.TRANSIENT_LOCAL
    }
    assert missed == set()
    (shown,) = (d for d in displays(RVIZ_FILE) if d.topic.endswith("cloud_map"))
    assert shown.qos.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL
    assert shown.qos.reliability == QoSReliabilityPolicy.RELIABLE


def test_the_frames_of_the_views_are_the_nodes():
    view = read(RVIZ_FILE)
    own = {NodeConfig().map_frame, NodeConfig().odom_frame}
    views = [view["Views"]["Current"], *view["Views"]["Saved"]]
    assert view["Global Options"]["Fixed Frame"] == NodeConfig().map_frame
    assert {v["Target Frame"] for v in views} <= {"<Fixed Frame>", *own, *ROBOT_FRAMES}
