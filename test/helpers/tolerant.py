# SPDX-License-Identifier: Apache-2.0
"""Settings for pictures and networks that are made up: whatever comes, tracking goes on."""

from __future__ import annotations

TOLERANT = {
    "tracking.lost_contrast": 0.0,
    "tracking.odd_similarity": -1.0,
    "tracking.lost_similarity": -1.0,
    "tracking.odd_detail": 0.0,
    "tracking.odd_repeats": 0,
    "tracking.odd_confidence": 0.0,
    "tracking.odd_jump": 1e9,
    "tracking.odd_share_seen": 0.0,
}
