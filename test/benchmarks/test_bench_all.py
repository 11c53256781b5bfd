# SPDX-License-Identifier: Apache-2.0
"""The one table of all benchmarks, and what stands in for a library that is missing."""

from __future__ import annotations

import importlib.util
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transforms3d import axangles, euler, quaternions

from benchmarks import bench_all as subject
from benchmarks.stand_ins.transforms3d import axangles as own_axangles
from benchmarks.stand_ins.transforms3d import euler as own_euler
from benchmarks.stand_ins.transforms3d import quaternions as own_quaternions

PROGRAM = """
import json, sys, time
print("a library speaks")
print(json.dumps({"a": 1}), flush=True)
if "slow" in sys.argv:
    time.sleep(600)
print(json.dumps({"a": 2}))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "HERE", tmp_path)
    (tmp_path / "good.py").write_text(PROGRAM)
    (tmp_path / "bad.py").write_text("import a_module_that_nobody_has")
    return tmp_path


def benchmark(*words):
    return subject.Benchmark(words, lambda row: iter([("a", str(row["a"]))]))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_benchmark_exists_and_is_told_the_device(device):
    for one in subject.benchmarks(device):
        assert (Path(subject.HERE) / one.words[0]).is_file()
        assert one.words[one.words.index("--device") + 1] == device


def test_rows_are_printed_and_written_as_they_come(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(subject, "benchmarks", lambda device: [benchmark("good.py")])
    seen = []

    def rows(one, limit_s):
        for a in (1, 2):
            yield {"a": a}
            seen.append((capsys.readouterr().out.splitlines()[-1], file.read_text()))

    monkeypatch.setattr(subject, "rows_of", rows)
    file = tmp_path / "rows.jsonl"
    assert subject.main(["--output", str(file)]) == 0
    assert [line for line, _ in seen] == ["| a | 1 | `good.py` |", "| a | 2 | `good.py` |"]
    assert [len(written.splitlines()) for _, written in seen] == [1, 2]
    first, _, made = map(json.loads, file.read_text().splitlines())
    assert first == {"command": "good.py", "found": {"a": "1"}, "row": {"a": 1}}
    assert "commit" in made["made_with"]


def test_what_cannot_run_says_why_and_the_others_go_on(folder, capsys):
    assert subject.run_all([benchmark("bad.py"), benchmark("good.py")], 2.0, None) == 1
    missing = "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"| not run | {missing} | `bad.py` |",
        "| a | 1 | `good.py` |",
        "| a | 2 | `good.py` |",
    ]


def test_when_the_time_is_over_what_runs_is_ended(folder, monkeypatch):
    timers = []

    class Timer:
        def __init__(self, limit_s, function):
            timers.append((limit_s, function))

        def start(self): ...

        def cancel(self): ...

    monkeypatch.setattr(subject.threading, "Timer", Timer)
    rows = subject.rows_of(benchmark("good.py", "slow"), 7.0)
    assert next(rows) == {"a": 1}
    ((limit_s, end),) = timers
    assert limit_s == 7.0
    end()
    with pytest.raises(TimeoutError, match="the time is over"):
        next(rows)


def test_what_the_time_did_not_suffice_for_is_named(folder, capsys):
    assert subject.run_all([benchmark("good.py")], 0.0, None) == 0
    late = "the time was over before it began"
    assert capsys.readouterr().out.splitlines()[2:] == [f"| not done | {late} | `good.py` |"]


@pytest.mark.timeout(300)  # two of them start processes of their own
def test_what_is_run_on_a_gpu_runs(monkeypatch, capsys):
    """On the CPU, with tiny networks, each program in this process."""
    threads = torch.get_num_threads()

    def in_this_process(one, limit_s):
        program, *words = one.words
        monkeypatch.setattr(sys, "argv", [program, *words, "--json"])
        runpy.run_path(str(subject.HERE / program), run_name="__main__")
        yield from map(json.loads, capsys.readouterr().out.splitlines())

    found = []
    for one in subject.rehearsal():
        rows = list(in_this_process(one, 100.0))
        found += [what for row in rows for what, _ in one.findings(row)]
    torch.set_num_threads(threads)
    commands = [one.words[0] for one in subject.rehearsal()]
    real = [one.words[0] for one in subject.benchmarks("cuda") if "bench_node" not in one.words[0]]
    assert [*dict.fromkeys(commands)] == [*dict.fromkeys(real)]
    beginnings = ("step, tiny-dpt dpt, bfloat16", "step as published by ours", "memory of our")
    beginnings += ("pipeline, shipped", "pipeline, tiny-linear", "map, known room", "4 images in")
    for beginning in beginnings:
        assert any(what.startswith(beginning) for what in found), beginning


def test_findings_are_of_what_the_benchmarks_print():
    row = {"p50": 1.0, "p95": 2.0, "p99": 3.0, "max": 4.0}
    node = {
        "parts_ms": {"stamp to TF": row, "all but waiting and step": row},
        "requests_ms": {"reset": row, "activate": {**row, "max": 5.0}},
        **{"load_ms": 45.0, "tf_hz": 20.5, "rate": 30.0, "cpu": 0.5},
    }
    found = dict(subject.of_node(node))
    assert found["node with a load of 45 ms, poses on /tf"] == "20.5 /s of 30 images/s"
    assert found["node with a load of 45 ms, slowest answer to a request"] == "5.0 ms"
    times = {"median_ms": 3.0, "p95_ms": 4.0, "gflop": 6.0}
    rows = {"step": times, "encode": times, "step, graphs": times}
    table = {"size": "224x224 linear", "dtype": "tf32", "rows": rows}
    said = "3.0 ms, p95 4.0, 6.0 GFLOP, 2.00 TFLOP/s"
    assert dict(subject.of_step(table)) == {
        "step, 224x224 linear, tf32, random weights": said,
        "step, graphs, 224x224 linear, tf32, random weights": said,
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
