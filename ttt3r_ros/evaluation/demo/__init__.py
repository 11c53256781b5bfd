# SPDX-License-Identifier: Apache-2.0
"""What comes of the demonstration: what was heard, the picture and the report."""
