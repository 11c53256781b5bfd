# SPDX-License-Identifier: Apache-2.0
"""Quality of service that users may override with parameters, `qos_overrides.<topic>...`."""

from __future__ import annotations

from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions

OVERRIDABLE = QoSOverridingOptions(
    (
        QoSPolicyKind.HISTORY,
        QoSPolicyKind.DEPTH,
        QoSPolicyKind.RELIABILITY,
        QoSPolicyKind.DURABILITY,
    )
)
"""For every publisher and subscription of the node; those of tf2 have none in Python."""
