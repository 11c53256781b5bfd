# SPDX-License-Identifier: Apache-2.0
"""Every setting of `config` as a ROS parameter, with its description and range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
)
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions

from ttt3r_ros.config import Config, NodeConfig, Setting, settings, with_values

ConfigT = TypeVar("ConfigT", Config, NodeConfig)

_MAX_INTEGER = 2**63 - 1


def declare_parameters(node: Node) -> None:
    """Declare all settings with their defaults; what is not `runtime` is read-only."""
    for setting in settings(Config, NodeConfig).values():
        node.declare_parameter(setting.name, setting.default, _descriptor(setting))


def read_parameters(node: Node) -> tuple[Config, NodeConfig]:
    """Return the settings that a node's parameters say.

    Raises:
        ConfigError: a value is out of bounds.
    """
    return _read(node, Config()), _read(node, NodeConfig())


def change_settings(config: ConfigT, values: Mapping[str, Any]) -> ConfigT:
    """Return a configuration with those of the parameters' values that are its settings.

    Raises:
        ConfigError: a value is out of bounds.
    """
    known = settings(type(config))
    # rcl reads an empty list in a file as no value at all.
    given = {name: values[name] for name in known if values.get(name) is not None}
    return with_values(config, given)


def _read(node: Node, defaults: Any) -> Any:
    values = {name: node.get_parameter(name).value for name in settings(type(defaults))}
    return change_settings(defaults, values)


def _descriptor(setting: Setting) -> ParameterDescriptor:
    choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
    unit = f" [{setting.unit}]" if setting.unit else ""
    descriptor = ParameterDescriptor(
        description=f"{setting.help}{unit}",
        additional_constraints=f"one of{choices}" if choices else "",
        read_only=not setting.runtime,
        # rclpy takes an empty list for one of bytes; numbers must be allowed in its place.
        dynamic_typing=isinstance(setting.default, tuple),
    )
    if setting.low is None and setting.high is None:
        return descriptor
    low = -math.inf if setting.low is None else setting.low
    high = math.inf if setting.high is None else setting.high
    if isinstance(setting.default, int):
        descriptor.integer_range = [
            IntegerRange(
                from_value=int(max(low, -_MAX_INTEGER)),
                to_value=int(min(high, _MAX_INTEGER)),
                step=1,
            )
        ]
    else:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=max(low, -1.7e308), to_value=min(high, 1.7e308), step=0.0)
        ]
    return descriptor


OVERRIDABLE = QoSOverridingOptions(
    (
        QoSPolicyKind.HISTORY,
        QoSPolicyKind.DEPTH,
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DURABILITY,
    )
)
"""For every publisher and subscription of the node; those of tf2 have none in Python."""
