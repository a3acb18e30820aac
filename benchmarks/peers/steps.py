"""Time and memory of a model's training steps in a process of its own, on Linux; needs nothing but torch."""

import ctypes
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn


def measure(build: Callable[[dict[str, int]], nn.Module]) -> None:
    """Build the model of the setting in the last argument, take its steps, print time, memory and parameters.

    A step is forward, by autocast where the setting says ``bf16``, the mean of the squared outputs, and backward. The
    first is not timed. Memory is how far the peak of the process during the steps is above what it holds before:
    activations, gradients and working space.
    """
    setting = json.loads(sys.argv[-1])
    torch.set_num_threads(setting["threads"])
    torch.manual_seed(0)
    model = build(setting).train()
    tokens_BTC = torch.randn(setting["batch"], setting["tokens"], setting["channels"])
    before_kib = _start_of_memory_kib()
    times_s = []
    for _ in range(setting["steps"] + 1):
        started_s = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=setting["bf16"]):
            outputs = model(tokens_BTC)
        outputs.float().square().mean().backward()
        times_s.append(time.perf_counter() - started_s)
        model.zero_grad(set_to_none=True)
    peak_kib = _status_kib("VmHWM") - before_kib
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({"seconds": statistics.median(times_s[1:]), "kib": peak_kib, "parameters": parameters}))


def _start_of_memory_kib() -> int:
    """What the process holds. Its peak begins anew: that of the imports would hide that of the steps."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _status_kib("VmRSS")


def _status_kib(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name + ":"))
