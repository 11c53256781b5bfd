# SPDX-License-Identifier: Apache-2.0
"""Small files in the official layout, for the tests of reading, converting and refusing them."""

from __future__ import annotations

import argparse
import runpy
import sys
import types
from collections import defaultdict
from contextlib import contextmanager
from unittest.mock import patch

import torch
from places import GOLDEN

from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.model import Network

RECIPE = runpy.run_path(str(GOLDEN / "recipe.py"))

TINY = NetworkConfig(
    enc_embed_dim=16,
    enc_depth=1,
    enc_num_heads=2,
    dec_embed_dim=16,
    dec_depth=2,
    dec_num_heads=2,
    state_size=6,
    state_dec_num_heads=4,
    local_mem_size=3,
)
TINY_TEXT = (
    "ARCroco3DStereo(ARCroco3DStereoConfig(state_size=6, state_pe='2d', local_mem_size=3, "
    "state_dec_num_heads=4, pos_embed='RoPE100', rgb_head=True, pose_head=True, "
    "img_size=(64, 48), head_type='linear', output_mode='pts3d+pose', "
    "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), pose_mode=('exp', -inf, inf), "
    "enc_embed_dim=16, enc_depth=1, enc_num_heads=2, dec_embed_dim=16, dec_depth=2, "
    "dec_num_heads=2, landscape_only=False))"
)


def tiny_tensors(*, world_points_head=True):
    """Random weights of the tiny network, as an official file would hold them."""
    torch.manual_seed(0)
    return dict(Network(TINY, world_points_head=world_points_head).state_dict())


def write_official(path, tensors=None, args=None, **more):
    """Save a file of the official layout; `args` is what a training script was started with."""
    content = {
        "model": tiny_tensors() if tensors is None else tensors,
        "args": argparse.Namespace(model=TINY_TEXT) if args is None else args,
        **more,
    }
    torch.save(content, path)
    return path


@contextmanager
def foreign_class(module, name):
    """A class of a module that exists while a file is written, and not when it is read."""
    cls = type(name, (), {"__module__": module})
    package = module.partition(".")[0]
    with patch.dict(sys.modules):
        sys.modules.setdefault(package, types.ModuleType(package))
        sys.modules[module] = types.ModuleType(module)
        setattr(sys.modules[module], name, cls)
        yield cls


@contextmanager
def omegaconf_args(text):
    """An object pickled as OmegaConf pickles the settings of a training run."""
    with (
        foreign_class("omegaconf.dictconfig", "DictConfig") as dict_config,
        foreign_class("omegaconf.nodes", "AnyNode") as any_node,
    ):
        node, root = any_node(), dict_config()
        node.__dict__.update(_parent=root, _val=text)
        cache = defaultdict(dict, {"env": {"HOME": "/root"}})
        root.__dict__.update(_metadata=cache, _content={"model": node})
        yield root
