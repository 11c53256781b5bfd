# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 node. Only modules in here import rclpy, message packages or tf2."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

# The ROS wheels make the environment an ament prefix, but nobody sources a setup file for it. Where
# rclpy lies inside the environment, that is also the place for ROS to look for everything else.
_rclpy = importlib.util.find_spec("rclpy")
if _rclpy is not None and Path(_rclpy.origin or "").is_relative_to(sys.prefix):
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)

# Before torch is loaded: idle OpenMP threads that spin take the cores from whoever else is on the
# robot, and from the threads they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
