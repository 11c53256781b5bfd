# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from robot import Robot

_domains = itertools.count(os.getpid())


@pytest.fixture
def domain(monkeypatch) -> int:
    """A DDS domain of the test's own, on this machine only."""
    number = next(_domains) % 100 + 1
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return number


@pytest.fixture
def robot(domain) -> Iterator[Robot]:
    robot = Robot(domain)
    yield robot
    robot.shutdown()
