# SPDX-License-Identifier: Apache-2.0
"""`ttt3r evaluate --live` over real DDS: beside the node, and beside one whose words are known.

`Speaker` says what a node would say of a path that is right but for its frame, and what is true.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import QoSProfile, ReliabilityPolicy
from robot import LATCHED, PATIENCE_S, Robot, picture, stamp
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from small_network import small_checkpoint
from tf2_msgs.msg import TFMessage
from tolerant import TOLERANT

from ttt3r_ros import cli
from ttt3r_ros.clients import live_evaluation
from ttt3r_ros.clients.live_evaluation import LiveRequest, evaluate_live
from ttt3r_ros.clients.reading import transform_of
from ttt3r_ros.evaluation.report.files import read_sequence
from ttt3r_ros.evaluation.report.tables import flat
from ttt3r_ros.geometry import Transform, inverse, transform, transform_from_quaternion
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.recordings.bag_reader import open_bag, read_messages
from ttt3r_ros.ros.conversions import stamp_message
from ttt3r_ros.ros.transforms import pose_message, transform_message
from ttt3r_ros.types import EvaluationError

IMAGES = 12
TRUTH, TRUE_DEPTH = "truth/pose", "truth/depth"
MOUNT = transform(np.eye(3), (0.3, 0.1, 0.5))
T_MAP_WORLD = transform_from_quaternion((1.0, -2.0, 0.5), (0.8, 0.0, 0.6, 0.0))


def camera_at(index: int) -> Transform:
    """A camera on a circle, in the world."""
    angle = 0.2 * index
    wxyz = (np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2))
    return transform_from_quaternion((np.cos(angle), np.sin(angle), 0.1 * index), wxyz)


class Speaker:
    """A node's topics and those of the truth, without a node."""

    def __init__(
        self, robot: Robot, truth: type | None = PoseStamped, base: Transform | None = None
    ) -> None:
        self._robot, self._base = robot, np.eye(4) if base is None else base
        self.base_frame = "camera" if base is None else "base_link"
        create = robot.client.create_publisher
        self.status = create(TrackingStatus, "ttt3r_node/status", 100)
        self._pose = create(PoseWithCovarianceStamped, "ttt3r_node/pose", 100)
        self._diagnostics = create(DiagnosticArray, "/diagnostics", 10)
        robot.client.create_timer(0.1, self._diagnose)
        self._truth = create(truth, TRUTH, 100) if truth else None
        self._counts = {"received": 0, "processed": 0, "replaced": 0, "rejected": 0}

    def wait_for_listener(self) -> None:
        heard = [p for p in (self._pose, self._truth) if p]
        self._robot.wait_until(lambda: all(p.get_subscription_count() for p in heard))
        # The robot itself is the other one.
        self._robot.wait_until(lambda: self.status.get_subscription_count() > 1)

    def say(self, index: int, *, state: int = TrackingStatus.TRACKING, **fields: Any) -> None:
        """Say all of an image that was processed."""
        at_s, T_world_camera = 1.0 + 0.1 * index, camera_at(index)
        if self._truth:
            self._truth.publish(self._true_message(at_s, T_world_camera))
        if state != TrackingStatus.LOST:
            T_map_base = T_MAP_WORLD @ T_world_camera @ inverse(self._base)
            pose = PoseWithCovarianceStamped()
            pose.header.stamp = stamp(at_s)
            pose.pose.pose = pose_message(T_map_base)
            self._pose.publish(pose)
        self._counts["processed"] += 1
        self.say_status(at_s, state=state, images_since_reset=index + 1, step_ms=20.0, **fields)

    def say_status(self, at_s: float, **fields: Any) -> None:
        counts = self._counts
        counts["received"] = counts["processed"] + counts["replaced"] + counts["rejected"]
        status = TrackingStatus(**{**counts, "latency_ms": 30.0, **fields})
        status.header.stamp = stamp(at_s)
        status.header.frame_id = "camera"
        self.status.publish(status)

    def count(self, name: str, number: int = 1) -> None:
        self._counts[name] += number

    def _diagnose(self) -> None:
        metrics = [KeyValue(key="base frame", value=self.base_frame)] if self.base_frame else []
        diagnosis = DiagnosticStatus(name="ttt3r_node: tracking", values=metrics)
        self._diagnostics.publish(DiagnosticArray(status=[diagnosis]))

    def _true_message(self, at_s: float, T_world_camera: Transform) -> Any:
        if self._truth.msg_type is PoseStamped:
            message = PoseStamped(pose=pose_message(T_world_camera))
        else:
            message = Odometry(child_frame_id=self.base_frame)
            message.pose.pose = pose_message(T_world_camera @ inverse(self._base))
        message.header.stamp = stamp(at_s)
        return message


def listen(
    folder: Path, drive: Callable[[], None] = lambda: None, *, idle_s: float = 0.7, **request: Any
) -> dict[str, Any]:
    """Evaluate what is said meanwhile, and return the metrics."""
    with ThreadPoolExecutor(1) as pool:
        driving = pool.submit(drive)
        request = {"idle_s": idle_s, "seconds": PATIENCE_S, **request}
        report = evaluate_live(LiveRequest(folder, **request))
        driving.result()
    assert json.loads((folder / "report.json").read_text()) == report.metrics
    return dict(report.metrics)


def say_all(speaker: Speaker) -> None:
    speaker.wait_for_listener()
    for index in range(IMAGES):
        speaker.say(index)


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in flat(metrics) if isinstance(value, (int, float))}


def ate_m(metrics: dict[str, Any]) -> float:
    return metrics["trajectory"]["alignments"]["se3"]["ate_rmse_m"]


LATENCY_NS = 50_000_000
BAG_TYPES = {
    "/camera_info": CameraInfo,
    "/ground_truth/pose": PoseStamped,
    "/ground_truth/depth/image_rect": Image,
    "/image": Image,
}


class BagSpeaker:
    """Publishes a bag image by image, each when the one before has been dealt with."""

    def __init__(self, robot: Robot, bag: Path) -> None:
        self._robot, self._bag = robot, bag
        create = robot.client.create_publisher
        self._clock = create(Clock, "/clock", 10)
        self._publishers = {name: create(kind, name, 100) for name, kind in BAG_TYPES.items()}

    def play(self) -> None:
        publishers = [*self._publishers.values(), self._clock]
        self._robot.wait_until(lambda: all(p.get_subscription_count() for p in publishers))
        self._robot.wait_until(lambda: self._publishers["/image"].get_subscription_count() > 1)
        with closing(open_bag(self._bag)) as reader:
            connections = [c for c in reader.connections if c.topic in BAG_TYPES]
            for connection, at_ns, cdr in read_messages(reader, connections):
                if connection.topic == "/image":
                    self._set_clock(at_ns + LATENCY_NS)
                self._publishers[connection.topic].publish(cdr)
                if connection.topic == "/image":
                    self._robot.status_at(stamp_message(at_ns))

    def _set_clock(self, now_ns: int) -> None:
        self._clock.publish(Clock(clock=stamp_message(now_ns)))
        clock = self._robot.node.get_clock()
        self._robot.wait_until(lambda: clock.now().nanoseconds == now_ns)


def test_a_node_that_takes_every_image_has_the_errors_of_the_offline_run(robot, tmp_path):
    bag, offline = tmp_path / "bag", tmp_path / "offline"
    size = ["--frames", "24", "--size", "64x48"]
    assert cli.main(["simulate", str(bag), "--seed", "2700001", *size]) == 0
    flags = ["--checkpoint", small_checkpoint(), "--device", "cpu"]
    assert cli.main(["evaluate", str(bag), "--output", str(offline), *flags]) == 0

    robot.start(process_all_images=True, use_sim_time=True, confidence__min=1.0)
    speaker = BagSpeaker(robot, bag)
    metrics = listen(
        tmp_path / "live",
        speaker.play,
        idle_s=2.0,
        pose_topic="/ground_truth/pose",
        depth_topic="/ground_truth/depth/image_rect",
    )

    known = read_sequence(offline).metrics
    assert metrics["images"] == known["images"] == 24
    assert metrics["trajectory"]["poses"] == 24
    # The node publishes float64 poses and float32 depth, all of it: nothing is unsure here.
    for part in ("trajectory", "depth"):
        assert numbers(metrics[part]) == pytest.approx(numbers(known[part]), rel=1e-5)
    counts = [metrics[f"images_{name}"] for name in ("received", "replaced", "rejected", "lost")]
    assert counts == [24, 0, 0, 0]
    assert metrics["runtime"]["latency_ms_p50"] == pytest.approx(LATENCY_NS / 1e6)
    report = read_sequence(tmp_path / "live")
    assert len(report.views) > 0
    assert all(view.true_depth_m is not None for view in report.views)
    assert report.map_picture is not None


def test_counts_and_latency_are_those_of_the_images_that_were_heard_of(robot, tmp_path):
    speaker = Speaker(robot)
    for name in ("processed", "replaced", "rejected"):
        speaker.count(name, 100)  # before

    def drive() -> None:
        speaker.wait_for_listener()
        for index in range(IMAGES):
            speaker.say(index, latency_ms=10.0 * (index + 1))
            speaker.count("replaced", 2)
        speaker.count("rejected")
        speaker.say_status(9.0, images_since_reset=IMAGES)
        speaker.say(IMAGES, state=TrackingStatus.LOST, latency_ms=10.0 * (IMAGES + 1))

    metrics = listen(tmp_path, drive)
    counts = {name: metrics[f"images_{name}"] for name in ("received", "replaced", "rejected")}
    assert counts == {"received": 13 + 24 + 1, "replaced": 24, "rejected": 1}
    assert (metrics["images"], metrics["images_lost"]) == (13, 1)
    assert metrics["trajectory"]["poses"] == 12
    assert metrics["runtime"]["latency_ms_p50"] == pytest.approx(70)
    assert metrics["runtime"]["step_ms_p99"] == pytest.approx(20)
    assert "images replaced by newer ones" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("loops", [0, 1])
def test_where_loops_were_closed_the_path_counts_and_what_the_robot_had_stands_beside_it(
    robot, tmp_path, loops
):
    speaker = Speaker(robot, base=MOUNT)
    tree = robot.client.create_publisher(TFMessage, "/tf_static", LATCHED)
    tree.publish(TFMessage(transforms=[transform_message(MOUNT, "base_link", "camera", stamp(0))]))
    path = robot.client.create_publisher(PathMessage, "ttt3r_node/path", LATCHED)

    def drive() -> None:
        speaker.wait_for_listener()
        message = PathMessage()
        for index in range(IMAGES):
            speaker.say(index, loops_closed=loops)
            if index % 2 == 0:  # it is subsampled; here along x only half as far
                T = np.diag([0.5, 1, 1, 1]) @ camera_at(index)
                T[:3, :3] = camera_at(index)[:3, :3]
                pose = PoseStamped(pose=pose_message(T @ inverse(MOUNT)))
                pose.header.stamp = stamp(1.0 + 0.1 * index)
                message.poses.append(pose)
        path.publish(message)

    metrics = listen(tmp_path, drive)
    if loops:
        assert metrics["trajectory"]["poses"] == IMAGES / 2 and ate_m(metrics) > 0.1
        online = metrics["trajectory_online"]
        assert online["poses"] == IMAGES / 2  # the same images
        assert online["alignments"]["se3"]["ate_rmse_m"] == pytest.approx(0, abs=1e-6)
        assert "as the robot had it" in (tmp_path / "report.md").read_text()
    else:
        assert metrics["trajectory_online"] is None
        assert ate_m(metrics) == pytest.approx(0, abs=1e-6)


def test_the_latency_by_another_clock_is_none(robot, tmp_path, caplog):
    speaker = Speaker(robot)

    def drive() -> None:
        speaker.wait_for_listener()
        for index in range(3):
            speaker.say(index, latency_ms=1e11)

    metrics = listen(tmp_path, drive)
    assert not [name for name in metrics["runtime"] if name.startswith("latency")]
    assert "use_sim_time" in caplog.text


def test_what_was_before_the_last_reset_is_not_compared(robot, tmp_path):
    speaker = Speaker(robot)

    def drive() -> None:
        speaker.wait_for_listener()
        for index in range(IMAGES):
            speaker.say(index, segment=index // 5)
        for index in range(7):  # as in a loop of a bag: the same stamps again
            speaker.say(index)

    metrics = listen(tmp_path, drive)
    assert metrics["images"] == IMAGES + 7
    assert metrics["segments"] == 4
    assert metrics["trajectory"]["poses"] == 7
    assert ate_m(metrics) < 1e-6


@pytest.mark.parametrize("truth", [PoseStamped, Odometry])
def test_poses_of_a_base_are_moved_to_the_camera_on_it(robot, tmp_path, truth):
    robot.publish_tf(("base_link", "camera", tuple(MOUNT[:3, 3])))
    speaker = Speaker(robot, truth, MOUNT)
    metrics = listen(tmp_path, lambda: say_all(speaker), pose_topic=TRUTH)
    assert metrics["ground_truth"] == {"poses": f"/{TRUTH}", "depth": ""}
    assert metrics["trajectory"]["poses"] == IMAGES
    assert ate_m(metrics) < 1e-6


def test_without_tf_the_base_cannot_be_moved_to_the_camera(robot, tmp_path):
    speaker = Speaker(robot, base=MOUNT)
    with pytest.raises(EvaluationError, match=r"TF does not join 'base_link'.*'camera'"):
        listen(tmp_path, lambda: say_all(speaker))


def test_poses_of_a_frame_that_is_not_known_are_not_taken_as_the_cameras(robot, tmp_path):
    speaker = Speaker(robot)
    speaker.base_frame = ""
    with pytest.raises(EvaluationError, match="not told the base frame of /ttt3r_node"):
        listen(tmp_path, lambda: say_all(speaker))


def test_beside_the_robots_own_odometry_too_poses_are_moved_to_the_camera(
    robot, tmp_path, monkeypatch
):
    monkeypatch.setattr("ttt3r_ros.ros.diagnostics._PERIOD_S", 0.1)
    robot.publish_tf(("base_link", "camera", tuple(MOUNT[:3, 3])))
    robot.start(odom_source="tf", base_frame="base_link", tf_wait_s=0.5, **TOLERANT)
    poses = robot.listen_to_node(PoseWithCovarianceStamped, "pose")
    truth = robot.client.create_publisher(PoseStamped, TRUTH, 10)

    def drive() -> None:
        robot.wait_until(lambda: truth.get_subscription_count() > 0)
        robot.wait_until(lambda: robot.node.count_subscribers("ttt3r_node/pose") > 1)
        for index in range(4):
            robot.send(at_s=1.0 + index, rgb=picture(index))
            message = poses.wait(lambda m, i=index: m.header.stamp == stamp(1.0 + i))
            T_map_base = transform_of(message.pose.pose)
            true = PoseStamped(pose=pose_message(T_MAP_WORLD @ T_map_base @ MOUNT))
            true.header.stamp = message.header.stamp
            truth.publish(true)

    metrics = listen(tmp_path, drive, idle_s=2.0, pose_topic=TRUTH)
    assert metrics["trajectory"]["poses"] == 4
    assert ate_m(metrics) < 1e-6


def test_a_name_that_no_node_can_have_is_an_error_of_the_users(domain, tmp_path, capsys):
    assert cli.main(["evaluate", "--live", "--node", "a-b", "--output", str(tmp_path)]) == 2
    assert "--node: 'a-b' is no name of a node" in capsys.readouterr().err


def test_a_camera_that_tf_moves_on_its_base_is_refused(robot, tmp_path):
    speaker = Speaker(robot, base=MOUNT)
    tf = robot.client.create_publisher(TFMessage, "/tf", 10)

    def drive() -> None:
        speaker.wait_for_listener()
        robot.wait_until(lambda: tf.get_subscription_count() > 0)
        speaker.say(0)
        number = iter(range(10**9))

        def moved_until_refused() -> bool:
            T = camera_at(next(number))
            tf.publish(
                TFMessage(transforms=[transform_message(T, "base_link", "camera", stamp(1))])
            )
            return not tf.get_subscription_count()

        robot.wait_until(moved_until_refused)

    with pytest.raises(EvaluationError, match=r"TF moves .*'camera' in 'base_link'"):
        listen(tmp_path, drive, idle_s=PATIENCE_S)


def test_of_two_topics_one_has_to_be_named(robot, tmp_path):
    speaker = Speaker(robot)
    robot.client.create_publisher(PoseStamped, "goal", 1)
    with pytest.raises(EvaluationError, match=f"--ground-truth-topic: /goal, /{TRUTH}"):
        listen(tmp_path)
    metrics = listen(tmp_path, lambda: say_all(speaker), pose_topic=TRUTH)
    assert metrics["trajectory"]["poses"] == IMAGES


def test_without_any_truth_the_topics_that_could_be_it_are_named(robot, tmp_path, monkeypatch):
    monkeypatch.setattr(live_evaluation, "_FIND_TRUTH_S", 0.2)
    speaker = Speaker(robot, truth=None)

    def drive() -> None:
        speaker.wait_for_listener()
        speaker.say(0)

    with pytest.raises(EvaluationError, match=r"no ground truth .*--depth-topic: /image"):
        listen(tmp_path, drive, idle_s=PATIENCE_S)


def test_a_topic_of_another_type_is_refused(robot, tmp_path):
    speaker = Speaker(robot)
    robot.client.create_publisher(TFMessage, "scan", 1)
    with pytest.raises(EvaluationError, match="--depth-topic /scan: of type tf2_msgs"):
        listen(tmp_path, lambda: say_all(speaker), depth_topic="scan")


def test_a_node_that_is_not_there_is_told_with_those_that_are(robot, tmp_path, monkeypatch):
    monkeypatch.setattr(live_evaluation, "_FIND_NODE_S", 1.0)
    robot.client.create_publisher(TrackingStatus, "left/ttt3r_node/status", 1)
    with pytest.raises(EvaluationError, match=r"no node /ttt3r_node.*--node: /left/ttt3r_node"):
        listen(tmp_path)


def test_an_interrupt_ends_the_listening_and_the_report_is_written(robot, tmp_path):
    speaker = Speaker(robot)

    def drive() -> None:
        say_all(speaker)
        os.kill(os.getpid(), signal.SIGINT)

    # The report has what was heard until then, the first image at least.
    before = signal.getsignal(signal.SIGINT)
    metrics = listen(tmp_path, drive, idle_s=PATIENCE_S)
    assert 1 <= metrics["images"] <= IMAGES
    assert signal.getsignal(signal.SIGINT) is before


def test_depth_is_compared_without_images_and_says_what_is_unknown(robot, tmp_path):
    best_effort = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
    speaker = Speaker(robot, truth=None)
    true = robot.client.create_publisher(Image, TRUE_DEPTH, best_effort)
    estimated = robot.client.create_publisher(Image, "ttt3r_node/depth/image_rect", 10)
    depth_m = np.full((48, 64), 2.2, np.float32)
    depth_m[:, :32] = np.nan

    def drive() -> None:
        speaker.wait_for_listener()
        robot.wait_until(lambda: true.get_subscription_count() > 0)
        robot.wait_until(lambda: estimated.get_subscription_count() > 0)
        for index in range(3):
            at_s = 1.0 + 0.1 * index
            # The sensor's stamps are a little off, as those of separate sensors are.
            true.publish(depth_message(at_s + 0.005, np.full((48, 64), 2.0, np.float32)))
            estimated.publish(depth_message(at_s, depth_m))
            speaker.say(index)

    metrics = listen(tmp_path, drive)
    assert metrics["trajectory"] is None
    depth = metrics["depth"]
    assert depth["images"] == 3
    assert depth["pixels"] == depth["pixels_not_finite"] == 3 * 48 * 32
    assert depth["alignments"]["metric"]["abs_rel"] == pytest.approx(0.1, rel=1e-5)
    assert depth["alignments"]["scale"]["abs_rel"] == pytest.approx(0.0, abs=1e-5)


def depth_message(at_s: float, depth_m: np.ndarray) -> Image:
    rows, columns = depth_m.shape
    message = Image(height=rows, width=columns, step=4 * columns, encoding="32FC1")
    message.data = depth_m.tobytes()
    message.header.stamp = stamp(at_s)
    return message


def test_the_command_writes_a_comparison_with_the_offline_report(robot, tmp_path, capsys):
    speaker = Speaker(robot)
    offline, output = tmp_path / "offline", tmp_path / "output"
    offline.mkdir()
    listen(offline, lambda: say_all(speaker))

    def drive() -> None:
        say_all(speaker)
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        driving = pool.submit(drive)
        flags = ["--output", str(output), "--against", str(offline), "--ground-truth-topic", TRUTH]
        assert cli.main(["evaluate", "--live", *flags]) == 0
        driving.result()
    printed = capsys.readouterr().out
    assert "images received" in printed
    for text in (printed, (output / "report.md").read_text(), (output / "report.html").read_text()):
        assert "live" in text
        assert "offline" in text
    rows = json.loads((output / "report.json").read_text())["results"]
    assert [row["configuration"] for row in rows] == ["live", "offline"]
    assert (output / "live" / "report.html").is_file()
    assert (output / rows[1]["folder"] / "report.json").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--live", "--every", "2"], "--every: not with --live"),
        (["--live", "--update-rule", "cut3r"], "--update-rule: not with --live"),
        (["--live", "--against", "nowhere"], "nowhere: no report"),
        (["bag", "--seconds", "3"], "--seconds: only with --live"),
        ([], "give a recording, or --live"),
    ],
)
def test_flags_that_do_not_fit_are_refused_at_once(tmp_path, capsys, flags, message):
    assert cli.main(["evaluate", *flags, "--output", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
