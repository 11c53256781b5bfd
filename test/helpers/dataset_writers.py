# SPDX-License-Identifier: Apache-2.0
"""Miniatures of data sets, written as their descriptions say, and what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
from PIL import Image

from ttt3r_ros.geometry import inverse, quaternion, transform_from_quaternion

HEIGHT, WIDTH, COUNT = 48, 64, 5
START_S = 1_305_031_102


@dataclass
class Sequence:
    """What a miniature holds: a picture, a depth image and a pose for each image."""

    path: object  # of its folder
    pictures: np.ndarray  # [N, H, W, 3] uint8
    depth_m: np.ndarray  # [N, H, W], NaN where unknown
    poses: np.ndarray  # [N, 4, 4] camera to world
    stamps_ns: list[int]


def content(seed=0, count=COUNT, steps_per_metre=1000.0):
    """Return pictures, depth in steps that a file can hold, and poses."""
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)
    depth_m = random.integers(1, 60_000, (count, HEIGHT, WIDTH)) / steps_per_metre
    depth_m[:, :2, :3] = np.nan
    poses = [
        transform_from_quaternion(random.normal(size=3), random.normal(size=4))
        for _ in range(count)
    ]
    return pictures, depth_m, np.array(poses)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_depth(path, depth_m, steps_per_metre, unknown=0):
    steps = np.where(np.isnan(depth_m), unknown, np.nan_to_num(depth_m) * steps_per_metre)
    save(path, steps.round().astype(np.uint16))


def text(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def numbers(T):
    return [" ".join(f"{value:.12e}" for value in row) for row in T]


def tum_pose(stamp, T):
    w, x, y, z = quaternion(T)
    return " ".join([stamp, *(f"{value:.12f}" for value in (*T[:3, 3], x, y, z, w))])


def write_tum(path, seed=0, poses=None):
    """Colour at 30 Hz, depth 5 ms later, poses at 100 Hz beginning and ending beyond."""
    pictures, depth_m, true_poses = content(seed, steps_per_metre=5000.0)
    colour, depth, truth, stamps = [], [], [], []
    for i in range(COUNT):
        stamp_us = START_S * 1_000_000 + round(i * 1e6 / 30)
        stamps.append(stamp_us * 1000)
        stamp, later = (
            f"{us // 1_000_000}.{us % 1_000_000:06d}" for us in (stamp_us, stamp_us + 5000)
        )
        save(path / "rgb" / f"{stamp}.png", pictures[i])
        save_depth(path / "depth" / f"{later}.png", depth_m[i], 5000.0)
        colour.append(f"{stamp} rgb/{stamp}.png")
        depth.append(f"{later} depth/{later}.png")
        for off_us in (-10_000, 1000, 10_000):
            us = stamp_us + off_us
            T = (true_poses if poses is None else poses)[i].copy()
            T[:3, 3] += 0.0 if off_us == 1000 else 100.0  # only the nearest is right
            truth.append(tum_pose(f"{us // 1_000_000}.{us % 1_000_000:06d}", T))
    head = ["# color images", "# file: 'x.bag'", "# timestamp filename"]
    text(path / "rgb.txt", head + colour)
    text(path / "depth.txt", head + depth)
    text(path / "groundtruth.txt", ["# ground truth trajectory", *truth])
    return Sequence(path, pictures, depth_m, true_poses, stamps)


def write_7scenes(path, seed=0):
    pictures, depth_m, poses = content(seed)
    for i in range(COUNT):
        name = path / f"frame-{i:06d}"
        save(name.with_suffix(".color.png"), pictures[i])
        save_depth(name.with_suffix(".depth.png"), depth_m[i], 1000.0, unknown=65535)
        text(
            name.with_suffix(".pose.txt"), ["\t ".join(line.split()) for line in numbers(poses[i])]
        )
    stamps = [round(i * 1e9 / 30) for i in range(COUNT)]
    return Sequence(path, pictures, depth_m, poses, stamps)


K = np.array([[70.0, 0.0, 31.0], [0.0, 71.0, 23.5], [0.0, 0.0, 1.0]])


def write_kitti_odometry(root, number="00", seed=0):
    """The colour camera stands 6 cm left of the gray one whose poses are given."""
    pictures, _, poses = content(seed)
    path = root / "sequences" / number
    P2 = K @ np.hstack([np.eye(3), [[0.06], [0.001], [0.002]]])
    T_0_2 = np.eye(4)
    T_0_2[:3, 3] = -0.06, -0.001, -0.002
    for i in range(COUNT):
        save(path / "image_2" / f"{i:06d}.png", pictures[i])
    text(path / "times.txt", [f"{0.1037 * i:.6e}" for i in range(COUNT)])
    text(
        path / "calib.txt",
        [
            "P0: " + " ".join(f"{v:.12e}" for v in np.hstack([K, np.zeros((3, 1))]).ravel()),
            "P2: " + " ".join(f"{v:.12e}" for v in P2.ravel()),
        ],
    )
    gray = [T @ inverse(T_0_2) for T in poses]
    text(root / "poses" / f"{number}.txt", [" ".join(numbers(T[:3])) for T in gray])
    stamps = [103_700_000 * i for i in range(COUNT)]
    return Sequence(path, pictures, np.full((COUNT, 1, 1), np.nan), poses, stamps)


def write_kitti_depth(root, drive="2011_09_26_drive_0002_sync", seed=0, raw="."):
    """Depth of all images but the first and the last."""
    pictures, depth_m, _ = content(seed, steps_per_metre=256.0)
    date = drive[:10]
    images = root / raw / date / drive / "image_02"
    moment, lines, stamps = datetime(2011, 9, 26, 13, 2, 25, tzinfo=timezone.utc), [], []
    for i in range(COUNT):
        save(images / "data" / f"{i:010d}.png", pictures[i])
        fraction = 964_389_445 - 900_000_000 + i * 100_000_001
        lines.append(f"{moment:%Y-%m-%d %H:%M:%S}.{fraction:09d}")
        stamps.append(int(moment.timestamp()) * 10**9 + fraction)
    text(images / "timestamps.txt", lines)
    P = np.hstack([K, [[4.0], [0.2], [0.003]]])
    text(
        root / raw / date / "calib_cam_to_cam.txt",
        [
            "calib_time: 09-Jan-2012 13:57:47",
            "P_rect_02: " + " ".join(f"{v:.12e}" for v in P.ravel()),
        ],
    )
    path = root / "val" / drive
    for i in range(1, COUNT - 1):
        name = path / "proj_depth" / "groundtruth" / "image_02" / f"{i:010d}.png"
        save_depth(name, depth_m[i], 256.0)
    return Sequence(path, pictures, depth_m, np.empty((0, 4, 4)), stamps)


def write_scannet(path, seed=0):
    """The third pose was lost; depth is smaller than colour."""
    pictures, depth_m, poses = content(seed, count=12)
    for i in range(12):
        save(path / "color" / f"{i}.jpg", pictures[i])
        save_depth(path / "depth" / f"{i}.png", depth_m[i, ::2, ::2], 1000.0)
        lost = ["-inf -inf -inf -inf"] * 4
        text(path / "pose" / f"{i}.txt", lost if i == 2 else numbers(poses[i]))
    lens = np.eye(4)
    lens[:3, :3] = K
    text(path / "intrinsic" / "intrinsic_color.txt", numbers(lens))
    stamps = [round(i * 1e9 / 30) for i in range(12)]
    return Sequence(path, pictures, depth_m[:, ::2, ::2], poses, stamps)


TAG = np.float32(202021.25).tobytes()


def write_sintel(root, name="alley_1", seed=0, passes=("final", "clean")):
    pictures, depth_m, poses = content(seed)
    depth_m = np.nan_to_num(depth_m, nan=1.5).astype(np.float32)
    training = root / "training"
    for i in range(COUNT):
        frame = f"frame_{i + 1:04d}"
        for folder in passes:
            save(training / folder / name / f"{frame}.png", pictures[i])
        for folder in ("depth", "camdata_left"):
            (training / folder / name).mkdir(parents=True, exist_ok=True)
        size = np.array([WIDTH, HEIGHT], "<i4").tobytes()
        data = TAG + size + depth_m[i].astype("<f4").tobytes()
        (training / "depth" / name / f"{frame}.dpt").write_bytes(data)
        lens = K.copy()
        lens[0, 0] += i  # a zoom
        camera = TAG + lens.astype("<f8").tobytes() + inverse(poses[i])[:3].astype("<f8").tobytes()
        (training / "camdata_left" / name / f"{frame}.cam").write_bytes(camera)
    stamps = [round((i + 1) * 1e9 / 24) for i in range(COUNT)]
    return Sequence(training / "final" / name, pictures, depth_m, poses, stamps)
