# SPDX-License-Identifier: Apache-2.0
"""The network against recorded outputs of the published implementation on synthetic weights."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from places import GOLDEN, HELPERS

from ttt3r_ros.network.checkpoint import load_network

ADAPTER = HELPERS / "parity_adapter.py"
RUNS = [
    (path.parent.name, run)
    for path in sorted(GOLDEN.glob("*/set.json"))
    for run in json.loads(path.read_text())["runs"]
]


@pytest.fixture(scope="module")
def checkpoint(check_parity):
    """A function from a set's name to its file; the files are 560 MB, so they do not stay."""
    with tempfile.TemporaryDirectory() as folder:

        def write(name: str) -> str:
            path = Path(folder) / f"{name}.pth"
            if not path.exists():
                check_parity.recipe.write_checkpoint(str(GOLDEN / name / "set.json"), str(path))
            return str(path)

        yield write


@pytest.mark.parametrize("variant", ["f32", "half"])
@pytest.mark.parametrize(("name", "run"), RUNS)
def test_every_output_equals_the_recorded_one(check_parity, checkpoint, name, run, variant):
    tolerance = check_parity.DEFAULT_TOL[variant]
    adapter = check_parity.load_adapter(str(ADAPTER))
    passed, rows = check_parity.run_one(
        str(GOLDEN / name), run, variant, adapter, checkpoint(name), tolerance, 2e-4, quiet=True
    )
    # The verdict covers what a view gives; the rows also what was computed on the way to it.
    failed = [(key, result) for key, result in rows if result is None or not result["ok"]]
    assert passed, failed
    assert failed == []


def test_all_sets_are_present():
    assert len(RUNS) == 7


def test_bfloat16_products_change_outputs_little_and_leave_them_float32(checkpoint):
    network = load_network(checkpoint("A_dpt_landscape"), world_points_head=True)
    images = np.load(GOLDEN / "A_dpt_landscape" / "inputs.npz")["images"]
    recorded = np.load(GOLDEN / "A_dpt_landscape" / "golden_ttt3r_f32.npz")
    streams = []  # what is normalised: the residual streams and the memory
    for module in network.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, inputs: streams.append(inputs[0].dtype))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        state = network.initial_state()
        for index, rgb in enumerate(images):
            image = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1
            state, seen = network.step(state, image)
            got = {
                "pts3d_in_self_view": seen.points,
                "conf_self": seen.confidence,
                "camera_pose": seen.pose,
                "pts3d_in_other_view": seen.points_in_world,
                "conf": seen.confidence_in_world,
                "beta": seen.gain,
                "state": state.tokens,
                "mem": state.memory,
            }
            for key, tensor in got.items():
                assert tensor.dtype == torch.float32, key
                error = np.abs(tensor[0].numpy() - recorded[key][index])
                assert (error / (1 + np.abs(recorded[key][index]))).max() < 0.1, key
            assert seen.pose_matrix.dtype == torch.float32
    assert set(streams) == {torch.float32}
