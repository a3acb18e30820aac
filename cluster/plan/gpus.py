"""GPUs by name: the peak that a rate is estimated from."""

from __future__ import annotations

from collections.abc import Mapping

from data_shards.support.errors import ConfigError, nearest

PEAK_TFLOPS: Mapping[str, float] = {
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200 NVL": 835.0,
    "H200": 989.0,
    "B200": 2250.0,
    "A100": 312.0,
    "A40": 149.7,
    "A10": 125.0,
    "L40S": 362.0,
    "L4": 121.0,
    "V100": 125.0,
    "T4": 65.0,
}
"""TFLOP/s of matrix products in bfloat16 (V100 and T4: float16) without sparsity, from the vendor's data sheets."""


def peak_tflops(name: str) -> float:
    """The peak of a GPU.

    Raises:
        ConfigError: it is not in the table; the nearest name is given.
    """
    known = {each.lower(): peak for each, peak in PEAK_TFLOPS.items()}
    if name.lower() not in known:
        raise ConfigError(f"--gpu {name}: of unknown peak{nearest(name, PEAK_TFLOPS)}; or give --images-per-s")
    return known[name.lower()]
