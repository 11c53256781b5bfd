# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import yaml
from places import ROOT

from ttt3r_ros.config import (
    Config,
    ConfigError,
    NodeConfig,
    settings,
    to_dict,
    with_values,
)
from ttt3r_ros.network.state import UPDATE_RULES


def flatten(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def test_the_shipped_parameter_file_says_every_default_and_nothing_else():
    content = yaml.safe_load((ROOT / "config/ttt3r.yaml").read_text())
    shipped = dict(flatten(content["/**"]["ros__parameters"]))
    defaults = {**to_dict(Config()), **to_dict(NodeConfig())}
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in shipped.items()} == defaults


def test_the_shipped_parameter_file_explains_every_setting_in_its_own_words():
    text = (ROOT / "config/ttt3r.yaml").read_text()
    for setting in settings(Config, NodeConfig).values():
        assert setting.help in text


def test_core_and_node_settings_share_no_name_and_allow_their_defaults():
    assert not set(settings(Config)) & set(settings(NodeConfig))
    for setting in settings(Config, NodeConfig).values():
        assert setting.parse(setting.default) == setting.default


def test_every_update_rule_may_be_chosen():
    assert set(settings(Config)["update_rule"].choices) == set(UPDATE_RULES)


def test_values_are_given_by_dotted_name_and_leave_the_rest():
    config = with_values(Config(), {"map.voxel_size_m": 0.1, "device": "cpu"})
    assert (config.map.voxel_size_m, config.device) == (0.1, "cpu")
    assert with_values(config, {"map.voxel_size_m": 0.05, "device": "auto"}) == Config()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("map.voxel_size_m", "0.2", 0.2),
        ("map.max_points", "5000", 5000),
        ("process_all_images", "true", True),
        ("process_all_images", "False", False),
        ("update_rule", "cut3r", "cut3r"),
        ("scale", 2, 2.0),
    ],
)
def test_text_of_a_command_line_becomes_the_settings_type(name, text, value):
    parsed = to_dict(with_values(Config(), {name: text}))[name]
    assert parsed == value and type(parsed) is type(value)


def test_a_pose_may_be_text_with_spaces_or_commas():
    assert settings(NodeConfig)["camera_pose"].parse("0 0,1 0 0.5 0") == (0, 0, 1, 0, 0.5, 0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("map.voxl_size", 1.0, r"map.voxl_size: no such setting, map.voxel_size_m\?"),
        ("nonsense", 1.0, "nonsense: no such setting"),
        ("map.voxel_size_m", "wide", "map.voxel_size_m: expected float, got 'wide'"),
        ("map.voxel_size_m", True, "map.voxel_size_m: expected float, got True"),
        ("map.voxel_size_m", float("nan"), "map.voxel_size_m: must be finite, got nan"),
        ("map.voxel_size_m", 0.0, "map.voxel_size_m: must be at least 0.001, got 0.0"),
        ("map.voxel_size_m", 11, "map.voxel_size_m: must be at most 10, got 11.0"),
        ("map.max_points", 2.5, "map.max_points: expected int, got 2.5"),
        ("process_all_images", 1, "process_all_images: expected bool, got 1"),
        ("checkpoint", 1, "checkpoint: expected str, got 1"),
        ("update_rule", "gru", r"update_rule: must be one of \('cut3r', .*'filt3r'\), got 'gru'"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_it_and_what_is_allowed(name, value, message):
    with pytest.raises(ConfigError, match=message):
        with_values(Config(), {name: value})


def test_a_camera_pose_of_another_length_is_an_error():
    with pytest.raises(ConfigError, match=r"camera_pose: empty or six numbers .* got \(1.0,\)"):
        with_values(NodeConfig(), {"camera_pose": [1.0]})
