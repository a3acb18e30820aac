"""What a machine does while it trains, sampled by one worker on it into a file of the run's folder.

MLflow's own monitor sends what it samples from the process that trains, and ends for good when the server is away once.
Here the samples go into a file, as the curves do, and whoever follows the run sends both (:mod:`cluster.tracking`).
Names are those of MLflow, which shows what begins with ``system/`` on a page of its own.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

FOLDER = "system"
INTERVAL_S = 10.0
_BYTES_IN_A_MEGABYTE = 1e6


@contextlib.contextmanager
def sampled(out: Path, node: int, device: torch.device, interval_s: float = INTERVAL_S) -> Iterator[None]:
    """Within the block, sample this machine every few seconds in a thread.

    Args:
        out: the folder of the run, which all workers share.
        node: number of this machine among those of the run.
        device: of this worker; of a GPU its memory and, where torch can tell, its use are sampled too.
        interval_s: time between two samples.
    """
    path = out / FOLDER / f"node-{node}.jsonl"
    stop = threading.Event()
    thread = threading.Thread(
        target=_sample, args=(path, device, interval_s, stop), name="medformer-system", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=interval_s)


def _sample(path: Path, device: torch.device, interval_s: float, stop: threading.Event) -> None:
    # A run that is started again goes on counting.
    step = path.read_bytes().count(b"\n") if path.exists() else 0
    machine = _Machine(device)
    while not stop.wait(interval_s):
        step += 1
        line = json.dumps({"step": step, "time_ms": int(time.time() * 1000), **machine.sample()})
        # A full disk is told by the checkpoint that does not fit.
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            _append(path, line)


def _append(path: Path, line: str) -> None:
    with open(path, "a") as file:
        file.write(f"{line}\n")


class _Machine:
    """Rates are those since the last sample."""

    def __init__(self, device: torch.device) -> None:
        import psutil  # only here: a machine that trains has it, as DeepSpeed needs it

        self._psutil, self._device = psutil, device
        psutil.cpu_percent()
        self._network = psutil.net_io_counters()

    def sample(self) -> dict[str, float]:
        memory, disk = self._psutil.virtual_memory(), self._psutil.disk_usage("/")
        network = self._psutil.net_io_counters()
        found = {
            "cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _BYTES_IN_A_MEGABYTE,
            "system_memory_usage_percentage": memory.percent,
            "disk_usage_percentage": disk.percent,
            "disk_available_megabytes": disk.free / _BYTES_IN_A_MEGABYTE,
            "network_receive_megabytes": (network.bytes_recv - self._network.bytes_recv) / _BYTES_IN_A_MEGABYTE,
            "network_transmit_megabytes": (network.bytes_sent - self._network.bytes_sent) / _BYTES_IN_A_MEGABYTE,
        }
        self._network = network
        if self._device.type == "cuda":
            found |= self._gpus()
        return found

    def _gpus(self) -> dict[str, float]:
        """All that this worker sees; a use is not known where NVIDIA's management library is not installed."""
        found: dict[str, float] = {}
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            found[f"gpu_{number}_memory_usage_megabytes"] = (total - free) / _BYTES_IN_A_MEGABYTE
            found[f"gpu_{number}_memory_usage_percentage"] = 100 * (total - free) / total
            with contextlib.suppress(ModuleNotFoundError, RuntimeError):
                found[f"gpu_{number}_utilization_percentage"] = float(torch.cuda.utilization(number))
        return found
