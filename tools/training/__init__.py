# SPDX-License-Identifier: Apache-2.0
"""Training of the small network that the package ships. Nothing in the package imports this."""
