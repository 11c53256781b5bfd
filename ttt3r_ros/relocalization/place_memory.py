# SPDX-License-Identifier: Apache-2.0
"""The places a stream has seen, and whether the camera is being looked for among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ttt3r_ros.config import RecoveryConfig
from ttt3r_ros.geometry import Intrinsics, Transform
from ttt3r_ros.network.model import Network
from ttt3r_ros.relocalization.keyframes import Keyframe, KeyframeStore, describe
from ttt3r_ros.relocalization.relocalize import Relocalization, relocalize

_TRIES = 5  # images of a segment in which a place is looked for


class PlaceMemory:
    """Keyframes, and the search for the camera among them.

    A segment that shares no image with the one before began somewhere unknown: its first images
    are compared with the keyframes. Several of them, for whoever uncovers a lens may be in the
    picture at first.

    Attributes:
        is_closed: nothing new is kept; to be set by whoever tracks.
        must_relocalize: a session's keyframes were given, and none has been recognized yet.
    """

    def __init__(self, network: Network, config: RecoveryConfig) -> None:
        """Remember nothing yet.

        Args:
            network: that makes the keyframes.
            config: how many are kept and how many are tried.
        """
        self._network = network
        self._config = config
        self.is_closed = False
        self.clear()

    def clear(self) -> None:
        """Forget all places; the next segment is the first one."""
        self._store = KeyframeStore(max(1, self._config.keyframes))
        self.must_relocalize = False
        self.begin_segment(is_alone=False)

    def restore(self, keyframes: Iterable[Keyframe]) -> None:
        """Keep these keyframes of a session; the camera has to be found among them first."""
        self.clear()
        places = list(keyframes)
        self._store = KeyframeStore(max(1, len(places), self._config.keyframes))
        self._store.restore(places)
        self.must_relocalize = len(places) > 0

    def begin_segment(self, is_alone: bool) -> None:
        """Begin the search anew if the segment shares no image with the one before."""
        self._is_alone = is_alone
        self._is_found = False
        self._tries = 0

    def end_search(self) -> None:
        """Look no more: somebody has said where the camera is."""
        self._is_found, self.must_relocalize = True, False

    @property
    def keyframes(self) -> tuple[Keyframe, ...]:
        """All of them, the oldest first."""
        return self._store.keyframes

    def move(self, T_by_segment: Mapping[int, Transform], numbers: Mapping[int, int]) -> None:
        """Move keyframes with their segments, see `KeyframeStore.move`."""
        self._store.move(T_by_segment, numbers)

    @property
    def is_searching(self) -> bool:
        """Whether the camera is at a place that may still be recognized."""
        return (
            (self._is_alone or self.must_relocalize)
            and not self._is_found
            and self._tries < _TRIES
            and len(self._store) > 0
        )

    def find(
        self, features: Tensor, rgb: npt.NDArray[np.uint8], intrinsics: Intrinsics | None
    ) -> Relocalization | None:
        """Look for the camera once; features [1, gh, gw, E] and all else as in `relocalize`."""
        self._tries += 1
        with torch.inference_mode():
            found = relocalize(
                self._network,
                features,
                rgb,
                intrinsics,
                self._store,
                candidates=self._config.candidates,
            )
        if found:
            self._is_found, self.must_relocalize = True, False
        return found

    def offer(self, features: Tensor, **view: Any) -> None:
        """Keep a keyframe of an image that was tracked, if it shows something new.

        Args:
            features: of the image, [1, gh, gw, E] from `Network.encode`.
            view: all other arguments of `KeyframeStore.offer` by name.
        """
        if not self._config.keyframes or self.is_closed:
            return
        with torch.inference_mode():
            descriptor = describe(features, self._network.config.enc_embed_dim)
            self._store.offer(descriptor=descriptor, **view)
