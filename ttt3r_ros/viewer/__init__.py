# SPDX-License-Identifier: Apache-2.0
"""The page of `ttt3r view`, drawn with viser; who listens to the node is in `ros`."""
