# SPDX-License-Identifier: Apache-2.0
"""Files of weights that cannot be used, by accident or by intent, give one clear error."""

from __future__ import annotations

import argparse
import builtins
import os
import pickle
import shutil
import zipfile

import pytest
import torch
from checkpoint_files import TINY_TEXT, foreign_class, tiny_tensors, write_official
from safetensors.torch import save_file

from ttt3r_ros.network.checkpoint import load_network
from ttt3r_ros.network.convert import convert
from ttt3r_ros.types import CheckpointError


class Trap:
    """Runs a function when unpickled."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        load_network(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "weights_only" not in message  # torch's advice how to load the file unsafely
    return message


TRAPS = {
    "posix.system": lambda marker: Trap(os.system, f"touch {marker}"),
    "builtins.eval": lambda marker: Trap(builtins.eval, f"open({str(marker)!r}, 'w').close()"),
    "builtins.exec": lambda marker: Trap(builtins.exec, f"open({str(marker)!r}, 'w').close()"),
    "shutil.copyfile": lambda marker: Trap(shutil.copyfile, os.devnull, marker),
    "io.open": lambda marker: Trap(open, str(marker), "w"),
    "torch.serialization.save": lambda marker: Trap(torch.save, {}, str(marker)),
}


@pytest.mark.parametrize("name", TRAPS)
@pytest.mark.parametrize("key", ["args", "optimizer"])
def test_a_malicious_file_is_refused_by_name_and_runs_nothing(tmp_path, name, key):
    marker = tmp_path / "code_was_run"
    content = {
        "model": tiny_tensors(),
        "args": argparse.Namespace(model=TINY_TEXT),
    }
    content[key] = argparse.Namespace(model=TINY_TEXT, trap=TRAPS[name](marker))
    path = tmp_path / "trap.pth"
    torch.save(content, path)
    message = refusal(path)
    assert name in message
    assert not marker.exists()

    torch.load(path, weights_only=False)  # the trap is a real one
    assert marker.exists()


def test_a_bare_pickle_is_refused_and_runs_nothing(tmp_path):
    marker = tmp_path / "code_was_run"
    path = tmp_path / "trap.pth"
    path.write_bytes(pickle.dumps({"model": {}, "args": TRAPS["posix.system"](marker)}))
    assert "not a torch.save file" in refusal(path)
    assert not marker.exists()


def test_a_class_that_is_not_on_the_list_is_refused_even_if_absent(tmp_path):
    path = tmp_path / "foreign.pth"
    with foreign_class("trainer.config", "Settings") as settings:
        write_official(path, args=settings())
    assert "trainer.config.Settings" in refusal(path)


def damaged(tmp_path):
    """Every file that is no checkpoint, by what the error must say."""
    whole = write_official(tmp_path / "whole.pth")
    ours = tmp_path / "whole.safetensors"
    convert(whole, ours)
    data = {".pth": whole.read_bytes(), ".safetensors": ours.read_bytes()}
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")

    yield "no such file", tmp_path / "absent.pth"
    yield "no such file", tmp_path / "absent.safetensors"
    yield "not a file", tmp_path
    for suffix, content in data.items():
        for name, part in (("empty", b""), ("cut", content[: len(content) // 2])):
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(part)
            yield ("empty file" if not part else "damaged" if "safe" in suffix else "cut"), path
    page = tmp_path / "page.pth"
    page.write_text("<!DOCTYPE html><html>Too many downloads</html>")
    yield "begins with b'<!DOCTYPE html>", page
    yield "damaged torch.save file", tmp_path / "archive.zip"
    for name, content, said in (
        ("tensor", torch.ones(3), "expected a dictionary"),
        ("no_model", {"args": argparse.Namespace(model=TINY_TEXT)}, "'model'"),
        ("list_model", {"model": [1], "args": argparse.Namespace(model=TINY_TEXT)}, "'model'"),
        ("no_args", {"model": tiny_tensors()}, "found 0"),
        ("no_text", {"model": tiny_tensors(), "args": {"model": "DPT()"}}, "found 0"),
        ("two", {"model": tiny_tensors(), "args": [TINY_TEXT, "ARCroco3DStereo()"]}, "found 2"),
        (
            "bad",
            {"model": tiny_tensors(), "args": ["ARCroco3DStereo(1)"]},
            "model string: expected",
        ),
    ):
        path = tmp_path / f"{name}.pth"
        torch.save(content, path)
        yield said, path
    path = tmp_path / "foreign.safetensors"
    save_file({"x": torch.ones(2)}, path)
    yield "'format' must be", path


def test_a_file_that_is_no_checkpoint_is_named_with_the_reason(tmp_path):
    seen = 0
    for said, path in damaged(tmp_path):
        assert said in refusal(path)
        seen += 1
    assert seen == 17


def test_a_torch_that_can_be_tricked_reads_no_pickle(tmp_path, monkeypatch):
    path = write_official(tmp_path / "tiny.pth")
    ours = tmp_path / "tiny.safetensors"
    convert(path, ours)
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    assert "needs torch 2.10 or newer, this is 2.9.1+cpu" in refusal(path)
    load_network(ours)


def test_a_damaged_pickle_gives_one_line(tmp_path):
    whole = write_official(tmp_path / "whole.pth")
    with zipfile.ZipFile(whole) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in parts if name.endswith("data.pkl"))
    start = parts[pickled]
    for number, broken in enumerate((start[: len(start) // 2], b"\x80\x02garbage", b"", start[5:])):
        path = tmp_path / f"broken{number}.pth"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in parts.items():
                archive.writestr(name, broken if name == pickled else content)
        message = refusal(path)
        assert "damaged torch.save file" in message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("config", None, "metadata 'config' is missing"),
        ("config", "{", "wrong metadata"),
        ("config", '{"enc_depth": 2}', "enc_embed_dim"),
        ("config", '{"unheard_of": 2}', "unheard_of"),
        ("image_size", "large", "large"),
        ("settings", "7", "not iterable"),
        ("format", "ttt3r_ros 2", "'ttt3r_ros 2'"),
    ],
)
def test_wrong_metadata_is_named(tmp_path, key, value, said):
    good = {
        "format": "ttt3r_ros 1",
        "config": '{"enc_embed_dim": 16, "enc_depth": 1, "enc_num_heads": 2, '
        '"dec_embed_dim": 64, "dec_depth": 2, "dec_num_heads": 2}',
        "image_size": "64",
        "licence": "",
        "settings": "{}",
        "source": "",
    }
    metadata = {**good, key: value}
    path = tmp_path / "ours.safetensors"
    save_file({"x": torch.ones(2)}, path, {k: v for k, v in metadata.items() if v is not None})
    assert said in refusal(path)
