# SPDX-License-Identifier: Apache-2.0
"""Those functions of transforms3d that the package uses, for machines to benchmark on without it.

`bench_all.py` shows them to the benchmarks where the real library is not installed. Names,
arguments and results are the real one's.
"""
