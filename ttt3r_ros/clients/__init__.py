# SPDX-License-Identifier: Apache-2.0
"""Programs beside the node: demo, player, simulated camera, live evaluation and live view."""
