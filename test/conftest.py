# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util

import torch

# The networks here are too small to share: more threads make them slower, far slower on a busy
# machine, and sums differ in their last bits with the number of threads.
torch.set_num_threads(1)

# There is no wheel of launch. test_launch_files compares the launch files with the node even so.
collect_ignore = [] if importlib.util.find_spec("launch_ros") else ["ros/test_launch.py"]


def pytest_report_header() -> list[str]:
    return [f"{path}: left out, for launch_ros is not installed" for path in collect_ignore]
