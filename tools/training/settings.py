# SPDX-License-Identifier: Apache-2.0
"""What the shipped network is and how it is trained: every number that is a choice."""

from __future__ import annotations

from dataclasses import dataclass

from ttt3r_ros.network.config import NetworkConfig

WIDTH, HEIGHT = 128, 96

DEMO_NETWORK = NetworkConfig(
    enc_embed_dim=192,
    enc_depth=5,
    enc_num_heads=6,
    dec_embed_dim=128,
    dec_depth=6,
    dec_num_heads=8,
    state_dec_num_heads=8,
    state_size=64,  # a grid as wide as that of the patches
    local_mem_size=16,
    mlp_ratio=2,
    refiner_width=24,
)


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How long, on how much and how fast. Defaults are for two CPU cores."""

    minutes: float  # of training, rendering and evaluating; stages and rates are shares of it
    seed: int = 0
    update_rule: str = "ttt3r"
    frames_per_step: int = 128  # of all processes together
    # Each rendered image is shown about this often, as another window, mirrored or reversed.
    reuse: float = 2.5
    clips_in_memory: int = 4000  # of each process
    clips_at_once: int = 8  # rendered together: a group
    groups_at_start: int = 12
    clip_frames: int = 16
    # (share of the time at which it begins, images in a window)
    stages: tuple[tuple[float, int], ...] = ((0.0, 4), (0.18, 8), (0.7, 12))
    decay_from: float = 0.35  # share of the time from which the rates fall to zero
    # Poses count a quarter at first, when motion in the image is not understood yet, and all
    # of their weight from this share of the time on.
    poses_from: float = 0.25
    warmup_steps: int = 100
    muon_rate: float = 0.015
    adam_rate: float = 1.5e-3
    weight_decay: float = 0.01
    average_decay: float = 0.998
    evaluate_every_s: float = 300.0
    save_every_s: float = 120.0

    def window(self, progress: float) -> int:
        """Images in a window when this share of the time has passed."""
        return [images for begin, images in self.stages if progress >= begin][-1]

    def pose_share(self, progress: float) -> float:
        """Factor of the weight of poses in the loss."""
        return 0.25 + 0.75 * min(1.0, progress / self.poses_from)

    def rate(self, progress: float, step: int) -> float:
        """Factor of the learning rates."""
        decay = min(1.0, max(0.0, (1 - progress) / (1 - self.decay_from)))
        return decay * min(1.0, (step + 1) / self.warmup_steps)
