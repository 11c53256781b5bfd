# SPDX-License-Identifier: Apache-2.0
"""Whatever a program was about when it was killed (-9), all that it has saved can be read."""

from __future__ import annotations

import math
import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import cv2
import pytest
from saving_program import IMAGES, STAGES, save_again_and_again
from small_network import small_checkpoint
from tracked_frames import CONFIG, pipeline

from ttt3r_ros.io import atomic
from ttt3r_ros.io.trajectory import read_tum
from ttt3r_ros.session import load_session, made_for
from ttt3r_ros.viewer.folder import read_results

KILLS = 16
AFTER_S = (1e-5, 0.03)  # a stage has begun


@pytest.fixture(scope="module")
def programs():
    """Processes that begin with everything loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["saving_program"])
    return context


def killed(programs, output: Path, stage: str, after_s: float) -> None:
    """Run the program and kill it after it begins with a stage, once all has been saved."""
    ours, theirs = programs.Pipe()
    program = programs.Process(
        target=save_again_and_again, args=(output, small_checkpoint(), theirs), daemon=True
    )
    program.start()
    theirs.close()
    try:
        while not (output / "session").exists() and ours.recv() != "round":
            pass
        while ours.recv() != stage:
            pass
        time.sleep(after_s)
    finally:
        program.kill()
        program.join()


def assert_all_can_be_read(output: Path) -> Counter[str]:
    """Read each file by what reads it elsewhere; return how many there are of each kind."""
    seen: Counter[str] = Counter()
    visible = [path for path in output.iterdir() if not path.name.startswith(".")]
    for path in visible:
        if path.suffix == ".tum":
            stamps, _ = read_tum(path)
            assert len(stamps) <= IMAGES
        elif path.name == "depth":
            images = [p for p in path.iterdir() if not p.name.startswith(".")]
            for image in images:
                assert cv2.imread(str(image), cv2.IMREAD_UNCHANGED).shape == (96, 128), image
            seen["images"] += len(images)
        elif path.name == "session":
            subject = pipeline()
            owner = made_for(CONFIG, subject.model.image_size)
            session = load_session(path, owner, subject.model.network.initial_state(), 0.05)
            assert len(session.trajectory) == IMAGES
        seen[path.name] += 1
    assert len(read_results(output).points) > 0  # the map
    return seen


def test_every_saved_file_can_be_read_after_a_kill_at_any_moment(programs, tmp_path) -> None:
    moments = random.Random(0)
    for number in range(KILLS):
        after_s = math.exp(moments.uniform(*map(math.log, AFTER_S)))
        killed(programs, tmp_path, STAGES[number % len(STAGES)], after_s)
        seen = assert_all_can_be_read(tmp_path)
        # The final path alone is taken away when a run begins, for it would be another run's.
        assert seen.keys() | {"trajectory.tum"} == {
            *("trajectory.tum", "trajectory_online.tum", "map.ply", "depth", "session", "images")
        }


def test_two_names_are_exchanged_at_once(tmp_path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    assert atomic.exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "other").exists() and (tmp_path / "other" / "one").exists()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        atomic.exchange(tmp_path / "nowhere", tmp_path / "one")


def test_where_names_cannot_be_exchanged_a_session_is_replaced_even_so(
    monkeypatch, tmp_path
) -> None:
    from test_session import OWNER, load, make_session, save_session

    monkeypatch.setattr("ttt3r_ros.session.exchange", lambda one, other: False)
    for count in (3, 1):
        save_session(tmp_path / "s", make_session(count), OWNER)
    assert len(load(tmp_path / "s").keyframes) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
