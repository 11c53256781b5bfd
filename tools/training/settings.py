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
    # With any other rule gradients would flow through the gain, and it would saturate.
    update_rule: str = "cut3r"
    # Mean attention logits of state tokens are drawn to this (sigmoid: 0.31, the published
    # network's median gain) with this weight, so that `ttt3r` can be used afterwards.
    mean_logit: float = -0.8
    logit_weight: float = 0.002
    frames_per_step: int = 128  # of all processes together
    # Each rendered image is shown about this often, as another window, mirrored or reversed.
    reuse: float = 2.5
    clips_in_memory: int = 600  # of each process
    clips_at_once: int = 8  # rendered together: a group
    groups_at_start: int = 4
    clip_frames: int = 96
    # (share of the time at which it begins, images in a window)
    stages: tuple[tuple[float, int], ...] = ((0.0, 4), (0.18, 8), (0.5, 16), (0.6, 24))
    # From this share of the time on half of the windows go on with the state of the one before,
    # without gradients through it, for so many images, from ... to at the end.
    carry_from: float = 0.7
    carried_images: tuple[int, int] = (48, 240)
    decay_from: float = 0.35  # share of the time from which the rates fall to zero
    # Poses count a quarter at first, when motion in the image is not understood yet, and all
    # of their weight from this share of the time on.
    poses_from: float = 0.25
    helper_steps: int = 0  # at the beginning, in which nothing but the helpers learns
    warmup_steps: int = 100
    muon_rate: float = 0.015
    adam_rate: float = 1.5e-3
    helper_rate: float = 1.5e-3
    weight_decay: float = 0.01
    average_decay: float = 0.998
    evaluate_every_s: float = 300.0
    save_every_s: float = 120.0

    def window(self, progress: float) -> int:
        """Images in a window when this share of the time has passed."""
        return [images for begin, images in self.stages if progress >= begin][-1]

    def pose_share(self, progress: float) -> float:
        """Factor of the weight of poses in the loss."""
        return 0.25 + 0.75 * min(1.0, progress / max(self.poses_from, 1e-9))

    def carried(self, progress: float) -> int:
        """Images that carried windows go on for, in the mean; 0: none are carried yet."""
        if progress < self.carry_from:
            return 0
        shortest, longest = self.carried_images
        share = (progress - self.carry_from) / max(1 - self.carry_from, 1e-9)
        return round(shortest + (longest - shortest) * min(1.0, share))

    def rate(self, progress: float, step: int) -> float:
        """Factor of the learning rates; they rise anew when the network joins the helpers."""
        decay = min(1.0, max(0.0, (1 - progress) / (1 - self.decay_from)))
        if step < self.helper_steps:
            return decay
        return decay * min(1.0, (step + 1 - self.helper_steps) / self.warmup_steps)


def settings_from_weights(minutes: float, seed: int = 0) -> TrainingSettings:
    """Settings for going on from trained weights: longer windows, smaller rates, warm helpers."""
    return TrainingSettings(
        minutes=minutes,
        seed=seed,
        frames_per_step=288,
        reuse=4.0,
        clips_at_once=4,
        groups_at_start=8,
        stages=((0.0, 24),),
        carry_from=0.3,
        decay_from=0.2,
        poses_from=0.0,
        helper_steps=40,
        warmup_steps=40,
        muon_rate=0.005,
        adam_rate=6e-4,
        helper_rate=4e-3,
        average_decay=0.985,
        evaluate_every_s=1500.0,
    )
