# SPDX-License-Identifier: Apache-2.0
"""The demonstration from end to end, and what it says and leaves behind when it fails."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ttt3r_ros import cli
from ttt3r_ros.clients import demo as module
from ttt3r_ros.clients.demo import demo
from ttt3r_ros.clients.transport import VARIABLES
from ttt3r_ros.config import Config
from ttt3r_ros.io.trajectory import read_tum
from ttt3r_ros.loading import load_model

SECONDS, SEED = 3.0, 5
# Programs in the node's place: what a node's process may do that it should not.
_SAY_PID = "import os, signal, time; print('pid', os.getpid(), flush=True); "
DIES = "print('the network is on fire'); raise SystemExit(3)"
NEVER_READY = f"{_SAY_PID} time.sleep(600)"
DEAF = f"signal.signal(signal.SIGINT, signal.SIG_IGN); {_SAY_PID} time.sleep(600)"
INTERRUPTS_DEMO = f"{_SAY_PID} os.kill(os.getppid(), signal.SIGINT); time.sleep(600)"


@pytest.fixture(autouse=True)
def _environment_is_put_back(domain, monkeypatch):
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def replace_node(monkeypatch, program):
    """A function that has some code in the node's place."""
    camera = program(*module.CAMERA[1:])

    def replace(code: str) -> None:
        monkeypatch.setattr(module, "NODE", (sys.executable, "-c", f"import signal; {code}"))
        monkeypatch.setattr(module, "CAMERA", camera)

    return replace


def is_running(log: Path) -> bool:
    """Whether the process that said its number in the log exists."""
    pid = int(re.search(r"pid (\d+)", log.read_text())[1])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_run_leaves_files_that_agree_with_one_another(tmp_path, capfd):
    output = tmp_path / "new" / "folder"
    status = cli.main(["demo", "--output", str(output), "--seconds", "3", "--seed", str(SEED)])
    screen = capfd.readouterr()
    assert status == 0, screen.err
    report = (output / "report.md").read_text()
    metrics = json.loads((output / "report.json").read_text())
    names = ("sent", "received", "replaced", "rejected", "lost")
    sent, received, replaced, rejected, lost = (metrics[f"images_{name}"] for name in names)
    assert 10 <= sent <= 30
    assert 5 <= received <= sent
    assert metrics["images"] == received - replaced - rejected >= 3
    assert re.search(rf"^\| images sent \| {sent} \|$", report, re.MULTILINE)
    assert metrics["trajectory"]["poses"] == metrics["depth"]["images"] == metrics["images"] - lost

    stamps, _ = read_tum(output / "trajectory.tum")
    assert len(stamps) == metrics["images"] - lost
    assert (np.diff(stamps) > 0).all()

    ply = (output / "map.ply").read_bytes()
    points = int(re.search(rb"element vertex (\d+)", ply)[1])
    assert points > 0
    assert f"| map points | {points} |" in report
    assert len(ply) == ply.index(b"end_header\n") + len("end_header\n") + 15 * points
    assert f"{points:,} points" in screen.err  # the last line of progress

    picture = cv2.imread(str(output / "picture.png"))
    assert picture.shape[0] > 900
    assert picture.shape[1] > 1500

    note = load_model(Config()).note
    assert note in report
    assert note in screen.out
    assert (output / "report.html").stat().st_size > 100_000
    for name in (
        "report.md",
        "report.html",
        "picture.png",
        "map.ply",
        "trajectory.tum",
        "node.log",
    ):
        assert str(output / name) in screen.out
    assert f"{sent} images of 30 sent" in (output / "camera.log").read_text()


def test_a_node_that_dies_ends_the_demo_with_what_it_said_last(tmp_path, replace_node, capsys):
    replace_node(DIES)
    assert demo(tmp_path, seconds=SECONDS, seed=SEED) == 1
    error = capsys.readouterr().err
    assert "ended with status 3" in error
    assert "the network is on fire" in error
    assert str(tmp_path / "node.log") in error
    assert not (tmp_path / "report.md").exists()


def test_a_node_that_never_becomes_active_ends_the_demo(
    tmp_path, replace_node, monkeypatch, capsys
):
    replace_node(NEVER_READY)
    monkeypatch.setattr(module, "_START_S", 1.0)
    assert demo(tmp_path, seconds=SECONDS, seed=SEED) == 1
    assert "did not become active in 1 s" in capsys.readouterr().err
    assert not is_running(tmp_path / "node.log")


def test_a_node_that_does_not_listen_is_ended_by_force(tmp_path, replace_node, monkeypatch):
    replace_node(DEAF)
    monkeypatch.setattr(module, "_START_S", 1.0)
    monkeypatch.setattr(module, "_END_S", 0.5)
    assert demo(tmp_path, seconds=SECONDS, seed=SEED) == 1
    assert not is_running(tmp_path / "node.log")


def test_an_interrupt_ends_the_demo_and_its_processes(tmp_path, replace_node):
    replace_node(INTERRUPTS_DEMO)
    # Tests that run in the background are started with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = cli.main(["demo", "--output", str(tmp_path)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 130
    assert not is_running(tmp_path / "node.log")


def test_a_camera_that_fails_ends_the_demo_with_what_it_said(
    tmp_path, replace_node, monkeypatch, capsys
):
    replace_node(NEVER_READY)
    monkeypatch.setattr(module, "_takes_images", lambda *_: True)
    assert demo(tmp_path, seconds=SECONDS, seed=-1) == 1
    assert "seed: must be 0 to inf, got -1" in capsys.readouterr().err
    assert not is_running(tmp_path / "node.log")
