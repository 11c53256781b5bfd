# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

# The networks here are too small to share: more threads make them slower, far slower on a busy
# machine, and sums differ in their last bits with the number of threads.
torch.set_num_threads(1)
