# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle
import re
from dataclasses import replace

import pytest
from places import ROOT

from ttt3r_ros.config import TrackingConfig
from ttt3r_ros.tracking.monitor import Monitor
from ttt3r_ros.tracking.signals import Signals
from ttt3r_ros.types import TrackingState

FIRST = Signals(confidence=2.0, contrast=30.0, detail=(0.5, 0.4))
GOOD = replace(
    FIRST,
    dt_s=0.1,
    similarity=0.95,
    disagreement=0.02,
    share_seen=0.97,
    translation_jump=0.005,
    rotation_jump_rad=0.005,
)
COVERED = replace(FIRST, confidence=1.1, contrast=0.3, dt_s=0.1, similarity=0.1)
ODD = {
    "confidence": 1.1,
    "detail": (0.5, 0.1),
    "similarity": 0.65,
    "disagreement": 0.3,
    "share_seen": 0.1,
    "translation_jump": 0.2,
    "rotation_jump_rad": 0.2,
}


def odd(*names, **values):
    return replace(GOOD, **{name: ODD[name] for name in names}, **values)


def states(monitor, *signals):
    """Judge and return the initials: I, T, U, L."""
    return "".join(monitor.judge(some).name[0] for some in signals)


def tracking(images=20, **limits):
    monitor = Monitor(TrackingConfig(**limits))
    assert states(monitor, FIRST, *[GOOD] * (images - 1)) == "I" + "T" * (images - 1)
    return monitor


def test_the_states_are_those_of_the_message():
    text = (ROOT / "msg" / "TrackingStatus.msg").read_text("utf-8")
    constants = dict(re.findall(r"^uint8 ([A-Z]+) = (\d)", text, re.MULTILINE))
    assert {state.name: str(state.value) for state in TrackingState} == constants


@pytest.mark.parametrize("name", ODD)
def test_one_odd_signal_is_uncertain_until_two_images_are_good(name):
    monitor = tracking()
    assert states(monitor, odd(name)) == "U" and name in monitor.reason
    assert states(monitor, GOOD, GOOD) == "UT" and monitor.reason == ""


@pytest.mark.parametrize("name", ["confidence", "detail", "disagreement", "rotation_jump_rad"])
def test_what_is_usual_is_not_known_before_some_images(name):
    monitor = Monitor()
    assert states(monitor, FIRST, odd(name), odd(name)) == "ITT"


@pytest.mark.parametrize("broken", [{"contrast": 1.0}, {"similarity": 0.3}])
@pytest.mark.parametrize("images", [1, 2, 20])
def test_a_picture_that_is_empty_or_of_another_place_is_lost_at_once(broken, images):
    monitor = tracking(images)
    assert states(monitor, replace(GOOD, **broken)) == "L"
    assert next(iter(broken)) in monitor.reason


def test_a_stream_that_begins_in_the_dark_is_lost_until_there_is_a_picture():
    assert states(Monitor(), COVERED, COVERED, FIRST, GOOD) == "LLIT"


def test_three_odd_signals_at_once_are_lost_and_two_are_in_two_images_in_a_row():
    pair, three = ("confidence", "disagreement"), ("detail", "disagreement", "rotation_jump_rad")
    assert states(tracking(), odd(*three)) == "L"
    assert states(tracking(), odd(*pair), GOOD, odd(*pair), odd(*pair)) == "UUUL"


def test_a_lens_covered_for_a_minute_is_lost_once_and_leaves_no_trace():
    monitor = tracking()
    assert states(monitor, *[COVERED] * 600) == "L" * 600
    unlike = replace(FIRST, dt_s=0.1, similarity=0.1)  # the first picture after the hand
    assert states(monitor, unlike, replace(FIRST, dt_s=0.1, similarity=0.9), GOOD) == "LIT"
    assert states(monitor, odd("confidence")) == "U"


def test_a_camera_carried_away_is_lost_for_one_image():
    monitor = tracking()
    there = replace(FIRST, dt_s=0.1, similarity=0.9, detail=(0.1, 0.1))  # a smoother place
    assert states(monitor, odd("rotation_jump_rad", similarity=0.2), there, there) == "LIT"


def test_a_blur_that_begins_with_a_jolt_is_lost_until_it_ends():
    monitor = tracking()
    assert states(monitor, odd("detail", similarity=0.5), odd("detail"), odd("detail")) == "LLL"
    assert states(monitor, GOOD, GOOD) == "IT"


def test_a_lost_camera_waits_for_a_good_image_but_not_for_ever():
    monitor = tracking(patience=7)
    dim = replace(GOOD, confidence=1.2)
    assert states(monitor, odd("confidence", "disagreement", "detail")) == "L"
    assert states(monitor, *[dim] * 7) == "L" * 7
    assert states(monitor, dim, dim, dim, odd("disagreement")) == "IUTU"


def test_noise_is_never_what_is_usual():
    noise = replace(GOOD, confidence=1.2, similarity=0.1)
    assert states(tracking(patience=7), *[noise] * 100) == "L" * 100


@pytest.mark.parametrize("name", ["confidence", "detail", "disagreement", "rotation_jump_rad"])
def test_one_odd_signal_that_lasts_is_never_lost_and_becomes_usual(name):
    monitor = tracking(100)
    found = states(monitor, *[odd(name)] * 40)
    assert re.fullmatch("U{5,27}T+", found)


def test_jumps_are_measured_by_those_of_the_stream_and_small_ones_are_never_odd():
    rough = replace(GOOD, rotation_jump_rad=0.05)
    assert states(tracking(), rough) == "U"
    monitor = Monitor()
    states(monitor, *[rough] * 20)
    assert states(monitor, replace(GOOD, rotation_jump_rad=0.15)) == "T"
    monitor = Monitor()
    states(monitor, *[replace(GOOD, rotation_jump_rad=0.0)] * 20)  # at rest
    assert states(monitor, replace(GOOD, rotation_jump_rad=0.03)) == "T"


def test_pictures_far_apart_in_time_may_differ():
    monitor = tracking()
    assert states(monitor, replace(GOOD, similarity=0.3, dt_s=0.5)) == "T"


def test_a_hanging_camera_is_uncertain_and_one_doubled_picture_is_not():
    frozen = replace(GOOD, repeated=True, similarity=1.0)
    assert states(tracking(), frozen, GOOD, frozen, GOOD) == "TTTT"
    monitor = tracking()
    assert states(monitor, *[frozen] * 25) == "T" + "U" * 24
    assert states(monitor, GOOD, GOOD, odd("confidence")) == "UTU"
    assert states(tracking(odd_repeats=0), *[frozen] * 20) == "T" * 20


def test_a_robot_at_rest_in_a_world_without_noise_is_tracked_again():
    still = replace(GOOD, repeated=True, similarity=1.0)
    assert states(tracking(patience=10), *[still] * 200) == "T" + "U" * 10 + "T" * 189


def test_a_new_segment_begins_with_an_image_that_is_initializing():
    monitor = tracking()
    monitor.new_segment()
    assert states(monitor, FIRST, GOOD, odd("confidence")) == "ITU"


def test_after_a_reset_everything_is_as_at_first():
    signals = [FIRST, *[GOOD] * 9, odd("detail"), COVERED, COVERED, GOOD, odd("confidence"), GOOD]
    monitor = Monitor()
    first = states(monitor, *signals)
    monitor.reset()
    assert states(monitor, *signals) == first


def test_memory_does_not_grow():
    monitor = tracking(100)
    before = len(pickle.dumps(monitor))
    states(monitor, *[GOOD] * 1000, *[COVERED] * 1000, *[GOOD] * 1000)
    assert len(pickle.dumps(monitor)) == pytest.approx(before, abs=50)
