# SPDX-License-Identifier: Apache-2.0
"""What the node writes below `output_dir`: map, trajectory and session, each under a new name.

A copy is taken between two images and written while the next are tracked; in which threads is the
worker's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from ttt3r_ros.config import Config, NodeConfig
from ttt3r_ros.geometry import Transform
from ttt3r_ros.io.atomic import atomic_write
from ttt3r_ros.io.point_cloud import CLOUD_WRITERS
from ttt3r_ros.io.trajectory import TumWriter
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.session import Session, made_for, save_session
from ttt3r_ros.types import SessionError

Write: TypeAlias = Callable[[Path], None]


class NothingToSaveError(Exception):
    """There is no map, trajectory or session yet; the message says which."""


def take(what: str, pipeline: Pipeline, node_config: NodeConfig) -> Callable[[], Path]:
    """Copy what is to be saved; to be called between two images.

    Args:
        what: one of `SAVED`.
        pipeline: what comes out of it.
        node_config: where to write, and in which format.

    Returns:
        What writes the copy, in any thread, and returns the path. It holds no network and raises
        OSError, naming the path, or SessionError; nothing is left behind then.

    Raises:
        NothingToSaveError: as it says.
    """
    ending, write = SAVED[what](pipeline, node_config)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S_%f")
    path = Path(node_config.output_dir).expanduser() / f"{what}_{stamp}{ending}"

    def save() -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        return path

    return save


def _map(pipeline: Pipeline, node_config: NodeConfig) -> tuple[str, Write]:
    pipeline.settle_map()
    cloud = pipeline.map.cloud(pipeline.config.map.min_hits)
    form = node_config.map_format
    if not len(cloud.points):
        least = pipeline.config.map.min_hits
        raise NothingToSaveError(f"no voxel of the map was seen by {least} images")
    write_cloud = CLOUD_WRITERS[form]
    return f".{form}", lambda path: write_cloud(path, cloud.points, cloud.colours)


def _trajectory(pipeline: Pipeline, node_config: NodeConfig) -> tuple[str, Write]:
    poses = pipeline.trajectory()
    if not poses:
        raise NothingToSaveError("the trajectory is empty")
    return ".tum", partial(_write_trajectory, poses)


def _session(pipeline: Pipeline, node_config: NodeConfig) -> tuple[str, Write]:
    try:
        session = pipeline.session()
    except SessionError as error:
        raise NothingToSaveError(str(error)) from error
    return "", partial(_write_session, session, pipeline.config, pipeline.model.image_size)


SAVED: Mapping[str, Callable[[Pipeline, NodeConfig], tuple[str, Write]]] = MappingProxyType(
    {"map": _map, "trajectory": _trajectory, "session": _session}
)
"""By the name of what is saved: what copies it; the end of the file's name, and what writes it."""


def _write_trajectory(poses: list[tuple[int, Transform]], path: Path) -> None:
    with atomic_write(path) as unfinished, TumWriter(unfinished) as file:
        for stamp_ns, T_map_camera in poses:
            file.append(stamp_ns, T_map_camera)


def _write_session(session: Session, config: Config, image_size: int, path: Path) -> None:
    save_session(path, session, made_for(config, image_size))
