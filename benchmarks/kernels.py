"""What the time of a program goes into, by class of kernel."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_STEPS = 3
# The first class whose pattern is found in the name of a kernel counts; the rest is copied or done element by element.
CLASSES = {
    "optimizer": r"adam|multi_tensor",
    "attention": r"flash|fmha|attention|softmax|attn",
    "norm": r"layer_?norm|LayerNorm|GammaBeta|rowwise_?moments",
    "conv": r"conv|fprop|dgrad|wgrad|nchwToNhwc|nhwcToNchw|im2col|vol2col",
    "matmul": r"gemm|gemv|nvjet|cutlass|cublas|xmma|splitK|aten::(add)?b?mm$|aten::baddbmm",
}
REST = "copies and elementwise"


def kind_of(kernel: str) -> str:
    """The class of a kernel, by its name."""
    return next((kind for kind, pattern in CLASSES.items() if re.search(pattern, kernel, re.IGNORECASE)), REST)


def breakdown(step: Callable[[], None], device: torch.device) -> dict[str, float]:
    """Shares of the time of a few steps: of each class of kernel, and ``idle`` for when none of them runs.

    On a CPU kernels are torch's operators, and ``idle`` is what lies between them: Python and autograd.
    """
    cuda = device.type == "cuda"
    wait = torch.cuda.synchronize if cuda else lambda: None
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities):  # the first use sets much up, which would count as idle
        step()
        wait()
    with profile(activities=activities) as profiler:
        for _ in range(_STEPS):
            step()
        wait()
    spent_us, whole_us = _kernels(profiler) if cuda else _operators(profiler)
    shares = dict.fromkeys([*CLASSES, REST], 0.0)
    for name, time_us in spent_us:
        shares[kind_of(name)] += time_us / whole_us
    return {**dict(sorted(shares.items(), key=lambda pair: -pair[1])), "idle": 1 - sum(shares.values())}


def _kernels(profiler: profile) -> tuple[list[tuple[str, float]], float]:
    """Time of each kernel on the device, and that from the first to the last; where they overlap it counts once."""
    found = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    )
    spent_us, reached_us = [], found[0][0]
    for begin, end, name in found:
        spent_us.append((name, max(0.0, end - max(begin, reached_us))))
        reached_us = max(reached_us, end)
    return spent_us, reached_us - found[0][0]


def _operators(profiler: profile) -> tuple[list[tuple[str, float]], float]:
    """Time of each operator without those that it calls, and that of everything."""
    averages = profiler.key_averages()
    spent_us = [(row.key, row.self_cpu_time_total) for row in averages if row.key.startswith("aten::")]
    return spent_us, sum(row.self_cpu_time_total for row in averages)
