"""What a job takes with it: its document and, from a source tree, the code; nothing else of this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

from cluster.errors import ClusterError
from data_shards.support.documents import resolved
from data_shards.support.errors import ConfigError
from data_shards.support.secrets import has_password, shown
from pretrain.config import PretrainConfig

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("data_shards", "pretrain", "cluster", "finetune", "medformer")
DOCUMENT = "run.yaml"
MOST_BYTES = 100 << 20
"""The dashboard of Ray takes no larger upload, and says so only when all of it has been sent."""
_CODE = (".py", ".yaml", ".css")
_NAMED = 5
_LEFT_OUT = {".git", "__pycache__", ".venv", "node_modules", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def pack(config: PretrainConfig, folder: Path, include: Sequence[Path] = ()) -> Path:
    """Fill an empty folder with what is sent.

    An installed Medformer has to be installed on every machine of the cluster, in the same version; of a source tree
    code and documents are sent, and never data, outputs or a repository.

    Args:
        config: the run; its document is written out in full.
        folder: an empty one.
        include: further files or folders of the user, such as a package with an objective; importable by the job.

    Raises:
        ConfigError: something to be included is not there, or has the name of what is sent already.
        ClusterError: all together is more than the cluster takes; the biggest files are named.
    """
    (folder / DOCUMENT).write_text(yaml.safe_dump(resolved(config), sort_keys=False))
    if "site-packages" not in ROOT.parts:
        for name in PACKAGES:
            for path in (ROOT / name).rglob("*"):
                if path.suffix in _CODE and path.is_file():
                    _copy(path, folder / path.relative_to(ROOT))
    for given in include:
        if not given.exists():
            raise ConfigError(f"--include {given}: no such file or folder")
        target = folder / given.resolve().name
        if target.exists():
            raise ConfigError(f"--include {given}: the job has a {target.name} already")
        for path in _files(given):
            _copy(path, target / path.relative_to(given) if given.is_dir() else target)
    _check_size(folder)
    return folder


def _files(given: Path) -> Iterator[Path]:
    if given.is_file():
        yield given
        return
    for path in sorted(given.iterdir()):
        if path.name not in _LEFT_OUT:
            yield from _files(path) if path.is_dir() else [path]


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def _check_size(folder: Path) -> None:
    sizes = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total > MOST_BYTES:
        biggest = sorted(sizes.items(), key=lambda pair: -pair[1])[:_NAMED]
        named = ", ".join(f"{path} {size / (1 << 20):.1f} MiB" for path, size in biggest)
        raise ClusterError(
            f"the job would send {total / (1 << 20):.0f} MiB, a cluster takes {MOST_BYTES >> 20}; the biggest: {named}"
        )


def check_paths(config: PretrainConfig) -> None:
    """See that every path of the document means the same on another machine.

    Raises:
        ConfigError: one is relative, or holds a password; the key is named.
    """
    for key, path in _paths(config):
        if has_password(path):
            raise ConfigError(
                f"{key}: {shown(path)}: an address with a user or password is not sent, others of the cluster would "
                "see it; credentials belong into the environment of the cluster"
            )
        if "://" not in path and not Path(path).is_absolute():
            raise ConfigError(
                f"{key}: {path}: a job runs on other machines; give an absolute path on storage that they share, "
                "or a URL"
            )


def _paths(config: PretrainConfig) -> Iterable[tuple[str, str]]:
    yield "out", str(config.out)
    for number, dataset in enumerate(config.data.datasets):
        yield f"data.datasets.{number}.path", dataset.path
    for number, probed in enumerate(config.probes.datasets):
        yield f"probes.datasets.{number}.path", str(probed.path)
    models = {"model.init_from": config.model.init_from}
    models["objectives.brainfuse.generator"] = config.objectives.get("brainfuse", {}).get("generator")
    for key, model in models.items():
        if model is not None and not set(str(model)) & {"@", ":"}:  # not one of the registry
            yield key, str(model)
    if config.data.reading.cache is not None:
        yield "data.reading.cache", str(config.data.reading.cache)
