# SPDX-License-Identifier: Apache-2.0
"""Which frame a node's poses are of, as others read it on /diagnostics."""

from __future__ import annotations

from dataclasses import replace

from diagnostic_msgs.msg import DiagnosticArray
from health import WELL

from ttt3r_ros.ros.diagnostics import Diagnosis, base_frame_of


def test_the_base_frame_of_a_node_is_found_by_its_name_among_others():
    def status(name, frame):
        found = Diagnosis().judge(replace(WELL, base_frame=frame), 0.0)
        found.name = f"{name}: tracking"
        return found

    others = DiagnosticArray(status=[status("a/ttt3r_node", "a"), status("b/ttt3r_node", "b")])
    assert base_frame_of("/b/ttt3r_node", others) == "b"
    assert base_frame_of("/ttt3r_node", others) == ""
    unknown = DiagnosticArray(status=[status("ttt3r_node", "")])
    assert base_frame_of("/ttt3r_node", unknown) == ""
