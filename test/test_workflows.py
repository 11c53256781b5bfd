# SPDX-License-Identifier: Apache-2.0
"""What the workflows and the Dockerfile call exists, and they agree with the package."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import yaml
from places import ROOT

from tools import setup_env

DOCKERFILE = (ROOT / "docker/Dockerfile").read_text("utf-8")
DISTRIBUTIONS = ["humble", "jazzy", "kilted", "lyrical"]
NUMPY_1 = {"humble", "jazzy", "kilted"}


def jobs() -> Iterator[tuple[str, dict]]:
    for path in sorted((ROOT / ".github/workflows").glob("*.yml")):
        yield from yaml.safe_load(path.read_text("utf-8"))["jobs"].items()


def commands() -> list[str]:
    runs = [step["run"] for _, job in jobs() for step in job["steps"] if "run" in step]
    return [line.strip() for run in runs for line in run.splitlines()]


def test_every_make_target_of_the_workflows_exists():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    called = {line.removeprefix("make ") for line in commands() if line.startswith("make ")}
    assert called == {"lint", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in called)


def test_the_workflows_test_every_python_that_make_accepts():
    versions = dict(jobs())["test"]["strategy"]["matrix"]["python"]
    minors = range(setup_env.OLDEST_PYTHON[1], setup_env.NEWEST_PYTHON[1] + 1)
    assert versions == [f"3.{minor}" for minor in minors]


def test_every_distribution_is_built_with_the_numpy_of_its_own():
    rows = dict(jobs())["colcon"]["strategy"]["matrix"]["include"]
    assert [row["distribution"] for row in rows] == DISTRIBUTIONS
    assert {row["distribution"] for row in rows if row["numpy"].endswith(",<2")} == NUMPY_1
    assert set(re.search(r"\^\(([a-z|]+)\)\$", DOCKERFILE)[1].split("|")) == NUMPY_1


def test_the_keys_that_rosdep_leaves_out_are_in_the_manifest():
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {tag.text for tag in manifest}
    for text in ("\n".join(commands()), DOCKERFILE, (ROOT / "docs/install.md").read_text("utf-8")):
        left_out = re.search(r'--skip-keys "([^"]+)"', text)[1].split()
        assert set(left_out) == {"python3-torch"} <= declared


def test_the_image_gets_all_that_cmake_installs_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text("utf-8").split()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    assert all((ROOT / name).exists() for name in kept)
    cmake = (ROOT / "CMakeLists.txt").read_text("utf-8").split("if(BUILD_TESTING)")[0]
    named = {name for name in kept if re.search(rf"\b{re.escape(name)}\b", cmake)}
    assert kept - named == {"CMakeLists.txt", "package.xml"}
    assert not any(fnmatch.fnmatch("weights.safetensors", name) for name in kept)


def test_what_colcon_tests_exists():
    cmake = (ROOT / "CMakeLists.txt").read_text("utf-8")
    parts = re.findall(r"set\(test_of_(\w+) (\S+)\)", cmake)
    assert parts
    assert all((ROOT / path).exists() for _, path in parts)
    (run,) = re.findall(r"foreach\(part ([\w ]+)\)", cmake)
    assert run.split() == [name for name, _ in parts]
