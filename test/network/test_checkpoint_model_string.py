# SPDX-License-Identifier: Apache-2.0
"""The model string of official files becomes a configuration, or an error that names the key."""

from __future__ import annotations

import json

import pytest
from checkpoint_files import GOLDEN, TINY, TINY_TEXT

from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.model_string import parse_model_string


def test_every_value_is_read():
    model = parse_model_string(TINY_TEXT)
    assert model.config == TINY
    assert model.image_size == 64
    assert model.unknown == ()


def test_absent_keys_have_the_defaults_of_the_format():
    text = (
        "ARCroco3DStereo(ARCroco3DStereoConfig(output_mode='pts3d+pose', pose_head=True, "
        "pos_embed='RoPE100', enc_embed_dim=128, enc_depth=2, enc_num_heads=4, "
        "dec_embed_dim=192, dec_depth=3, dec_num_heads=12))"
    )
    model = parse_model_string(text)
    assert model.image_size == 512
    assert model.config == NetworkConfig(
        enc_embed_dim=128,
        enc_depth=2,
        enc_num_heads=4,
        dec_embed_dim=192,
        dec_depth=3,
        dec_num_heads=12,
        head_type="linear",
        state_size=324,
        state_pe="2d",
        state_dec_num_heads=16,
        local_mem_size=256,
        mlp_ratio=4,
        patch_size=16,
        rope_base=100.0,
    )


@pytest.mark.parametrize("set_name", ["A_dpt_landscape", "B_linear", "C_ttt3r_reset"])
def test_recorded_strings_are_understood(set_name):
    text = json.loads((GOLDEN / set_name / "set.json").read_text())["model_string"]
    model = parse_model_string(text)
    assert model.unknown == ()
    assert f"dec_depth={model.config.dec_depth}," in text


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(", ", ",\n   "),
        lambda text: text.replace(", ", " ,  "),
        lambda text: f"\n  {text}  \n",
        lambda text: text.replace("'", '"'),
        lambda text: text.replace("(64, 48)", "[64, 48]"),
        lambda text: text.replace("(64, 48)", "64"),
        lambda text: text.replace("enc_depth=1", "enc_depth=1.0, mlp_ratio=4.0"),
        lambda text: text.replace("'2d'", "'2d', patch_embed_cls='ManyAR_PatchEmbed'"),
        lambda text: text.replace("'2d'", "'2d', freeze='encoder', ray_enc_depth=5"),
        lambda text: text.replace("'2d'", "'2d', model_update_type=None, depth_head=False"),
    ],
)
def test_the_way_it_is_written_does_not_matter(change):
    changed = change(TINY_TEXT)
    assert changed != TINY_TEXT
    assert parse_model_string(changed).config == TINY


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("pose_head=True", "pose_head=False", "pose_head must be True, got False"),
        ("pose_head=True, ", "", "pose_head missing"),
        ("enc_depth=1, ", "", "enc_depth missing"),
        ("pos_embed='RoPE100', ", "", "pos_embed missing"),
        ("'RoPE100'", "'cosine'", "pos_embed must be 'RoPE<base>', got 'cosine'"),
        ("'RoPE100'", "100", "pos_embed must be 'RoPE<base>', got 100"),
        ("'pts3d+pose'", "'pts3d'", "output_mode must be 'pts3d+pose', got 'pts3d'"),
        ("conf_mode=('exp', 1, inf)", "conf_mode=('sigmoid', 0, 1)", "('sigmoid', 0, 1)"),
        ("('exp', -inf, inf), conf", "('exp', 0, inf), conf", "got ('exp', 0, inf)"),
        ("'linear'", "'mlp'", "head_type: must be one of"),
        ("'2d'", "'3d'", "state_pe: must be one of"),
        ("rgb_head=True", "depth_head=True", "depth_head must be False, got True"),
        ("rgb_head=True", "pose_conf_head=True", "pose_conf_head must be False, got True"),
        ("rgb_head=True", "patch_embed_cls='X'", "or 'ManyAR_PatchEmbed', got 'X'"),
        ("state_size=6", "state_size=6.5", "state_size must be a whole number, got 6.5"),
        ("state_size=6", "state_size=True", "state_size must be a whole number, got True"),
        ("state_size=6", "state_size='6'", "state_size must be a whole number, got '6'"),
        ("state_size=6", "state_size=-6", "state_size: must be positive, got -6"),
        ("(64, 48)", "(inf, 48)", "img_size must be a whole number, got inf"),
        ("(64, 48)", "()", "img_size must be a whole number"),
        ("state_dec_num_heads=4", "state_dec_num_heads=3", "state_dec_num_heads"),
        ("state_size=6", "state_size=open('x')", "state_size must be a number, a string, inf"),
        ("state_size=6", "state_size=nan", "state_size must be a number, a string, inf"),
        ("state_size=6", "state_size=--6", "state_size must be a number, a string, inf"),
        ("state_size=6", "**{'state_size': 6}", "** is not allowed"),
        ("Config(state", "Config(1, state", "expected ARCroco3DStereo(ARCroco3DStereoConfig"),
        ("Config(", "Settings(", "expected ARCroco3DStereo(ARCroco3DStereoConfig"),
        ("))", ")", "not an expression"),
        ("))", ")) or __import__('os').system('true')", "expected ARCroco3DStereo("),
        ("state_size=6", "state_size=" + "-" * 9000 + "6", "model string"),
        ("state_size=6", "state_size=" + "(" * 9000, "not an expression"),
        ("state_size=6", "state_size=" + "6" * 30000, "at most 20000 allowed"),
    ],
)
def test_what_cannot_be_computed_is_an_error_that_names_it(old, new, said):
    assert old in TINY_TEXT
    with pytest.raises(ValueError) as caught:
        parse_model_string(TINY_TEXT.replace(old, new, 1))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300
