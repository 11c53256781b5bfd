# SPDX-License-Identifier: Apache-2.0
"""Trajectory errors are those that evo's own programs print, to all the digits they print."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig

import numpy as np
import pytest
from transforms3d.euler import euler2mat

from ttt3r_ros.evaluation.metrics.trajectory import trajectory_errors
from ttt3r_ros.geometry import quaternion, transform, transform_from_quaternion
from ttt3r_ros.recordings.pose_track import MAX_DIFFERENCE_S, nearest

ALIGNMENT_FLAGS = {"sim3": ["-as"], "se3": ["-a"], "scale": ["-s"], "none": []}
RPE_FLAGS = ["--delta", "1", "--delta_unit", "f", "--all_pairs"]


def write_tum(file, seconds, poses):
    rows = []
    for second, T in zip(seconds, poses, strict=True):
        w, *xyz = quaternion(T)
        rows.append(f"{second:.9f} " + " ".join(repr(float(n)) for n in (*T[:3, 3], *xyz, w)))
    file.write_text("\n".join(rows) + "\n")


def read_tum(file):
    """The numbers of the file, so that both sides begin with the same ones."""
    rows = np.loadtxt(file)
    poses = [transform_from_quaternion(row[1:4], np.roll(row[4:], 1)) for row in rows]
    return np.round(1e9 * rows[:, 0]).astype(np.int64), poses


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A path, denser than the estimate and not in step with it, in kilometres: more digits."""
    folder = tmp_path_factory.mktemp("evo")
    rng = np.random.default_rng(0)

    def path(t):
        return [
            transform(
                euler2mat(0.2 * np.sin(a), 0.1 * a, 0.7 * a),
                (900 * np.cos(a), 700 * np.sin(a), 100 * a),
            )
            for a in t
        ]

    t = np.arange(0, 5, 0.1)
    write_tum(folder / "true.tum", np.arange(0, 5, 0.03), path(np.arange(0, 5, 0.03)))
    away = transform(euler2mat(1.0, -0.4, 2.0), (30.0, 20.0, -10.0))
    found = [
        away @ T @ transform(euler2mat(*rng.normal(0, 0.02, 3)), rng.normal(0, 5, 3))
        for T in path(t)
    ]
    for T in found:
        T[:3, 3] *= 0.7
    write_tum(folder / "found.tum", t + rng.uniform(-0.004, 0.004, len(t)), found)
    return folder


@pytest.fixture(scope="module")
def errors(files):
    stamps, poses = read_tum(files / "found.tum")
    true_stamps, true_poses = read_tum(files / "true.tum")
    here, there = nearest(stamps, true_stamps, round(1e9 * MAX_DIFFERENCE_S))
    assert 10 < len(here) < len(stamps)  # others are too far from any true pose
    return trajectory_errors([poses[i] for i in here], [true_poses[i] for i in there])


def printed(files, program, *flags):
    """What the program prints, by its name."""
    scripts = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", "")))
    done = subprocess.run(
        [shutil.which(program, path=scripts), "tum", "true.tum", "found.tum", *flags],
        cwd=files,
        # evo writes its settings there.
        env={**os.environ, "HOME": str(files), "XDG_CONFIG_HOME": str(files)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(re.findall(r"^ *(rmse|mean|median|max)\t(\S+)$", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("alignment", ALIGNMENT_FLAGS)
def test_ate_is_what_evo_ape_prints(files, errors, alignment):
    ours = errors.by_alignment[alignment]
    assert printed(files, "evo_ape", *ALIGNMENT_FLAGS[alignment]) == {
        "rmse": f"{ours.ate_rmse_m:.6f}",
        "mean": f"{ours.ate_mean_m:.6f}",
        "median": f"{ours.ate_median_m:.6f}",
        "max": f"{ours.ate_max_m:.6f}",
    }


@pytest.mark.parametrize("alignment", ["sim3", "none"])
def test_rpe_of_translations_is_what_evo_rpe_prints(files, errors, alignment):
    found = printed(files, "evo_rpe", *RPE_FLAGS, *ALIGNMENT_FLAGS[alignment])
    assert found["rmse"] == f"{errors.by_alignment[alignment].rpe_trans_rmse_m:.6f}"


def test_rpe_of_rotations_is_what_evo_rpe_prints(files, errors):
    found = printed(files, "evo_rpe", *RPE_FLAGS, "-as", "--pose_relation", "angle_deg")
    assert found["rmse"] == f"{errors.by_alignment['sim3'].rpe_rot_rmse_deg:.6f}"
