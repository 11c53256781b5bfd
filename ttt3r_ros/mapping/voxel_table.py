# SPDX-License-Identifier: Apache-2.0
"""From a voxel's key to its row: an open-addressing hash table, vectorised over many keys.

The table holds only row numbers; the keys stand in the rows. It neither gives rows out nor says
what is in them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ttt3r_ros.mapping.grouping import digest

SLOTS_PER_ROW = 2  # the table is at most half full, so a search takes 1.5 looks on average

_EMPTY = -1
_HASH_BITS = 31


class VoxelTable:
    """Linear probing without tombstones: what follows a removed entry is put in anew."""

    def __init__(self, keys: Tensor) -> None:
        """Make an empty table.

        Args:
            keys: int64 [rows], of every row; the owner fills them in before rows are added.
        """
        self._keys = keys
        self._size = SLOTS_PER_ROW * len(keys)
        self._row_at = torch.full((self._size,), _EMPTY, dtype=torch.int32, device=keys.device)
        self._cursor = 0

    def clear(self) -> None:
        """Take all rows out."""
        self._row_at.fill_(_EMPTY)
        self._cursor = 0

    @property
    def nbytes(self) -> int:
        """Memory of the table itself."""
        return self._row_at.nbytes

    def rows(self, keys: Tensor) -> Tensor:
        """Return the rows [M] of keys [M], -1 where there is none."""
        return self._row_at.gather(0, self._search(keys)).long()

    def has(self, keys: Tensor) -> Tensor:
        """Say of keys [M] which have a row, bool [M]."""
        return self.rows(keys) >= 0

    def add(self, rows: Tensor) -> None:
        """Put rows [N] in whose keys are distinct and not in the table."""
        while len(rows):
            slots = self._search(self._keys.gather(0, rows))  # all empty
            self._row_at.scatter_(0, slots, rows.int())
            # Of several rows after one slot one write stays; the others read it back and go on.
            rows = rows[self._row_at.gather(0, slots) != rows]

    def remove(self, rows: Tensor) -> None:
        """Take rows [N] out whose keys are in the table."""
        slots = self._search(self._keys[rows])
        self._row_at[slots] = _EMPTY
        # A search ends at an empty slot, so all up to the next one may have to move up. Clusters
        # are walked in step, each from its own start: none meets another before an empty slot.
        followers = []
        while len(slots):
            slots = self._after(slots)
            row = self._row_at[slots]
            taken = (row != _EMPTY).nonzero()[:, 0]
            slots, row = slots[taken], row[taken]
            self._row_at[slots] = _EMPTY
            followers.append(row)
        if followers:
            self.add(torch.cat(followers).long())

    def renumber(self, rows: Tensor, new_rows: Tensor) -> None:
        """Let the keys of rows [N] that are in the table lead to other rows [N]."""
        self._row_at[self._search(self._keys[rows])] = new_rows.int()

    def next_sample(self, slots: int) -> Tensor:
        """Return the rows [M] in the next slots of a tour around the table.

        Slots follow from a hash, so this is a random sample of all rows, without repetition until
        the tour is over, and its cost is that of the sample.
        """
        slots = min(slots, self._size)
        end = self._cursor + slots
        row = self._row_at[self._cursor : end]
        if end > self._size:
            row = torch.cat([row, self._row_at[: end - self._size]])
        self._cursor = end % self._size
        return row[row != _EMPTY].long()

    def _search(self, keys: Tensor) -> Tensor:
        """Return the slots [M] where keys [M] are, or the empty ones where the search ends."""
        slots = self._home(keys)
        result = slots.clone()
        index = torch.arange(len(keys), device=keys.device)
        width = 1
        while len(index):
            window = (slots[:, None] + torch.arange(width, device=keys.device)) % self._size
            row = self._row_at.take(window).long()
            on = (row != _EMPTY) & (self._keys.take(row) != keys[:, None])  # [M, width]
            end = on.byte().argmin(dim=1, keepdim=True)  # the first that ends it
            result.scatter_(0, index, window.gather(1, end)[:, 0])
            left = on.all(dim=1).nonzero()[:, 0]
            index, keys, slots = (some.gather(0, left) for some in (index, keys, slots + width))
            width *= 2  # most searches end at once; the few that go on do so for long
        return result

    def _home(self, keys: Tensor) -> Tensor:
        return (digest(keys, _HASH_BITS) * self._size) >> _HASH_BITS

    def _after(self, slots: Tensor) -> Tensor:
        return (slots + 1) % self._size
