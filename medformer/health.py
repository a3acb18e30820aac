"""The checks behind ``medformer doctor``: what is wanted at every start is tried, the rest is looked up, or tried too.

Importing torch takes as long as all else together, so one process imports it and asks it about the machine. Ray,
MLflow and DeepSpeed take seconds each, and are imported for a thorough examination only.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from data_shards.support.files import home_folder
from medformer.extras import EXTRA_OF, remedy

# Import name -> distribution name, of what fine-tuning and evaluation cannot do without.
CORE = {
    "numpy": "numpy",
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "safetensors": "safetensors",
    "yaml": "pyyaml",
    "pydantic": "pydantic",
    "PIL": "pillow",
    "medmnist": "medmnist",
}
# What may be there and yet not work: binaries that must fit the machine and each other. The others are Python alone.
BINARY = ("numpy", "torch", "safetensors", "yaml", "pydantic", "PIL")
TIMEOUT_S = 120
SHARED_MEMORY_WANTED_BYTES = 1 << 30
DISK_WANTED_BYTES = 5 << 30

_IMPORTS = """
import importlib
for name in {names!r}:
    try:
        importlib.import_module(name)
        problem = ""
    except Exception as error:
        problem = " ".join(str(error).split()) or type(error).__name__
    print(name, problem, sep="\\t", flush=True)
"""

_MACHINE = """
import torch, torch.distributed
print("threads", torch.get_num_threads(), sep="\\t", flush=True)
devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
names = "; ".join(f"{device.name}, {device.total_memory / 2**30:.0f} GiB" for device in devices)
print("gpu", names, sep="\\t", flush=True)
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
ones = torch.ones(1)
torch.distributed.all_reduce(ones)
print("gloo", int(ones), sep="\\t", flush=True)
"""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        part: heading it belongs under.
        name: what was checked.
        state: ``ok``, ``missing`` (optional and absent), ``warning`` (works, with a limit) or ``broken``.
        detail: version, size or reason.
        remedy: what to do about it; empty when nothing is to be done.
    """

    part: str
    name: str
    state: str
    detail: str
    remedy: str = ""


def examine(*, thorough: bool = False) -> list[Finding]:
    """Run every check; changes nothing.

    Args:
        thorough: import every package instead of looking up whether it is there; takes several seconds more.
    """
    with ThreadPoolExecutor() as pool:
        torch_and_core = pool.submit(_imported, list(CORE) if thorough else list(BINARY), _MACHINE)
        optional = list(
            pool.map(lambda name: _optional_package(name, thorough), (name for name in EXTRA_OF if name != "ninja"))
        )
        rest = [_compiler(), _ninja(), _store(), _disk(), _shared_memory()]
        problems, facts = torch_and_core.result()
        return [_interpreter(), *_core(problems), *optional, *_torch_machine(facts), *rest]


def _interpreter() -> Finding:
    return Finding("Core", "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _core(problems: dict[str, str]) -> list[Finding]:
    found = []
    for name, package in CORE.items():
        version = _version(package)
        problem = problems.get(name, "") or ("not installed" if version is None else "")
        state, detail, advice = ("broken", problem, "pip install medformer") if problem else ("ok", version or "", "")
        found.append(Finding("Core", package, state, detail, advice))
    return found


def _optional_package(name: str, thorough: bool) -> Finding:
    part = "Pretraining, cluster and registry"
    version = _version(name)
    if version is None:
        return Finding(part, name, "missing", "not installed", remedy(name))
    problem = _imported([name])[0][name] if thorough else ""
    if problem:
        return Finding(part, name, "warning", f"{version} is installed but does not import: {problem}", remedy(name))
    return Finding(part, name, "ok", version)


def _torch_machine(said: dict[str, str]) -> list[Finding]:
    """What torch finds: processor, GPU, and whether processes can talk to each other."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [Finding("Machine", "processor", "ok", f"{cores} cores, {said.get('threads', '?')} threads in torch")]
    if said.get("gpu"):
        found.append(Finding("Machine", "gpu", "ok", said["gpu"]))
    else:
        detail = "no CUDA device; everything runs on the processor, more slowly"
        found.append(Finding("Machine", "gpu", "missing", detail))
    if said.get("gloo") == "1":
        found.append(Finding("Machine", "gloo", "ok", "processes on this machine can reach each other"))
    else:
        advice = "name a network interface: export GLOO_SOCKET_IFNAME=lo"
        found.append(Finding("Machine", "gloo", "warning", "an all-reduce failed; training needs it", advice))
    return found


def _compiler() -> Finding:
    name = os.environ.get("CXX", "g++")
    if shutil.which(name):
        version = subprocess.run([name, "-dumpfullversion"], capture_output=True, text=True, check=False).stdout.strip()
        return Finding("Machine", "C++ compiler", "ok", f"{name} {version}")
    advice = "install g++ (Debian: apt install g++) or set CXX"
    return Finding(
        "Machine", "C++ compiler", "missing", "DeepSpeed compiles one small operator for pretraining", advice
    )


def _ninja() -> Finding:
    path = shutil.which("ninja")
    if path:
        return Finding("Machine", "ninja", "ok", path)
    if _version("ninja") is None:
        return Finding("Machine", "ninja", "missing", "DeepSpeed builds its operators with it", remedy("ninja"))
    beside = Path(sys.executable).parent
    return Finding("Machine", "ninja", "warning", "installed but not on PATH", f"export PATH={beside}:$PATH")


def _store() -> Finding:
    folder = home_folder()
    standing = _standing(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".medformer-doctor-", dir=standing) as trial:
            connection = sqlite3.connect(Path(trial, "store.db"))
            with connection:
                connection.execute("create table trial (number integer)")
            connection.close()
    except (OSError, sqlite3.Error) as error:
        advice = "set MEDFORMER_HOME to a folder on a local disk that you may write to"
        return Finding("Machine", "model store", "broken", f"{folder}: {error}", advice)
    return Finding("Machine", "model store", "ok", f"{folder} can hold an SQLite database")


def _disk() -> Finding:
    free = shutil.disk_usage(_standing(Path.cwd())).free
    detail = f"{_gib(free)} free here"
    if free < DISK_WANTED_BYTES:
        return Finding("Machine", "disk", "warning", detail, f"{_gib(DISK_WANTED_BYTES)} are comfortable for the demo")
    return Finding("Machine", "disk", "ok", detail)


def _shared_memory() -> Finding:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Finding("Machine", "shared memory", "warning", "no /dev/shm; Ray falls back to the disk")
    size = shutil.disk_usage(folder).total
    if size < SHARED_MEMORY_WANTED_BYTES:
        advice = "in a container: --shm-size=2g (Docker) or an emptyDir with medium Memory (Kubernetes)"
        return Finding("Machine", "shared memory", "warning", f"{_gib(size)} in /dev/shm; Ray wants more", advice)
    return Finding("Machine", "shared memory", "ok", f"{_gib(size)} in /dev/shm")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _imported(names: list[str], then: str = "") -> tuple[dict[str, str], dict[str, str]]:
    """What goes wrong on importing each, empty when nothing does; and the facts that ``then`` prints.

    The imports happen in a process of their own, because a broken binary can end the interpreter.
    """
    if not names:
        return {}, {}
    script = _IMPORTS.format(names=names) + then
    said = dict(line.split("\t", 1) for line in _python(script).splitlines() if "\t" in line)
    problems = {name: said.pop(name) for name in names if name in said}
    silent = [name for name in names if name not in problems]
    if silent:
        problems[silent[0]] = f"the import ended the interpreter or took longer than {TIMEOUT_S} s"
        others, said = _imported(silent[1:], then)
        problems |= others
    return problems, said


def _python(script: str) -> str:
    """What a script prints in an interpreter of its own, as far as it came."""
    command = [sys.executable, "-c", script]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S).stdout
    except subprocess.TimeoutExpired as late:
        return late.stdout.decode(errors="replace") if late.stdout else ""


def _standing(folder: Path) -> Path:
    """The nearest folder on the way up that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
