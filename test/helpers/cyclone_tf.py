# SPDX-License-Identifier: Apache-2.0
"""/tf as Cyclone DDS reads it, with types written down here: no part of ROS is involved.

Without `from __future__ import annotations`, for Cyclone evaluates the annotations itself.
"""

import threading
from dataclasses import dataclass

from cyclonedds.core import Listener, Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import int32, sequence, uint32
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time
    frame_id: str


@dataclass
class Vector3(IdlStruct, typename="geometry_msgs::msg::dds_::Vector3_"):
    x: float
    y: float
    z: float


@dataclass
class Quaternion(IdlStruct, typename="geometry_msgs::msg::dds_::Quaternion_"):
    x: float
    y: float
    z: float
    w: float


@dataclass
class Transform(IdlStruct, typename="geometry_msgs::msg::dds_::Transform_"):
    translation: Vector3
    rotation: Quaternion


@dataclass
class TransformStamped(IdlStruct, typename="geometry_msgs::msg::dds_::TransformStamped_"):
    header: Header
    child_frame_id: str
    transform: Transform


@dataclass
class TFMessage(IdlStruct, typename="tf2_msgs::msg::dds_::TFMessage_"):
    transforms: sequence[TransformStamped]


# As ROS does with ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST: loopback, found by asking every port.
_LOCALHOST = """
<General>
  <Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces>
  <AllowMulticast>false</AllowMulticast>
</General>
<Discovery>
  <ParticipantIndex>auto</ParticipantIndex>
  <MaxAutoParticipantIndex>32</MaxAutoParticipantIndex>
  <Peers><Peer address="127.0.0.1"/></Peers>
</Discovery>
"""


# For the process that is listened to: the descriptions of types that Fast DDS 3 sends along for
# nested messages are "invalid" to Cyclone, which then refuses to match. Without them the names
# of the types count, as between ROS nodes.
FASTDDS_PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns="http://www.eprosima.com"><profiles>
  <participant profile_name="p" is_default_profile="true"><rtps><propertiesPolicy><properties>
    <property><name>fastdds.type_propagation</name><value>disabled</value></property>
  </properties></propertiesPolicy></rtps></participant>
</profiles></dds>
"""


class CycloneTf:
    """/tf as Cyclone DDS reads it; messages go to `put`."""

    def __init__(self, domain: int, put) -> None:
        self.matched = threading.Event()
        self._domain = Domain(domain, _LOCALHOST)
        self._participant = DomainParticipant(domain)
        qos = Qos(Policy.Reliability.Reliable(duration(seconds=1)), Policy.History.KeepAll)
        topic = Topic(self._participant, "rt/tf", TFMessage)
        listener = _Forward(put, self.matched)
        self._reader = DataReader(self._participant, topic, qos=qos, listener=listener)


class _Forward(Listener):
    def __init__(self, put, matched: threading.Event) -> None:
        super().__init__()
        self._put = put
        self._matched = matched

    def on_subscription_matched(self, reader, status) -> None:
        self._matched.set()

    def on_data_available(self, reader) -> None:
        for sample in reader.take(1000):
            if isinstance(sample, TFMessage):  # not the notice that the writer has gone
                self._put(sample)
