# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation: what it is made from, how it looks, and its files."""
