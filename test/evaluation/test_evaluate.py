# SPDX-License-Identifier: Apache-2.0
"""The command `ttt3r evaluate` on small rendered bags."""

from __future__ import annotations

import importlib
import json
import re
import sys
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from known_bags import changed
from rosbags.rosbag2 import Reader, StoragePlugin
from rosbags.typesys import Stores, get_typestore

from ttt3r_ros.cli import main
from ttt3r_ros.config import Config, settings
from ttt3r_ros.evaluation import collector
from ttt3r_ros.evaluation.collector import Collector, Heard
from ttt3r_ros.evaluation.metrics import plain_errors
from ttt3r_ros.evaluation.metrics.depth import DepthErrors
from ttt3r_ros.evaluation.metrics.trajectory import AlignedErrors
from ttt3r_ros.evaluation.report.files import read_sequence, write_sequence
from ttt3r_ros.geometry import inverse, quaternion, transform_from_quaternion
from ttt3r_ros.io.trajectory import read_tum
from ttt3r_ros.recordings.bag_truth import BagTruth
from ttt3r_ros.recordings.depth_stream import DepthStream
from ttt3r_ros.recordings.simulated_bag import DEPTH, IMAGE, POSE, TRUE_FRAME, write_simulated_bag
from ttt3r_ros.recordings.tf_tree import TfTree
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import SourceError, TrackingState

SCENE = SceneOptions(seed=2, width=80, height=60)
RATE_HZ, IMAGES = 10.0, 5
TYPES = get_typestore(Stores.ROS2_JAZZY)
T = TYPES.types


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "room"
    write_simulated_bag(path, Scene(SCENE), range(IMAGES), RATE_HZ)
    return path


def without(*topics):
    return lambda topic, message: [] if topic in topics else [(topic, message)]


def evaluated(bag, output, *arguments, status=0):
    assert main(["evaluate", str(bag), "--output", str(output), *arguments]) == status
    return json.loads((output / "report.json").read_text())


def assert_alike(one, other, tolerance):
    """Figures, nested."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_alike(value, other[key], tolerance)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance)
    else:
        assert one == other


def test_a_report_holds_every_error_and_the_circumstances(bag, tmp_path, capsys):
    report = evaluated(bag, tmp_path, "--segment.reset-interval", "3")
    path, depth = report["trajectory"], report["depth"]
    assert set(path["alignments"]) == {"sim3", "se3", "scale", "none"}
    errors = {entry.name for entry in fields(AlignedErrors)}
    assert all(set(column) == errors for column in path["alignments"].values())
    names = {entry.name for entry in fields(DepthErrors)}
    assert set(depth["alignments"]) == {"metric", "scale", "scale_shift", "guess"}
    assert all(set(column) >= names for column in depth["alignments"].values())
    assert (report["images"], path["poses"], depth["images"]) == (5, 5, 5)
    assert depth["pixels"] == 5 * 80 * 60
    assert report["segments"] == 2 and report["damage"] is None
    assert report["map"]["map_points"] == report["map_points"] > 0
    assert report["map"]["alignment"] == "se3"
    runtime = report["runtime"]
    assert runtime["images_per_second"] > 0 and runtime["peak_memory_bytes"] > 1e8
    assert 0 < runtime["step_ms_p50"] <= runtime["step_ms_p95"] <= runtime["step_ms_p99"]
    assert report["ground_truth"] == {"poses": POSE, "depth": DEPTH}
    assert report["checkpoint"]["name"] == "shipped"
    assert set(report["config"]) == set(settings(Config))
    assert report["config"]["segment.reset_interval"] == 3
    assert report["versions"]["torch"] == torch.__version__.split("+")[0] or (
        report["versions"]["torch"] == torch.__version__
    )
    assert set(report["versions"]) == {"ttt3r_ros", "torch", "numpy", "evo", "python"}
    assert report["hardware"]["cores"] >= 1
    text = capsys.readouterr().out
    assert f"{path['alignments']['se3']['ate_rmse_m']:.4f} m" in text
    assert f"{depth['alignments']['metric']['abs_rel']:.4f}" in text


def test_it_writes_what_run_writes_and_the_report(bag, tmp_path):
    run, evaluation = tmp_path / "run", tmp_path / "evaluation"
    evaluated(bag, evaluation, "--depth")
    assert main(["run", str(bag), "--topic", IMAGE, "--output", str(run), "--depth"]) == 0
    files = {path.relative_to(run) for path in run.rglob("*")}
    more = {str(path.relative_to(evaluation)) for path in evaluation.rglob("*")} - {
        str(file) for file in files
    }
    assert more == {"report.json", "report.html", "report.md", "series.npz"}
    for name in files - {Path("depth")}:
        assert (run / name).read_bytes() == (evaluation / name).read_bytes()


def test_the_report_can_be_made_again_from_its_files(bag, tmp_path):
    metrics = evaluated(bag, tmp_path)
    report = read_sequence(tmp_path)
    assert report.metrics == metrics and len(report.views) == 5
    error = np.sqrt(np.mean(report.series.position_error_m**2))
    assert error == pytest.approx(metrics["trajectory"]["alignments"]["se3"]["ate_rmse_m"])
    page = (tmp_path / "report.html").read_text()
    write_sequence(report, tmp_path)
    assert (tmp_path / "report.html").read_text() == page


@pytest.mark.parametrize("alignment", ["sim3", "scale", "none"])
def test_pictures_and_map_are_aligned_as_asked_for(bag, tmp_path, alignment):
    metrics = evaluated(bag, tmp_path, "--alignment", alignment)
    series = read_sequence(tmp_path).series
    assert series.alignment == metrics["map"]["alignment"] == alignment
    error = np.sqrt(np.mean(series.position_error_m**2))
    expected = metrics["trajectory"]["alignments"][alignment]["ate_rmse_m"]
    assert error == pytest.approx(expected, rel=1e-6)


def test_a_true_map_has_no_error_but_its_voxels(bag, tmp_path, monkeypatch):
    """With true depth and poses in place of the network's."""
    scene = Scene(SCENE)

    def truthful(self, frame):
        result = step(self, frame)
        view = scene.view((frame.stamp_ns - 1_700_000_000_000_000_000) / 1e9)
        depth = torch.as_tensor(
            cv2.resize(
                np.asarray(view.depth_m), result.rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST
            )
        )
        lens = result.crop.intrinsics(frame.intrinsics)
        v, u = torch.meshgrid(*(torch.arange(n) for n in depth.shape), indexing="ij")
        points = torch.stack(((u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy, 0 * u + 1), -1)
        return replace(
            result,
            points=(points * depth[..., None]).float(),
            confidence=torch.full_like(depth, 9.0),
            T_odom_camera=view.T_world_camera.double().numpy(),
            T_map_odom=np.eye(4),
        )

    step = Tracker.step
    monkeypatch.setattr(Tracker, "step", truthful)
    report = evaluated(bag, tmp_path, "--alignment", "none")
    assert report["trajectory"]["alignments"]["none"]["ate_rmse_m"] < 1e-6
    assert report["map"]["scores"][0]["precision"] > 0.99
    assert report["map"]["accuracy_m"] < 0.02


def compressed(suffix):
    def change(topic, message):
        if topic != IMAGE:
            return [(topic, message)]
        rgb = message.data.reshape(message.height, message.width, 3)
        data = cv2.imencode(suffix, rgb[..., ::-1])[1].ravel()
        kind = T["sensor_msgs/msg/CompressedImage"]
        return [(f"{IMAGE}/compressed", kind(message.header, suffix[1:], data))]

    return change


def test_storage_and_lossless_compression_change_no_figure(bag, tmp_path):
    same = changed(bag, tmp_path / "db3", lambda *m: [m], StoragePlugin.SQLITE3)
    png = changed(bag, tmp_path / "png", compressed(".png"))
    expected = evaluated(bag, tmp_path / "a")
    for name, path in (("b", same), ("c", png)):
        found = evaluated(path, tmp_path / name)
        for part in ("trajectory", "depth", "map"):
            assert found[part] == expected[part]


def test_jpeg_changes_little(bag, tmp_path):
    expected = evaluated(bag, tmp_path / "a")
    found = evaluated(changed(bag, tmp_path / "jpg", compressed(".jpg")), tmp_path / "b")
    path, other = (r["trajectory"]["alignments"]["none"] for r in (found, expected))
    assert path["ate_rmse_m"] == pytest.approx(other["ate_rmse_m"], abs=0.02)
    depth, other = (r["depth"]["alignments"]["metric"] for r in (found, expected))
    assert depth["abs_rel"] == pytest.approx(other["abs_rel"], abs=0.02)


def test_two_runs_find_the_same_errors(bag, tmp_path):
    first, second = (evaluated(bag, tmp_path / name) for name in "ab")
    assert first["trajectory"] == second["trajectory"]
    assert first["depth"] == second["depth"]


def test_errors_are_those_of_the_written_trajectory(bag, tmp_path):
    report = evaluated(bag, tmp_path)["trajectory"]
    _, poses = read_tum(tmp_path / "trajectory.tum")
    truth = [Scene(SCENE).view(i / RATE_HZ).T_world_camera.numpy() for i in range(IMAGES)]
    steps = [
        inverse(inverse(g) @ h) @ (inverse(p) @ q)
        for p, q, g, h in zip(poses, poses[1:], truth, truth[1:], strict=False)
    ]
    rpe = np.sqrt(np.mean([np.sum(step[:3, 3] ** 2) for step in steps]))
    found = report["alignments"]["none"]["rpe_trans_rmse_m"]
    assert found == pytest.approx(rpe, rel=1e-4)
    places = np.array(truth)[:, :3, 3]
    guess = np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert report["guess_ate_rmse_m"] == pytest.approx(guess, rel=1e-5)


def tf_message(parent, child, translation, wxyz, stamp):
    w, x, y, z = wxyz
    header = T["std_msgs/msg/Header"](stamp, parent)
    turn = T["geometry_msgs/msg/Quaternion"](x, y, z, w)
    pose = T["geometry_msgs/msg/Transform"](T["geometry_msgs/msg/Vector3"](*translation), turn)
    return T["tf2_msgs/msg/TFMessage"](
        [T["geometry_msgs/msg/TransformStamped"](header, child, pose)]
    )


def test_truth_from_tf_gives_the_same_errors_as_truth_from_a_topic(bag, tmp_path):
    by_topic = evaluated(bag, tmp_path / "topic")
    frames = ("--ground-truth-frames", "world", TRUE_FRAME)
    by_tf = evaluated(bag, tmp_path / "tf", *frames)
    assert by_tf["ground_truth"]["poses"] == f"/tf, {TRUE_FRAME} in world"
    assert_alike(by_tf["trajectory"], by_topic["trajectory"], 1e-9)
    assert by_tf["depth"] == by_topic["depth"]


def test_a_chain_of_moving_and_fixed_frames_is_followed(bag, tmp_path):
    """world -> camera told as world -> base (moving), base -> camera (fixed), world -> map."""
    half = np.sqrt(0.5)
    T_base_camera = transform_from_quaternion((0.1, 0.2, 0.3), (half, 0, half, 0))

    def change(topic, message):
        if topic != "/tf":
            return [] if topic == POSE else [(topic, message)]
        (stamped,) = message.transforms
        stamp = stamped.header.stamp
        t, q = stamped.transform.translation, stamped.transform.rotation
        pose = transform_from_quaternion((t.x, t.y, t.z), (q.w, q.x, q.y, q.z))
        moving = pose @ inverse(T_base_camera)
        wxyz = quaternion(moving).tolist()
        return [
            ("/tf", tf_message("world", "base", moving[:3, 3].tolist(), wxyz, stamp)),
            (
                "/tf_static",
                tf_message("base", "camera", (0.1, 0.2, 0.3), (half, 0, half, 0), stamp),
            ),
            ("/tf_static", tf_message("world", "map", (5.0, 0.0, 0.0), (1.0, 0, 0, 0), stamp)),
        ]

    chained = changed(bag, tmp_path / "bag", change)
    expected = evaluated(bag, tmp_path / "a")["trajectory"]
    about_the_origin = {name: expected["alignments"].pop(name) for name in ("scale", "none")}
    for parent in ("world", "map"):
        frames = ("--ground-truth-frames", parent, "camera")
        found = evaluated(chained, tmp_path / parent, *frames)["trajectory"]
        there = {name: found["alignments"].pop(name) for name in ("scale", "none")}
        if parent == "world":
            assert_alike(there, about_the_origin, 1e-6)
        assert_alike(found, expected, 1e-6)


def test_between_two_transforms_poses_are_interpolated_but_not_across_a_long_gap(bag):
    with Reader(bag) as reader:
        tree = TfTree(reader)
    start = 1_700_000_000_000_000_000
    ask = np.array([start - 1, start, start + 50_000_000, start + 100_000_000, start + 10**9])
    places, poses = tree.poses("world", TRUE_FRAME, ask)
    assert places == [1, 2, 3]
    path = Scene(SCENE)
    first, second = (path.view(t).T_world_camera.numpy() for t in (0.0, 0.1))
    np.testing.assert_allclose(poses[0], first, atol=1e-6)
    np.testing.assert_allclose(poses[1][:3, 3], (first + second)[:3, 3] / 2, atol=1e-6)
    half = inverse(first) @ poses[1]
    np.testing.assert_allclose(half @ half, inverse(first) @ second, atol=1e-3)
    np.testing.assert_allclose((half @ half)[:3, :3], (inverse(first) @ second)[:3, :3], atol=1e-6)


def test_depth_in_millimetres_differs_by_its_rounding_only(bag, tmp_path):
    path = tmp_path / "bag"
    write_simulated_bag(path, Scene(SCENE), range(IMAGES), RATE_HZ, depth_encoding="16UC1")
    rounded = evaluated(path, tmp_path / "a")["depth"]
    exact = evaluated(bag, tmp_path / "b")["depth"]
    found, expected = (d["alignments"]["metric"]["abs_rel"] for d in (rounded, exact))
    assert found == pytest.approx(expected, abs=1e-3)
    assert rounded["pixels"] == exact["pixels"]


def test_depth_belongs_to_the_image_with_its_stamp(bag):
    start, period = 1_700_000_000_000_000_000, 100_000_000
    scene = Scene(SCENE)
    with Reader(bag) as reader:
        depth = DepthStream(reader, DEPTH)
        assert depth.at(start - 20_000_000) is None
        for index, off in ((0, 0), (0, 9_000_000), (2, -9_000_000), (4, 0)):
            np.testing.assert_array_equal(
                depth.at(start + index * period + off), scene.view(index / RATE_HZ).depth_m
            )
        assert depth.at(start + 4 * period + 11_000_000) is None


def test_with_poses_or_depth_alone_the_other_is_null(bag, tmp_path):
    poses = changed(bag, tmp_path / "poses", without(DEPTH, "/tf"))
    report = evaluated(poses, tmp_path / "a")
    assert report["depth"] is None and report["trajectory"]["poses"] == 5
    depth = changed(bag, tmp_path / "depth", without(POSE))
    report = evaluated(depth, tmp_path / "b")
    assert report["trajectory"] is None and report["depth"]["images"] == 5


def error(path, **options):
    with pytest.raises(SourceError) as raised, BagTruth(path, **options):
        pass
    return str(raised.value)


def test_missing_truth_is_an_error_that_lists_what_there_is(bag, tmp_path):
    bare = changed(bag, tmp_path / "bare", without(POSE, DEPTH))
    message = error(bare)
    assert "no ground truth" in message and "/image, /tf" in message
    assert message.endswith("--ground-truth-frames: ground_truth_camera, world")
    assert f"--ground-truth-topic /pose: not there; topics to name: {POSE}" in error(
        bag, pose_topic="/pose"
    )
    assert (
        f"--depth-topic {IMAGE}: 5 messages of type sensor_msgs/msg/Image without depth; "
        f"topics to name: {DEPTH}" in error(bag, depth_topic=IMAGE)
    )
    assert "do not join 'map' and 'camera'; frames: ground_truth_camera, world" in error(
        bag, frames=("map", "camera")
    )
    assert "give one of them" in error(bag, pose_topic=POSE, frames=("world", "camera"))
    assert "no rosbag2" in error(tmp_path)


def test_several_candidates_have_to_be_chosen_from(bag, tmp_path):
    def twice(topic, message):
        double = topic in (POSE, DEPTH)
        return [(topic, message), *([(f"/other{topic}", message)] if double else [])]

    double = changed(bag, tmp_path / "bag", twice)
    assert f"choose one with --depth-topic: {DEPTH}, /other{DEPTH}" in error(double)
    message = error(double, depth_topic=DEPTH)
    assert f"choose one with --ground-truth-topic: {POSE}, /other{POSE}" in message
    with BagTruth(double, depth_topic=DEPTH, pose_topic=POSE) as truth:
        assert (truth.pose_source, truth.depth_source) == (POSE, DEPTH)


def test_a_frame_with_two_parents_is_refused(bag, tmp_path):
    stamp = T["builtin_interfaces/msg/Time"](0, 0)
    other = tf_message("map", TRUE_FRAME, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), stamp)
    path = changed(bag, tmp_path / "bag", lambda topic, m: [(topic, m), ("/tf", other)])
    assert f"frame '{TRUE_FRAME}' has two parents" in error(path, frames=("world", TRUE_FRAME))


def test_a_users_error_is_one_line_and_status_2(bag, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "--output", str(tmp_path / "out")]) == 2
    assert "no recording with truth is here or below" in capsys.readouterr().err


def test_without_evo_the_errors_are_the_same(bag, tmp_path, monkeypatch):
    expected = evaluated(bag, tmp_path / "evo")
    for name in ("evo_errors", "trajectory"):
        monkeypatch.delitem(sys.modules, f"ttt3r_ros.evaluation.metrics.{name}")
    monkeypatch.setitem(sys.modules, "evo.core", None)
    plain = importlib.import_module("ttt3r_ros.evaluation.metrics.trajectory")
    assert plain.position_errors is plain_errors.position_errors
    monkeypatch.setattr(collector, "align", plain.align)
    monkeypatch.setattr(collector, "trajectory_errors", plain.trajectory_errors)
    found = evaluated(bag, tmp_path / "plain")
    assert_alike(found["trajectory"], expected["trajectory"], 1e-9)
    assert_alike(found["map"], expected["map"], 1e-9)


def test_without_rosbags_a_bag_is_refused_with_what_to_install(bag, tmp_path, capsys, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("ttt3r_ros.recordings.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rosbags.interfaces", None)
    output = tmp_path / "out"
    for command in (["evaluate", str(bag)], ["run", str(bag)]):
        assert main([*command, "--output", str(output)]) == 2
        assert "pip install 'ttt3r_ros[recordings]'" in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()


def test_evaluate_takes_every_option_of_run(capsys):
    options = []
    for command in ("run", "evaluate"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        options.append(set(re.findall(r"--[\w.-]+", capsys.readouterr().out)))
    assert options[1] - options[0] == {
        *("--format", "--sequences", "--limit", "--start", "--protocol", "--set", "--alignment"),
        *("--jobs", "--threads", "--live", "--node", "--seconds", "--against"),
        *("--ground-truth-topic", "--ground-truth-frames", "--depth-topic"),
    }
    assert options[0] - options[1] == {"--save-session"}  # an evaluation leaves no map


def test_an_image_lost_after_the_first_is_no_reset(tmp_path):
    """A lost image says again how many were tracked since the reset."""
    collected = Collector()
    seen, lost = TrackingState.TRACKING, TrackingState.LOST
    for stamp, (state, since_reset) in enumerate(
        [(seen, 1), (lost, 1), (lost, 1), (seen, 2), (seen, 1), (lost, 1), (seen, 2)]
    ):
        T = None if state is lost else np.eye(4)
        nan = float("nan")
        collected.add(Heard(stamp, T, state, 0, nan, nan, nan, nan), since_reset)
    assert (collected.stamps_ns.tolist(), collected.before_reset) == ([4, 6], 4)


def test_why_something_is_not_compared_is_told(bag, tmp_path):
    late = changed(bag, tmp_path / "late", lambda topic, m: [(topic, later(topic, m))])
    report = evaluated(late, tmp_path / "a", status=1)
    assert report["not_compared"] == {
        "trajectory": "no true pose is of the time of an image",
        "depth": "no true depth is of the time of an image",
        "map": "this takes true poses and true depth",
    }
    one = evaluated(bag, tmp_path / "b", "--max-frames", "1")
    assert one["map"] is None
    assert one["not_compared"]["map"] == "the poses allow no alignment se3"


def later(topic, message):
    if topic in (POSE, DEPTH):
        message.header.stamp.sec += 1000
    return message


def test_depth_of_another_view_does_not_cost_the_poses(bag, tmp_path):
    def narrow(topic, message):
        if topic == DEPTH:
            message.width //= 2
            message.step //= 2
            message.data = message.data[: len(message.data) // 2]
        return [(topic, message)]

    report = evaluated(changed(bag, tmp_path / "bag", narrow), tmp_path / "out", status=1)
    assert report["depth"] is None and report["map"] is None
    assert "is not the view of" in report["not_compared"]["depth"]
    assert report["trajectory"]["poses"] == IMAGES
    alone = evaluated(bag, tmp_path / "none", "--depth-topic", "none")
    assert alone["depth"] is None and alone["trajectory"]["poses"] == IMAGES
