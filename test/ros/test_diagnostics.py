# SPDX-License-Identifier: Apache-2.0
"""What /diagnostics says of the node, in every state of its life."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticArray
from health import WELL
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.lifecycle import TransitionCallbackReturn
from robot import PATIENCE_S
from small_network import small_checkpoint
from tolerant import TOLERANT

from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.ros.diagnostics import ERROR, OK, RECENT_S, WARN, Diagnosis
from ttt3r_ros.ros.stream import StreamCounts

SUCCESS = TransitionCallbackReturn.SUCCESS
LOST = TrackingStatus(state=TrackingStatus.LOST, message="so and so")
UNCERTAIN = TrackingStatus(state=TrackingStatus.UNCERTAIN, message="so and so")


def counts(**later):
    """100 images that were received and processed, and what came after."""
    return StreamCounts(**{"received": 100, "processed": 100, **later})


FINDINGS = {
    "nothing": (dict(counts=counts(received=110, processed=110)), OK, "TRACKING"),
    "LOST": (
        dict(counts=counts(received=110, processed=110), status=LOST),
        ERROR,
        "tracking is lost: so and so",
    ),
    "UNCERTAIN": (
        dict(counts=counts(received=110, processed=110), status=UNCERTAIN),
        WARN,
        "tracking is uncertain: so and so",
    ),
    "silence": (dict(counts=counts()), WARN, "no images in the last 5 s"),
    "a standstill": (
        dict(counts=counts(received=101)),
        WARN,
        "images arrive, none was done with in the last 5 s",
    ),
    "rejections": (
        dict(counts=counts(received=110, processed=107, rejected=3)),
        WARN,
        "3 images rejected lately, the last one: header.frame_id: empty",
    ),
    "loss": (
        dict(counts=counts(received=110, processed=110, lost_estimated=10)),
        WARN,
        "50% of the images lost on the way",
    ),
    "a little loss": (
        dict(counts=counts(received=110, processed=110, lost_estimated=4)),
        OK,
        "TRACKING",
    ),
    "a camera faster than the network": (
        dict(counts=counts(received=130, processed=110, replaced=20)),
        OK,
        "TRACKING",
    ),
    "replaced images where none is to be": (
        dict(counts=counts(received=130, processed=110, replaced=20), process_all_images=True),
        WARN,
        "20 images replaced: more wait than queue_size",
    ),
    "no odometry to correct": (
        dict(counts=counts(received=110, processed=110, without_odometry=4)),
        WARN,
        "no odometry of the time of 4 images lately",
    ),
    "the worst comes first": (
        dict(counts=counts(received=110, processed=109, rejected=1), status=LOST),
        ERROR,
        "tracking is lost: so and so; "
        "1 images rejected lately, the last one: header.frame_id: empty",
    ),
    "a problem": (
        dict(lifecycle="inactive", counts=None, problem="deactivated: no memory", status=LOST),
        ERROR,
        "deactivated: no memory",
    ),
    "inactive": (dict(lifecycle="inactive", counts=None, status=LOST), OK, "inactive"),
    "unconfigured": (dict(lifecycle="unconfigured", counts=None, status=None), OK, "unconfigured"),
}


@pytest.mark.parametrize(("changes", "level", "message"), FINDINGS.values(), ids=FINDINGS)
def test_the_level_is_that_of_the_worst_and_the_message_says_why(changes, level, message):
    diagnosis = Diagnosis()
    diagnosis.judge(WELL, 10.0)
    found = diagnosis.judge(replace(WELL, **changes), 10.0 + RECENT_S)
    assert (found.level, found.message, found.hardware_id) == (level, message, "cpu")


def test_what_is_over_for_some_seconds_is_forgotten():
    diagnosis = Diagnosis()
    diagnosis.judge(WELL, 0.0)
    levels = []
    for second in range(1, 10):
        bad = counts(received=100 + second, processed=99 + second, rejected=1)
        levels.append(diagnosis.judge(replace(WELL, counts=bad), float(second)).level)
    assert levels == [WARN] * 5 + [OK] * 4


def test_a_new_activation_is_neither_silent_nor_judged_by_the_one_before():
    diagnosis = Diagnosis()
    diagnosis.judge(replace(WELL, counts=counts(rejected=5)), 0.0)
    found = diagnosis.judge(replace(WELL, counts=StreamCounts()), RECENT_S)
    assert (found.level, found.message) == (OK, "active, no image yet")
    assert diagnosis.judge(replace(WELL, counts=StreamCounts()), 2 * RECENT_S).level == WARN


def values(status):
    return {value.key: value.value for value in status.values}


def test_the_figures_are_those_of_the_stream_the_tracker_and_the_map():
    diagnosis = Diagnosis()
    diagnosis.judge(WELL, 0.0)
    status = TrackingStatus(state=TrackingStatus.TRACKING, step_ms=12.0, latency_ms=34.56)
    status.map_points = 7
    later = counts(received=130, processed=121, replaced=5, rejected=3, lost_estimated=2)
    found = values(diagnosis.judge(replace(WELL, status=status, counts=later), 2.0))
    assert float(found.pop("process memory [MB]")) > 10
    assert found == {
        "lifecycle": "active",
        "camera_info": "none",
        "mask": "none",
        "messages that failed": "0",
        "base frame": "base_link",
        "tracking state": "TRACKING",
        "step [ms]": "12.0",
        "latency [ms]": "34.6",
        "map points": "7 of 1000",
        "input rate [Hz]": "15.0",
        "images received": "130",
        "images processed": "121",
        "images replaced": "5",
        "images rejected": "3",
        "images lost (estimated)": "2",
        "loops asked": "9",
        "loops accepted": "3",
        "loops gated": "1",
        "loop corrections": "2",
    }


def test_the_memory_of_a_gpu_is_told_once_the_node_is_configured(monkeypatch):
    for name, size in (("memory_allocated", 5e6), ("memory_reserved", 8e6)):
        monkeypatch.setattr(torch.cuda, name, lambda device, s=size: s if device == "cuda:0" else 0)
    found = values(Diagnosis().judge(replace(WELL, device="cuda:0"), 0.0))
    assert found["device memory allocated [MB]"] == "5"
    assert found["device memory reserved [MB]"] == "8"
    before = replace(WELL, device="cuda:0", lifecycle="unconfigured", counts=None, status=None)
    assert not any("device" in key for key in values(Diagnosis().judge(before, 0.0)))


class Monitor:
    """Listens to /diagnostics."""

    def __init__(self, robot):
        self._inbox = robot.listen(DiagnosticArray, "/diagnostics")

    def wait(self, level, text, value=""):
        """Return the first status of this level with the text in its message, and the value."""

        def found(message):
            (status,) = message.status
            has_value = not value or value in values(status).values()
            return status.level == level and text in status.message and has_value

        return self._inbox.wait(found).status[0]


@pytest.fixture
def monitor(robot, monkeypatch):
    monkeypatch.setattr("ttt3r_ros.ros.diagnostics._PERIOD_S", 0.1)  # of a node of this process
    return Monitor(robot)


def test_diagnostics_go_on_from_unconfigured_to_cleaned_up_though_ros_time_stands_still(
    robot, monitor
):
    node = robot.start(autostart=False, use_sim_time=True, map__max_points=5000)
    first = monitor.wait(OK, "unconfigured")
    assert (first.name, first.hardware_id) == ("ttt3r_node: tracking", "cpu")
    assert robot.in_node(node.trigger_configure) == SUCCESS
    monitor.wait(OK, "inactive")
    assert robot.in_node(node.trigger_activate) == SUCCESS
    robot.meet()
    monitor.wait(OK, "active, no image yet")
    points = robot.send(at_s=1.0).map_points
    found = values(monitor.wait(OK, "INITIALIZING", f"{points} of 5000"))
    assert found["images received"] == found["images processed"] == "1"
    monitor._inbox.messages.clear()
    for transition, label in (("deactivate", "inactive"), ("cleanup", "unconfigured")):
        assert robot.in_node(getattr(node, f"trigger_{transition}")) == SUCCESS
        assert values(monitor.wait(OK, label))["lifecycle"] == label


def test_lost_rejected_and_well_again_are_told(robot, monitor):
    robot.start(**{**TOLERANT, "tracking.lost_contrast": 2.0})
    robot.send(at_s=1.0)
    robot.send(at_s=1.1, rgb=np.zeros((48, 64, 3), np.uint8))
    monitor.wait(ERROR, "tracking is lost: contrast 0.00 below 2")
    for i in range(3):
        robot.send(at_s=1.2 + i / 10)
    monitor.wait(OK, "TRACKING")
    robot.send(at_s=1.5, encoding="rgb7")
    monitor.wait(WARN, "1 images rejected lately, the last one: encoding: 'rgb7'")


def test_odometry_that_is_missing_is_told(robot, monitor):
    parameters = {"odom_source": "tf", "base_frame": "base", "camera_pose": [0.0] * 6}
    robot.start(**parameters, **TOLERANT)
    for at_s in (1.0, 1.3):
        robot.send(at_s=at_s)
    monitor.wait(WARN, "no odometry of the time of 1 images lately")


def test_what_has_deactivated_the_node_is_told_until_it_is_active_again(robot, monitor):
    robot.publish_tf(("odom", "base_link", (0.0,) * 3), ("base_link", "camera", (0.0,) * 3))
    robot.start()
    robot.send(at_s=1.0)
    found = monitor.wait(ERROR, "deactivated: TF has odom -> base_link already")
    assert values(found)["lifecycle"] == "inactive"
    monitor._inbox.messages.clear()
    assert robot.in_node(robot.node.trigger_activate) == SUCCESS
    monitor.wait(OK, "active, no image yet")


def test_a_configure_that_fails_leaves_the_node_unconfigured_with_the_reason_and_may_be_tried_again(
    robot, monitor, tmp_path, capfd
):
    path = tmp_path / "weights.safetensors"
    robot.start(autostart=False, checkpoint=str(path))
    change = robot.client.create_client(ChangeState, "ttt3r_node/change_state")
    get = robot.client.create_client(GetState, "ttt3r_node/get_state")
    assert change.wait_for_service(PATIENCE_S) and get.wait_for_service(PATIENCE_S)
    configure = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))

    def state():
        return robot.result_of(get.call_async(GetState.Request())).current_state.label

    reason = f"cannot configure: {path}: no such file"
    for attempt in range(2):
        assert not robot.result_of(change.call_async(configure)).success
        assert state() == "unconfigured"
        assert capfd.readouterr().err.count(reason) == 1, attempt
    assert values(monitor.wait(ERROR, reason))["lifecycle"] == "unconfigured"
    # The path cannot be changed while the node runs; what lies there can.
    assert not robot.set_parameter("checkpoint", small_checkpoint()).successful
    path.symlink_to(small_checkpoint())
    assert robot.result_of(change.call_async(configure)).success
    assert state() == "inactive"
    monitor.wait(OK, "inactive")


def test_a_transition_that_breaks_is_told(robot, monitor, monkeypatch):
    node = robot.start(autostart=False)
    monkeypatch.setattr(node._outputs, "forget", lambda: 1 / 0)
    assert robot.in_node(node.trigger_configure) != SUCCESS
    assert values(monitor.wait(ERROR, "a transition failed"))["lifecycle"] == "unconfigured"


def test_the_program_that_cannot_start_says_why_on_diagnostics_before_it_ends(
    robot, program, monitor
):
    ended = subprocess.run(
        program("-m", "ttt3r_ros.ros.node", "--ros-args", "-p", "checkpoint:=/nowhere"),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    monitor.wait(ERROR, "cannot configure: /nowhere: no such file")


def test_a_node_that_was_shut_down_says_no_more(robot, monitor):
    node = robot.start()
    monitor.wait(OK, "active")
    robot.in_node(node.trigger_deactivate)
    assert not node._diagnostics._timer.is_canceled()
    robot.in_node(node.trigger_shutdown)
    assert node._diagnostics._timer.is_canceled()


def test_it_is_said_once_a_second(robot):
    assert robot.start(autostart=False)._diagnostics._timer.timer_period_ns == 10**9
