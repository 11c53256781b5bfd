# SPDX-License-Identifier: Apache-2.0
"""The dimensions of one network. Reading them from a model string is `model_string`'s."""

from __future__ import annotations

from dataclasses import dataclass

HEAD_TYPES = ("dpt", "linear")
STATE_POSITIONS = ("2d", "1d", "none")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Dimensions under the names of the official model string; defaults are that format's own.

    The widths, depths and head counts of encoder and decoder have no default: every model
    string states them.

    Raises:
        ValueError: a value the network cannot be built with; the message names field and value.
    """

    enc_embed_dim: int
    enc_depth: int
    enc_num_heads: int
    dec_embed_dim: int
    dec_depth: int
    dec_num_heads: int
    head_type: str = "linear"
    state_size: int = 324
    state_pe: str = "2d"
    state_dec_num_heads: int = 16
    local_mem_size: int = 256
    mlp_ratio: int = 4
    patch_size: int = 16
    rope_base: float = 100.0
    refiner_width: int = 0  # our own addition to a linear head; 0: the published architecture

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, (int, float)) and value <= 0 and name != "refiner_width":
                raise ValueError(f"{name}: must be positive, got {value!r}")
        if self.refiner_width < 0:
            raise ValueError(f"refiner_width: must not be negative, got {self.refiner_width!r}")
        if self.head_type not in HEAD_TYPES:
            raise ValueError(f"head_type: must be one of {HEAD_TYPES}, got {self.head_type!r}")
        if self.state_pe not in STATE_POSITIONS:
            raise ValueError(f"state_pe: must be one of {STATE_POSITIONS}, got {self.state_pe!r}")
        for width, heads in (
            ("enc_embed_dim", "enc_num_heads"),
            ("dec_embed_dim", "dec_num_heads"),
            ("dec_embed_dim", "state_dec_num_heads"),
        ):
            # The rotary encoding splits a head's width into two halves of pairs.
            if getattr(self, width) % (4 * getattr(self, heads)):
                raise ValueError(
                    f"{heads}: {width} ({getattr(self, width)}) must be a multiple of "
                    f"4 x {heads} ({getattr(self, heads)})"
                )
        if self.head_type == "dpt" and self.patch_size != 16:
            raise ValueError(f"patch_size: the dpt head needs 16, got {self.patch_size}")
        if self.refiner_width and (self.head_type != "linear" or self.patch_size % 2):
            raise ValueError(
                f"refiner_width: {self.refiner_width} needs the linear head and an even patch "
                f"size, got {self.head_type!r} and {self.patch_size}; 0 goes with every head"
            )

    @property
    def enc_head_width(self) -> int:
        """Channels of one head of the image encoder."""
        return self.enc_embed_dim // self.enc_num_heads

    @property
    def dec_head_width(self) -> int:
        """Channels of one head of the decoder's image stream."""
        return self.dec_embed_dim // self.dec_num_heads

    @property
    def state_head_width(self) -> int:
        """Channels of one head of the decoder's state stream."""
        return self.dec_embed_dim // self.state_dec_num_heads
