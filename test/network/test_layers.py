# SPDX-License-Identifier: Apache-2.0
"""Fast blocks against slow plain twins."""

from __future__ import annotations

import math

import pytest
import torch

from ttt3r_ros.network.decoder import mean_logit
from ttt3r_ros.network.dpt import FusionBlock, upsample
from ttt3r_ros.network.encoder import PatchEmbed
from ttt3r_ros.network.layers import CrossAttention, SelfAttention, layer_norm
from ttt3r_ros.network.rotary import (
    grid_positions,
    image_table,
    rotary_table,
    rotate,
    state_positions,
)

CPU = torch.device("cpu")
BASE = 100.0


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def table_at(positions: list[tuple[int, int]], head_width: int):
    return rotary_table(torch.tensor(positions, dtype=torch.float64), head_width, BASE)


def plain_rotate(vector: list[float], row: int, column: int) -> list[float]:
    quarter = len(vector) // 4
    out = list(vector)
    for half, position in ((0, row), (2 * quarter, column)):
        for i in range(quarter):
            angle = position * BASE ** (-i / quarter)
            u, v = vector[half + i], vector[half + i + quarter]
            out[half + i] = u * math.cos(angle) - v * math.sin(angle)
            out[half + i + quarter] = v * math.cos(angle) + u * math.sin(angle)
    return out


def plain_attention(queries, keys, values):
    """All [tokens, heads, d], one head and one query at a time."""
    out = torch.empty_like(queries)
    for head in range(queries.shape[1]):
        for token in range(queries.shape[0]):
            logits = keys[:, head] @ queries[token, head] / math.sqrt(queries.shape[2])
            out[token, head] = torch.softmax(logits, 0) @ values[:, head]
    return out.flatten(1)


def test_rotation_turns_pairs_a_quarter_apart_first_by_row_then_by_column():
    positions = [(0, 0), (3, 1), (-1, -1), (2, 27)]
    x = torch.randn(1, 4, 2, 12, dtype=torch.float64)
    rotated = rotate(x, table_at(positions, 12))
    for token, (row, column) in enumerate(positions):
        for head in range(2):
            expected = plain_rotate(x[0, token, head].tolist(), row, column)
            torch.testing.assert_close(rotated[0, token, head].tolist(), expected)


def test_position_minus_one_is_a_true_rotation():
    x = torch.randn(1, 1, 3, 16, dtype=torch.float64)
    forth = rotate(x, table_at([(1, 1)], 16))
    torch.testing.assert_close(rotate(forth, table_at([(-1, -1)], 16)), x)
    assert (rotate(x, table_at([(-1, -1)], 16)) - x).abs().max() > 0.1


def test_the_pose_token_comes_before_the_grid_at_minus_one():
    table = image_table(2, 3, True, 16, BASE, CPU, torch.float64)
    grid = [(r, c) for r in range(2) for c in range(3)]
    expected = table_at([(-1, -1), *grid], 16)
    torch.testing.assert_close(table.cos, expected.cos)
    torch.testing.assert_close(table.sin, expected.sin)


def test_logits_depend_on_relative_positions_only():
    queries, keys = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64)
    near = rotate(queries, table_at([(2, 5)], 16)) * rotate(keys, table_at([(1, 3)], 16))
    far = rotate(queries, table_at([(9, 4)], 16)) * rotate(keys, table_at([(8, 2)], 16))
    torch.testing.assert_close(near.sum(), far.sum())


@pytest.mark.parametrize(("count", "width"), [(768, 28), (30, 6), (24, 4), (10, 4), (16, 4)])
def test_the_state_grid_is_as_wide_as_the_root_made_even(count, width):
    positions = state_positions(count, "2d", CPU)
    expected = [[i // width, i % width] for i in range(count)]
    assert positions.tolist() == expected


def test_one_dimensional_and_absent_state_positions():
    assert state_positions(3, "1d", CPU).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert state_positions(3, "none", CPU).tolist() == [[0, 0], [0, 0], [0, 0]]


def test_self_attention_equals_its_plain_twin():
    width, heads = 24, 2
    layer = SelfAttention(width, heads).double()
    x = torch.randn(1, 7, width, dtype=torch.float64)
    table = rotary_table(grid_positions(1, 7, CPU), width // heads, BASE)

    parts = x @ layer.qkv.weight.T + layer.qkv.bias
    queries, keys, values = parts.split(width, dim=-1)  # rows of qkv: queries, keys, values
    queries, keys = (rotate(t.view(1, 7, heads, -1), table)[0] for t in (queries, keys))
    mixed = plain_attention(queries, keys, values.view(7, heads, -1))
    expected = mixed @ layer.proj.weight.T + layer.proj.bias
    torch.testing.assert_close(layer(x, table)[0], expected)


def test_cross_attention_equals_its_plain_twin_and_hands_out_its_queries_and_keys():
    width, heads = 24, 3
    layer = CrossAttention(width, heads).double()
    x, y = torch.randn(1, 4, width).double(), torch.randn(1, 6, width).double()
    table_x = rotary_table(grid_positions(2, 2, CPU), width // heads, BASE)
    table_y = rotary_table(grid_positions(2, 3, CPU), width // heads, BASE)

    expected_queries = rotate(layer.projq(x).view(1, 4, heads, -1), table_x)
    expected_keys = rotate(layer.projk(y).view(1, 6, heads, -1), table_y)
    values = layer.projv(y).view(6, heads, -1)
    expected = layer.proj(plain_attention(expected_queries[0], expected_keys[0], values))
    out, queries, keys = layer(x, y, table_x, table_y)
    torch.testing.assert_close(out[0], expected)
    torch.testing.assert_close(queries, expected_queries)
    torch.testing.assert_close(keys, expected_keys)


def test_the_mean_logit_is_the_mean_of_all_logits():
    queries, keys = torch.randn(2, 5, 3, 8).double(), torch.randn(2, 9, 3, 8).double()
    logits = torch.einsum("bmhd,bnhd->bhmn", queries, keys) / math.sqrt(8)
    torch.testing.assert_close(mean_logit(queries, keys), logits.mean(dim=(1, 3)))


def test_half_rotary_rounds_queries_and_keys_before_and_after():
    plain, rounded = SelfAttention(16, 2), SelfAttention(16, 2, rope_float16=True)
    rounded.load_state_dict(plain.state_dict())
    x = torch.randn(1, 6, 16)
    table = image_table(2, 3, False, 8, BASE, CPU, torch.float32)
    queries, keys, values = plain.qkv(x)[0].view(6, 3, 2, 8).unbind(1)
    queries, keys = (rotate(t[None].half(), table).half().float()[0] for t in (queries, keys))
    expected = plain.proj(plain_attention(queries, keys, values))
    torch.testing.assert_close(rounded(x, table)[0], expected)
    assert 0 < (rounded(x, table) - plain(x, table)).abs().max() < 1e-2


def test_normalisation_divides_by_the_biased_deviation_with_eps_one_millionth():
    x = 1e-3 * torch.randn(3, 8, dtype=torch.float64)
    expected = (x - x.mean(-1, keepdim=True)) / (x.var(-1, False, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(layer_norm(8).double()(x), expected)


def test_a_token_is_the_projection_of_its_own_patch():
    embed = PatchEmbed(4, 10)
    image = torch.randn(1, 3, 8, 12)
    patch = image[0, :, 4:8, 8:12]
    expected = embed.proj.weight.flatten(1) @ patch.flatten() + embed.proj.bias
    torch.testing.assert_close(embed(image)[0, 1, 2], expected)


def test_projecting_before_upsampling_equals_projecting_after():
    block = FusionBlock(merges=True)
    x, finer = torch.randn(2, 1, 256, 3, 4)
    plain = block.out_conv(upsample(block.resConfUnit2(x + block.resConfUnit1(finer))))
    torch.testing.assert_close(block(x, finer), plain)
