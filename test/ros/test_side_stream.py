# SPDX-License-Identifier: Apache-2.0
"""In which order a side stream is used; a stand-in for CUDA's notes what is asked of it."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from ttt3r_ros.ros import side_stream as subject
from ttt3r_ros.ros.side_stream import SideStream


@pytest.fixture
def asked(monkeypatch):
    """What was asked of the stand-in, in order."""
    found = []
    stream = SimpleNamespace(
        device="the GPU",
        wait_event=lambda event: found.append("wait for the mark"),
        synchronize=lambda: found.append("wait for the stream"),
    )

    @contextmanager
    def use(given):
        assert given is stream
        found.append("on the stream")
        yield
        found.append("off the stream")

    event = SimpleNamespace(record=lambda where: found.append(f"mark {where}"))
    monkeypatch.setattr(subject, "_stream_of", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    monkeypatch.setattr(torch.cuda, "stream", use)
    return found


def test_work_begins_after_the_mark_and_is_waited_for_even_after_an_error(asked):
    side = SideStream(torch.device("cuda"))
    with pytest.raises(KeyError), side.after(side.mark()):
        asked.append("work")
        raise KeyError
    assert asked == [
        "mark the stream of the GPU",
        "wait for the mark",
        "on the stream",
        "work",
        "wait for the stream",
    ]


def test_on_a_cpu_nothing_is_asked(asked):
    side = SideStream(torch.device("cpu"))
    assert side.mark() is None
    with side.after(None):
        asked.append("work")
    assert asked == ["work"]
