# SPDX-License-Identifier: Apache-2.0
"""How the program ends when it is told to in the middle of something."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from robot import PATIENCE_S, image_message
from small_network import small_checkpoint
from std_srvs.srv import Trigger

# The node's program, but that one call, once it is begun, waits for a line on its standard input.
PROGRAM = """
import os, sys
from ttt3r_ros.ros.node import main
from ttt3r_ros.tracking.tracker import Tracker

call = {call}

def held(*arguments):
    print("begun", flush=True)
    sys.stdin.readline()
    return call(*arguments)

{call} = held
sys.exit(main())
"""


@contextmanager
def node_that_holds(
    program: Callable[..., list[str]], call: str, output_dir: Path
) -> Iterator[subprocess.Popen]:
    settings = {
        "checkpoint": small_checkpoint(),
        "device": "cpu",
        "image_reliability": "reliable",
        "tf_wait_s": 0.0,
        "output_dir": output_dir,
        "map.edge_filter": "0.0",  # the depth of random weights is nothing but edges
    }
    arguments = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
    with subprocess.Popen(
        program("-c", PROGRAM.format(call=call), "--ros-args", *arguments),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def end_in_the_middle(process, number):
    """Tell the program to end while its call is held, then let that go on; return its log."""
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    return process.communicate("\n", timeout=PATIENCE_S)[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_during_a_step_ends_the_program_well(robot, program, tmp_path, number):
    with node_that_holds(program, "Tracker.step", tmp_path) as process:
        robot.meet()
        robot.hear_process()
        robot.images.publish(image_message(1.0))
        log = end_in_the_middle(process, number)
    assert process.returncode == 0 and "Traceback" not in log, log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_map_that_is_being_saved_when_the_program_is_ended_is_whole(
    robot, program, tmp_path, number
):
    with node_that_holds(program, "os.fsync", tmp_path) as process:
        robot.meet()
        robot.hear_process()
        message = image_message(1.0)
        robot.images.publish(message)
        points = robot.status_at(message.header.stamp).map_points
        client = robot.client.create_client(Trigger, "ttt3r_node/save_map")
        assert client.wait_for_service(PATIENCE_S)
        client.call_async(Trigger.Request())
        log = end_in_the_middle(process, number)
    assert process.returncode == 0 and "Traceback" not in log, log
    (path,) = tmp_path.iterdir()
    header, body = path.read_bytes().split(b"end_header\n")
    assert path.suffix == ".ply" and f"element vertex {points}\n".encode() in header
    vertices = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    assert len(vertices) == points > 0 and np.isfinite(vertices["xyz"]).all()
