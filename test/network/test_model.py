# SPDX-License-Identifier: Apache-2.0
"""The recurrence: what a step changes, what it leaves, and what it needs."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest
import torch
from places import GOLDEN

from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.shapes_only import shapes_only
from ttt3r_ros.network.state import RecurrentState


@pytest.fixture(autouse=True)
def _inference():
    with torch.no_grad():
        yield


def run(network: Network, images, state: RecurrentState | None = None):
    state = network.initial_state() if state is None else state
    for image in images:
        state, prediction = network.step(state, image)
    return state, prediction


def tensors_of(result) -> dict[str, torch.Tensor]:
    """Every tensor of a prediction or state, by name."""
    if isinstance(result, RecurrentState):
        return result.to_tensors()
    named = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def assert_same(left, right, **options) -> None:
    left, right = tensors_of(left), tensors_of(right)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(
            tensor, right[name], **options, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_prediction_has_the_promised_shapes(build, images):
    _, prediction = run(build(world_points_head=True), images[:1])
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors_of(prediction).items()}
    assert shapes == {
        "points": (1, 24, 32, 3),
        "confidence": (1, 24, 32),
        "pose": (1, 7),
        "pose_matrix": (1, 4, 4),
        "gain": (1, 10),
        "points_in_world": (1, 24, 32, 3),
        "confidence_in_world": (1, 24, 32),
    }


def test_a_view_after_a_reset_equals_a_first_view(build, images):
    network = build()
    first = network.step(network.initial_state(), images[2])
    run(network, images)
    again = network.step(network.initial_state(), images[2])
    assert_same(first[0], again[0], rtol=0, atol=0)
    assert_same(first[1], again[1], rtol=0, atol=0)


def test_the_shared_image_of_a_reset_needs_no_heads_and_no_second_encoding(build, images):
    network = build()
    features = network.encode(images[0])
    state, prediction = network.advance(network.initial_state(), features, heads=False)
    assert prediction is None
    assert_same(state, network.step(network.initial_state(), images[0])[0], rtol=0, atol=0)


def test_a_step_leaves_the_state_it_was_given_untouched(build, images):
    network = build()
    state, _ = run(network, images[:2])
    before = state.clone()
    network.step(state, images[2])
    assert_same(state, before, rtol=0, atol=0)


def test_writing_into_an_initial_state_leaves_the_weights_untouched(build):
    network = build()
    memory = network.pose_retriever.mem.clone()
    network.initial_state().memory.zero_()
    assert torch.equal(network.pose_retriever.mem, memory)


def test_looking_without_remembering_changes_neither_tokens_nor_memory(build, images):
    network = build()
    state, _ = run(network, images[:2])
    later, prediction = network.step(state, images[2], update=False)
    assert_same(later, state, rtol=0, atol=0)
    assert torch.equal(prediction.gain, torch.zeros(1, 10))
    _, remembered = network.step(state, images[2])
    assert torch.equal(prediction.points, remembered.points)


def test_after_a_first_view_without_remembering_the_next_is_not_first(build, images):
    network = build()
    start = network.initial_state()
    state, _ = network.step(start, images[0], update=False)
    assert torch.equal(state.tokens, start.tokens)
    assert torch.equal(state.memory, start.memory)
    assert not state.fresh.any()
    _, second = network.step(state, images[1])
    _, first = network.step(start, images[1])
    assert torch.equal(first.gain, torch.ones(1, 10))
    assert (second.gain < 1).all()
    assert not torch.equal(first.pose, second.pose)


@pytest.mark.parametrize("rope_float16", [False, True])
def test_streams_of_a_batch_equal_single_streams_fresh_or_not(build, images, rope_float16):
    network = build(rope_float16=rope_float16, world_points_head=True)
    old, _ = run(network, images[:2])
    new = network.initial_state()
    both = RecurrentState.from_tensors(
        {name: torch.cat((t, new.to_tensors()[name])) for name, t in old.to_tensors().items()}
    )
    assert both.fresh.tolist() == [False, True]
    batch_state, batch_prediction = network.step(both, torch.cat((images[2], images[3])))
    for index, (state, image) in enumerate(((old, images[2]), (new, images[3]))):
        single_state, single_prediction = network.step(state, image)
        for single, batch in (
            (single_state, batch_state),
            (single_prediction, batch_prediction),
        ):
            for name, tensor in tensors_of(single).items():
                torch.testing.assert_close(
                    tensors_of(batch)[name][index : index + 1], tensor, rtol=1e-4, atol=1e-4
                )


def test_an_initial_state_for_many_streams_repeats_the_one(build):
    network = build()
    one, three = network.initial_state(), network.initial_state(3)
    for name, tensor in three.to_tensors().items():
        assert torch.equal(tensor, one.to_tensors()[name].expand_as(tensor)), name


@pytest.mark.parametrize("rule", ["cut3r", "ttt3r"])
def test_double_precision_agrees(build, images, rule):
    single = run(build(update_rule=rule, world_points_head=True), images)
    double = run(build(update_rule=rule, world_points_head=True).double(), images.double())
    for low, high in zip(single, double, strict=True):
        assert_same(low, high, rtol=2e-4, atol=2e-4, check_dtype=False)


@pytest.mark.parametrize("kind", ["1d", "none"])
def test_state_positions_matter(build, images, kind):
    state, _ = run(build(), images[:1])
    other, _ = run(build({"state_pe": kind}), images[:1])
    assert not torch.allclose(state.tokens, other.tokens, atol=1e-2)


def test_an_image_of_another_size_continues_the_stream(build, images):
    network = build()
    state, _ = run(network, images[:1])
    state, prediction = network.step(state, images[1][..., :16, :24])
    assert prediction.points.shape == (1, 16, 24, 3)
    assert state.tokens.shape == (1, 10, 32)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 3, 24, 30), "multiples of 8, got 24 x 30"),
        (torch.zeros(1, 3, 0, 32), "multiples of 8, got 0 x 32"),
        (torch.zeros(3, 24, 32), r"expected float \[B, 3, H, W\], got torch.float32 \[3, 24, 32\]"),
        (torch.zeros(1, 4, 24, 32), r"expected float \[B, 3, H, W\]"),
        (torch.zeros(1, 3, 24, 32, dtype=torch.uint8), "expected float .* got torch.uint8"),
    ],
)
def test_an_unfit_image_is_refused(build, image, message):
    with pytest.raises(ValueError, match=message):
        build().encode(image)


def test_a_state_that_does_not_fit_is_refused(build, images):
    network = build()
    features = network.encode(images[0])
    other = build({"state_size": 9}).initial_state()
    with pytest.raises(ValueError, match=r"state.tokens: expected \[1, 10, 32\], got \[1, 9, 32\]"):
        network.advance(other, features)
    other = build({"local_mem_size": 5}).initial_state()
    with pytest.raises(ValueError, match=r"state.memory: expected \[1, 6, 64\], got \[1, 5, 64\]"):
        network.advance(other, features)
    with pytest.raises(ValueError, match=r"features: expected \[2, rows, columns, 32\]"):
        network.advance(network.initial_state(2), features)


def test_an_unknown_rule_is_refused_at_construction():
    with pytest.raises(ValueError, match="update_rule: must be one of"):
        Network(NetworkConfig(32, 1, 2, 64, 1, 2), update_rule="none")


@pytest.mark.parametrize("config", [{}, {"head_type": "dpt", "patch_size": 16}])
def test_every_parameter_built_serves_a_step(build, images, config):
    network = build(config, world_points_head=True)
    with torch.enable_grad():
        state, first = network.step(network.initial_state(), images[0][..., :16, :32])
        _, second = network.step(state, images[1][..., :16, :32])
        outputs = [first.pose, first.points, *tensors_of(second).values()]
        sum(tensor.sum() for tensor in outputs).backward()
    unused = [name for name, p in network.named_parameters() if p.grad is None]
    assert unused == []
    broken = [name for name, p in network.named_parameters() if not p.grad.isfinite().all()]
    assert broken == []


def test_tables_made_in_inference_serve_training(build, images):
    network = build({"rope_base": 99.0})  # no other test has made these tables
    with torch.inference_mode():
        run(network, images[:1])
    with torch.enable_grad():
        _, prediction = network.step(network.initial_state(), images[0])
        prediction.points.sum().backward()
    assert network.patch_embed.proj.weight.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["A_dpt_landscape", "B_linear", "C_ttt3r_reset"])
def test_parameters_bear_the_names_and_shapes_of_the_official_format(check_parity, name):
    described = json.loads((GOLDEN / name / "set.json").read_text())
    official = {key: tuple(shape) for key, shape in described["manifest"].items()}
    first = official["decoder_embed.weight"]
    depth = len({key.split(".")[1] for key in official if key.startswith("dec_blocks.")})
    config = NetworkConfig(
        enc_embed_dim=first[1],
        enc_depth=len({key.split(".")[1] for key in official if key.startswith("enc_blocks.")}),
        enc_num_heads=2,
        dec_embed_dim=first[0],
        dec_depth=depth,
        dec_num_heads=2,
        state_dec_num_heads=2,
        state_size=official["register_tokens.weight"][0],
        local_mem_size=official["pose_retriever.mem"][1],
        head_type="linear" if "downstream_head.proj.fc1.weight" in official else "dpt",
    )
    with shapes_only():
        network = Network(config, world_points_head=True)
    built = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert built == {key: official[key] for key in built if key in official}
    # Other inputs and outputs; names that repeat a tensor; tensors without effect.
    left_out = re.compile(
        r"_ray_map|masked_img_token|dpt_rgb|rgb_proj|scratch\.layer_rn\.|resConfUnit1"
        r"|write_blocks\.\d\.(norm2|cross_attn\.proj[qk])\."
    )
    assert [key for key in official.keys() - built if not left_out.search(key)] == []


def test_heads_for_the_other_view_are_built_on_demand_only(build):
    names = build().state_dict().keys()
    assert build(world_points_head=True).state_dict().keys() - names
    assert not [name for name in names if "final_transform" in name or "cross_proj" in name]
