# SPDX-License-Identifier: Apache-2.0
"""The model string of official files: `ARCroco3DStereo(ARCroco3DStereoConfig(key=value, ...))`.

It is a Python expression and is read as a syntax tree; nothing in it is evaluated. Keys without a
default value here are those of `NetworkConfig`.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeGuard

from ttt3r_ros.network.config import NetworkConfig

MODEL_PREFIX = "ARCroco3DStereo("

_TEXT_LIMIT = 20_000  # official strings have 500 characters; the parser's stack is not endless

# Keys with only one meaning that can be computed here.
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "pose_head": (True,),
    "output_mode": ("pts3d+pose",),
    "depth_head": (False,),
    "pose_conf_head": (False,),
    "depth_mode": (("exp", -math.inf, math.inf),),
    "conf_mode": (("exp", 1, math.inf),),
    "pose_mode": (("exp", -math.inf, math.inf),),
    "patch_embed_cls": ("PatchEmbedDust3R", "ManyAR_PatchEmbed"),  # the same for one image size
}
# The format's own defaults of these are not supported, or it has none.
_REQUIRED = (
    *("pose_head", "output_mode", "pos_embed"),
    *("enc_embed_dim", "enc_depth", "enc_num_heads"),
    *("dec_embed_dim", "dec_depth", "dec_num_heads"),
)

# Settings of training, of parts that are not loaded, or of nothing at all.
_WITHOUT_EFFECT = ("freeze", "landscape_only", "model_update_type", "ray_enc_depth", "rgb_head")

_WORDS = ("head_type", "state_pe")
_NUMBERS = {entry.name for entry in fields(NetworkConfig)} - {*_WORDS, "rope_base"}


@dataclass(frozen=True, slots=True)
class ModelString:
    """What a model string says."""

    config: NetworkConfig
    image_size: int  # long edge of the training images, pixels; 224: square
    unknown: tuple[str, ...]  # "key=value" of keys nobody here knows


def parse_model_string(text: str) -> ModelString:
    """Read a model string; line breaks and spaces inside it do not matter.

    A key unknown here is handed back and not refused: what it could add or remove shows as a
    missing or wrong-shaped tensor.

    Raises:
        ValueError: not such a string, or a value that cannot be computed here; the message names
            key, value and what is allowed.
    """
    values = _keywords(text)
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise ValueError(f"model string: {', '.join(missing)} missing")
    dimensions: dict[str, Any] = {}
    unknown = []
    image_size = 512
    for key, value in values.items():
        if key in _FIXED:
            if value not in _FIXED[key]:
                allowed = " or ".join(repr(v) for v in _FIXED[key])
                raise ValueError(f"model string: {key} must be {allowed}, got {value!r}")
        elif key == "pos_embed":
            dimensions["rope_base"] = _rope_base(value)
        elif key == "img_size":
            image_size = _image_size(value)
        elif key in _WORDS:
            dimensions[key] = value
        elif key in _NUMBERS:
            dimensions[key] = _integer(key, value)
        elif key not in _WITHOUT_EFFECT:
            unknown.append(f"{key}={value!r}")
    try:
        config = NetworkConfig(**dimensions)
    except ValueError as error:
        raise ValueError(f"model string: {error}") from None
    return ModelString(config, image_size, tuple(unknown))


def _keywords(text: str) -> dict[str, Any]:
    """Return the key=value pairs of `ARCroco3DStereo(ARCroco3DStereoConfig(...))`."""
    if len(text) > _TEXT_LIMIT:
        raise ValueError(f"model string: {len(text)} characters, at most {_TEXT_LIMIT} allowed")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(f"model string: not an expression: {text.strip()[:80]!r}") from None
    if _is_call(tree, "ARCroco3DStereo") and len(tree.args) == 1 and not tree.keywords:
        inner = tree.args[0]
        if _is_call(inner, "ARCroco3DStereoConfig") and not inner.args:
            if any(keyword.arg is None for keyword in inner.keywords):
                raise ValueError("model string: ** is not allowed")
            return {str(k.arg): _literal(str(k.arg), k.value) for k in inner.keywords}
    raise ValueError(
        "model string: expected ARCroco3DStereo(ARCroco3DStereoConfig(key=value, ...)), "
        f"got {text.strip()[:80]!r}"
    )


def _is_call(node: ast.expr, name: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _literal(key: str, node: ast.expr) -> Any:
    """Return the value of a number, string, bool, None, `inf`, or a tuple or list of them."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id == "inf":
        return math.inf
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(_literal(key, element) for element in node.elts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        operand = node.operand  # one sign only: a long chain of them would exhaust the stack
        if isinstance(operand, (ast.Constant, ast.Name)):
            value = _literal(key, operand)
            if isinstance(value, (int, float)):
                return -value
    raise ValueError(
        f"model string: {key} must be a number, a string, inf or a tuple of them, "
        f"got a {type(node).__name__} in column {node.col_offset}"
    )


def _integer(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1:
        raise ValueError(f"model string: {key} must be a whole number, got {value!r}")
    return int(value)


def _rope_base(value: Any) -> float:
    found = re.fullmatch(r"RoPE(\d+(\.\d+)?)", value) if isinstance(value, str) else None
    if not found:
        raise ValueError(f"model string: pos_embed must be 'RoPE<base>', got {value!r}")
    return float(found[1])


def _image_size(value: Any) -> int:
    sizes = value if isinstance(value, tuple) else (value,)
    return max(_integer("img_size", size) for size in sizes or ("",))
