# SPDX-License-Identifier: Apache-2.0
"""Which of the topics there are the truth is on, and listening to it in a way it is offered."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from ttt3r_ros.types import EvaluationError

_SETTLING_S = 1.0  # publishers that start together are not seen at the same time


class TopicSearch:
    """Subscribes to the topic named, or to the only one of some types once it is published.

    A topic that is named is listened to from the beginning, so that nothing of it is missed: as one
    of the first type, for no process can listen to two types at once.

    Attributes:
        wanted: the topic that is named, with its full name; empty: none is.
        topic: that is published and listened to; empty: none yet.
    """

    def __init__(
        self,
        node: Node,
        kinds: Mapping[str, type],
        callback: Callable[[Any], None],
        *,
        queue_size: int,
        flag: str = "",
        wanted: str = "",
        is_candidate: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Begin to listen, or to look.

        Args:
            node: that listens.
            kinds: types of messages by name.
            callback: is given the messages.
            queue_size: of the subscription.
            flag: of the command line, that names the topic.
            wanted: the topic; empty: the only candidate.
            is_candidate: tells by its name whether a topic may be the one if none is named.
        """
        self.topic = ""
        self._node, self._kinds, self._callback = node, kinds, callback
        self._queue_size, self._flag = queue_size, flag
        self.wanted = node.resolve_topic_name(wanted) if wanted else ""
        self._is_candidate = is_candidate
        self._subscription: Subscription[Any] | None = None
        self._subscribed = ("", False)  # type, and whether reliably
        self._is_heard = False
        self._settled_s = 0.0  # on the monotonic clock
        if self.wanted:
            self._subscribe(self.wanted, next(iter(kinds)), reliable=True)

    def look(self) -> None:
        """Look at the topics there are.

        Raises:
            EvaluationError: several may be meant. Those that appear after the one has been heard
                for a while change nothing.
        """
        now_s = time.monotonic()
        if self.topic and self._is_heard and now_s > self._settled_s:
            return
        found = self.candidates()
        if self.wanted:
            found = [name for name in found if name == self.wanted]
        # Names below another one's are its transports.
        found = [name for name in found if not any(name.startswith(f"{n}/") for n in found)]
        if len(found) > 1:
            raise EvaluationError(
                f"several topics, choose one with {self._flag}: {', '.join(found)}"
            )
        if found and not self.topic:
            self._settled_s = now_s + _SETTLING_S
            self._listen_to(found[0])

    def candidates(self) -> list[str]:
        """Return the published topics of these types; by name, too, if none is wanted."""
        return [
            name
            for name, types in self._node.get_topic_names_and_types()
            if not self._kinds.keys().isdisjoint(types)
            and (self.wanted or self._is_candidate(name))
            and not self._kinds.keys().isdisjoint(self._published_types(name))
        ]

    def missing(self) -> str:
        """Say what is there instead of the topic that is wanted; empty: none is, or it is there."""
        if not self.wanted or self.topic:
            return ""
        types = self._published_types(self.wanted)
        return (
            f"{self._flag} {self.wanted}: "
            f"{'of type ' + listed(types) if types else 'not published'}, "
            f"must be of {listed(self._kinds)}; there are: {listed(self.candidates())}"
        )

    def _published_types(self, topic: str) -> list[str]:
        return [offer.topic_type for offer in self._node.get_publishers_info_by_topic(topic)]

    def _listen_to(self, topic: str) -> None:
        """Listen in the way that the topic is offered, unless its publishers have just gone."""
        offers = self._node.get_publishers_info_by_topic(topic)
        kinds = [offer.topic_type for offer in offers if offer.topic_type in self._kinds]
        if kinds:
            self.topic = topic
            offered = {offer.qos_profile.reliability for offer in offers}
            wanted = (kinds[0], offered == {ReliabilityPolicy.RELIABLE})
            if self._subscribed != wanted:
                self._subscribe(topic, wanted[0], reliable=wanted[1])

    def _subscribe(self, topic: str, kind: str, *, reliable: bool) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        qos = QoSProfile(
            depth=self._queue_size,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        self._subscription = self._node.create_subscription(
            self._kinds[kind], topic, self._receive, qos
        )
        self._subscribed = (kind, reliable)

    def _receive(self, message: Any) -> None:
        self._is_heard = True
        self._callback(message)


def listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    """Return names in one line."""
    return ", ".join(names) or "none"
