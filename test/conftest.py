# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import gc
import importlib.util
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# What is computed here is too small to share: more threads make it slower, far slower on a busy
# machine, where they spin while they wait for each other, and sums differ in their last bits with
# the number of threads. Libraries read this when they are loaded, in programs that are started too.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
    os.environ[_name] = "1"

import pytest  # noqa: E402
import torch  # noqa: E402
from preloaded import Server  # noqa: E402

torch.set_num_threads(1)  # also where a plugin of pytest has loaded it before

# There is no wheel of launch. test_launch_files compares the launch files with the node even so.
collect_ignore = [] if importlib.util.find_spec("launch_ros") else ["ros/test_launch.py"]

DOMAINS = 100
_candidates = itertools.count(os.getpid())


def pytest_report_header() -> list[str]:
    return [f"{path}: left out, for launch_ros is not installed" for path in collect_ignore]


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking through the libraries and tests again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def domain(monkeypatch) -> Iterator[int]:
    """A DDS domain of the test's own, on this machine only, other runs of the tests included."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    for candidate in itertools.islice(_candidates, DOMAINS):
        number = candidate % DOMAINS + 1
        path = Path(tempfile.gettempdir()) / f"ttt3r_ros-test-domain-{number}"
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
            yield number
            return
    pytest.fail(f"all {DOMAINS} domains are in use")


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Iterator[Callable[..., list[str]]]:
    """A function from words to what starts `python WORDS...` in a preloaded process."""
    server = Server(tmp_path_factory.mktemp("preloaded"))
    yield server.command
    server.stop()


@pytest.fixture
def robot(domain):
    """A robot around the node: a camera, listeners and the node itself, see `Robot`."""
    from robot import Robot  # the tests that need no ROS do not wait for rclpy

    robot = Robot(domain)
    yield robot
    robot.shutdown()
