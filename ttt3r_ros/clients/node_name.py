# SPDX-License-Identifier: Apache-2.0
"""Names of nodes as users give them."""

from __future__ import annotations

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
