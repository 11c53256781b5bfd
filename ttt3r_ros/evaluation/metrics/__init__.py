# SPDX-License-Identifier: Apache-2.0
"""How far results are from the truth; what the numbers mean is said in docs/evaluation.md."""
