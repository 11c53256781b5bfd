# SPDX-License-Identifier: Apache-2.0
"""The command `ttt3r simulate`: bags of simulated rooms."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from ttt3r_ros.camera.decoding import decode_depth_image
from ttt3r_ros.cli import main
from ttt3r_ros.geometry import Intrinsics, transform_from_quaternion
from ttt3r_ros.recordings.readers import open_source
from ttt3r_ros.simulation.scene import Scene
from ttt3r_ros.simulation.scene_options import SceneOptions

TYPES = get_typestore(Stores.ROS2_JAZZY)
SIZE = ["--seed", "5", "--size", "64x48", "--frames", "3", "--rate", "20"]
START_NS = 1_700_000_000_000_000_000


def simulate(path, *arguments):
    assert main(["simulate", str(path), *SIZE, *arguments]) == 0
    return path


def messages(path):
    """All messages by topic."""
    found = {}
    with Reader(path) as reader:
        for connection, _, cdr in reader.messages():
            message = TYPES.deserialize_cdr(cdr, connection.msgtype)
            found.setdefault(connection.topic, []).append(message)
    return found


def test_a_bag_holds_what_the_scene_shows_and_the_truth(tmp_path):
    bag = simulate(tmp_path / "new" / "bag", "--noise", "0.02", "--moving", "1")
    scene = Scene(SceneOptions(seed=5, width=64, height=48, noise=0.02, moving=1))
    views = [scene.view(i / 20) for i in range(3)]
    with open_source(bag, topic="/image") as source:
        frames = list(source)
    assert [frame.stamp_ns for frame in frames] == [START_NS + i * 50_000_000 for i in range(3)]
    assert all(np.array_equal(f.rgb, v.rgb) for f, v in zip(frames, views, strict=True))
    assert frames[0].intrinsics == Intrinsics(48.0, 48.0, 31.5, 23.5, 64, 48)

    found = messages(bag)
    assert {topic: len(found[topic]) for topic in found} == dict.fromkeys(
        ("/image", "/camera_info", "/ground_truth/pose", "/ground_truth/depth/image_rect", "/tf"), 3
    )
    for i, view in enumerate(views):
        depth, pose = found["/ground_truth/depth/image_rect"][i], found["/ground_truth/pose"][i]
        (stamped,) = found["/tf"][i].transforms
        assert depth.header.frame_id == "camera"
        assert stamped.child_frame_id == "ground_truth_camera"  # the camera has no parent
        assert pose.header.frame_id == stamped.header.frame_id == "world"
        assert depth.header.stamp == pose.header.stamp == stamped.header.stamp
        metres = np.frombuffer(depth.data, np.float32).reshape(48, 64)
        assert np.array_equal(metres, view.depth_m)
        p, q = pose.pose.position, pose.pose.orientation
        T = transform_from_quaternion((p.x, p.y, p.z), (q.w, q.x, q.y, q.z))
        np.testing.assert_allclose(T, view.T_world_camera, atol=1e-6)
        t, r = stamped.transform.translation, stamped.transform.rotation
        assert (t.x, t.y, t.z, r.w, r.x, r.y, r.z) == (p.x, p.y, p.z, q.w, q.x, q.y, q.z)


def test_images_as_jpeg_and_depth_in_millimetres(tmp_path):
    bag = simulate(tmp_path / "bag", "--compressed", "--depth-encoding", "16UC1")
    view = Scene(SceneOptions(seed=5, width=64, height=48)).view(0.0)
    with open_source(bag, topic="/image/compressed") as source:
        frame = next(iter(source))
    assert np.abs(frame.rgb.astype(int) - view.rgb.numpy()).mean() < 8
    assert frame.intrinsics is not None
    depth = messages(bag)["/ground_truth/depth/image_rect"][0]
    metres = decode_depth_image(
        depth.encoding, depth.height, depth.width, depth.step, depth.is_bigendian, depth.data
    )
    np.testing.assert_allclose(metres, view.depth_m, atol=0.00051)


def test_the_intrinsics_tell_the_distortion(tmp_path):
    bag = simulate(tmp_path / "bag", "--distortion", "-0.2", "0.03", "--frames", "1")
    (info,) = messages(bag)["/camera_info"]
    assert (info.distortion_model, info.d.tolist()) == ("plumb_bob", [-0.2, 0.03, 0, 0, 0])
    assert info.k.tolist() == [48, 0, 31.5, 0, 48, 23.5, 0, 0, 1]
    options = SceneOptions(seed=5, width=64, height=48, distortion=(-0.2, 0.03))
    depth = np.frombuffer(messages(bag)["/ground_truth/depth/image_raw"][0].data, np.float32)
    assert torch.equal(
        torch.from_numpy(depth.reshape(48, 64).copy()), Scene(options).view(0).depth_m
    )


def test_the_same_command_writes_the_same_bag(tmp_path):
    first, second = (simulate(tmp_path / name / "bag", "--noise", "0.1") for name in "ab")
    assert (first / "bag.mcap").read_bytes() == (second / "bag.mcap").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "0"], "frames: must be above 0, got 0"),
        (["--rate", "-1"], "rate: must be above 0, got -1.0"),
        (["--moving", "9"], "moving: must be 0 to 4, got 9"),
        (["--distortion", "1", "2", "3"], "distortion: one or two numbers, got 3"),
        (["--distortion", "-3"], "distortion: -3, 0 fold the image over itself"),
    ],
)
def test_a_users_error_is_one_line_and_nothing_is_written(tmp_path, capsys, arguments, message):
    assert main(["simulate", str(tmp_path / "bag"), *SIZE, *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_bag_that_exists_is_not_touched(tmp_path, capsys):
    bag = simulate(tmp_path / "bag")
    before = {path.name: path.read_bytes() for path in bag.iterdir()}
    assert main(["simulate", str(bag), *SIZE, "--seed", "6"]) == 2
    assert f"{bag}: exists already" in capsys.readouterr().err.splitlines()[-1]
    assert {path.name: path.read_bytes() for path in bag.iterdir()} == before


def test_what_is_published_live_is_the_same_scene(monkeypatch, capsys):
    calls = []
    module = types.ModuleType("simulated_camera")
    module.publish = lambda options, **how: calls.append((options, how)) or 0
    monkeypatch.setitem(sys.modules, "ttt3r_ros.clients.simulated_camera", module)
    assert main(["simulate", "--publish", *SIZE, "--moving", "2"]) == 0
    options = SceneOptions(seed=5, width=64, height=48, moving=2)
    assert calls == [(options, {"seconds": 3 / 20, "rate_hz": 20.0})]
    assert main(["simulate", "--publish", "--compressed"]) == 2
    assert "not with --publish" in capsys.readouterr().err
    assert len(calls) == 1


@pytest.mark.parametrize("target", [[], ["bag", "--publish"]])
def test_either_a_bag_or_live_has_to_be_asked_for(target, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["simulate", *target])
    assert raised.value.code == 2
    assert "OUT" in capsys.readouterr().err
