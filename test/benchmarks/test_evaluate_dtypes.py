# SPDX-License-Identifier: Apache-2.0
"""The tables of lower precision, on random weights and a few images."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from small_network import small_checkpoint, small_network, write_small_checkpoint

from benchmarks import evaluate_dtypes as subject
from benchmarks import harness
from benchmarks.harness import Context
from benchmarks.lower_precision import ALL, rounded
from ttt3r_ros.config import Config
from ttt3r_ros.network.precision import LOWER
from ttt3r_ros.network.prediction import Prediction

CONFIG = Config(checkpoint=small_checkpoint(), device="cpu", process_all_images=True)
SEEDS = [2_400_000, 2_400_001]
MODULES = {  # some of each part's own
    "encoder": ("patch_embed.proj", "enc_blocks.3.mlp.fc2"),
    "decoders": ("decoder_embed", "dec_blocks.0.attn.qkv", "dec_blocks_state.3.mlp.fc2"),
    "memory": (
        "pose_retriever.proj_q",
        "pose_retriever.read_blocks.0.mlp.fc1",
        "pose_retriever.write_blocks.1.mlp.fc2",
    ),
    "heads": ("downstream_head.proj.fc1", "downstream_head.proj.fc2"),
}


@pytest.fixture(scope="module", autouse=True)
def _coarse_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "_SUPERSAMPLING", 1)
        yield


@pytest.fixture(scope="module")
def images():
    return 2 * torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 1


def _options(*dtypes: str, parts: tuple[str, ...] = subject.CHOICES) -> subject.Options:
    return subject.Options(images=3, dtypes=dtypes, parts=parts, intervals=(2, 0))


def _answers(prediction: Prediction) -> list[torch.Tensor]:
    return [prediction.points, prediction.confidence, prediction.pose, prediction.gain]


def test_float32_deviates_from_float32_by_exactly_nothing():
    context = Context(CONFIG, _options("float32"), SEEDS[0], 1)
    found = subject.evaluate_rooms(context, SEEDS[:1])
    compared = [variant for variant in found[0] if variant.part != subject.NOTHING]
    assert len(compared) == len(subject.CHOICES) + 2
    for row in subject.summarize(context, found)["rows"]:
        names = subject.COLUMNS.keys() - {"ate_m", "abs_rel"}
        assert {name: row[name][0] for name in names} == dict.fromkeys(names, 0.0)
        assert row["ate_m"][0] > 0 and row["abs_rel"][0] > 0


@pytest.mark.parametrize("part", subject.CHOICES)
def test_what_is_switched_has_rounded_factors_and_nothing_else_does(images, part):
    exact, network = small_network(), small_network()
    outputs = []
    for one in (exact, network):
        outputs.append({})
        for name in sum(MODULES.values(), ()):
            one.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, name=name, seen=outputs[-1]: seen.__setitem__(
                    name, (module, inputs[0].clone(), output.clone())
                )
            )
    with torch.inference_mode():
        exact.step(exact.initial_state(), images[:1])
        with subject.computing(network, "tf32", part):
            network.step(network.initial_state(), images[:1])
        for name, modules in MODULES.items():
            for module in modules:
                layer, given, output = outputs[1][module]
                with nullcontext() if subject.covers(part, name) else pytest.raises(AssertionError):
                    weight, x = rounded(layer.weight), rounded(given)
                    again = layer._conv_forward if hasattr(layer, "kernel_size") else F.linear
                    torch.testing.assert_close(
                        output, again(x, weight, layer.bias), rtol=1e-6, atol=1e-6
                    )


def test_numbers_are_rounded_to_ten_bits_and_halves_to_even():
    step = 2.0**-10
    x = torch.tensor([1.0, 1 + 0.4 * step, 1 + 0.5 * step, 1 + 1.5 * step, -(1 + 0.6 * step), 0.0])
    expected = torch.tensor([1.0, 1.0, 1.0, 1 + 2 * step, -(1 + step), 0.0])
    assert torch.equal(rounded(x), expected)
    many = torch.randn(1000) * 1e20
    assert ((rounded(many) - many).abs() <= 2.0**-11 * many.abs()).all()


@pytest.mark.parametrize("dtype", LOWER)
@pytest.mark.parametrize("part", subject.CHOICES)
def test_what_is_switched_runs_in_the_dtype_and_nothing_else_does(images, part, dtype):
    network, seen = small_network(), {}
    for name in sum(MODULES.values(), ()):
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.__setitem__(name, output.dtype)
        )
    with torch.inference_mode(), subject.computing(network, dtype, part):
        state, prediction = network.step(network.initial_state(), images[:1])
    assert len(seen) == len(sum(MODULES.values(), ()))
    for name, modules in MODULES.items():
        expected = getattr(torch, dtype) if subject.covers(part, name) else torch.float32
        assert {seen[module] for module in modules} == {expected}, name
    kept = [*_answers(prediction), state.tokens, state.memory]
    assert {tensor.dtype for tensor in kept} == {torch.float32}


def test_all_parts_together_compute_as_the_tracker_does(images):
    network = small_network()
    with torch.inference_mode(), subject.computing(network, "bfloat16", ALL):
        found_state, found = network.step(network.initial_state(batch=4), images)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        state, expected = network.step(network.initial_state(batch=4), images)
    for one, other in zip(_answers(found), _answers(expected), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(found_state.tokens, state.tokens)
    assert torch.equal(found_state.memory, state.memory)


def test_the_network_is_left_as_it_was(images):
    network = small_network()
    own = vars(network).keys() | vars(network.pose_retriever).keys()
    with (
        pytest.raises(ValueError, match="multiples"),
        subject.computing(network, "bfloat16", "all"),
    ):
        network.encode(images[..., 1:])
    assert vars(network).keys() | vars(network.pose_retriever).keys() == own


def test_deviations_are_what_was_moved():
    points = torch.rand(1, 4, 6, 3, generator=torch.Generator().manual_seed(1)) + 1
    pose = torch.eye(4)[None]
    one = Prediction(points, points[..., 0], torch.zeros(1, 7), pose, torch.zeros(1, 2))
    angle = 1e-4
    turned = pose.clone()
    turned[0, :2, :2] = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    turned[0, :3, 3] = torch.tensor([0.03, 0.0, 0.04])
    other = Prediction(1.01 * points, points[..., 0], one.pose, turned, one.gain)
    found = {name: float(value) for name, value in subject.deviations(other, one).items()}
    assert found["position_m"] == pytest.approx(0.05)
    assert found["position_share"] == pytest.approx(0.05 / float(points[..., 2].median()))
    assert found["rotation_deg"] == pytest.approx(math.degrees(angle), rel=1e-3)
    assert found["points"] == pytest.approx(0.01, rel=1e-3)


def test_recorded_resets_and_images_that_change_nothing_are_kept_to(images):
    plain = subject.Variant("float32", subject.NOTHING, 1)
    network, again = small_network(), images[[0, 1, 0, 1]]
    resets, writes = [False, True, False, False], [True, True, False, True]
    found = subject.follow_recorded(network, again, resets, writes, plain)
    assert torch.equal(found[2][0].points, found[0][0].points)  # a first image again
    assert torch.equal(found[2][1].tokens, network.initial_state().tokens)
    assert not torch.equal(found[3][1].tokens, found[1][1].tokens)
    options = _options(*subject.DTYPES, parts=("decoders", "heads", "all"))
    rows = subject.compare_recorded(network, again, resets, writes, options)
    by_case = {(row["dtype"], row["part"]): row for row in rows}
    assert len(by_case) == 9
    for name in ("points", "state", "memory"):  # three bits more
        assert 0 < by_case["tf32", "all"][name] < by_case["bfloat16", "all"][name]
        assert 0 < by_case["float16", "all"][name] < by_case["bfloat16", "all"][name] < 0.1
    for dtype in subject.DTYPES:
        assert by_case[dtype, "heads"]["state"] == 0 < by_case[dtype, "decoders"]["state"]


def test_the_command_prints_tables_and_writes_every_number(tmp_path, capsys):
    checkpoint = write_small_checkpoint(tmp_path / "small.safetensors", segment__reset_interval=2)
    file = tmp_path / "numbers.json"
    words = ["--checkpoint", str(checkpoint), "--rooms", "3", "--batch", "2", "--images", "2"]
    words += ["--first-seed", str(SEEDS[0]), "--dtypes", "bfloat16", "--parts", "memory", "all"]
    harness.run(subject.PROGRAM, [*words, "--golden", "--json", str(file)])
    text, numbers = capsys.readouterr().out, json.loads(file.read_text())
    cases = [("float32", "-", 2), ("bfloat16", "memory", 2), ("bfloat16", "all", 2)]
    cases += [("float32", "-", 0), ("bfloat16", "all", 0)]
    for rows in (numbers["rows"], numbers["by_room"]):
        assert [(row["dtype"], row["part"], row["interval"]) for row in rows] == cases
    for row, room in zip(numbers["rows"], numbers["by_room"], strict=True):
        assert row.keys() == {*subject.Variant._fields, *subject.COLUMNS}
        assert len(room["rooms"]) == 3
        depth = 100 * row["depth"][0]
        assert f"| {depth:.3f} ± " in text and (depth > 0) == (row["part"] in ("all", "memory"))
    assert numbers["golden"] == [] and f"commit {numbers['commit']}" in text
    assert {"checkpoint", "hardware", "versions", "date", "plan", "rooms"} <= numbers.keys()
