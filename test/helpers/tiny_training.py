# SPDX-License-Identifier: Apache-2.0
"""A network like the demo model that trains in seconds."""

from __future__ import annotations

from dataclasses import replace

from tools.training.settings import DEMO_NETWORK

TINY = replace(
    DEMO_NETWORK,
    enc_embed_dim=48,
    enc_depth=1,
    enc_num_heads=3,
    dec_embed_dim=32,
    dec_depth=2,
    dec_num_heads=2,
    state_dec_num_heads=2,
    local_mem_size=4,
    refiner_width=16,
)
