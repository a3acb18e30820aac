"""Time and memory of a model's training steps in a process of its own; needs nothing but torch."""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn


def measure(build: Callable[[dict[str, int]], nn.Module]) -> None:
    """Build the model of the setting in the last argument, take its steps, print time, memory and parameters.

    A step is forward, the mean of the squared outputs, and backward. The first is not timed. Memory is what the peak
    of the process grew by during the steps: activations, gradients and working space.
    """
    setting = json.loads(sys.argv[-1])
    torch.set_num_threads(setting["threads"])
    torch.manual_seed(0)
    model = build(setting).train()
    tokens_BTC = torch.randn(setting["batch"], setting["tokens"], setting["channels"])
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times_s = []
    for _ in range(setting["steps"] + 1):
        started_s = time.perf_counter()
        model(tokens_BTC).square().mean().backward()
        times_s.append(time.perf_counter() - started_s)
        model.zero_grad(set_to_none=True)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({"seconds": statistics.median(times_s[1:]), "kib": peak_kib, "parameters": parameters}))
