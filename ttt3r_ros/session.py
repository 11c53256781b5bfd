# SPDX-License-Identifier: Apache-2.0
"""A folder with all it takes to come back to a map: keyframes, voxels, trajectory.

`session.json` says what the folder holds and for which network, `keyframes.safetensors` and
`map.safetensors` hold the tensors, `map.ply` and `trajectory.tum` are for other programs; of these
two only the trajectory is read back. `graph.json` is what is known of loops (see `session_graph`):
voxels, keyframes and the path belong to its nodes, so that all of it moves when the graph goes on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ttt3r_ros.config import Config
from ttt3r_ros.geometry import Intrinsics, Transform
from ttt3r_ros.io.atomic import exchange, sha256
from ttt3r_ros.io.point_cloud import write_ply
from ttt3r_ros.io.trajectory import TumWriter, read_tum
from ttt3r_ros.loading import SHIPPED
from ttt3r_ros.mapping.voxels import check_map_tensors
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.pose_graph.memory import LoopMemory
from ttt3r_ros.relocalization.keyframes import Keyframe, subsample
from ttt3r_ros.session_graph import read_graph, write_graph
from ttt3r_ros.types import SessionError

FORMAT = "ttt3r_ros session 3"
"""The value of `format` in `session.json`."""

MAX_POSES = 20_000
"""Of a path, kept at most."""

_ABOUT, _KEYFRAMES, _MAP = "session.json", "keyframes.safetensors", "map.safetensors"
_CLOUD, _TRAJECTORY, _GRAPH = "map.ply", "trajectory.tum", "graph.json"
_STATE_PREFIX = "state."
# float64 and int64 go into the JSON file: the values are few and exact there.
_NUMBERS = ("stamp_ns", "segment", "scale", "median_confidence", "depth_m")
_POSES = ("T_map_segment", "T_map_camera")
_TENSORS = ("points", "confidence", "rgb", "picture", "descriptor")


@dataclass(frozen=True, slots=True)
class MadeFor:
    """What the states of a session belong to."""

    checkpoint_sha256: str
    update_rule: str
    damping: float
    image_size: int  # long edge of the network's image in pixels


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """What is kept of a map."""

    keyframes: Sequence[Keyframe]  # the oldest first
    map_tensors: Mapping[str, Tensor]  # from `VoxelMap.to_tensors`
    trajectory: Sequence[tuple[int, Transform]]  # stamps in ns and T_map_camera
    path_segments: Sequence[int]  # for each pose of the trajectory, its node in the graph
    loops: LoopMemory  # to whose nodes voxels and keyframes belong, too

    def renumbered(self, numbers: Mapping[int, int]) -> Session:
        """The same with another number for each segment.

        Raises:
            ValueError: something belongs to a segment without one.
        """
        segment = self.map_tensors["segment"]
        found = {*np.unique(segment.numpy()).tolist(), *self.path_segments}
        found |= {keyframe.segment for keyframe in self.keyframes}
        if missing := sorted(found - numbers.keys()):
            raise ValueError(f"the graph has no nodes {missing}, to which something belongs")
        old = torch.tensor(sorted(numbers), dtype=segment.dtype)
        new = torch.tensor([numbers[s] for s in sorted(numbers)], dtype=segment.dtype)
        renumbered = new[torch.searchsorted(old, segment)] if len(old) else segment
        return Session(
            [replace(keyframe, segment=numbers[keyframe.segment]) for keyframe in self.keyframes],
            {**self.map_tensors, "segment": renumbered},
            self.trajectory,
            [numbers[segment] for segment in self.path_segments],
            self.loops.renumbered(numbers),
        )


def made_for(config: Config, image_size: int) -> MadeFor:
    """Say what the states of a network belong to; reads the file of weights once.

    Raises:
        OSError: the file of weights cannot be read.
    """
    digest = sha256(Path(config.checkpoint or SHIPPED))
    return MadeFor(digest, config.update_rule, config.damping, image_size)


def save_session(folder: str | Path, session: Session, owner: MadeFor) -> None:
    """Write a folder, whole or not at all.

    A session that was there is replaced. It is in its place until the new one is whole.

    Args:
        folder: its parent exists.
        session: what to write. Nothing here is changed, so tracking may go on meanwhile.
        owner: what the states belong to.

    Raises:
        SessionError: as `check_target`, or a state is not finite.
        OSError: it cannot be written; nothing is left behind.
    """
    folder = Path(folder).absolute()
    check_target(folder)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        _write(unfinished, session, owner)
        for path in unfinished.iterdir():  # before they have their names, as `atomic_write` does
            with path.open("rb") as file:
                os.fsync(file.fileno())
        _put_in_place(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def check_target(folder: Path) -> None:
    """Check that a session may be written under a name.

    Raises:
        SessionError: there is something else, or no folder that it could be in.
    """
    folder = folder.absolute()
    if not folder.parent.is_dir():
        raise SessionError(f"{folder}: the folder {folder.parent} does not exist")
    if folder.is_symlink() or (folder.exists() and not _may_be_replaced(folder)):
        raise SessionError(f"{folder}: exists and is no session; it is left as it is")


def load_session(
    folder: str | Path,
    owner: MadeFor,
    initial: RecurrentState,
    voxel_size_m: float,
    device: torch.device | str = "cpu",
) -> Session:
    """Read a folder written by `save_session`.

    Args:
        folder: the session.
        owner: what states must belong to, to be of use.
        initial: a state of the network, of batch 1, that the session's must be like.
        voxel_size_m: that the map must have, in metres.
        device: where the keyframes' tensors go; those of the map stay on the host, and
            `VoxelMap.from_tensors` takes them.

    Returns:
        The session with its segments numbered anew: the newest is -1, the one before -2. A stream
        counts its own from 0 on.

    Raises:
        SessionError: no session, one of another version, damaged, or made for other weights,
            another update rule, image size or voxel size.
    """
    folder = Path(folder)
    about = _read_about(folder)
    try:
        made = asdict(MadeFor(**about["made_for"]))
        for name, needed in asdict(owner).items():
            if made[name] != needed:
                raise SessionError(
                    f"{folder}: {name}: must be {needed!r} as this network's, "
                    f"the session was made with {made[name]!r}"
                )
        map_tensors = _read_tensors(folder / _MAP)
        check_map_tensors(map_tensors)
        if (size_m := float(map_tensors["voxel_size_m"])) != voxel_size_m:
            raise SessionError(
                f"{folder}: map.voxel_size_m: must be {size_m:g} as in the session's map, "
                f"got {voxel_size_m:g}"
            )
        keyframes = [
            _keyframe(f"keyframe {i}", numbers, tensors, initial, device)
            for i, (numbers, tensors) in enumerate(_divided(about["keyframes"], folder))
        ]
        stamps, poses = read_tum(folder / _TRAJECTORY)
        loops, path_segments = read_graph(folder / _GRAPH)
        for name, expected, found in (
            ("voxels", about["voxels"], len(map_tensors["key"])),
            ("poses", about["poses"], len(stamps)),
            ("segments of poses", about["poses"], len(path_segments)),
        ):
            if expected != found:
                raise ValueError(f"{expected} {name} expected, {found} found")
        path = list(zip(stamps.tolist(), poses, strict=True))
        saved = Session(keyframes, map_tensors, path, path_segments, loops)
        segments = loops.graph.segments
        return saved.renumbered({s: i - len(segments) for i, s in enumerate(segments)})
    except SessionError:
        raise
    except KeyError as error:
        raise SessionError(f"{folder}: damaged session: {error} is missing") from error
    except (OSError, TypeError, ValueError) as error:
        raise SessionError(f"{folder}: damaged session: {error}") from error


def _may_be_replaced(folder: Path) -> bool:
    """Whether it is a session of any version, or an empty folder."""
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        about = json.loads((folder / _ABOUT).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and str(about.get("format", "")).startswith("ttt3r_ros session")


def _put_in_place(unfinished: Path, folder: Path) -> None:
    """Rename; what was there goes when the new folder has its name."""
    if folder.exists() and exchange(unfinished, folder):
        shutil.rmtree(unfinished, ignore_errors=True)  # what was there
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    replaced = folder.exists()
    if replaced:
        folder.rename(old)
    try:
        unfinished.rename(folder)
    except OSError:
        if replaced:
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, session: Session, owner: MadeFor) -> None:
    described, tensors = [], {}
    for i, keyframe in enumerate(session.keyframes):
        numbers = {name: getattr(keyframe, name) for name in _NUMBERS}
        poses = {name: getattr(keyframe, name).tolist() for name in _POSES}
        described.append({**numbers, **poses, "intrinsics": asdict(keyframe.intrinsics)})
        for name, tensor in _tensors_of(keyframe).items():
            if name.startswith(_STATE_PREFIX) and not tensor.isfinite().all():
                raise SessionError(f"{folder.name}: keyframe {i}: {name} is not finite")
            tensors[f"{i}.{name}"] = tensor
    try:
        save_file(tensors, folder / _KEYFRAMES)
        save_file(dict(session.map_tensors), folder / _MAP)
    except SafetensorError as error:  # of a full disk, too
        raise OSError(f"{folder}: {error}") from error
    mean = session.map_tensors["mean"]
    points = np.ascontiguousarray(mean[:, :3].numpy())
    write_ply(folder / _CLOUD, points, mean[:, 3:].round().to(torch.uint8).numpy())
    with TumWriter(folder / _TRAJECTORY) as file:
        for stamp_ns, T_map_camera in session.trajectory:
            file.append(stamp_ns, T_map_camera)
    write_graph(folder / _GRAPH, session.loops, session.path_segments)
    about = {
        "format": FORMAT,
        "made_for": asdict(owner),
        "voxels": len(mean),
        "poses": len(session.trajectory),
        "keyframes": described,
    }
    (folder / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", "utf-8")


def _tensors_of(keyframe: Keyframe) -> dict[str, Tensor]:
    tensors = {name: torch.as_tensor(getattr(keyframe, name)) for name in _TENSORS}
    tensors.update({_STATE_PREFIX + k: v for k, v in keyframe.state.to_tensors().items()})
    return {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / _ABOUT
    try:
        about = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SessionError(f"{folder}: no session, there is no {_ABOUT} in it") from None
    except (OSError, ValueError) as error:
        raise SessionError(f"{path}: cannot be read: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else about
        raise SessionError(f"{path}: 'format' must be {FORMAT!r}, got {found!r}")
    return about


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            # Copies, for the file may be replaced while it is mapped.
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _divided(
    described: Sequence[Mapping[str, Any]], folder: Path
) -> Iterator[tuple[Mapping[str, Any], dict[str, Tensor]]]:
    """Yield what is said of each keyframe, and its tensors by name."""
    tensors: list[dict[str, Tensor]] = [{} for _ in described]
    for name, tensor in _read_tensors(folder / _KEYFRAMES).items():
        number, _, own_name = name.partition(".")
        if not number.isdecimal() or int(number) >= len(tensors):
            raise ValueError(f"{_KEYFRAMES}: {name} belongs to none of {len(tensors)} keyframes")
        tensors[int(number)][own_name] = tensor
    return zip(described, tensors, strict=True)


def _keyframe(
    name: str,
    numbers: Mapping[str, Any],
    tensors: dict[str, Tensor],
    initial: RecurrentState,
    device: torch.device | str,
) -> Keyframe:
    intrinsics = Intrinsics(**numbers["intrinsics"])
    size = (intrinsics.height, intrinsics.width)
    wanted = {_STATE_PREFIX + k: (t.dtype, tuple(t.shape)) for k, t in initial.to_tensors().items()}
    wanted["points"] = (torch.float16, (*size, 3))
    wanted["confidence"] = (torch.float16, size)
    wanted["rgb"] = (torch.uint8, (*size, 3))
    wanted["picture"] = (torch.uint8, (*tensors["picture"].shape[:2], 3))
    wanted["descriptor"] = (torch.float32, tuple(tensors["descriptor"].shape[:1]))
    found = {k: (t.dtype, tuple(t.shape)) for k, t in tensors.items()}
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise ValueError(
                f"{name}: {key}: expected {_words(wanted.get(key))}, got {_words(found.get(key))}"
            )
    if tuple(subsample(tensors["picture"]).shape[:2]) != size:
        raise ValueError(f"{name}: picture: {wanted['picture'][1]} does not go with rgb {size}")
    state = {
        key.removeprefix(_STATE_PREFIX): tensor
        for key, tensor in tensors.items()
        if key.startswith(_STATE_PREFIX)
    }
    poses = {key: _pose(name, key, numbers[key]) for key in _POSES}
    return Keyframe(
        **{key: numbers[key] for key in _NUMBERS},
        T_map_segment=poses["T_map_segment"],
        T_map_camera=poses["T_map_camera"],
        state=RecurrentState.from_tensors(state).to(device),
        points=tensors["points"].to(device),
        confidence=tensors["confidence"].to(device),
        rgb=tensors["rgb"].numpy(),
        picture=tensors["picture"].numpy(),
        descriptor=tensors["descriptor"].numpy(),
        intrinsics=intrinsics,
    )


def _words(kind: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    return f"{kind[0]} {list(kind[1])}" if kind else "nothing"


def _pose(name: str, key: str, numbers: Any) -> Transform:
    pose = np.array(numbers, np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise ValueError(f"{name}: {key}: expected finite numbers [4, 4], got {numbers}")
    return pose
