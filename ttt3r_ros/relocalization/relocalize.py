# SPDX-License-Identifier: Apache-2.0
"""Coming back to a place that was seen before: the network goes on from a keyframe's state.

The keyframes that look most like the image are stepped with it, all at once. From where the
network takes the camera to be, the keyframe's coloured points are laid onto the picture; the
answers are judged by how well colours and depths then agree. Nothing is kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ttt3r_ros.camera.reprojection import consistency
from ttt3r_ros.geometry import Intrinsics, Transform, inverse, orthonormal
from ttt3r_ros.network.model import Network
from ttt3r_ros.network.precision import tf32_products
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.relocalization.keyframes import (
    Keyframe,
    KeyframeStore,
    describe,
    subsample,
    subsample_intrinsics,
    subsample_picture,
)
from ttt3r_ros.relocalization.photometric import align

_LEAST_CONFIDENCE = 1e-3  # above 1, so that there is something to take a share of


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer must be like to be believed.

    The figures behind them are printed by `benchmarks/evaluate_relocalization.py`. Quantiles here
    are those of the shipped model in simulated rooms, over right answers and wrong ones.
    """

    # Right: 0.94 in the median; wrong: 99 % are below 0.86.
    min_photometric_correlation: float = 0.85
    max_disagreement: float = 0.15  # right: 0.06 in the median; wrong: 90 % are above 0.10
    min_share_seen: float = 0.5  # right: 90 % are above 0.52; wrong: the median is 0.42
    min_confidence: float = 0.2  # tells little: 90 % of both are above 0.2; against the absurd


@dataclass(frozen=True, slots=True)
class Evidence:
    """How well an image goes with a keyframe when both are where they are taken to be."""

    photometric_correlation: float  # correlation of their colours, -1 to 1
    disagreement: float  # of depths, see `consistency`; the worse of both directions
    share_seen: float  # of the points of the one that fall into the other; the lesser of both
    confidence: float  # the median above 1, as a share of the keyframe's

    def suffices(self, limits: Limits) -> bool:
        """Whether it is enough to believe that the place is the same."""
        return (
            self.photometric_correlation >= limits.min_photometric_correlation
            and self.disagreement <= limits.max_disagreement
            and self.share_seen >= limits.min_share_seen
            and self.confidence >= limits.min_confidence
        )


@dataclass(frozen=True, slots=True, eq=False)
class Relocalization:
    """Where an image was taken, and how to go on from there.

    The state's poses, once in metres, are relative to `T_map_segment`. It is the keyframe's but
    for the correction by which the camera comes to stand at `T_map_camera`.
    """

    keyframe: Keyframe  # its scale goes with state and prediction
    state: RecurrentState  # batch 1, after the image
    prediction: Prediction  # batch 1, in the network's unit
    median_confidence: float
    T_map_camera: Transform  # metres
    T_map_segment: Transform  # metres
    T_segment_camera: Transform  # metres
    evidence: Evidence


def relocalize(
    network: Network,
    features: Tensor,
    rgb: npt.NDArray[np.uint8],
    intrinsics: Intrinsics | None,
    store: KeyframeStore,
    *,
    candidates: int = 3,
    limits: Limits | None = None,
) -> Relocalization | None:
    """Find out where an image was taken.

    Waits for the device twice, for the descriptor and for the answers.

    Args:
        network: that made the keyframes.
        features: of the image, [1, gh, gw, E] from `Network.encode`.
        rgb: the image as the network saw it, uint8 [H, W, 3].
        intrinsics: of the network's image; None: those of a keyframe.
        store: what is remembered.
        candidates: keyframes tried at most.
        limits: what is believed.

    Returns:
        The answer whose colours agree best, or None if none is to be believed.
    """
    limits = limits or Limits()
    answers = attempts(network, features, rgb, intrinsics, store, candidates)
    believed = [answer for answer in answers if answer.evidence.suffices(limits)]
    return max(believed, key=lambda answer: answer.evidence.photometric_correlation, default=None)


@torch.inference_mode()
def attempts(
    network: Network,
    features: Tensor,
    rgb: npt.NDArray[np.uint8],
    intrinsics: Intrinsics | None,
    store: KeyframeStore,
    candidates: int,
) -> list[Relocalization]:
    """Step the most promising keyframes with an image, features [1, gh, gw, E], without judging."""
    descriptor = describe(features, network.config.enc_embed_dim).cpu().numpy()
    return attempts_with(
        network, features, rgb, intrinsics, store.most_alike(descriptor, candidates)
    )


@torch.inference_mode()
def attempts_with(
    network: Network,
    features: Tensor,
    rgb: npt.NDArray[np.uint8],
    intrinsics: Intrinsics | None,
    keyframes: Sequence[Keyframe],
) -> list[Relocalization]:
    """Step given keyframes with an image, features [1, gh, gw, E].

    Those of another image size are left out.
    """
    small = subsample_picture(rgb)
    tried = [s for s in keyframes if s.rgb.shape == small.shape]
    if not tried:
        return []
    lens = subsample_intrinsics(intrinsics) if intrinsics else tried[0].intrinsics
    state, prediction = network.advance(
        stacked([s.state for s in tried]), features.expand(len(tried), *features.shape[1:])
    )
    picture = torch.from_numpy(small).to(features.device)
    with tf32_products(False):  # poses need more digits
        found = _compared(tried, prediction, picture, lens).double().cpu().numpy()  # [K, 38]
    return [
        _answer(keyframe, _stream(state, k), _prediction(prediction, k), found[k])
        for k, keyframe in enumerate(tried)
        if np.isfinite(found[k, :34]).all()
    ]


def _compared(
    tried: Sequence[Keyframe], prediction: Prediction, picture: Tensor, lens: Intrinsics
) -> Tensor:
    """Lay the points of each keyframe onto the picture; nothing waits for the device.

    Returns:
        [K, 38]: the network's pose [16] in its own unit, the pose found [16] of the keyframe's
        camera in the image's, median confidence, photometric correlation, and disagreement and
        share seen of the keyframe's points in the image and of the image's in the keyframe.
    """
    device = picture.device
    scale = torch.tensor([s.scale for s in tried], device=device)[:, None]
    T_segment_keyframe = torch.from_numpy(
        np.stack([inverse(s.T_map_segment) @ s.T_map_camera for s in tried])
    ).to(device, torch.float32)
    T_segment_camera = prediction.pose_matrix.clone()
    T_segment_camera[:, :3, 3] *= scale
    T_camera_keyframe, photometric_correlation = align(
        _inverses(T_segment_camera) @ T_segment_keyframe,
        torch.stack([s.points for s in tried]),
        torch.stack([torch.from_numpy(s.rgb) for s in tried]).to(device),
        picture,
        lens,
    )
    T_keyframe_camera = _inverses(T_camera_keyframe)
    agreements = []
    for k, keyframe in enumerate(tried):
        points = keyframe.scale * subsample(prediction.points[k])
        confidence = subsample(prediction.confidence[k])
        theirs, their_confidence = keyframe.points.float(), keyframe.confidence.float()
        forth = consistency(theirs, their_confidence, points, T_camera_keyframe[k], lens)
        back = consistency(points, confidence, theirs, T_keyframe_camera[k], keyframe.intrinsics)
        agreements.append(torch.cat((forth[:2], back[:2])))
    median = prediction.confidence.flatten(1).median(dim=1).values
    return torch.cat(
        (
            prediction.pose_matrix.flatten(1),
            T_camera_keyframe.flatten(1),
            median[:, None],
            photometric_correlation[:, None],
            torch.stack(agreements),
        ),
        dim=1,
    )


def _answer(
    keyframe: Keyframe,
    state: RecurrentState,
    prediction: Prediction,
    numbers: npt.NDArray[np.float64],
) -> Relocalization:
    """Name the numbers [38] of `_compared`."""
    T_segment_camera = orthonormal(numbers[:16].reshape(4, 4))
    T_segment_camera[:3, 3] *= keyframe.scale
    T_camera_keyframe = orthonormal(numbers[16:32].reshape(4, 4))
    T_map_camera = keyframe.T_map_camera @ inverse(T_camera_keyframe)
    median, photometric_correlation, forth, share_forth, back, share_back = numbers[32:].tolist()
    return Relocalization(
        keyframe=keyframe,
        state=state,
        prediction=prediction,
        median_confidence=median,
        T_map_camera=T_map_camera,
        T_map_segment=T_map_camera @ inverse(T_segment_camera),
        T_segment_camera=T_segment_camera,
        evidence=Evidence(
            photometric_correlation=photometric_correlation,
            disagreement=max(forth, back),
            share_seen=min(share_forth, share_back),
            confidence=(median - 1) / max(keyframe.median_confidence - 1, _LEAST_CONFIDENCE),
        ),
    )


def stacked(states: Sequence[RecurrentState]) -> RecurrentState:
    """Several states of batch 1 as one batch."""
    parts = [state.to_tensors() for state in states]
    return RecurrentState.from_tensors(
        {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    )


def _stream(state: RecurrentState, k: int) -> RecurrentState:
    tensors = {name: tensor[k : k + 1].clone() for name, tensor in state.to_tensors().items()}
    return RecurrentState.from_tensors(tensors)


def _prediction(prediction: Prediction, k: int) -> Prediction:
    return Prediction(
        points=prediction.points[k : k + 1],
        confidence=prediction.confidence[k : k + 1],
        pose=prediction.pose[k : k + 1],
        pose_matrix=prediction.pose_matrix[k : k + 1],
        gain=prediction.gain[k : k + 1],
    )


def _inverses(T: Tensor) -> Tensor:
    """The inverses of rigid transforms [K, 4, 4]."""
    rotation = T[:, :3, :3].transpose(1, 2)
    top = torch.cat((rotation, -rotation @ T[:, :3, 3:]), dim=2)
    return torch.cat((top, T[:, 3:]), dim=1)
