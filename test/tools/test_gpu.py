# SPDX-License-Identifier: Apache-2.0
"""A dry run on the CPU of what is done on a GPU, and of how it stops."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from places import ROOT
from tiny_training import TINY

from benchmarks import bench_all
from tools import gpu as subject
from tools.training.export import export
from tools.training.initial import initial_network
from tools.training.settings import settings_from_weights
from tools.training.trainer import LAST, Trainer
from ttt3r_ros.network.checkpoint import load_network, read_checkpoint

MAY_BE_MISSING = ("evo", "jinja2", "matplotlib", "rclpy", "rosbags", "scipy", "viser", "yaml")


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "tiny.safetensors"
    export(initial_network(TINY, 0, "cut3r"), path, {}, "a test")
    return path


@pytest.fixture
def plan(tmp_path, weights):
    return subject.Plan(
        device="cpu",
        output=tmp_path / "output",
        seconds=25.0,
        bench_seconds=0.0,
        weights=weights,
        frames_per_step=8,
        golden=(("B_linear", "ttt3r", "f32"),),
        export_rooms=1,
        export_images=16,
        config=TINY,
        clips_in_memory=2,
    )


@pytest.fixture
def quick(monkeypatch):
    """Windows of two images from few clips, and hardly any time for each part."""

    def settings(minutes):
        return replace(
            settings_from_weights(minutes),
            stages=((0.0, 2),),
            carry_from=0.0,
            clips_at_once=2,
            clip_frames=4,
            groups_at_start=1,
            warmup_steps=2,
        )

    monkeypatch.setattr(subject, "settings_from_weights", settings)
    monkeypatch.setattr(subject, "_EXPORT_S", 0.0)
    monkeypatch.setattr(subject, "_LEAST_TRAINING_S", 0.0)


def test_a_dry_run_does_everything_and_its_files_are_small(plan, quick):
    assert subject.everything(replace(plan, golden=(), seconds=12.0)) == 0
    log = (plan.output / "log.txt").read_text()
    assert "images/s in 10 steps of 8" in log and "written: weights.safetensors" in log
    written = read_checkpoint(plan.output / subject.WEIGHTS)
    assert written.settings["segment.reset_interval"] in subject._INTERVALS
    assert "images of rendered rooms" in written.source
    assert all(file.stat().st_size < 16 * 2**20 for file in plan.output.iterdir())


def test_parity_holds_on_the_device_and_says_so(plan):
    said = []
    assert subject.parity(plan, said.append)
    assert said == ["parity B_linear ttt3r f32: as recorded"]


def test_every_recorded_run_is_compared_in_both_variants():
    assert len(subject.golden_runs()) == 14


def test_where_parity_fails_nothing_else_is_begun(plan, monkeypatch):
    monkeypatch.setattr(subject, "parity", lambda plan, say: False)
    monkeypatch.setattr(subject, "train", lambda *_: pytest.fail("must not be trained"))
    assert subject.everything(plan) == 1


def test_a_loss_that_is_not_finite_ends_the_training_at_its_self_check(plan, quick, monkeypatch):
    monkeypatch.setattr(
        subject.QuickTrainer, "step", lambda self: {"total": float("nan"), "points": 1.0}
    )
    said = []
    assert subject.train(plan, 10.0, said.append) is None
    assert "not finite" in said[-1]


def test_training_goes_on_from_a_file_of_weights_or_a_checkpoint(plan, tmp_path, quick):
    trainer = Trainer(TINY, subject.settings_from_weights(1), tmp_path)
    trainer.save()
    for path in (plan.weights, tmp_path / LAST):
        found = subject.weights_of(path)
        network = initial_network(TINY, 1, "cut3r")
        network.load_state_dict(found)
    assert torch.equal(found["pose_token"], trainer.average.pose_token)
    assert torch.equal(
        subject.weights_of(plan.weights)["pose_token"], load_network(plan.weights).pose_token
    )


def test_benchmarks_run_beside_and_their_rows_are_kept(plan, monkeypatch, tmp_path):
    program = tmp_path / "bench.py"
    program.write_text(
        "import sys; from pathlib import Path\n"
        "Path(sys.argv[sys.argv.index('--output') + 1]).write_text(' '.join(sys.argv[1:5]))\n"
    )
    monkeypatch.setattr(bench_all, "__file__", str(program))
    plan.output.mkdir()
    said = []
    subject.bench(replace(plan, bench_seconds=90.0), said.append)
    assert (plan.output / "bench.jsonl").read_text() == "--device cpu --minutes 1.5"
    assert said == ["benchmarks: exit status 0, rows in bench.jsonl"]


def test_it_needs_no_library_that_a_machine_for_training_lacks():
    program = f"""
import importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *of: name != "transforms3d" and find_spec(name, *of)
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {MAY_BE_MISSING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.path.insert(0, {str(ROOT)!r})
import tools.gpu
assert "stand_ins" in sys.modules["transforms3d"].__file__
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
