# SPDX-License-Identifier: Apache-2.0
"""What the environment's setup decides: what is missing, which ROS, which steps are left to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tools import setup_env
from tools.setup_env import SetupError

SOURCED = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": "/opt/ros/jazzy"}


@pytest.fixture
def headers(tmp_path: Path) -> str:
    (tmp_path / "Python.h").touch()
    return str(tmp_path)


def present(name: str) -> str:
    return f"/usr/bin/{name}"


def absent(name: str) -> None:
    return None


def test_nothing_is_missing_where_everything_is_there(headers):
    found = setup_env.missing_prerequisites((3, 12, 1), present, present, headers)
    assert found == {}


def test_everything_missing_is_named_at_once_with_its_package(tmp_path):
    found = setup_env.missing_prerequisites((3, 11, 2), absent, absent, str(tmp_path))
    assert list(found.values()) == ["python3-venv", "python3-dev", "gcc", "g++", "make"]
    with pytest.raises(SetupError) as raised:
        setup_env.require(found)
    message = str(raised.value)
    assert all(f"{name}: package {package}" in message for name, package in found.items())
    assert message.endswith("sudo apt install python3-venv python3-dev gcc g++ make")


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0)])
def test_a_python_out_of_range_is_named_with_its_version(version, headers):
    (name,) = setup_env.missing_prerequisites(version, present, present, headers)
    assert "3.10 to 3.13" in name
    assert ".".join(map(str, version)) in name


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 13, 9)])
def test_the_oldest_and_newest_python_are_accepted(version, headers):
    assert setup_env.missing_prerequisites(version, present, present, headers) == {}


def test_nothing_is_downloaded_before_the_machine_is_found_complete(monkeypatch, tmp_path):
    monkeypatch.setattr(setup_env, "STAMP", tmp_path / "stamp.json")
    monkeypatch.setattr(setup_env, "missing_prerequisites", lambda **_: {"g++": "g++"})
    commands: list[tuple[object, ...]] = []
    monkeypatch.setattr(setup_env, "run", lambda *command: commands.append(command))
    with pytest.raises(SetupError, match=r"g\+\+"):
        setup_env.bring_up_to_date("wheels", dev=False)
    assert commands == []


def test_without_ros_the_wheels_are_used_where_there_are_any():
    assert setup_env.choose_ros({}, "Linux", "x86_64", absent) == "wheels"


def test_a_distribution_that_is_named_but_not_sourced_does_not_count():
    assert setup_env.choose_ros({"ROS_DISTRO": "jazzy"}, "Linux", "x86_64", absent) == "wheels"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_sourced_ros_is_used_on_every_machine(machine):
    assert setup_env.choose_ros(SOURCED, "Linux", machine, present) == "install"


def test_a_sourced_ros_of_another_python_is_an_error():
    with pytest.raises(SetupError, match=r"jazzy is sourced, but .* cannot import its rclpy"):
        setup_env.choose_ros(SOURCED, "Linux", "x86_64", absent)


@pytest.mark.parametrize(
    ("system", "machine"), [("Linux", "aarch64"), ("Darwin", "x86_64"), ("Windows", "AMD64")]
)
def test_where_no_wheels_exist_a_ros_install_must_be_sourced(system, machine):
    with pytest.raises(SetupError, match=f"{machine} {system}.*source its setup file"):
        setup_env.choose_ros({}, system, machine, absent)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A tree with one file of each kind that the steps depend on."""
    for name in (
        *("setup.py", "constraints.txt", "CMakeLists.txt", "msg/A.msg"),
        *("tools/setup_env.py", "ttt3r_ros/ros/build_interfaces.py"),
        "ttt3r_ros/interfaces/tf2_msgs/B.msg",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "steps"),
    [
        ("setup.py", ["packages", "dev", "messages"]),
        ("constraints.txt", ["packages", "dev", "messages"]),
        ("msg/A.msg", ["messages"]),
        ("ttt3r_ros/interfaces/tf2_msgs/B.msg", ["messages"]),
        ("ttt3r_ros/ros/build_interfaces.py", ["messages"]),
        ("CMakeLists.txt", []),
    ],
)
def test_a_change_repeats_only_the_steps_that_depend_on_it(project, changed, steps):
    done = setup_env.wanted_state("wheels", True, project)
    (project / changed).write_text("something else")
    wanted = setup_env.wanted_state("wheels", True, project)
    assert setup_env.steps_to_do(wanted, done) == steps


def test_the_interfaces_follow_cmake_where_ros_is_installed(project, monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    done = setup_env.wanted_state("install", False, project)
    (project / "CMakeLists.txt").write_text("something else")
    wanted = setup_env.wanted_state("install", False, project)
    assert setup_env.steps_to_do(wanted, done) == ["messages"]


def test_another_source_of_ros_starts_from_nothing(project, monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    done = setup_env.wanted_state("wheels", False, project)
    wanted = setup_env.wanted_state("install", False, project)
    assert setup_env.steps_to_do(wanted, done) == ["environment", "packages", "messages"]


def test_the_tools_of_tests_are_added_to_a_finished_environment(project):
    done = setup_env.wanted_state("wheels", False, project)
    wanted = setup_env.wanted_state("wheels", True, project)
    assert setup_env.steps_to_do(wanted, done) == ["dev"]
    assert setup_env.steps_to_do(done, wanted) == []


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the setup work on an empty folder and only note its commands."""
    venv = tmp_path / ".venv"
    monkeypatch.setattr(setup_env, "VENV", venv)
    monkeypatch.setattr(setup_env, "STAMP", venv / "stamp.json")
    monkeypatch.setattr(setup_env, "missing_prerequisites", lambda **_: {})
    commands: list[str] = []

    def note(*words: object) -> None:
        venv.mkdir(exist_ok=True)
        commands.append(" ".join(map(str, words)))

    monkeypatch.setattr(setup_env, "run", note)
    return commands


def test_a_second_run_does_nothing(sandbox):
    setup_env.bring_up_to_date("wheels", dev=False)
    assert len(sandbox) == 3  # venv, pip, messages
    sandbox.clear()
    setup_env.bring_up_to_date("wheels", dev=False)
    assert sandbox == []


def test_a_run_after_a_failure_goes_on_with_the_failed_step(sandbox, monkeypatch):
    note = setup_env.run

    def failing(*words: object) -> None:
        note(*words)
        if "pip" in words:
            raise SetupError("no network")

    monkeypatch.setattr(setup_env, "run", failing)
    with pytest.raises(SetupError, match="no network"):
        setup_env.bring_up_to_date("wheels", dev=False)
    sandbox.clear()
    monkeypatch.setattr(setup_env, "run", note)
    setup_env.bring_up_to_date("wheels", dev=False)
    assert "pip install" in sandbox[0]
    assert len(sandbox) == 2


def test_wheels_are_installed_at_the_tested_versions_and_an_install_keeps_its_own(
    sandbox, monkeypatch
):
    setup_env.install_packages("wheels", dev=False)
    monkeypatch.setattr(setup_env.importlib.metadata, "version", lambda name: "1.26.4")
    setup_env.install_packages("install", dev=True)
    wheels, install = (command.split("-m pip install ")[1] for command in sandbox)
    assert wheels == "--constraint constraints.txt --editable .[recordings,ros]"
    assert install == "numpy<2 --editable .[recordings,evaluation,view,dev]"


def test_tests_do_without_what_benchmarks_compare_with(sandbox):
    setup_env.install_packages("wheels", dev=True)
    assert sandbox[-1].endswith("--editable .[recordings,ros,evaluation,view,dev]")


def test_a_failing_command_is_named_with_its_status():
    with pytest.raises(SetupError, match=r"raise SystemExit\(3\)` failed with status 3"):
        setup_env.run(sys.executable, "-c", "raise SystemExit(3)")


def test_commands_do_not_inherit_the_mark_of_another_environment(monkeypatch):
    monkeypatch.setitem(os.environ, "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1")
    # -S: without site, for that is what would set the mark anew in an environment with the wheels
    code = "import os, sys; sys.exit('_ROS_WHEELS_BOOTSTRAP_COMPLETE' in os.environ)"
    setup_env.run(sys.executable, "-S", "-c", code)
