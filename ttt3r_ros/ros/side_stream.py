# SPDX-License-Identifier: Apache-2.0
"""A GPU's work for one image beside its work for the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


@cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    # Always the same: torch has 32 and gives each to several who ask for one.
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class SideStream:
    """Lets a second thread use a GPU without waiting for what the first one has queued since.

    On a CPU there is nothing to do.
    """

    def __init__(self, device: torch.device) -> None:
        """Take the side stream of the device, if it is a GPU."""
        self._stream = _stream_of(device) if device.type == "cuda" else None

    def mark(self) -> torch.cuda.Event | None:
        """Mark, in the first thread, the end of what is queued by now."""
        if self._stream is None:
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._stream.device))
        return event

    @contextmanager
    def after(self, mark: torch.cuda.Event | None) -> Iterator[None]:
        """Queue the second thread's work after a mark, and wait for it at the end.

        So tensors of the first thread that it reads have to be kept until then, and no longer.
        """
        if self._stream is None:
            yield
            return
        if mark is not None:
            self._stream.wait_event(mark)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            self._stream.synchronize()
