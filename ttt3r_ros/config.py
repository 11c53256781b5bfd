# SPDX-License-Identifier: Apache-2.0
"""THE defaults: every setting once, with help, unit and bounds.

ROS parameters, command-line flags, `config/ttt3r.yaml` and the documentation derive from these
classes. Names join groups with dots: `map.voxel_size_m` is `Config.map.voxel_size_m`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache
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
        -1,
        "Number of images after which a segment ends and a new recurrent state begins; "
        "-1 takes what the checkpoint recommends, 0 never resets.",
        low=-1,
    )
    scale_from: str = _setting(
        "network",
        "Where a new segment's scale comes from: network keeps the network's own, "
        "boundary matches the depth of the image that it shares with the segment before "
        "it.",
        choices=("network", "boundary"),
    )
    boundary_max_log_spread: float = _setting(
        0.15,
        "With scale_from boundary, a scale is taken over only if the spread (1.4826 "
        "MAD) of the shared image's log depth ratios is at most this.",
        low=0.0,
    )


@dataclass(frozen=True, slots=True)
class ConfidenceConfig:
    """The network's own confidence, 1 to infinity."""

    min: float = _setting(
        1.5,
        "Points whose confidence is below this are left out of depth images and map.",
        low=1.0,
        runtime=True,
    )


@dataclass(frozen=True, slots=True)
class DepthConfig:
    """Bounds on the depth that is used."""

    max_m: float = _setting(
        20.0,
        "Points farther away than this are left out of depth images and map.",
        unit="m",
        low=0.1,
        runtime=True,
    )


@dataclass(frozen=True, slots=True)
class MapConfig:
    """The accumulating voxel map."""

    voxel_size_m: float = _setting(
        0.05, "Edge length of a map voxel.", unit="m", low=0.001, high=10.0
    )
    max_points: int = _setting(
        2_000_000,
        "Maximum number of voxels in the map; when it is full, the least useful ones are dropped.",
        low=1000,
        high=50_000_000,
    )
    pixel_stride: int = _setting(
        1,
        "Only every n-th row and column of an image is inserted into the map.",
        low=1,
        high=64,
        runtime=True,
    )
    min_hits: int = _setting(
        1,
        "Voxels seen by fewer images than this are kept in the map but neither "
        "published nor saved.",
        low=1,
        high=100,
        runtime=True,
    )
    max_range_m: float = _setting(
        20.0,
        "Points farther from the camera than this are left out of the map.",
        unit="m",
        low=0.1,
        runtime=True,
    )
    edge_filter: float = _setting(
        0.05,
        "Pixels next to a depth jump larger than this share of the depth are left out "
        "of the map as flying pixels; 0 switches the filter off.",
        low=0.0,
        runtime=True,
    )
    carve: bool = _setting(
        False,
        "Voxels that the camera sees through lose a hit and are removed when none is "
        "left; for places that change.",
        runtime=True,
    )
    publish_hz: float = _setting(
        1.0,
        "Maximum rate at which ~/cloud_map is published while the map changes.",
        unit="Hz",
        low=0.01,
        high=100.0,
    )
    publish_max_points: int = _setting(
        500_000,
        "Maximum number of points in ~/cloud_map, which is subsampled evenly; saved "
        "maps are complete.",
        low=1,
        high=50_000_000,
        runtime=True,
    )


@dataclass(frozen=True, slots=True)
class TimeConfig:
    """What the time guard does with image stamps."""

    jump_back_s: float = _setting(
        1.0,
        "An image stamped at least this much before the last one resets everything; one "
        "that is less late is rejected.",
        unit="s",
        low=0.0,
        runtime=True,
    )
    max_gap_s: float = _setting(
        2.0,
        "A gap between image stamps longer than this begins a new segment; 0 never does.",
        unit="s",
        low=0.0,
        runtime=True,
    )


@dataclass(frozen=True, slots=True)
class TrackingConfig:
    """Where a signal of an image is odd, or tells that all is lost; see `tracking.monitor`.

    The figures behind each are printed by `benchmarks/evaluate_faults.py`.
    """

    lost_contrast: float = _setting(
        2.0,
        "Tracking is LOST when the contrast of the image is below this.",
        unit="grey levels",
        low=0.0,
    )
    odd_similarity: float = _setting(
        0.68,
        "An image counts as odd when its correlation with the last image is below this.",
        low=-1.0,
        high=1.0,
    )
    lost_similarity: float = _setting(
        0.6,
        "Tracking is LOST when the correlation of the image with the last one is below this.",
        low=-1.0,
        high=1.0,
    )
    similarity_s: float = _setting(
        0.3,
        "Images farther apart in time than this are not compared for similarity.",
        unit="s",
        low=0.0,
    )
    odd_detail: float = _setting(
        0.4,
        "An image counts as odd (blurred) when its detail is below this share of the usual detail.",
        low=0.0,
        high=1.0,
    )
    odd_repeats: int = _setting(
        2,
        "An image counts as odd when the same picture has come this many more times in "
        "a row; 0 switches the check off.",
        low=0,
    )
    odd_confidence: float = _setting(
        0.2,
        "An image counts as odd when its median confidence above 1 is below this share "
        "of the usual one.",
        low=0.0,
        high=1.0,
    )
    odd_jump: float = _setting(
        4.0,
        "A jump counts as odd above this multiple of the 90th percentile of the recent jumps.",
        low=1.0,
    )
    least_disagreement: float = _setting(
        0.1,
        "Disagreement of depth with the last image counts as odd only above this; 0.1 is 10 %.",
        low=0.0,
    )
    least_translation: float = _setting(
        0.03,
        "A deviation from constant velocity counts as odd only above this, as a share "
        "of the depth.",
        low=0.0,
    )
    least_rotation_rad: float = _setting(
        0.035,
        "A rotation off constant angular velocity counts as odd only above this.",
        unit="rad",
        low=0.0,
    )
    odd_share_seen: float = _setting(
        0.3,
        "An image counts as odd when less than this share of the last image's points is in view.",
        low=0.0,
        high=1.0,
    )
    history: int = _setting(
        50, "Number of recent images that define what is usual for the stream.", low=1, high=10_000
    )
    least_history: int = _setting(
        5,
        "With fewer images than this in the history nothing is compared with what is usual.",
        low=1,
    )
    good_images: int = _setting(
        2, "Number of good images in a row after which the state becomes TRACKING.", low=1
    )
    patience: int = _setting(
        30,
        "After this many LOST images in a row that are merely odd, their signals become "
        "what is usual.",
        low=0,
    )


@dataclass(frozen=True, slots=True)
class RecoveryConfig:
    """How a camera that was lost comes back to a place it has seen."""

    keyframes: int = _setting(
        96,
        "Maximum number of keyframes remembered for relocalization, 4 MB of the device and 0.6 MB "
        "of the host each with the published networks; 0 switches relocalization off.",
        low=0,
    )
    candidates: int = _setting(
        3, "Maximum number of keyframes tried per relocalization attempt.", low=1, high=64
    )


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """Places seen again, which correct the map while it grows."""

    enabled: bool = _setting(
        True,
        "Close loops: when a place is seen again, map, path and map -> odom are "
        "corrected; odom stays as it is.",
    )
    every_images: int = _setting(
        10, "Minimum number of images between two questions whether a place was seen before.", low=1
    )
    budget: float = _setting(
        0.15,
        "Maximum share of the time of one core that questions take; with "
        "process_all_images they are counted in images alone.",
        low=0.001,
        high=1.0,
    )
    candidates: int = _setting(
        5, "Maximum number of old keyframes tried per question.", low=1, high=64
    )
    min_step: float = _setting(
        0.05,
        "Minimum motion of the camera between two questions: translation as a share of "
        "the depth plus rotation in radians.",
        low=0.0,
    )
    min_path: float = _setting(
        1.0,
        "Minimum path of the camera since a keyframe before it is asked about: "
        "translations as shares of the depth plus rotations in radians.",
        low=0.0,
    )
    delay_images: int = _setting(
        5, "Number of images after which the answer to a question takes effect.", low=0
    )
    max_correction_m: float = _setting(
        1.0,
        "A correction that would move the camera farther than this waits for a second "
        "loop that agrees.",
        unit="m",
        low=0.0,
    )
    max_segments: int = _setting(
        400,
        "Maximum number of segments in the pose graph; beyond it old neighbours are "
        "joined into rigid pieces.",
        low=2,
        high=5000,
    )


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the pipeline, with or without ROS."""

    checkpoint: str = _setting(
        "",
        "File with the weights, .safetensors or an official .pth; empty uses the small "
        "demo model of the package.",
    )
    device: str = _setting(
        "auto",
        "Device of the network and the map: cpu, cuda, cuda:N, or auto for a GPU where "
        "there is one.",
    )
    dtype: str = _setting(
        "auto",
        "Precision of the network's matrix products outside the heads; auto is tf32 on "
        "a GPU, as published, and float32 on a CPU.",
        choices=("auto", "float32", "tf32", "bfloat16", "float16"),
    )
    acceleration: str = _setting(
        "auto",
        "How steps are accelerated: graphs replays CUDA graphs recorded per image size, "
        "compile adds torch.compile (minutes at the start), auto uses graphs on a GPU "
        "where they work, none switches it off.",
        choices=("auto", "none", "graphs", "compile"),
    )
    rope_float16: bool = _setting(
        False,
        "Round the encoder's rotary queries and keys to float16, as the official GPU code does.",
    )
    update_rule: str = _setting(
        "ttt3r",
        "Rule by which an image updates the recurrent state.",
        choices=("cut3r", "ttt3r", "brake", "filt3r"),
    )
    damping: float = _setting(
        1.0, "Factor on the gain of the update rule ttt3r.", low=0.01, high=1.0
    )
    image_size: int = _setting(
        0,
        "Long edge of the image that the network sees; 0 takes the checkpoint's.",
        unit="px",
        low=0,
        high=4096,
    )
    preprocessing: str = _setting(
        "auto",
        "How images are resized: exact as published (Pillow), fast with one antialiased "
        "bicubic filter, auto is exact with process_all_images and fast otherwise.",
        choices=("auto", "exact", "fast"),
    )
    fit: str = _setting(
        "crop",
        "How an image is brought to whole patches: crop cuts its border, resize "
        "squeezes it as papers do.",
        choices=("crop", "resize"),
    )
    process_all_images: bool = _setting(
        False,
        "Process every image in order instead of replacing waiting images by newer "
        "ones; for bags and tests.",
    )
    scale: float = _setting(
        1.0, "Metres per unit of the network, until scale_source knows better.", low=1e-6, high=1e6
    )
    scale_source: str = _setting(
        "fixed",
        "Where the metric scale comes from: fixed uses scale, odom the robot's "
        "odometry, camera_height the floor below the camera.",
        choices=("fixed", "odom", "camera_height"),
    )
    camera_height_m: float = _setting(
        0.0,
        "Height of the camera above the floor, for scale_source camera_height.",
        unit="m",
        low=0.0,
    )
    scale_max_log_spread: float = _setting(
        0.2,
        "The scale of scale_source is trusted only if the spread (1.4826 MAD) of its "
        "log samples is at most this.",
        low=0.0,
    )
    session: str = _setting(
        "",
        "Folder written by ~/save_session to continue from; nothing is tracked before "
        "one of its keyframes is recognized. At run time ~/load_session takes it.",
        runtime=True,
    )
    localization_only: bool = _setting(
        False,
        "Track in the map as it is: nothing is inserted, no keyframe is kept and loops correct "
        "the camera alone, as with a session whose place does not change.",
        runtime=True,
    )
    motion_gate: float = _setting(
        0.0,
        "Images that differ from the last one written into the state by less than this "
        "are tracked but not written; 0 writes all.",
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

    @property
    def resize_method(self) -> str:
        """What `preprocessing` means: exact or fast."""
        if self.preprocessing != "auto":
            return self.preprocessing
        return "exact" if self.process_all_images else "fast"


@dataclass(frozen=True, slots=True)
class PathConfig:
    """The way of the robot as it is published."""

    rate_hz: float = _setting(
        1.0,
        "Maximum rate at which ~/path is published while it changes.",
        unit="Hz",
        low=0.01,
        high=100.0,
    )
    # Images wait while it is made and sent: 2000 poses take 10 ms, and 80 ms at first.
    max_poses: int = _setting(
        1000,
        "Maximum number of poses in ~/path, which is subsampled evenly.",
        low=2,
        high=2000,
        runtime=True,
    )


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Settings of the ROS node alone."""

    autostart: bool = _setting(True, "Configure and activate the lifecycle node at start.")
    image_transport: str = _setting(
        "raw",
        "Type of the image topic: raw is sensor_msgs/Image, compressed is "
        "sensor_msgs/CompressedImage with JPEG or PNG.",
        choices=("raw", "compressed"),
    )
    image_reliability: str = _setting(
        "best_effort",
        "Reliability of the image subscription; with process_all_images it is always reliable.",
        choices=("best_effort", "reliable"),
    )
    queue_size: int = _setting(
        1000, "Maximum number of images waiting with process_all_images.", low=1, high=1_000_000
    )
    camera_frame: str = _setting("", "Optical frame of images whose header names none.")
    base_frame: str = _setting(
        "", "Frame of the robot's base; empty takes the topmost frame that is fixed to the camera."
    )
    odom_frame: str = _setting("odom", "Continuous frame that poses are published in.")
    map_frame: str = _setting("map", "Frame of the map, the parent of the odometry frame.")
    odom_source: str = _setting(
        "camera",
        "Who publishes odom -> base_frame: camera is this node, tf is the robot, and "
        "this node publishes map -> odom only.",
        choices=("camera", "tf"),
    )
    transform_tolerance_s: float = _setting(
        0.5,
        "With odom_source tf, map -> odom is stamped this far ahead of its image.",
        unit="s",
        low=0.0,
        high=10.0,
        runtime=True,
    )
    robot_odom_frame: str = _setting(
        "", "TF frame of the robot's odometry for scale_source odom; empty uses the topic odometry."
    )
    camera_pose: tuple[float, ...] = _setting(
        (),
        "Pose x y z roll pitch yaw of the camera's body in base_frame, in m and rad; "
        "empty looks it up in TF.",
    )
    tf_wait_s: float = _setting(
        1.0,
        "How long the node waits for the camera's transform on TF at the start.",
        unit="s",
        low=0.0,
    )
    publish_odom_tf: bool = _setting(
        True, "Publish the transform odom -> base_frame.", runtime=True
    )
    publish_map_tf: bool = _setting(True, "Publish the transform map -> odom.", runtime=True)
    output_dir: str = _setting(
        "~/.ros/ttt3r",
        "Folder that the ~/save_ services write to; it is created if it does not exist.",
    )
    map_format: str = _setting(
        "ply", "File format of ~/save_map.", choices=("ply", "pcd"), runtime=True
    )
    save_on_shutdown: bool = _setting(
        False,
        "Save map, trajectory and, if there is one, session to output_dir when the node "
        "is shut down or cleaned up.",
        runtime=True,
    )
    publish_when_lost: bool = _setting(
        False, "Publish images, points and the last known pose of LOST images too.", runtime=True
    )
    path: PathConfig = field(default_factory=PathConfig)

    def __post_init__(self) -> None:
        if not self.odom_frame or not self.map_frame or self.odom_frame == self.map_frame:
            raise ConfigError(
                f"map_frame, odom_frame: must be two frames with names, got {self.map_frame!r} "
                f"and {self.odom_frame!r}"
            )
        if self.owns_odom and self.robot_odom_frame == self.odom_frame:
            raise ConfigError(
                f"robot_odom_frame: {self.robot_odom_frame!r} is the frame this node publishes in: "
                "set publish_odom_tf to false, or odom_frame to another one"
            )
        if self.odom_source == "tf" and self.robot_odom_frame not in ("", self.odom_frame):
            raise ConfigError(
                f"robot_odom_frame: with odom_source tf the odometry is odom_frame's, "
                f"{self.odom_frame!r}: must be that or empty, got {self.robot_odom_frame!r}"
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
        return self.odom_frame if self.odom_source == "tf" else self.robot_odom_frame


def settings(*configs: type) -> dict[str, Setting]:
    """Return all settings of the configuration classes by dotted name."""
    return {setting.name: setting for config in configs for setting in _walk(config, "")}


@cache  # a node asks 200 times while it starts
def _walk(config: type, prefix: str) -> tuple[Setting, ...]:
    found: list[Setting] = []
    for entry in fields(config):
        if entry.default is MISSING and callable(entry.default_factory):
            found += _walk(entry.default_factory, f"{prefix}{entry.name}.")  # type: ignore[arg-type]
        else:
            found.append(Setting(name=prefix + entry.name, default=entry.default, **entry.metadata))
    return tuple(found)


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
