# SPDX-License-Identifier: Apache-2.0
"""The training loop: steps, rates by the clock, evaluation, and checkpoints to go on from."""

from __future__ import annotations

import csv
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.training import workers
from tools.training.clips import ClipPool, Windows
from tools.training.evaluate import run, score
from tools.training.gauge import set_mean_logit
from tools.training.initial import initial_network
from tools.training.losses import Helpers, window_losses
from tools.training.muon import Muon
from tools.training.settings import TrainingSettings
from tools.training.streams import Streams
from tools.training.unroll import unroll
from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.decoder import DecoderBlock
from ttt3r_ros.network.model import Network

_log = logging.getLogger(__name__)

LAST, CURVE = "last.pt", "curve.csv"
_RESET_INTERVALS = (24, 0)  # of evaluations during training; 0: never
_GAUGE_WINDOWS, _GAUGE_IMAGES = 4, 12  # to measure logits on, before training
_LOG_EVERY = 20  # steps


class Trainer:
    """A network in training, its optimisers, data and clock.

    Args:
        config: of the network.
        settings: of the training.
        output: directory of `last.pt` and `curve.csv`; must exist.
        device: where everything happens.
        held_out: sequences to evaluate on; none: no evaluation.
        weights: a trained network's parameters to begin with; without them, see `initial`.
        clock: seconds, ever growing.
    """

    def __init__(
        self,
        config: NetworkConfig,
        settings: TrainingSettings,
        output: Path,
        device: torch.device | str = "cpu",
        held_out: Windows | None = None,
        weights: Mapping[str, Tensor] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.device = settings, torch.device(device)
        self.network = initial_network(config, settings.seed, settings.update_rule).to(device)
        if weights is not None:
            self.network.load_state_dict(weights)
        self.helpers = Helpers(config.dec_embed_dim, config.patch_size).to(device)
        self.average = deepcopy(self.network).requires_grad_(False).eval()
        self.pool = ClipPool(
            settings.clips_in_memory, settings.clips_at_once, settings.clip_frames, device
        )
        self.streams = Streams()  # not saved: after an interruption all begin anew
        self.steps = self.images = 0
        self.seconds = 0.0  # of training so far, over all runs
        self._optimizers = _optimizers(self.network, self.helpers, settings)
        self._output, self._held_out, self._clock = output, held_out, clock

    @property
    def progress(self) -> float:
        """Share of the time that has passed."""
        return self.seconds / (60 * self.settings.minutes)

    def train(self, most_steps: int | None = None) -> None:
        """Train until the time is over, or for so many steps; saves at the end."""
        if not self.steps:
            self._set_gauge()
        last = self._clock()
        saved_s = evaluated_s = self.seconds
        done = 0
        while self.progress < 1 and done != most_steps:
            losses = self.step()
            done += 1
            now = self._clock()
            self.seconds, last = workers.from_first(self.seconds + now - last), now
            if self.steps % _LOG_EVERY == 0 and workers.rank() == 0:
                text = " ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
                _log.info(
                    "%5.1f min, step %d, %d images, %d clips: %s",
                    self.seconds / 60, self.steps, self.images, len(self.pool), text,
                )  # fmt: skip
            if self.seconds - saved_s > self.settings.save_every_s:
                self.save()
                saved_s = self.seconds
            if self.seconds - evaluated_s > self.settings.evaluate_every_s:
                self.evaluate()
                evaluated_s = self.seconds
        self.save()
        if self.progress >= 1:
            self.evaluate()

    def step(self) -> dict[str, float]:
        """One step on windows from the pool, which grows as fast as it is used."""
        settings = self.settings
        shown = settings.reuse * settings.clips_at_once * settings.clip_frames * workers.count()
        while (self.pool.groups - settings.groups_at_start) * shown <= self.images:
            self.pool.grow()
        images = settings.window(self.progress)
        count = settings.frames_per_step // images // workers.count()
        # A generator for each step and process, so that none has to be stored.
        number = (settings.seed * 10_000_000 + self.steps) * workers.count() + workers.rank()
        generator = torch.Generator().manual_seed(number)
        self.images += count * images * workers.count()
        mean = settings.carried(self.progress)
        carried = count // 2 if mean else 0
        windows = self.pool.windows(count - carried, images, generator)
        if not carried:
            return self.fit(windows)
        more, new = self.streams.windows(self.pool, carried, images, mean, generator)
        fresh = torch.ones(count - carried, dtype=torch.bool, device=new.device)
        return self.fit(Windows.together((windows, more)), torch.cat((fresh, new)))

    def fit(self, windows: Windows, new: Tensor | None = None) -> dict[str, float]:
        """One step; the losses before it.

        Args:
            windows: B of them.
            new: [B] which begin with a new state rather than with the streams'; none: all do.
        """
        only_helpers = self.steps < self.settings.helper_steps
        with _precision(self.device), _attention(self.device):
            with torch.set_grad_enabled(not only_helpers):
                state = None if new is None else self.streams.state(self.network, new)
                unrolled = unroll(self.network, windows.image, state)
            share = self.settings.pose_share(self.progress)
            losses = window_losses(unrolled, windows, self.helpers, share)
            logits = unrolled.logits
            losses["logit"] = (logits - self.settings.mean_logit).square().mean()
            losses["total"] = losses["total"] + self.settings.logit_weight * losses["logit"]
            losses["total"].backward()  # type: ignore[no-untyped-call]
        if new is not None:
            self.streams.keep(unrolled.state)
        workers.average_gradients([*self.network.parameters(), *self.helpers.parameters()])
        values = torch.stack(list(losses.values())).tolist()
        factor = self.settings.rate(self.progress, self.steps)
        finite = all(
            bool(p.grad.isfinite().all())
            for p in self.network.parameters()
            if p.grad is not None and p.ndim < 2
        )
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * group["full_rate"]
            if finite:
                optimizer.step()
            optimizer.zero_grad()
        if not finite:
            _log.warning("step %d: gradient is not finite, left out", self.steps)
        self.steps += 1
        self._take_average()
        return dict(zip(losses, values, strict=True))

    def evaluate(self) -> None:
        """Score the averaged network on the held-out sequences; rows in `curve.csv`."""
        if self._held_out is None or workers.rank() > 0:
            return
        for interval in _RESET_INTERVALS:
            with torch.compiler.set_stance("force_eager"):
                answers = run(self.average, self._held_out.image, interval)
            self._note(interval, asdict(score(answers, self._held_out)))

    def _note(self, interval: int, scores: dict[str, float]) -> None:
        row = {
            "minutes": self.seconds / 60, "steps": self.steps, "images": self.images,
            "reset_interval": interval, **scores,
        }  # fmt: skip
        _log.info("held out: %s", " ".join(f"{name} {value:.4g}" for name, value in row.items()))
        path = self._output / CURVE
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow({name: f"{value:.6g}" for name, value in row.items()})

    def save(self) -> None:
        """Write all that going on needs; the pool is rendered again then."""
        if workers.rank() > 0:
            return
        content = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "helpers": self.helpers.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "groups": self.pool.groups * workers.count(),
            "steps": self.steps,
            "images": self.images,
            "seconds": self.seconds,
        }
        part = self._output / f".{LAST}.part"
        torch.save(content, part)
        os.replace(part, self._output / LAST)

    def restore(self) -> None:
        """Go on where `save` left off."""
        content: dict[str, Any] = torch.load(
            self._output / LAST, map_location=self.device, weights_only=True
        )
        self.network.load_state_dict(content["network"])
        self.average.load_state_dict(content["average"])
        self.helpers.load_state_dict(content["helpers"])
        for optimizer, state in zip(self._optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.pool.restore(content["groups"] // workers.count())
        self.steps, self.images = content["steps"], content["images"]
        self.seconds = content["seconds"]

    def _set_gauge(self) -> None:
        """Begin with logits whose mean is as wanted; the first process says by which biases."""
        while self.pool.groups < self.settings.groups_at_start:
            self.pool.grow()
        images = min(_GAUGE_IMAGES, self.settings.window(0.0))
        windows = self.pool.windows(_GAUGE_WINDOWS, images, torch.Generator().manual_seed(0))
        before = set_mean_logit(self.network, windows.image, self.settings.mean_logit)
        _log.info("mean logit of the gain: %.2f, moved to %.2f", before, self.settings.mean_logit)
        with torch.no_grad():
            for block in self.network.dec_blocks_state:
                workers.copy_from_first(cast(DecoderBlock, block).cross_attn.projk.bias)
        self.average.load_state_dict(self.network.state_dict())

    @torch.no_grad()
    def _take_average(self) -> None:
        share = max(1 - self.settings.average_decay, 1 / (self.steps + 1))
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.network.parameters()), share
        )


def _precision(device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16)


def _attention(device: torch.device) -> AbstractContextManager[object]:
    """On the CPU plain products are faster than the fused attention's backward pass."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _optimizers(
    network: Network, helpers: nn.Module, settings: TrainingSettings
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of blocks, AdamW for everything else."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    stacked = {}
    for name, parameter in network.named_parameters():
        in_block = "_blocks" in name and parameter.ndim == 2
        if name.endswith("qkv.weight"):
            stacked[id(parameter)] = 3
        (matrices if in_block else others).append(parameter)
    decay = settings.weight_decay
    muon = Muon(matrices, stacked, settings.muon_rate, weight_decay=decay)
    groups = [
        {"params": others, "lr": settings.adam_rate},
        {"params": list(helpers.parameters()), "lr": settings.helper_rate},
    ]
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=decay, fused=True)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["full_rate"] = group["lr"]
    return [muon, adam]
