# SPDX-License-Identifier: Apache-2.0
"""The package's descriptions agree with each other and the code: those for pip, colcon and rosdep.

Which part may import what is said in pyproject.toml and checked by `make lint`.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import setuptools
from packaging.requirements import Requirement
from places import ROOT

import ttt3r_ros
import ttt3r_ros.ros

PACKAGE = ROOT / "ttt3r_ros"
ROS_LIBRARIES = {
    "ament_index_python",
    "cv_bridge",
    "launch",
    "launch_ros",
    "message_filters",
    "rclpy",
    "rosidl_runtime_py",
    "sensor_msgs_py",
    "std_srvs",
    "tf2_ros",
    "tf_transformations",
}
SLOW_LIBRARIES = {
    *("cv2", "evo", "jinja2", "matplotlib", "numpy", "PIL", "rclpy", "rosbags", "torch", "viser"),
}
# Import name: name in package.xml.
ROSDEP_KEYS = {
    "cv2": "python3-opencv",
    "jinja2": "python3-jinja2",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "PIL": "python3-pil",
    "scipy": "python3-scipy",
    "torch": "python3-torch",
    "tqdm": "python3-tqdm",
    "transforms3d": "python3-transforms3d",
    "yaml": "python3-yaml",
}
OPTIONAL = {"evaluation": "evo", "recordings": "rosbags", "view": "viser"}  # by extra
NO_ROSDEP_KEY = {*OPTIONAL.values(), "safetensors"}
WITH_OTHERS = {"markupsafe", "typing_extensions"}  # come with jinja2 and torch
PIP_NAMES = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml"}
# Of ROS's generators of code these have the wheels that bring the others. With a ROS install, where
# package.xml counts, they are CMake's business.
GENERATORS = ("rosidl_adapter", "rosidl_generator_", "rosidl_typesupport_")
GENERATORS_OF_PIP = {
    *("ros-rosidl-adapter", "ros-rosidl-generator-py", "ros-rosidl-typesupport-fastrtps-c"),
}
WITHOUT_WHEEL = {"cv_bridge", "launch", "launch_ros", "sensor_msgs_py", "tf_transformations"} | {
    "tf2_msgs",  # built by `ttt3r build-interfaces`
    "tf2_ros",
}


def imports_of(path: Path) -> Iterator[str]:
    """Yield the full name of every module that a file imports, at any depth, also relatively."""
    inside = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*inside[: -node.level]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_of(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def is_ros(module: str) -> bool:
    top = module.split(".")[0]
    is_messages = top.endswith(("_msgs", "_interfaces")) or is_of(module, "ttt3r_ros.msg")
    return is_messages or top in ROS_LIBRARIES


@pytest.fixture(scope="module")
def setup_arguments() -> dict:
    """What setup.py hands to setuptools."""
    arguments = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", lambda **given: arguments.update(given))
        runpy.run_path("setup.py")
    return arguments


@pytest.fixture(scope="module")
def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def dependencies(manifest: ElementTree.Element) -> set[str]:
    return {tag.text for tag in manifest if tag.tag in ("depend", "exec_depend")}


def imported() -> set[str]:
    """Return the names of all libraries that the package imports, other than Python's own."""
    names = {module.split(".")[0] for path in PACKAGE.rglob("*.py") for module in imports_of(path)}
    names = {name for name in names if not name.startswith(GENERATORS)}
    return names - set(sys.stdlib_module_names) - WITH_OTHERS - {"ttt3r_ros"}


def constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_the_version_is_the_same_everywhere(setup_arguments, manifest):
    assert re.fullmatch(r"\d+\.\d+\.\d+", ttt3r_ros.__version__)
    assert setup_arguments["version"] == ttt3r_ros.__version__
    assert manifest.findtext("version") == ttt3r_ros.__version__


def test_the_changelog_opens_with_this_version_or_the_coming_one():
    text = (ROOT / "CHANGELOG.rst").read_text("utf-8")
    opening = re.search(r"^(Forthcoming|\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\))\n-+$", text, re.M)[1]
    assert opening == "Forthcoming" or opening.startswith(f"{ttt3r_ros.__version__} ")


def test_the_licence_is_the_same_everywhere(setup_arguments, manifest):
    assert setup_arguments["license"] == manifest.findtext("license") == "Apache-2.0"
    assert (
        "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()
    )


def test_colcon_builds_it_with_cmake_as_an_interface_package(manifest):
    assert manifest.findtext("export/build_type") == "ament_cmake"
    assert manifest.findtext("member_of_group") == "rosidl_interface_packages"


def test_every_message_is_built_by_cmake():
    text = (ROOT / "CMakeLists.txt").read_text("utf-8")
    messages = [f"msg/{path.name}" for path in (ROOT / "msg").glob("*.msg")]
    assert messages
    assert set(re.findall(r"msg/\w+\.msg", text)) == set(messages)


def test_everything_imported_is_declared_to_rosdep(manifest):
    declared = dependencies(manifest)
    ros = {name for name in imported() if is_ros(name)}
    other = {ROSDEP_KEYS.get(name, name) for name in imported() - ros - NO_ROSDEP_KEY}
    assert (ros | other) - declared == set()


def test_everything_imported_is_declared_to_pip(setup_arguments):
    needed = {Requirement(line).name for line in setup_arguments["install_requires"]}
    extras = setup_arguments["extras_require"]
    wheels = {Requirement(line).name for line in extras["ros"]}
    ros = {name for name in imported() if is_ros(name)}
    other = {PIP_NAMES.get(name, name) for name in imported() - ros - {*OPTIONAL.values()}}
    assert other - needed == set()
    assert {f"ros-{name.replace('_', '-')}" for name in ros - WITHOUT_WHEEL} - wheels == set()
    assert wheels >= GENERATORS_OF_PIP
    for extra, library in OPTIONAL.items():
        assert [Requirement(line).name for line in extras[extra]] == [library]


def test_the_generators_are_imported_by_what_builds_messages_alone():
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(module.startswith(GENERATORS) for module in imports_of(path))
    }
    assert users == {"ros/build_interfaces.py"}


def test_the_messages_are_installed_by_pip(setup_arguments):
    shared = dict(setup_arguments["data_files"])
    messages = [f"msg/{path.name}" for path in sorted((ROOT / "msg").glob("*.msg"))]
    assert shared["share/ttt3r_ros/interfaces/ttt3r_ros"] == messages


def test_the_tested_versions_are_exact_and_tied_to_no_place():
    for requirement in constraints():
        (version,) = requirement.specifier
        assert version.operator == "=="
        assert "+" not in version.version, f"{requirement} names a local build"
        assert requirement.url is None
    assert "torch==2.13.0" in map(str, constraints())


def test_the_tested_versions_are_in_the_ranges_that_pip_is_given(setup_arguments):
    extras = setup_arguments["extras_require"]
    wanted = [*setup_arguments["install_requires"], *(line for e in extras.values() for line in e)]
    for requirement in map(Requirement, wanted):
        name = requirement.name.lower()
        tested = [pin for pin in constraints() if pin.name.lower() == name]
        assert tested, f"{name} is missing in constraints.txt"
        for pin in tested:
            (version,) = pin.specifier
            assert requirement.specifier.contains(version.version), f"{pin} against {requirement}"


def test_the_programs_of_the_two_builds_start_the_same_functions(setup_arguments):
    by_pip = dict(line.split(" = ") for line in setup_arguments["entry_points"]["console_scripts"])
    by_cmake = {
        path.name: re.search(r"^from (\S+) import (\S+)$", path.read_text("utf-8"), re.M)
        for path in (ROOT / "scripts").iterdir()
    }
    assert {name: f"{found[1]}:{found[2]}" for name, found in by_cmake.items()} == by_pip
    text = (ROOT / "CMakeLists.txt").read_text("utf-8")
    assert all(f"scripts/{name}" in text for name in by_cmake)


def test_every_subpackage_is_installed_by_pip(setup_arguments):
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(setup_arguments["packages"]) == names


def test_every_file_beside_the_modules_is_installed_by_pip(setup_arguments):
    files = {path for path in PACKAGE.rglob("*.*") if path.suffix not in (".py", ".pyc")}
    installed = {
        path
        for package, patterns in setup_arguments["package_data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    assert files == installed


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (f"{sys.prefix}/lib/python3/site-packages/rclpy/__init__.py", sys.prefix),
        ("/opt/ros/jazzy/lib/python3/site-packages/rclpy/__init__.py", None),
        (None, None),
    ],
    ids=["wheels", "install", "no ROS"],
)
def test_ros_looks_into_the_environment_only_if_it_is_installed_there(
    origin, expected, monkeypatch
):
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    spec = SimpleNamespace(origin=origin) if origin else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    runpy.run_path(ttt3r_ros.ros.__file__)
    assert os.environ.get("AMENT_PREFIX_PATH") == expected


def test_a_place_that_the_user_gives_to_ros_is_kept(monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/somewhere")
    runpy.run_path(ttt3r_ros.ros.__file__)
    assert os.environ["AMENT_PREFIX_PATH"] == "/somewhere"


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "pkg" / "sub" / "module.py"
    path.parent.mkdir(parents=True)
    inner = "from c import d", "from . import e", "from ..g import h"
    path.write_text("import a.b\ndef f():\n" + "".join(f"    {line}\n" for line in inner))
    assert set(imports_of(path)) == {"a.b", "c", "c.d", "pkg.sub", "pkg.sub.e", "pkg.g", "pkg.g.h"}


@pytest.mark.parametrize(
    ("module", "not_loaded"),
    [
        ("ttt3r_ros.cli", SLOW_LIBRARIES),
        ("ttt3r_ros.types, ttt3r_ros.geometry, ttt3r_ros.config", SLOW_LIBRARIES - {"numpy"}),
    ],
    ids=["the command line", "the ground floor"],
)
def test_importing_what_all_others_need_loads_nothing_slow(module, not_loaded):
    code = f"import sys, {module}; print(*set({sorted(not_loaded)}) & sys.modules.keys())"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (loaded.returncode, loaded.stdout.split()) == (0, []), loaded.stderr


def test_the_import_rules_name_all_of_ros_that_is_imported():
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    rule = text[text.index('name = "Only ros and clients import ROS"') :].split("[[")[0]
    assert {name for name in imported() if is_ros(name) and f'"{name}"' not in rule} == set()
