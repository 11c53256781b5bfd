# SPDX-License-Identifier: Apache-2.0
"""Nothing is left behind by a life from configure to cleanup."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from nav_msgs.msg import Path as PathMessage
from rclpy.lifecycle import TransitionCallbackReturn
from robot import LATCHED
from sensor_msgs.msg import PointCloud2
from tolerant import TOLERANT

SUCCESS = TransitionCallbackReturn.SUCCESS
MOST_GROWTH_MB = 15  # over 15 lives, each of which loads a network of 35


def resident_mb():
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def holdings(node):
    kinds = ("subscriptions", "publishers", "timers", "services", "clients", "guards")
    return {kind: len(list(getattr(node, kind))) for kind in kinds}


def test_twenty_lives_in_a_row_leave_neither_memory_nor_threads_nor_topics_behind(robot):
    robot.start(autostart=False, map__max_points=400_000, **TOLERANT)
    node = robot.node

    def go(transition):
        assert robot.in_node(getattr(node, f"trigger_{transition}")) == SUCCESS

    memory, left = [], []
    for life in range(20):
        go("configure")
        go("activate")
        robot.meet()
        status = robot.send(at_s=life)
        assert (status.received, status.processed, status.images_since_reset) == (1, 1, 1)
        go("deactivate")
        go("cleanup")
        robot.wait_until(lambda: robot.images.get_subscription_count() == 0)
        gc.collect()
        memory.append(resident_mb())
        left.append({**holdings(node), "threads": len(os.listdir("/proc/self/task"))})
    assert all(later == left[0] for later in left[1:])
    assert memory[19] - memory[4] < MOST_GROWTH_MB, memory


def test_map_and_path_of_a_life_that_is_over_are_not_served_to_those_who_join_the_next_one(robot):
    robot.start(map__publish_hz=50.0, path__rate_hz=50.0, **TOLERANT)

    def listen():
        maps = robot.listen_to_node(PointCloud2, "cloud_map", LATCHED)
        return maps, robot.listen_to_node(PathMessage, "path", LATCHED)

    maps, paths = listen()
    robot.send(at_s=1.0)
    assert maps.wait(lambda message: message.width > 0) and paths.wait(lambda m: m.poses)
    for transition in ("deactivate", "cleanup", "configure", "activate"):
        assert robot.in_node(getattr(robot.node, f"trigger_{transition}")) == SUCCESS
    robot.wait_until(lambda: maps.messages[-1].width == 0 and not paths.messages[-1].poses)
    for inbox in listen():  # no image has come yet
        message = inbox.wait()
        assert message.header.frame_id == "map"
        assert not (message.poses if isinstance(message, PathMessage) else message.width)
