# SPDX-License-Identifier: Apache-2.0
"""Programs for developers. Nothing in the package imports them, and they are not installed."""
