# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of the step: the yardstick computes what we compute, and what is counted."""

from __future__ import annotations

import json
import subprocess
from dataclasses import fields
from functools import partial

import pytest
import torch
from torch import nn

from benchmarks import bench_baseline, bench_step, timing
from benchmarks.bench_baseline import AsShipped, Extras, attend_with_map
from benchmarks.networks import SIZES
from ttt3r_ros.network.layers import attend
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.shapes_only import shapes_only

CPU = torch.device("cpu")
TINY = ("tiny-dpt", "tiny-linear")


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def strong(network, factor=2.0):
    """The same network with larger weights, so that attention and gain differ by token."""
    for parameter in network.parameters():
        if parameter.ndim == 2:
            parameter.data *= factor
    return network


def pair(size, extras):
    torch.manual_seed(0)
    config = SIZES[size].config
    ours, (shipped,) = bench_step.ours_and_with(config, [extras], CPU)
    strong(shipped)  # ours has the same weights
    return (bench_baseline.Contestant(n, CPU) for n in (ours, shipped))


def results(contestant):
    """What our step gives: prediction and state."""
    seen = contestant.seen
    given = [getattr(seen, field.name) for field in fields(seen) if "world" not in field.name]
    return [*given, contestant.state.tokens, contestant.state.memory]


def difference(a, b):
    """The greatest difference of results and states, relative to 1 + what it is about."""
    pairs = zip(results(a), results(b), strict=True)
    return max(float(((x - y).abs() / (1 + y.abs())).max()) for x, y in pairs)


@pytest.mark.parametrize("size", TINY)
def test_the_yardstick_gives_the_same_results_and_states(size):
    ours, shipped = pair(size, Extras.all())
    for _ in range(4):
        image = SIZES[size].image()
        ours.take(image)
        shipped.take(image)
        assert difference(ours, shipped) < 1e-5
    assert ours.seen.gain.std() > 0.01  # so it is no constant that agrees
    assert ours.state.tokens.std() > 0.1 and ours.seen.points.std() > 0.01
    assert shipped.seen.points_in_world.shape == ours.seen.points.shape
    assert shipped._stepped.rgb.shape == ours.seen.points.shape
    assert shipped._stepped.rgb.abs().max() <= 1


@pytest.mark.parametrize("size", TINY)
@pytest.mark.parametrize("name", Extras.names())
def test_each_extra_work_alone_changes_no_result(size, name):
    ours, other = pair(size, Extras(**{name: True}))
    for _ in range(2):
        image = SIZES[size].image()
        ours.take(image)
        other.take(image)
    assert difference(ours, other) < 1e-5


def test_a_difference_is_found():
    ours, other = pair("tiny-linear", Extras())
    ours.take(image := SIZES["tiny-linear"].image())
    other.take(-image)
    assert difference(ours, other) > 0.01


def test_attention_with_its_map_is_attention_and_the_map_holds_the_logits():
    q, k, v = torch.randn(3, 2, 5, 3, 8).unbind()
    read, logits = attend_with_map(q, k, v)
    torch.testing.assert_close(read, attend(q, k, v))
    torch.testing.assert_close(logits[1, 2, 3, 4], q[1, 3, 2] @ k[1, 4, 2] / 8**0.5)


def test_the_yardstick_is_the_published_files_size():
    # Parameters of the two files, of which two masked tokens of the ray maps' encoder are not here.
    for size, published in (("512x384", 793_307_858), ("224x224", 748_443_655)):
        with shapes_only():
            shipped = AsShipped(SIZES[size].config, Extras.all())
        assert sum(p.numel() for p in shipped.parameters()) == published - 2 * 1024


def test_extra_work_is_work():
    with shapes_only():
        network = AsShipped(SIZES["tiny-dpt"].config, Extras.all())
    assert type(network.decoder_embed) is nn.Linear
    ours, others = bench_step.ours_and_with(
        SIZES["tiny-dpt"].config, [Extras(rgb_head=True), Extras.all()], CPU
    )
    assert type(ours) is Network
    image = SIZES["tiny-dpt"].image()
    counts = []
    with torch.inference_mode():
        for one in (ours, *others):
            counts.append(timing.operations(partial(one.step, one.initial_state(), image)))
    assert counts[0] < counts[1] < counts[2]


def test_operations_are_those_of_the_shapes():
    linear = SIZES["tiny-linear"].config
    ours, _ = bench_step.ours_and_with(linear, [], CPU)
    tokens, width = 6, 32
    of_block = 2 * 12 * width**2 * tokens + 4 * tokens**2 * width
    embedding = 2 * tokens * width * 3 * 16**2
    with torch.inference_mode():
        got = timing.operations(lambda: ours.encode(SIZES["tiny-linear"].image()))
    assert got == embedding + 2 * of_block


def test_least_bytes_are_weights_once_and_the_state_twice():
    weight = nn.Parameter(torch.zeros(3, 5))
    row = bench_step.Row(int, (nn.Linear(2, 3), weight), (torch.zeros(7),))
    assert row.least_bytes() == 4 * (2 * 3 + 3 + 3 * 5) + 2 * 4 * 7


def test_bench_baseline_prints_one_json_object(capfd, monkeypatch, program):
    # test_bench_all has it start processes as it does otherwise.
    start = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda words, **more: start(program(*words[1:]), **more))
    bench_baseline.main(["--size", "tiny-linear", "--images", "2", "--threads", "1", "--json"])
    result = json.loads(capfd.readouterr().out)
    assert set(result["rows"]) == {bench_baseline.OURS, bench_baseline.BASELINE}
    for row in result["rows"].values():
        assert row["cpu_median_s"] > 0 and row["memory_bytes"]["resident"] > 1e8
    assert set(result["ratio"]) == {"wall_median_s", "cpu_median_s", "gflop"}
    assert result["ratio"]["gflop"] > 1
    assert result["rows"]["ours"]["state_bytes"] == 4 * (10 * 48 + 6 * 2 * 48) + 1
    assert bench_baseline.markdown([result])[2].startswith("| ours |")


def test_bench_step_has_a_row_for_each_part_rule_and_extra(capfd):
    words = "--size tiny-dpt --rule ttt3r filt3r --with-rgb-head --images 2 --threads 1 --json"
    bench_step.main(words.split())
    table = json.loads(capfd.readouterr().out)
    rows = table["rows"]
    assert {"step", "encode", "heads", "step, filt3r", "step with rgb head"} <= rows.keys()
    assert rows["step with rgb head"]["gflop"] > rows["step"]["gflop"]
    assert table["state_bytes"]["filt3r"] > table["state_bytes"]["ttt3r"]


def test_operations_of_a_recorded_step_are_those_of_the_step():
    calls = []
    plain = bench_step.Row(lambda: torch.ones(2, 3) @ torch.ones(3, 5))
    recorded = bench_step.Row(lambda: calls.append(0), plain=plain.call)
    bench_step.measure({"a": plain, "b": recorded}, 2, CPU)
    assert plain.operations == recorded.operations == 2 * 2 * 3 * 5
    assert len(calls) == 1 + 2 and len(recorded.times) == 2


def test_the_tables_name_their_circumstances(capfd):
    bench_step.main(["--size", "tiny-linear", "--images", "1", "--threads", "1", "--with-each"])
    text = capfd.readouterr().out
    assert text.count("| step with ") == len(Extras.names()) - 1  # one is of the other head
    assert "commit" in text and "state in bytes" in text
