# SPDX-License-Identifier: Apache-2.0
"""THE defaults: every setting once, with help, unit and bounds.

ROS parameters, command-line flags, `config/ttt3r.yaml` and the documentation derive from these
classes. Names join groups with dots: `map.voxel_size` is `Config.map.voxel_size`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

ConfigT = TypeVar("ConfigT")


class ConfigError(ValueError):
    """A setting that does not exist or cannot have this value; the message names both."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as ROS descriptors, flags and documents need it."""

    name: str  # dotted
    default: Any
    help: str
    unit: str
    low: float | None  # least value allowed
    high: float | None  # greatest value allowed
    choices: tuple[str, ...]  # empty: any
    runtime: bool  # may change while images are processed

    def parse(self, value: Any) -> Any:
        """Return `value` as this setting's type.

        Args:
            value: a Python value, or the text of one from a command line.

        Raises:
            ConfigError: the type is wrong or the value is out of bounds.
        """
        kind = type(self.default)
        try:
            if kind is bool:
                value = _parse_bool(value)
            elif kind is int:
                if isinstance(value, bool) or (isinstance(value, float) and value % 1):
                    raise ValueError
                value = int(value)
            elif kind is float:
                if isinstance(value, bool):
                    raise ValueError
                value = float(value)
            elif kind is tuple:
                value = value.replace(",", " ").split() if isinstance(value, str) else value
                value = tuple(float(v) for v in value)
            elif not isinstance(value, str):
                raise ValueError
        except (TypeError, ValueError):
            raise ConfigError(f"{self.name}: expected {kind.__name__}, got {value!r}") from None
        self._check_bounds(value)
        return value

    def _check_bounds(self, value: Any) -> None:
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name}: must be one of {self.choices}, got {value!r}")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{self.name}: must be finite, got {value!r}")
        if self.low is not None and value < self.low:
            raise ConfigError(f"{self.name}: must be at least {self.low:g}, got {value!r}")
        if self.high is not None and value > self.high:
            raise ConfigError(f"{self.name}: must be at most {self.high:g}, got {value!r}")


def _parse_bool(value: Any) -> bool:
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower())
    if not isinstance(value, bool):
        raise ValueError
    return value


def _setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    runtime: bool = False,
) -> Any:
    metadata = dict(help=help, unit=unit, low=low, high=high, choices=choices, runtime=runtime)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """A segment is a stretch of images with one recurrent state."""

    reset_interval: int = _setting(
        -1, "images in a segment; -1: what the checkpoint recommends, 0: never reset", low=-1
    )
    scale_from: str = _setting(
        "network",
        "scale of a segment: network: its own; seam: the one before's, by the shared image's depth",
        choices=("network", "seam"),
    )
    max_scale_spread: float = _setting(
        0.15, "of the shared image's log depth ratios; above it no scale is taken from it", low=0.0
    )


@dataclass(frozen=True, slots=True)
class ConfidenceConfig:
    """The network's own confidence, 1 to infinity."""

    min: float = _setting(
        1.5, "points below this are left out of depth and map", low=1.0, runtime=True
    )


@dataclass(frozen=True, slots=True)
class DepthConfig:
    """Bounds on the depth that is used."""

    max_m: float = _setting(
        20.0,
        "points farther than this are left out of depth and map",
        unit="m",
        low=0.1,
        runtime=True,
    )


@dataclass(frozen=True, slots=True)
class MapConfig:
    """The accumulating voxel map."""

    voxel_size: float = _setting(0.05, "edge of a voxel", unit="m", low=0.001, high=10.0)
    max_points: int = _setting(2_000_000, "voxels kept at most", low=1000, high=50_000_000)
    pixel_stride: int = _setting(
        1, "every n-th row and column goes into the map", low=1, high=64, runtime=True
    )
    min_hits: int = _setting(
        1, "voxels seen by fewer images are kept but not shown", low=1, high=100, runtime=True
    )
    max_range_m: float = _setting(
        20.0,
        "points farther from the camera are left out of the map",
        unit="m",
        low=0.1,
        runtime=True,
    )
    edge_filter: float = _setting(
        0.05,
        "pixels at jumps of depth above this share of it are left out of the map; 0: none",
        low=0.0,
        runtime=True,
    )
    carve: bool = _setting(
        False,
        "voxels that the camera sees through lose a hit, and go at none; for places that change",
        runtime=True,
    )
    publish_hz: float = _setting(
        1.0, "rate of ~/cloud_map while it changes", unit="Hz", low=0.01, high=100.0
    )
    publish_max_points: int = _setting(
        500_000,
        "~/cloud_map is thinned evenly to this; saved maps are not",
        low=1,
        high=50_000_000,
        runtime=True,
    )


@dataclass(frozen=True, slots=True)
class TimeConfig:
    """What the time guard does with image stamps."""

    jump_back_s: float = _setting(
        1.0,
        "stamps this far back reset; nearer ones drop the image",
        unit="s",
        low=0.0,
        runtime=True,
    )
    max_gap_s: float = _setting(
        2.0, "a longer gap starts a new segment; 0: never", unit="s", low=0.0, runtime=True
    )


@dataclass(frozen=True, slots=True)
class TrackingConfig:
    """Where a signal of an image is odd, or tells that all is lost; see `tracking_state`.

    The figures behind each are printed by `benchmarks/evaluate_faults.py`.
    """

    lost_contrast: float = _setting(
        2.0, "LOST with less contrast of the picture", unit="grey levels", low=0.0
    )
    odd_similarity: float = _setting(
        0.68, "odd with less correlation of the picture with the last one", low=-1.0, high=1.0
    )
    lost_similarity: float = _setting(
        0.6, "LOST with less correlation of the picture with the last one", low=-1.0, high=1.0
    )
    similarity_s: float = _setting(
        0.3, "pictures further apart in time may differ", unit="s", low=0.0
    )
    odd_detail: float = _setting(
        0.4, "odd with less of the usual detail, as blurred pictures have", low=0.0, high=1.0
    )
    odd_repeats: int = _setting(
        2, "odd with the same picture this often again, in a row; 0: never", low=0
    )
    odd_confidence: float = _setting(
        0.2, "odd with less of the usual confidence above 1", low=0.0, high=1.0
    )
    odd_jump: float = _setting(
        4.0, "odd with jumps above this many times what nine of ten images stay below", low=1.0
    )
    least_disagreement: float = _setting(
        0.1, "of depths with the last image's that can be odd; 0.1 is 10 %", low=0.0
    )
    least_translation: float = _setting(
        0.03, "off constant velocity that can be odd, as a share of the depth", low=0.0
    )
    least_rotation_rad: float = _setting(
        0.035, "off constant velocity that can be odd", unit="rad", low=0.0
    )
    odd_share_seen: float = _setting(
        0.3, "odd with a smaller share of the last image's points in view", low=0.0, high=1.0
    )
    history: int = _setting(50, "images that make what is usual", low=1, high=10_000)
    least_history: int = _setting(5, "with fewer images nothing is usual yet", low=1)
    good_images: int = _setting(2, "in a row before TRACKING", low=1)
    patience: int = _setting(
        30, "LOST images in a row that are at worst odd, after which that is usual", low=0
    )


@dataclass(frozen=True, slots=True)
class RecoveryConfig:
    """How a camera that was lost comes back to a place it has seen."""

    snapshots: int = _setting(
        64, "places remembered at most, 4 MB each with the published networks; 0: none", low=0
    )
    candidates: int = _setting(3, "of these tried with an image", low=1, high=64)


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """Places seen again, which correct the map while it grows."""

    enabled: bool = _setting(
        True, "When a place is seen again, the map is corrected; odom stays as it is."
    )
    every_images: int = _setting(
        10, "Only every so many images it is asked whether their place was seen before.", low=1
    )
    budget: float = _setting(
        0.15,
        "Questions take at most this share of the time, as one core has it; with every_frame they "
        "are counted in images alone.",
        low=0.001,
        high=1.0,
    )
    candidates: int = _setting(
        3, "For each question so many old places are tried, the most alike ones.", low=1, high=64
    )
    min_step: float = _setting(
        0.05,
        "A question waits until the camera has gone so far since the last one: shares of the depth "
        "and radians, added up.",
        low=0.0,
    )
    min_path: float = _setting(
        1.0,
        "Places are asked for only when the camera has gone so far since: shares of the depth and "
        "radians, added up.",
        low=0.0,
    )
    delay_images: int = _setting(
        5, "With every_frame an answer takes effect so many images after the one asked for.", low=0
    )
    max_correction_m: float = _setting(
        1.0,
        "A correction that moves the camera farther waits for a second loop that agrees.",
        unit="m",
        low=0.0,
    )
    max_segments: int = _setting(
        400, "Of more segments old neighbours become one rigid piece each.", low=2, high=5000
    )


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the pipeline, with or without ROS."""

    checkpoint: str = _setting(
        "", "weights, .safetensors or official .pth; empty: the package's small demo model"
    )
    device: str = _setting("auto", "auto, cpu, cuda or cuda:N; auto: a GPU where there is one")
    dtype: str = _setting(
        "auto",
        "of matrix products, but for the heads'; auto: tf32 on a GPU, as published, else float32",
        choices=("auto", "float32", "tf32", "bfloat16", "float16"),
    )
    acceleration: str = _setting(
        "auto",
        "graphs: steps are recorded once per image size as CUDA graphs; compile: by torch.compile "
        "too, which takes minutes at the start; auto: graphs on a GPU, if they work, else none",
        choices=("auto", "none", "graphs", "compile"),
    )
    half_rotary: bool = _setting(
        False, "round encoder queries and keys to float16 as the official GPU code does"
    )
    update_rule: str = _setting(
        "ttt3r", "how the state is updated", choices=("cut3r", "ttt3r", "brake", "filt3r")
    )
    damping: float = _setting(1.0, "factor of the gain of ttt3r", low=0.01, high=1.0)
    image_size: int = _setting(
        0, "long edge of the network's image; 0: the checkpoint's", unit="px", low=0, high=4096
    )
    preprocessing: str = _setting(
        "auto",
        "exact: through Pillow, as published; fast: one antialiased bicubic filter; "
        "auto: exact with every_frame, else fast",
        choices=("auto", "exact", "fast"),
    )
    fit: str = _setting(
        "crop",
        "crop: cut the image to whole patches; resize: squeeze it, for comparing with papers",
        choices=("crop", "resize"),
    )
    every_frame: bool = _setting(
        False, "process every image, none is replaced by a newer one (bags, tests)"
    )
    scale: float = _setting(
        1.0, "metres per unit of the network, until scale_source knows more", low=1e-6, high=1e6
    )
    scale_source: str = _setting(
        "fixed",
        "fixed: scale; odom: what the robot's odometry says of the path; camera_height: the floor",
        choices=("fixed", "odom", "camera_height"),
    )
    camera_height_m: float = _setting(
        0.0, "of the camera above the floor, for scale_source camera_height", unit="m", low=0.0
    )
    max_scale_spread: float = _setting(
        0.2, "of log scales by scale_source; above it they are not trusted", low=0.0
    )
    session: str = _setting(
        "", "folder of ~/save_session to go on from; nothing is tracked before it is recognised"
    )
    motion_gate: float = _setting(
        0.0,
        "images nearer than this to the last one in the state are not written into it; 0: all are",
        unit="grey levels",
        low=0.0,
        high=255.0,
    )
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    map: MapConfig = field(default_factory=MapConfig)
    time: TimeConfig = field(default_factory=TimeConfig)


@dataclass(frozen=True, slots=True)
class PathConfig:
    """The way of the robot as it is published."""

    rate_hz: float = _setting(
        1.0, "rate of ~/path while it changes", unit="Hz", low=0.01, high=100.0
    )
    # Images wait while it is made and sent: 2000 poses take 10 ms, and 80 ms at first.
    max_poses: int = _setting(
        1000, "~/path is thinned evenly to this", low=2, high=2000, runtime=True
    )


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Settings of the ROS node alone."""

    autostart: bool = _setting(True, "configure and activate at start")
    image_transport: str = _setting(
        "raw", "raw: sensor_msgs/Image; compressed: JPEG or PNG", choices=("raw", "compressed")
    )
    image_reliability: str = _setting(
        "best_effort",
        "of the image subscription; every_frame is always reliable",
        choices=("best_effort", "reliable"),
    )
    queue_size: int = _setting(
        1000, "images waiting at most with every_frame", low=1, high=1_000_000
    )
    camera_frame: str = _setting("", "optical frame of images whose header names none")
    base_frame: str = _setting("", "the robot's frame; empty: topmost one fixed to the camera")
    odom_frame: str = _setting("odom", "continuous frame the poses are given in")
    map_frame: str = _setting("map", "parent of the odometry frame")
    odom_source: str = _setting(
        "camera",
        "camera: odom -> base_frame is of this node; tf: of the robot, which leaves map -> odom",
        choices=("camera", "tf"),
    )
    transform_tolerance_s: float = _setting(
        0.5,
        "with odom_source tf, map -> odom is stamped so far ahead of its image",
        unit="s",
        low=0.0,
        high=10.0,
        runtime=True,
    )
    odometry_frame: str = _setting(
        "", "TF frame of the robot's odometry for scale_source odom; empty: the topic odometry"
    )
    camera_pose: tuple[float, ...] = _setting(
        (), "x y z roll pitch yaw of the camera's body in base_frame; empty: looked up in TF"
    )
    tf_wait_s: float = _setting(1.0, "how long TF is waited for at the start", unit="s", low=0.0)
    publish_odom_tf: bool = _setting(True, "publish odom -> base_frame", runtime=True)
    publish_map_tf: bool = _setting(True, "publish map -> odom", runtime=True)
    output_dir: str = _setting(
        "~/.ros/ttt3r", "folder below which the ~/save_ services write; it is made"
    )
    map_format: str = _setting(
        "ply", "of the file that ~/save_map writes", choices=("ply", "pcd"), runtime=True
    )
    save_on_shutdown: bool = _setting(
        False,
        "write map, trajectory and, if there is one, session below output_dir "
        "when the node is shut down or cleaned up",
        runtime=True,
    )
    publish_when_lost: bool = _setting(
        False, "publish images, points and the last known pose of LOST images too", runtime=True
    )
    path: PathConfig = field(default_factory=PathConfig)

    def __post_init__(self) -> None:
        if self.owns_odom and self.odometry_frame == self.odom_frame:
            raise ConfigError(
                f"odometry_frame: {self.odometry_frame!r} is the frame this node publishes in: "
                "set publish_odom_tf to false, or odom_frame to another one"
            )
        if self.odom_source == "tf" and self.odometry_frame not in ("", self.odom_frame):
            raise ConfigError(
                f"odometry_frame: with odom_source tf the odometry is odom_frame's, "
                f"{self.odom_frame!r}: must be that or empty, got {self.odometry_frame!r}"
            )
        if len(self.camera_pose) not in (0, 6):
            raise ConfigError(
                f"camera_pose: empty or six numbers x y z roll pitch yaw, got {self.camera_pose}"
            )

    @property
    def owns_odom(self) -> bool:
        """Whether odom -> base_frame is this node's to publish."""
        return self.publish_odom_tf and self.odom_source == "camera"

    @property
    def odometry_tf_frame(self) -> str:
        """The frame of the robot's own odometry in TF, empty if it comes as messages."""
        return self.odom_frame if self.odom_source == "tf" else self.odometry_frame


def settings(*configs: type) -> dict[str, Setting]:
    """Return all settings of the configuration classes by dotted name."""
    return {setting.name: setting for config in configs for setting in _walk(config, "")}


def _walk(config: type, prefix: str) -> Iterator[Setting]:
    for entry in fields(config):
        if entry.default is MISSING and callable(entry.default_factory):
            yield from _walk(entry.default_factory, f"{prefix}{entry.name}.")  # type: ignore[arg-type]
        else:
            yield Setting(name=prefix + entry.name, default=entry.default, **entry.metadata)


def to_dict(config: Any) -> dict[str, Any]:
    """Return the values of a configuration by dotted name."""
    values = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        if is_dataclass(value):
            values.update({f"{entry.name}.{k}": v for k, v in to_dict(value).items()})
        else:
            values[entry.name] = value
    return values


def with_values(config: ConfigT, values: Mapping[str, Any]) -> ConfigT:
    """Return `config` with the values given by dotted name.

    Raises:
        ConfigError: a name is unknown or a value is of the wrong type or out of bounds.
    """
    known = settings(type(config))
    parsed: dict[str, dict[str, Any]] = {}  # by group; checked together, in whatever order
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(f"{name}: no such setting" + (f", {near[0]}?" if near else ""))
        group, _, leaf = name.rpartition(".")
        parsed.setdefault(group, {})[leaf] = known[name].parse(value)
    own = parsed.pop("", {})
    groups = {group: replace(getattr(config, group), **leaves) for group, leaves in parsed.items()}
    return replace(config, **own, **groups)  # type: ignore[type-var]
