# SPDX-License-Identifier: Apache-2.0
"""The generated message packages, and the builder that makes them on top of the ROS wheels."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rclpy
from ament_index_python.packages import get_package_share_directory
from geometry_msgs.msg import TransformStamped
from places import ROOT
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from tf2_msgs.msg import TFMessage

import ttt3r_ros.ros  # noqa: F401  tells ROS where it is installed
from ttt3r_ros.cli import main
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.ros import build_interfaces
from ttt3r_ros.ros.build_interfaces import SITE_PACKAGES
from ttt3r_ros.types import BuildError

TF_MESSAGE_HASH = "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"


def a_status() -> TrackingStatus:
    status = TrackingStatus(state=TrackingStatus.UNCERTAIN, segment=3, images_since_reset=2**31)
    status.header.frame_id = "camera_optical"
    status.header.stamp.sec, status.header.stamp.nanosec = 1_700_000_000, 999_999_999
    status.received, status.processed, status.replaced = 2**40 + 3, 2**40, 2
    status.rejected, status.lost_estimated, status.map_points = 1, 17, 2_000_000
    status.mean_gain, status.median_confidence, status.scale = 0.25, 3.5, 1.5
    status.step_ms, status.latency_ms = 49.75, 71.5
    status.last_reset_reason, status.message = "time jumped back", "größer als erlaubt"
    return status


def a_tf_message() -> TFMessage:
    edges = []
    for parent, child, x in (("map", "odom", 0.5), ("odom", "base_link", -2.25)):
        edge = TransformStamped(child_frame_id=child)
        edge.header.frame_id = parent
        edge.header.stamp.sec = 7
        edge.transform.translation.x = x
        edge.transform.rotation.z, edge.transform.rotation.w = 0.6, 0.8
        edges.append(edge)
    return TFMessage(transforms=edges)


def as_rosbags(message, types):
    """Copy a ROS message into rosbags' class of the same name, field by field."""
    name = "{}/msg/{}".format(type(message).__module__.split(".")[0], type(message).__name__)
    fields = {}
    for field in message.get_fields_and_field_types():
        value = getattr(message, field)
        if isinstance(value, list):
            value = [as_rosbags(item, types) for item in value]
        elif hasattr(value, "get_fields_and_field_types"):
            value = as_rosbags(value, types)
        fields[field] = value
    return types[name](**fields)


MESSAGES = pytest.mark.parametrize(
    ("message", "definition"),
    [
        (a_status(), "msg/TrackingStatus.msg"),
        (a_tf_message(), "ttt3r_ros/interfaces/tf2_msgs/TFMessage.msg"),
    ],
    ids=["TrackingStatus", "TFMessage"],
)


@MESSAGES
def test_a_message_comes_back_whole_from_its_serialised_form(message, definition):
    assert deserialize_message(serialize_message(message), type(message)) == message


@MESSAGES
def test_the_serialised_form_is_that_of_an_independent_implementation(message, definition):
    package = type(message).__module__.split(".")[0]
    name = f"{package}/msg/{type(message).__name__}"
    store = get_typestore(Stores.ROS2_KILTED)
    store.register(get_types_from_msg((ROOT / definition).read_text("utf-8"), name))
    theirs = bytes(store.serialize_cdr(as_rosbags(message, store.types), name))
    ours = serialize_message(message)
    # Fast CDR leaves the bytes of its padding as it finds them: they are compared by meaning.
    assert len(ours) == len(theirs)
    assert bytes(store.serialize_cdr(store.deserialize_cdr(ours, name), name)) == theirs
    assert deserialize_message(theirs, type(message)) == message


def test_the_type_hash_of_tf_is_the_one_that_other_ros_nodes_have():
    share = get_package_share_directory("tf2_msgs")
    description = json.loads(Path(share, "msg/TFMessage.json").read_text("utf-8"))
    hashes = {entry["type_name"]: entry["hash_string"] for entry in description["type_hashes"]}
    assert hashes["tf2_msgs/msg/TFMessage"] == TF_MESSAGE_HASH


def test_a_publisher_of_tf_announces_that_type_hash():
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node("probe", context=context, use_global_arguments=False)
        node.create_publisher(TFMessage, "~/tf", 1)
        patience = time.monotonic() + 30
        while not (found := node.get_publishers_info_by_topic("/probe/tf")):
            assert time.monotonic() < patience, "the publisher was never discovered"
            time.sleep(0.01)
        assert str(found[0].topic_type_hash) == TF_MESSAGE_HASH
    finally:
        rclpy.shutdown(context=context)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix with a package of two messages, one using the other, beside files of its own."""
    folder = tmp_path_factory.mktemp("sample")
    prefix = folder / "prefix"
    own = prefix / SITE_PACKAGES / "sample_msgs" / "own.py"
    own.parent.mkdir(parents=True)
    own.write_text("kept = True\n")
    (folder / "Inner.msg").write_text("geometry_msgs/Point point  # in metres\nuint8 BLUE = 2\n")
    (folder / "Outer.msg").write_text('Inner[] parts\nfloat64[3] size\nstring name "x"\n')
    messages = sorted(folder.glob("*.msg"))
    build_interfaces.build_interfaces("sample_msgs", messages, prefix)
    return prefix


def test_a_built_package_can_be_imported_and_used(built, monkeypatch):
    monkeypatch.syspath_prepend(str(built / SITE_PACKAGES))
    from sample_msgs.msg import Inner, Outer

    outer = Outer(parts=[Inner(), Inner()], size=[1.0, 2.0, 3.0])
    outer.parts[1].point.y = -4.0
    assert deserialize_message(serialize_message(outer), Outer) == outer
    assert (outer.name, Inner.BLUE) == ("x", 2)


# rcutils prints an error that nobody fetched when it is told of the next one, here by a bad name.
TALK_THEN_FAIL = """
import rclpy
from rclpy.expand_topic_name import expand_topic_name
from sample_msgs.msg import Outer
from tf2_msgs.msg import TFMessage
from ttt3r_ros.msg import TrackingStatus

rclpy.init()
node = rclpy.create_node("probe")
for kind in (Outer, TFMessage, TrackingStatus):
    for create in (
        lambda: node.create_publisher(kind, "~/" + kind.__name__, 1),
        lambda: node.create_subscription(kind, "~/" + kind.__name__, print, 1),
    ):
        create()
        try:
            expand_topic_name("~/a{bad}", "probe", "/")
        except ValueError:
            print(kind.__name__)
"""


def test_an_error_after_a_publisher_or_subscription_is_the_first_that_ros_hears_of(built):
    talk = subprocess.run(
        [sys.executable, "-c", TALK_THEN_FAIL],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(built / SITE_PACKAGES)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (talk.returncode, talk.stderr) == (0, "")
    assert talk.stdout.split() == [*2 * ["Outer"], *2 * ["TFMessage"], *2 * ["TrackingStatus"]]


def test_a_build_leaves_the_files_that_are_not_its_own(built):
    assert (built / SITE_PACKAGES / "sample_msgs/own.py").read_text() == "kept = True\n"


def test_a_built_package_is_found_through_the_ament_index(built, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(built))
    share = Path(get_package_share_directory("sample_msgs"))
    listed = built / "share/ament_index/resource_index/rosidl_interfaces/sample_msgs"
    names = listed.read_text().split()
    assert sorted(names) == ["msg/Inner.idl", "msg/Inner.msg", "msg/Outer.idl", "msg/Outer.msg"]
    assert all((share / name).is_file() for name in names)


@pytest.mark.parametrize(
    ("definition", "complaint"),
    [
        ("float32 Xyz\n", "Broken.msg: .*Xyz"),
        ("uint8 LIMIT = 300\n", "Broken.msg: .*300"),
        ("std_msgs/Nothing thing\n", "'thing' has the type std_msgs/Nothing"),
        ("no_such_msgs/Thing thing\n", "'thing' has the type no_such_msgs/Thing"),
        ("Other thing\n", "'thing' has the type sample_msgs/Other"),
        ("int32 class\n", "the compiler failed"),  # legal in a .msg, not in C++
    ],
    ids=["syntax", "value", "unknown type", "unknown package", "own type", "compiler"],
)
def test_a_broken_message_is_named_and_leaves_the_earlier_build(
    built, tmp_path, definition, complaint
):
    def content():
        return {path: path.read_bytes() for path in built.rglob("*") if path.is_file()}

    before = content()
    broken = tmp_path / "Broken.msg"
    broken.write_text(definition)
    with pytest.raises(BuildError, match=complaint):
        build_interfaces.build_interfaces("sample_msgs", [broken], built)
    assert content() == before


def test_a_broken_message_installs_nothing_in_a_fresh_place(tmp_path):
    broken = tmp_path / "Broken.msg"
    broken.write_text("int32 class\n")
    prefix = tmp_path / "prefix"
    with pytest.raises(BuildError):
        build_interfaces.build_interfaces("sample_msgs", [broken], prefix)
    assert list(prefix.iterdir()) == []


def test_a_missing_compiler_is_named_with_its_package(tmp_path, monkeypatch):
    (tmp_path / "gcc").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"not found: g\+\+ \(package g\+\+\)$"):
        build_interfaces.build_interfaces("sample_msgs", [tmp_path / "Any.msg"], tmp_path)


def test_missing_python_headers_are_named_with_their_package(tmp_path, monkeypatch):
    monkeypatch.setattr(build_interfaces.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(BuildError, match=r"Python\.h \(package python3-dev\)"):
        build_interfaces.build_interfaces("sample_msgs", [tmp_path / "Any.msg"], tmp_path)


@pytest.fixture
def asked(monkeypatch) -> dict[str, list[Path]]:
    """What the command has built: nothing but said."""
    built = {}
    monkeypatch.setattr(
        build_interfaces,
        "build_interfaces",
        lambda name, files, prefix: built.update({name: files, "prefix": prefix}),
    )
    return built


def test_without_a_package_all_that_the_node_needs_is_built(asked, tmp_path):
    assert main(["build-interfaces", "--prefix", str(tmp_path)]) == 0
    assert asked == {
        "prefix": tmp_path,
        "tf2_msgs": [ROOT / "ttt3r_ros/interfaces/tf2_msgs/TFMessage.msg"],
        "ttt3r_ros": sorted((ROOT / "msg").glob("*.msg")),
    }


def test_where_the_clone_is_gone_the_installed_messages_are_built(asked, monkeypatch, tmp_path):
    shared = tmp_path / "data/share/ttt3r_ros/interfaces/ttt3r_ros/TrackingStatus.msg"
    shared.parent.mkdir(parents=True)
    shared.write_bytes((ROOT / "msg/TrackingStatus.msg").read_bytes())
    installed = tmp_path / "lib/ttt3r_ros"
    shutil.copytree(ROOT / "ttt3r_ros/interfaces", installed / "interfaces")
    monkeypatch.setattr(build_interfaces, "_PACKAGE", installed)
    monkeypatch.setattr(build_interfaces.sysconfig, "get_path", lambda _: str(tmp_path / "data"))
    assert main(["build-interfaces", "some_msgs", "Some.msg"]) == 0
    assert asked.pop("some_msgs") == [Path("Some.msg")]
    assert main(["build-interfaces"]) == 0
    assert asked == {
        "prefix": Path(sys.prefix).resolve(),
        "tf2_msgs": [installed / "interfaces/tf2_msgs/TFMessage.msg"],
        "ttt3r_ros": [shared],
    }


def test_what_cannot_be_built_is_one_line(monkeypatch, tmp_path, capsys):
    assert main(["build-interfaces", "some_msgs"]) == 2
    assert capsys.readouterr().err.endswith("no .msg files given for some_msgs\n")
    assert main(["build-interfaces", "some_msgs", str(tmp_path / "No.msg")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ttt3r: {tmp_path / 'No.msg'}: ") and error.count("\n") == 1
    monkeypatch.setattr(build_interfaces, "_PACKAGE", tmp_path / "a/b")
    monkeypatch.setattr(build_interfaces.sysconfig, "get_path", lambda _: str(tmp_path / "data"))
    assert main(["build-interfaces"]) == 2
    assert f"none in {tmp_path / 'a/msg'} or {tmp_path / 'data'}" in capsys.readouterr().err


def test_without_the_wheels_the_command_says_so(monkeypatch, capsys):
    monkeypatch.delattr("ttt3r_ros.ros.build_interfaces")
    monkeypatch.setitem(sys.modules, "ttt3r_ros.ros.build_interfaces", None)
    assert main(["build-interfaces"]) == 2
    assert "it needs the ROS wheels" in capsys.readouterr().err
