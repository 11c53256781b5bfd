# SPDX-License-Identifier: Apache-2.0
"""Recorded steps against the steps themselves.

A stand-in for CUDA graphs records here: like those it only ever works on the places in memory
that were there when it was recorded. The graphs themselves need a GPU.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from ttt3r_ros.network.model import Network
from ttt3r_ros.network.recorded import RecordedNetwork, RecordingError
from ttt3r_ros.network.shapes_only import shapes_only
from ttt3r_ros.network.state import UPDATE_RULES


class Recorder:
    """Records a function by keeping it; a replay overwrites the outputs where they are."""

    def __init__(self) -> None:
        self.replays = 0

    def __call__(self, run):
        outputs = {name: tensor.clone() for name, tensor in run().items()}

        def replay() -> None:
            self.replays += 1
            for name, tensor in run().items():
                outputs[name].copy_(tensor)

        return outputs, replay


@pytest.fixture
def recorder():
    return Recorder()


def equal(got, expected):
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=0, msg=name)
    assert got.keys() == expected.keys()


def prediction_tensors(seen):
    names = ("points", "confidence", "pose", "pose_matrix", "gain")
    return {name: getattr(seen, name) for name in names}


@pytest.mark.parametrize("rule", UPDATE_RULES)
@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_a_stream_is_the_same_with_resets_and_looks_that_are_not_remembered(
    build, images, recorder, rule, head
):
    network = build({"patch_size": 16, "head_type": head}, update_rule=rule)
    images = torch.nn.functional.interpolate(images.flatten(0, 1), (32, 48))[:, None]
    fast = RecordedNetwork(network, strict=True, record=recorder)
    steps = [(0, True), (1, True), (2, False), (3, True), (None, True), (1, True), (2, True)]
    results = []
    with torch.inference_mode():
        for stepped in (network, fast):
            state, found = network.initial_state(), []
            for index, update in steps:
                if index is None:
                    state = network.initial_state()
                    continue
                features = stepped.encode(images[index])
                state, seen = stepped.advance(state, features, update)
                found.append(
                    {"features": features, **state.to_tensors(), **prediction_tensors(seen)}
                )
            results.append(found)
    # Compared at the end: what was returned before must not have been overwritten since.
    for got, expected in zip(results[1], results[0], strict=True):
        equal(got, expected)
    assert recorder.replays == 2 * 6 + 3  # each of the three recordings was compared once


def test_another_image_size_is_recorded_too_and_the_first_one_still_there(build, recorder):
    network = build()
    fast = RecordedNetwork(network, strict=True, record=recorder)
    sizes = [(24, 32), (32, 32), (24, 32)]
    with torch.inference_mode():
        for size in sizes:
            image = torch.rand(1, 3, *size)
            torch.testing.assert_close(fast.encode(image), network.encode(image), rtol=0, atol=0)
    assert recorder.replays == 3 + 2


def test_several_streams_are_stepped_as_they_are(build, recorder, images):
    network = build()
    fast = RecordedNetwork(network, strict=True, record=recorder)
    with torch.inference_mode():
        state, features = network.initial_state(2), network.encode(images[:2, 0])
        fast.advance(state, features)
    assert recorder.replays == 0


def test_what_was_recorded_first_goes_when_there_are_too_many(build, recorder):
    fast = RecordedNetwork(build(), strict=True, record=recorder)
    with torch.inference_mode():
        for columns in range(1, 20):
            fast.encode(torch.rand(1, 3, 8, 8 * columns))
            fast.encode(torch.rand(1, 3, 8, 8))  # is in use all the time
        columns_kept = {shape[3] // 8 for _, (_, shape, _) in fast._recorded}
        assert columns_kept == {1, *range(13, 20)}


def broken(run):
    outputs, _ = Recorder()(run)
    return outputs, lambda: outputs["features"].add_(1)


def idle(run):
    outputs, _ = Recorder()(run)
    return outputs, lambda: None


@pytest.mark.parametrize("record", [broken, idle])
def test_a_replay_that_gives_something_else_is_an_error(build, images, record):
    fast = RecordedNetwork(build(), strict=True, record=record)
    with torch.inference_mode(), pytest.raises(RecordingError, match="another features"):
        fast.encode(images[0])


def test_if_it_need_not_be_recorded_one_warning_is_all_that_a_failure_costs(build, images, caplog):
    network = build()
    fast = RecordedNetwork(network, strict=False, record=broken)
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        for image in images:
            got = fast.encode(image)
            torch.testing.assert_close(got, network.encode(image), rtol=0, atol=0)
    assert len(caplog.records) == 1 and "not recorded as CUDA graphs" in caplog.text


def test_memory_that_only_recordings_lack_ends_them_alone(build, images):
    def record(run):
        raise torch.OutOfMemoryError("no memory left")

    network = build()
    fast = RecordedNetwork(network, strict=False, record=record)
    expected = network.encode(images[0])
    torch.testing.assert_close(fast.encode(images[0]), expected)
    strict = RecordedNetwork(network, strict=True, record=record)
    with pytest.raises(torch.OutOfMemoryError):
        strict.encode(images[0])


@pytest.mark.parametrize("head", ["dpt", "linear"])
@pytest.mark.parametrize(
    ("rule", "dtype"), [*((rule, "bfloat16") for rule in UPDATE_RULES), ("ttt3r", "float32")]
)
def test_no_step_asks_for_values_or_mixes_its_device_with_the_host(
    tiny_config, monkeypatch, rule, head, dtype
):
    # Tensors on the meta device have no values, so whatever asks for one fails, and so does what
    # combines them with those of a CPU.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    config = tiny_config(patch_size=16, head_type=head)
    if head == "linear":
        config = replace(config, refiner_width=8)
    with shapes_only():
        network = Network(config, update_rule=rule, rope_float16=True, world_points_head=True)
    network.keep_weights_in(getattr(torch, dtype))
    image = torch.empty(1, 3, 32, 48, device="meta")
    with torch.no_grad():
        state = network.initial_state()
        for update in (True, True, False):
            state, seen = network.step(state, image, update)
    assert seen.points.device.type == state.tokens.device.type == "meta"
    assert seen.points.shape == (1, 32, 48, 3)
