# SPDX-License-Identifier: Apache-2.0
"""The one table of all benchmarks, and what stands in for a library that is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from transforms3d import axangles, euler, quaternions

from benchmarks import bench_all as subject
from benchmarks.stand_ins.transforms3d import axangles as own_axangles
from benchmarks.stand_ins.transforms3d import euler as own_euler
from benchmarks.stand_ins.transforms3d import quaternions as own_quaternions

PROGRAM = """
import argparse, csv, json
parser = argparse.ArgumentParser()
parser.add_argument("--json", action="store_true")
parser.add_argument("--csv")
arguments = parser.parse_args()
if arguments.csv:
    with open(arguments.csv, "w") as file:
        csv.writer(file).writerows([["images", "step_ms", "host_mib"], [7, 2.5, 100]])
else:
    print(json.dumps({"a": 1}))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "HERE", tmp_path)
    (tmp_path / "good.py").write_text(PROGRAM)
    (tmp_path / "bad.py").write_text("import a_module_that_nobody_has")
    (tmp_path / "slow.py").write_text("import time; time.sleep(60)")
    return tmp_path


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_benchmark_exists_and_is_told_the_device(device):
    for benchmark in subject.benchmarks(device):
        assert (Path(subject.HERE) / benchmark.words[0]).is_file()
        assert benchmark.words[-1] == device or "--load-ms" in benchmark.words


def test_findings_are_read_from_json_and_from_rows(folder):
    good = subject.Benchmark(("good.py",), lambda result: iter([("a", str(result["a"]))]))
    assert subject.run(good) == ([("a", "1")], "")
    rows = subject.Benchmark(("good.py",), subject.of_long_run, json=False)
    assert subject.run(rows) == ([("7 images in a row", "step 2.5 ms, 100 MiB")], "")


def test_what_cannot_run_says_why_and_the_others_go_on(folder, monkeypatch, capsys):
    monkeypatch.setattr(subject, "_LIMIT_S", 3.0)
    found = [
        subject.Benchmark((name,), lambda result: iter([("a", str(result["a"]))]))
        for name in ("bad.py", "slow.py", "good.py")
    ]
    monkeypatch.setattr(subject, "benchmarks", lambda device: found)
    assert subject.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    missing = "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"
    assert lines[2:5] == [
        f"| not run | {missing} | `bad.py` |",
        "| not run | not done after 3 s | `slow.py` |",
        "| a | 1 | `good.py` |",
    ]


def test_findings_are_of_what_the_benchmarks_print():
    row = {"p50": 1.0, "p95": 2.0, "p99": 3.0, "max": 4.0}
    node = {
        "parts_ms": {"stamp to TF": row, "all but waiting and step": row},
        "requests_ms": {"reset": row, "activate": {**row, "max": 5.0}},
        **{"load_ms": 45.0, "tf_hz": 20.5, "rate_hz": 30.0, "cpu": 0.5},
    }
    found = dict(subject.of_node(node))
    assert found["node with a load of 45 ms, poses on /tf"] == "20.5 /s of 30 images/s"
    assert found["node with a load of 45 ms, slowest answer to a request"] == "5.0 ms"
    times = {"median_ms": 3.0, "p95_ms": 4.0}
    rows = {"step": times, "encode": times, "step, graphs": times}
    table = {"size": "224x224", "dtype": "tf32", "rows": rows}
    assert dict(subject.of_step({"tables": [table]})) == {
        "step, 224x224, tf32, random weights": "3.0 ms, p95 4.0",
        "step, graphs, 224x224, tf32, random weights": "3.0 ms, p95 4.0",
    }
    ours = {"memory_bytes": {"allocated": 2e9, "reserved": 2.5e9}}
    beside = {"size": "512x384", "dtype": "tf32", "ratio": {"wall_median_s": 8.0}}
    assert dict(subject.of_baseline({**beside, "rows": {"ours": ours}})) == {
        "step as published by ours, 512x384, tf32": "8.00 times the time",
        "memory of our steps, 512x384, tf32": "2.00 GB allocated, 2.50 GB reserved",
    }


def test_stand_ins_are_shown_only_where_the_library_is_missing(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    assert subject.environment()["PYTHONPATH"] == "somewhere"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    first, second = subject.environment()["PYTHONPATH"].split(":")
    assert second == "somewhere" and (Path(first) / "transforms3d/quaternions.py").is_file()


def test_stand_ins_do_what_the_library_does():
    random = np.random.default_rng(0)
    for _ in range(20):
        axis, angle = random.normal(size=3), random.uniform(-4, 4)
        R = axangles.axangle2mat(axis, angle)
        np.testing.assert_allclose(own_axangles.axangle2mat(axis, angle), R, atol=1e-12)
        q = quaternions.mat2quat(R)
        np.testing.assert_allclose(own_quaternions.mat2quat(R), q, atol=1e-9)
        np.testing.assert_allclose(own_quaternions.quat2mat(3 * q), R, atol=1e-12)
        angles = random.uniform(-3, 3, 3)
        expected = euler.euler2mat(*angles, axes="sxyz")
        np.testing.assert_allclose(own_euler.euler2mat(*angles, axes="sxyz"), expected, atol=1e-12)
    with pytest.raises(ValueError, match="sxyz"):
        own_euler.euler2mat(0, 0, 0, "rxyz")
    assert sys.modules["transforms3d"].__file__ != str(subject.STAND_INS)
