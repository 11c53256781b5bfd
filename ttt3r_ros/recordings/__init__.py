# SPDX-License-Identifier: Apache-2.0
"""What can be opened: bags, folders, data sets, videos; images, true poses and true depth."""
