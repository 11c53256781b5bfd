# SPDX-License-Identifier: Apache-2.0
"""What the clients of the node share: its full name, and an end by Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.exceptions import InvalidTopicNameException
from rclpy.validate_full_topic_name import validate_full_topic_name


def full_node_name(name: str) -> str:
    """Return the name of a node with its namespace, `/` if it has none.

    Raises:
        ValueError: no node can be called so.
    """
    full = name if name.startswith("/") else f"/{name}"
    try:
        validate_full_topic_name(full)
    except InvalidTopicNameException as error:
        raise ValueError(
            f"--node: {name!r} is no name of a node: letters, digits, '_' and, behind a namespace, "
            "'/'; no digit first"
        ) from error
    return full


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """Give an event that SIGINT and SIGTERM set, instead of what they do else.

    To be called in the main thread.
    """
    event = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: event.set()) for number in numbers]
    try:
        yield event
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
