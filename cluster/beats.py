"""Signs of life of the training in a worker, for whoever asks from outside its training thread."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

_OURS = ("pretrain", "data_shards", "cluster")
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Gpu:
    """What the GPU of a worker is used for.

    Attributes:
        busy: share of the last moments in which it computed; None where NVML cannot be asked.
        memory: share of its memory that is taken, by whomever.
    """

    busy: float | None
    memory: float


@dataclass(frozen=True)
class Beat:
    """How far the training of a worker is.

    Attributes:
        begun: how many steps it has begun.
        step: the number of the newest of them; None where the first is not known yet.
        idle_s: since it last began a step, or reported of one.
        waits: whether it is done, and waits for Ray to end it.
        where: what it is doing, as a place in the code.
        gpu: None on a CPU.
    """

    begun: int
    step: int | None
    idle_s: float
    waits: bool
    where: str
    gpu: Gpu | None


class Beats:
    """The signs of life of one worker; made in its training thread.

    Args:
        device: on which it computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._thread = threading.get_ident()
        self._device = device
        self._begun = 0
        self._step: int | None = None
        self._waits = False
        self.moved()

    def moved(self) -> None:
        """The training goes on."""
        self._moved_s = time.monotonic()

    def at_step(self, step: int) -> None:
        """The training goes on, and this is the number of the step that it has begun last."""
        self._step = step
        self.moved()

    def next_step(self) -> None:
        """The training has begun a further step."""
        self._begun += 1
        self._step = None if self._step is None else self._step + 1
        self.moved()

    def pause(self) -> None:
        """The training is done here."""
        self._waits = True

    def beat(self) -> Beat:
        """How far it is now; to be asked by another thread."""
        idle_s = time.monotonic() - self._moved_s
        where = place(sys._current_frames().get(self._thread))
        return Beat(self._begun, self._step, idle_s, self._waits, where, gpu_use(self._device))


_own: Beats | None = None


def start(device: torch.device) -> Beats:
    """Begin the signs of life of this process."""
    global _own
    _own = Beats(device)
    return _own


def beat() -> Beat | None:
    """That of this process; None before its training has begun."""
    return None if _own is None else _own.beat()


def place(frame: FrameType | None) -> str:
    """Where a thread is: the innermost function, and the innermost line of our code that has called it."""
    if frame is None:
        return "nowhere"
    inner: str = frame.f_code.co_qualname
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in _OURS:
            name = frame.f_code.co_qualname
            at = f"{path.relative_to(_ROOT)}:{frame.f_lineno} {name}"
            return at if name == inner else f"{at}, in {inner}"
        frame = frame.f_back
    return inner


def gpu_use(device: torch.device) -> Gpu | None:
    """What a GPU is used for now; None for a CPU, and before the GPU was used."""
    if device.type != "cuda" or not torch.cuda.is_initialized():
        return None
    free, total = torch.cuda.mem_get_info(device)
    try:
        busy = torch.cuda.utilization(device) / 100
    except Exception:  # no NVML, or one that does not answer for this device: pynvml has errors of its own
        busy = None
    return Gpu(busy, 1 - free / total)
