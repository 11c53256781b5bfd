# SPDX-License-Identifier: Apache-2.0
"""What the documents give to copy can be read, and the names in it exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
import yaml
from places import ROOT

from ttt3r_ros.config import Config, NodeConfig, settings

DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
NODES = {"/**", "ttt3r_node"}  # keys under which a parameter file has our node's parameters
INPUTS = {"image", "camera_info", "mask", "odometry"}


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield the fenced blocks of a language in all documents, with the name of the document."""
    for path in DOCUMENTS:
        for found in re.findall(
            rf"^```{language}\n(.*?)^```$", path.read_text("utf-8"), re.M | re.S
        ):
            yield path.name, found


def flat(parameters: dict, prefix: str = "") -> Iterator[str]:
    for name, value in parameters.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def known_parameters() -> set[str]:
    return {*settings(Config), *settings(NodeConfig), "use_sim_time"}


def test_parameters_of_the_node_in_documents_exist():
    files = [yaml.safe_load(text) for _, text in blocks("yaml")]
    ours = [file[key]["ros__parameters"] for file in files for key in NODES & file.keys()]
    assert len(ours) >= 5
    assert {name for parameters in ours for name in flat(parameters)} - known_parameters() == set()


def test_launch_files_in_documents_start_the_node_with_names_that_exist():
    roots = [ElementTree.fromstring(text) for _, text in blocks("xml")]
    nodes = [node for root in roots for node in root.iter("node") if node.get("pkg") == "ttt3r_ros"]
    assert nodes
    for node in nodes:
        assert (ROOT / "scripts" / node.attrib["exec"]).is_file()
        assert {tag.attrib["name"] for tag in node.iter("param")} <= known_parameters()
        assert {tag.attrib["from"] for tag in node.iter("remap")} <= INPUTS


def anchor(heading: str) -> str:
    """Return the name by which a heading is linked to on code hosts."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, fragment = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.M)
            assert fragment in map(anchor, headings), target


def test_topics_of_the_node_in_examples_are_those_of_its_reference():
    reference = (ROOT / "docs/ros.md").read_text("utf-8")
    text = (ROOT / "docs/examples.md").read_text("utf-8")
    topics = set(re.findall(r"/ttt3r_node/([a-z_/]*[a-z])", text))
    assert topics
    assert {topic for topic in topics if f"`~/{topic}`" not in reference} == set()
