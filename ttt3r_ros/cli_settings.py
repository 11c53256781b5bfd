# SPDX-License-Identifier: Apache-2.0
"""Flags that several subcommands of `ttt3r` share: settings, which images, where results go."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ttt3r_ros.config import Config, ConfigError, NodeConfig, Setting, settings

FIXED = ("process_all_images",)  # how the offline commands process images is no choice
_SECTIONS = ("**", "ttt3r_node")  # of a ROS parameter file, whatever the namespace


def add_recording(parser: argparse.ArgumentParser) -> None:
    """Add what says which images are processed and where results go."""
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--topic", default="", help="image topic of a bag with several")
    parser.add_argument("--camera-info-topic", default="", help="default: beside the image topic")
    parser.add_argument("--every", type=int, metavar="N", help="take every n-th image")
    parser.add_argument("--max-frames", type=int, metavar="N", help="stop after n images")
    parser.add_argument("--rate", type=float, help="images/s of a folder without stamps [Hz]")
    parser.add_argument("--depth", action="store_true", help="write depth images too")
    formats = settings(NodeConfig)["map_format"].choices
    parser.add_argument(
        "--map-format", choices=formats, default=formats[0], help="default: %(default)s"
    )


def add_ros_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flag for what rclpy reads itself."""
    parser.add_argument(
        "--ros-args", nargs=argparse.REMAINDER, help="what follows is for ROS: -r /image:=/camera"
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting of the pipeline."""
    group = parser.add_argument_group("settings", "as in config/ttt3r.yaml; flags beat the file")
    group.add_argument("--config", type=Path, metavar="YAML", help="file with settings")
    for setting in settings(Config).values():
        if setting.name not in FIXED:
            group.add_argument(
                "--" + setting.name.replace("_", "-"),
                dest=f"setting {setting.name}",
                metavar=_metavar(setting),
                help=f"{setting.help} (default: {setting.default!r})".replace("%", "%%"),
            )
    group.add_argument(
        "--no-loops",
        dest="setting loop.enabled",
        action="store_const",
        const=False,
        help="do not correct the map when a place is seen again: --loop.enabled false",
    )


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return "{" + ",".join(setting.choices) + "}"
    return setting.unit or type(setting.default).__name__.upper()


def file_and_flags(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the file, if there is one, and those of flags."""
    flags = {
        name.removeprefix("setting "): value
        for name, value in vars(args).items()
        if name.startswith("setting ") and value is not None
    }
    return (_read_yaml(args.config) if args.config else {}), flags


def _read_yaml(path: Path) -> dict[str, Any]:
    """Return the pipeline's settings of a ROS parameter file, by dotted name."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        sections = [content[name] for name in content if name.rpartition("/")[2] in _SECTIONS]
        nodes = [_flatten(section["ros__parameters"], "") for section in sections]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a ROS parameter file: {error}") from error
    values = {name: value for node in nodes for name, value in node}
    others = {*settings(NodeConfig), "use_sim_time"}
    return {
        name: value
        for name, value in values.items()
        if name not in others and not name.startswith("qos_overrides.")
    }


def _flatten(tree: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    leaves = []
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves += _flatten(value, f"{prefix}{name}.")
        else:
            leaves.append((prefix + name, value))
    return leaves
