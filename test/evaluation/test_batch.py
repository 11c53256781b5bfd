# SPDX-License-Identifier: Apache-2.0
"""`ttt3r evaluate` with several sequences, settings and processes, and with the papers' presets."""

from __future__ import annotations

import json
import logging
import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path
from urllib.parse import quote

import pytest
from dataset_writers import write_7scenes, write_sintel, write_tum
from small_network import small_checkpoint
from tolerant import TOLERANT

from ttt3r_ros.cli import main
from ttt3r_ros.config import Config, ConfigError
from ttt3r_ros.evaluation.batch import combinations, plan
from ttt3r_ros.evaluation.evaluate import Choices
from ttt3r_ros.evaluation.protocols import PROTOCOLS
from ttt3r_ros.recordings.datasets import find_recordings
from ttt3r_ros.types import EvaluationError, SourceError

TIMES = ("runtime", "date", "command", "fingerprint")


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    root = tmp_path_factory.mktemp("tum")
    for seed, name in enumerate(("rgbd_dataset_a", "rgbd_dataset_b")):
        write_tum(root / name, seed)
    return root


@pytest.fixture(scope="module")
def loaded() -> Iterator[BaseContext]:
    """Processes that come from one that has loaded the libraries."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ttt3r_ros.evaluation.evaluate"])
    yield context
    forkserver._forkserver._stop()


@pytest.fixture
def quick_start(loaded, monkeypatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind=None: loaded)
    return monkeypatch


def evaluate(path, output, *arguments, status=0):
    words = ["evaluate", str(path), "--output", str(output), "--checkpoint", small_checkpoint()]
    tolerant = [f"--{name.replace('_', '-')}={value}" for name, value in TOLERANT.items()]
    assert main([*words, *tolerant, *arguments]) == status
    return json.loads((output / "report.json").read_text())


def metrics_of(report):
    """By sequence and configuration, without what differs from run to run."""
    return {
        (result["sequence"], result["configuration"]): {
            key: value for key, value in result["metrics"].items() if key not in TIMES
        }
        for result in report["results"]
    }


def test_settings_are_combined_and_have_a_folder_each(sequences):
    found = combinations(Config(), {"update_rule": ("cut3r", "ttt3r"), "damping": ("0.5", "1")})
    assert [entry.name for entry in found] == [
        "update_rule=cut3r, damping=0.5",
        "update_rule=cut3r, damping=1",
        "update_rule=ttt3r, damping=0.5",
        "update_rule=ttt3r, damping=1",
    ]
    assert [(c.config.update_rule, c.config.damping) for c in found][1:3] == [
        ("cut3r", 1.0),
        ("ttt3r", 0.5),
    ]
    tasks = plan(find_recordings(sequences), found, Choices())
    assert len({task.folder for task in tasks}) == len(tasks) == 8
    assert len({task.fingerprint(1) for task in tasks}) == 8
    again = plan(find_recordings(sequences), found, Choices())
    assert [task.fingerprint(1) for task in again] == [task.fingerprint(1) for task in tasks]
    with pytest.raises(ConfigError, match="update_rules: no such setting, update_rule"):
        combinations(Config(), {"update_rules": ("cut3r",)})


def test_several_settings_are_compared_and_jobs_change_nothing(
    quick_start, sequences, tmp_path, capsys
):
    rules = ("--set", "update_rule=cut3r,ttt3r", "--max-frames", "3")
    one = evaluate(sequences, tmp_path / "one", *rules)
    quick_start.undo()
    two = evaluate(sequences, tmp_path / "two", *rules, "--limit", "1", "--jobs", "2")
    assert list(metrics_of(one)) == [
        (name, f"update_rule={rule}")
        for name in ("rgbd_dataset_a", "rgbd_dataset_b")
        for rule in ("cut3r", "ttt3r")
    ]
    assert metrics_of(two) == dict(list(metrics_of(one).items())[:2])
    assert all(metrics["images"] == 3 for metrics in metrics_of(one).values())
    for result in one["results"]:
        own = tmp_path / "one" / result["folder"] / "report.json"
        assert json.loads(own.read_text()) == result["metrics"]
        page = (tmp_path / "one/report.html").read_text()
        assert f"{quote(result['folder'])}/report.html" in page
    assert "update_rule=cut3r" in capsys.readouterr().out


def test_what_is_finished_is_not_made_again_and_what_failed_is_said(
    quick_start, sequences, tmp_path, caplog
):
    caplog.set_level(logging.INFO, logger="ttt3r_ros")
    root = tmp_path / "data"
    shutil.copytree(sequences, root)
    output = tmp_path / "out"
    first = evaluate(root, output)
    (output / "rgbd_dataset_b/report.json").unlink()  # as if it had been interrupted
    marker = output / "rgbd_dataset_a/marker"
    marker.touch()
    for image in (root / "rgbd_dataset_b/rgb").iterdir():
        image.write_bytes(b"no image")
    again = evaluate(root, output, status=1)
    assert "1 of 2 are there already" in caplog.text
    kept, failed = again["results"]
    assert kept["metrics"] == first["results"][0]["metrics"]
    assert failed["metrics"]["images"] == 0 and failed["metrics"]["images_rejected"] > 0
    shutil.rmtree(root / "rgbd_dataset_b/depth")
    (root / "rgbd_dataset_b/groundtruth.txt").write_text("")
    shutil.rmtree(output / "rgbd_dataset_b")
    *_, failed = evaluate(root, output, status=1)["results"]
    assert "rgbd_dataset_b" in failed["failure"] and failed["metrics"] == {}
    assert failed["failure"][:40] in (output / "report.html").read_text()


def test_other_weights_or_choices_are_evaluated_anew(sequences):
    recordings = find_recordings(sequences)
    configurations = combinations(Config(), {})
    (task, *_) = plan(recordings, configurations, Choices())
    (other, *_) = plan(recordings, configurations, Choices(max_true_depth_m=70.0))
    assert task.fingerprint(1) != other.fingerprint(1)
    weights = combinations(Config(checkpoint=small_checkpoint()), {})
    (other, *_) = plan(recordings, weights, Choices())
    assert task.fingerprint(1) != other.fingerprint(1)


def test_limits_and_names_choose_sequences(sequences, tmp_path):
    alone = evaluate(sequences, tmp_path / "a", "--sequences", "rgbd_dataset_b")
    assert alone["sequence"] == "rgbd_dataset_b"  # one alone has the folder for itself
    alone = evaluate(sequences, tmp_path / "b", "--limit", "1", "--start", "1", "--every", "2")
    assert (alone["sequence"], alone["config"]["time.max_gap_s"]) == ("rgbd_dataset_a", 4.0)


def test_a_protocol_sets_what_the_paper_did_and_shows_its_figures(
    quick_start, sequences, tmp_path, capsys
):
    report = evaluate(sequences, tmp_path, "--protocol", "ttt3r-tum")
    for result in report["results"]:
        config = result["metrics"]["config"]
        assert (config["segment.reset_interval"], config["preprocessing"]) == (0, "exact")
        assert result["metrics"]["trajectory"]["alignments"]["sim3"]["ate_rmse_m"] > 0
    page = (tmp_path / "report.html").read_text()
    assert "0.028" in page and "TTT3R (paper, as listed elsewhere), 90 images" in page
    assert "0.028" in capsys.readouterr().out


def test_sintel_is_measured_in_two_parts(quick_start, tmp_path):
    for name in ("alley_2", "bamboo_1"):
        write_sintel(tmp_path / "data", name)
    report = evaluate(tmp_path / "data", tmp_path / "out", "--protocol", "ttt3r-sintel")
    found = {key: metrics["config"]["fit"] for key, metrics in metrics_of(report).items()}
    assert found == {
        ("alley_2", "pose"): "crop",
        ("alley_2", "depth"): "resize",
        ("bamboo_1", "depth"): "resize",  # poses are measured on fourteen sequences
    }


def test_every_protocol_is_for_a_format_that_is_read_and_settings_that_exist(tmp_path):
    write_7scenes(tmp_path / "chess/seq-01")
    with pytest.raises(SourceError, match="bonn"):
        find_recordings(tmp_path / "chess", format="bonn")
    for protocol in PROTOCOLS.values():
        for part in protocol.parts:
            combinations(Config(), {name: (str(v),) for name, v in part.settings.items()})
    with pytest.raises(EvaluationError, match="none of the sequences is meant: "):
        plan(
            find_recordings(tmp_path / "chess"),
            [replace(combinations(Config(), {})[0], sequences=("balloon2",))],
            Choices(),
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--protocol", "ttt3r"], "--protocol: must be one of ttt3r-scannet"),
        (["--set", "update_rule"], "--set: expected SETTING=VALUE"),
        (["--set", "update_rule=cut3r,"], "--set: expected SETTING=VALUE"),
        (["--jobs", "0"], "--jobs: must be at least 1, got 0"),
        (["--start", "-1"], "--start: must be at least 0, got -1"),
        (["--live"], "evaluate: give a recording, or --live"),
        (["--sequences", "rgbd_dataset_c"], "no sequence rgbd_dataset_c; there are"),
        (["--every", "0"], "every: must be at least 1, got 0"),
        (["--set", "damping=1", "--set", "damping=0.5"], "--set: damping is given twice"),
        (["--set", "process_all_images=false"], "--set: process_all_images is no choice"),
    ],
)
def test_what_makes_no_sense_is_one_line(sequences, tmp_path, capsys, arguments, said):
    assert main(["evaluate", str(sequences), "--output", str(tmp_path / "o"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_recording_that_was_repaired_is_evaluated_anew(sequences, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(sequences, root)
    configurations = combinations(Config(), {})

    def fingerprints():
        tasks = plan(find_recordings(root), configurations, Choices())
        return [task.fingerprint(1) for task in tasks]

    before = fingerprints()
    with (root / "rgbd_dataset_b/groundtruth.txt").open("a") as file:
        file.write("\n")
    after = fingerprints()
    assert before[0] == after[0] and before[1] != after[1]


def test_folders_differ_even_where_names_are_alike_and_the_same_settings_count_once(sequences):
    recordings = find_recordings(sequences)
    alike = [replace(recordings[0], name="a b"), replace(recordings[1], name="a_b")]
    same = combinations(Config(), {"damping": ("1", "1.0", "0.5")})
    tasks = plan(alike, same, Choices())
    assert [task.folder for task in tasks] == [
        "a_b/damping=1",
        "a_b/damping=0.5",
        "a_b/damping=1_2",
        "a_b/damping=0.5_2",
    ]


def test_the_limit_counts_sequences_that_are_meant(sequences):
    only_b = [replace(combinations(Config(), {})[0], sequences=("dataset_b",))]
    (task,) = plan(find_recordings(sequences), only_b, Choices(), limit=1)
    assert task.recording.name == "rgbd_dataset_b"


def test_a_preset_beats_a_file_and_flags_beat_a_preset(sequences, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(
        "ttt3r_node:\n  ros__parameters:\n    fit: resize\n    preprocessing: fast\n"
        "    update_rule: filt3r\n    time:\n      max_gap_s: 3.0\n"
    )
    words = ("--protocol", "ttt3r-tum", "--config", str(file), "--every", "2", "--limit", "1")
    report = evaluate(sequences, tmp_path / "o", *words, "--update-rule", "cut3r")
    config = report["config"]
    assert (config["preprocessing"], config["update_rule"], config["fit"]) == (
        "exact",
        "cut3r",
        "resize",  # of which the preset says nothing
    )
    assert config["time.max_gap_s"] == 6.0


def test_an_end_from_outside_ends_all_processes(sequences, tmp_path):
    command = [sys.executable, "-m", "ttt3r_ros.cli", "evaluate", str(sequences)]
    command += ["--output", str(tmp_path), "--checkpoint", small_checkpoint()]
    for number in (signal.SIGINT, signal.SIGTERM):
        # Whoever runs the tests in the background has them ignore SIGINT.
        running = subprocess.Popen(
            command,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        while not (workers := [pid for pid in children.read_text().split() if is_worker(pid)]):
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(number)
        assert running.wait(60) == 130
        # One that was just being started ends by itself when it finds nobody at the other end.
        until = time.monotonic() + 30
        while any(map(is_worker, workers)):
            assert time.monotonic() < until
            time.sleep(0.05)
    assert not list(tmp_path.glob("*/report.json"))


def is_worker(pid):
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
