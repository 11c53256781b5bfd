# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from robot import Robot

DOMAINS = 100
_candidates = itertools.count(os.getpid())


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


@pytest.fixture
def robot(domain) -> Iterator[Robot]:
    robot = Robot(domain)
    yield robot
    robot.shutdown()
