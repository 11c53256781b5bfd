# SPDX-License-Identifier: Apache-2.0
"""What the demonstration says of itself: how near it came to the truth, in words.

The errors are those of `live_evaluation`, whose report these words are put into.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ttt3r_ros.clients.live_evaluation import LiveResult
from ttt3r_ros.evaluation.collector import Collector
from ttt3r_ros.evaluation.report.render import sequence_text
from ttt3r_ros.geometry import inverse

Poses = npt.NDArray[np.float64]  # [N, 4, 4]


def compared_poses(result: LiveResult) -> tuple[Poses, Poses]:
    """Return the poses that have a true one, camera to map [N, 4, 4], and the true ones.

    They are those after all loops.
    """
    return _compared(result.collected, result)


def online_poses(result: LiveResult) -> Poses:
    """Return the poses that the robot had, of images with a true one, [N, 4, 4]."""
    return _compared(result.online, result)[0]


def _compared(collected: Collector, result: LiveResult) -> tuple[Poses, Poses]:
    true = result.comparison.true_poses
    found = zip(collected.stamps_ns.tolist(), collected.poses, strict=True)
    pairs = [(T, true[stamp]) for stamp, T in found if stamp in true]
    poses, true_poses = np.reshape(pairs, (-1, 2, 4, 4)).swapaxes(0, 1)
    return poses, true_poses


def demo_text(result: LiveResult, *, seed: int) -> str:
    """Return the report in Markdown.

    Args:
        result: with poses that are compared.
        seed: of the room.
    """
    more = {"accuracy": accuracy(result), "seed": seed}
    return sequence_text(result.report, "demo.md", **more)


def accuracy(result: LiveResult) -> dict[str, str]:
    """Return what was found out about the room and the path, in words."""
    path, depth = result.report.metrics["trajectory"], result.report.metrics["depth"]
    poses, true = compared_poses(result)
    ate_m, resting_m = path["alignments"]["se3"]["ate_rmse_m"], path["guess_ate_rmse_m"]
    at_first = (true[0] @ inverse(poses[0]) @ poses)[:, :3, 3]
    places = true[:, :3, 3]
    first_m, resting_first_m = _rms(at_first - places), _rms(places - places[0])
    known = "none"
    if depth:
        share = depth["pixels"] / max(1, depth["pixels"] + depth["pixels_not_finite"])
        known = f"{100 * share:.0f} %"
    return {
        "map points": str(len(result.cloud[0]) if result.cloud else 0),
        "length of the true path": f"{path['path_length_m']:.2f} m",
        "length of the estimated path": f"{_length(poses[:, :3, 3]):.2f} m",
        "position error (ATE), RMSE after a rigid alignment": _metres(ate_m),
        **_before_loops(result),
        "the same for a camera that never moves": _metres(resting_m),
        "ratio of the two (below 1 is better than not moving)": ratio(ate_m, resting_m),
        "position error, RMSE, in the frame of the first camera": _metres(first_m),
        "that for a camera that never moves": _metres(resting_first_m),
        "ratio of these two": ratio(first_m, resting_first_m),
        "depth error (AbsRel), mean of abs(d - true) / true": (
            f"{depth['alignments']['metric']['abs_rel']:.3f}"
            if depth
            else "none: no depth was known"
        ),
        "pixels with a depth": known,
    }


def _before_loops(result: LiveResult) -> dict[str, str]:
    path = result.report.metrics["trajectory_online"]
    if not path:
        return {}
    return {
        "the same for the poses that the robot had": _metres(
            path["alignments"]["se3"]["ate_rmse_m"]
        )
    }


def ratio(error_m: float | None, resting_m: float) -> str:
    """Return an error as a share of that of a camera that never moves."""
    if error_m is None:
        return "none: no alignment"
    return f"{error_m / resting_m:.2f}" if resting_m else "none: the camera stood still"


def _metres(value: float | None) -> str:
    return "none: no alignment" if value is None else f"{value:.3f} m"


def _rms(vectors: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt((vectors**2).sum(axis=1).mean()))


def _length(path: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
