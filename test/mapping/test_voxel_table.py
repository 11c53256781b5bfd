# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import torch

from ttt3r_ros.mapping.voxel_table import VoxelTable


def test_the_table_equals_a_dictionary():
    rng = np.random.default_rng(0)
    rows = 40  # so few that searches go around the end of the table, and it gets full
    keys = torch.full((rows,), -7)
    table, twin = VoxelTable(keys), {}
    for _ in range(300):
        free = np.setdiff1d(np.arange(rows), list(twin.values()))
        added = torch.from_numpy(rng.permutation(free)[: rng.integers(0, len(free) + 1)])
        choice = np.setdiff1d(np.arange(200), list(twin))
        keys[added] = torch.from_numpy(rng.permutation(choice)[: len(added)])
        table.add(added)
        twin |= {int(keys[row]): int(row) for row in added}
        gone = torch.from_numpy(
            rng.permutation(list(twin.values()))[: rng.integers(0, len(twin) + 1)]
        ).long()
        table.remove(gone)
        for row in gone:
            del twin[int(keys[row])]
        expected = [twin.get(key, -1) for key in range(200)]
        assert table.rows(torch.arange(200)).tolist() == expected


def test_a_renumbered_row_is_found_where_it_has_gone():
    keys = torch.arange(100, 200)
    table = VoxelTable(keys)
    table.add(torch.arange(50, 100))
    table.renumber(torch.arange(90, 100), torch.arange(10))
    keys[:10] = keys[90:]
    assert table.rows(torch.arange(190, 200)).tolist() == list(range(10))
    assert table.rows(torch.arange(150, 190)).tolist() == list(range(50, 90))


def test_samples_go_around_all_rows():
    table = VoxelTable(torch.arange(1000))
    table.add(torch.arange(0, 1000, 2))
    found = [table.next_sample(250) for _ in range(8)]
    assert sorted(torch.cat(found).tolist()) == list(range(0, 1000, 2))
    again = [table.next_sample(300) for _ in range(7)]  # 2100 of 2000 slots
    assert set(torch.cat(again).tolist()) == set(range(0, 1000, 2))
    assert sorted(table.next_sample(5000).tolist()) == list(range(0, 1000, 2))


def test_a_wall_in_any_direction_is_spread_over_the_table():
    a, b = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    for high, low in ((42, 21), (42, 0), (21, 0)):
        table = VoxelTable(((a << high) | (b << low)).flatten())
        table.add(torch.arange(40_000))
        in_tenths = torch.tensor([len(table.next_sample(8_000)) for _ in range(10)])
        assert (in_tenths - 4_000).abs().max() < 300
