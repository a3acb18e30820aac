"""Features of images by a frozen backbone, in a file."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_shards.sources.tables.roles import has_columns
from data_shards.support.errors import ConfigError, DataError, nearest
from data_shards.support.files import refuse_existing, write_atomic
from finetune.backbones import BundleReference, open_backbone, told_of
from finetune.cases import Cases
from finetune.census import warnings_of
from finetune.config import EmbedConfig
from finetune.fit.features import summaries
from finetune.intensity import differences, with_rules
from finetune.runs import read
from finetune.windows import check_overlap, told_of_crops, window_of, windowed
from pretrain.devices import check_device

SUFFIXES = (".npz", ".parquet")


def embed_to(
    config: EmbedConfig,
    backbone: str | Path,
    out: Path,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[int, int]:
    """Write one vector per case.

    Args:
        config: what to read.
        backbone: ``config.model`` as a local folder, or the name of a fresh network.
        out: an NPZ with the arrays ``key``, ``split``, ``label`` (names of classes, numbers, or 0/1 of several labels;
            empty strings where there are none) and ``features`` float32 ``(N, D)``; or a Parquet file with these
            columns and one per feature, for which pyarrow is needed.
        overwrite: replace it.
        say: is told what is to be known of how the images were read.

    Returns:
        Number of cases and of features.

    Raises:
        MedformerError: the model, the images or the file cannot be used; nothing is left behind.
    """
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"{out}: expected a name that ends in {' or '.join(SUFFIXES)}")
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(f"{out}: Parquet needs pyarrow; pip install pyarrow, or write an .npz")
    refuse_existing(out, overwrite=overwrite, file=True)
    check_device(config.device)
    source = BundleReference(str(backbone), called=config.model) if Path(backbone).is_dir() else backbone
    opened = open_backbone(source, config.seed)
    for line in told_of(opened):
        say(line)
    network = opened.module.to(config.device)
    check_overlap(config, [opened.crop])
    config = with_rules(config, {config.model: opened.intensity})
    named = bool(config.labels) or "columns" in config.options
    if config.csv is not None and config.label == "auto" and not named and not has_columns(config.csv, ["label"]):
        config = config.model_copy(update={"label": "none"})
    splits = read(config.data, config)
    window = window_of(config, opened, next(iter(splits.values())))
    check_overlap(config, [window])
    if window is not None and config.window is None:
        say(f"{config.data.name}: {told_of_crops(config.model, window)}")
    splits = {name: windowed(part, window, config.overlap) for name, part in splits.items()}
    for line in warnings_of(splits):
        say(line)
    if config.split is not None:
        if config.split not in splits:
            raise DataError(f"{config.data}: no split {config.split!r}{nearest(config.split, splits)}")
        splits = {config.split: splits[config.split]}
    for said in dict.fromkeys(line for cases in splits.values() for line in differences(cases, opened.intensity)):
        say(f"{config.data.name}: warning: {said}")
    dense = config.reads != "embedding"
    features = np.concatenate([summaries(network, part, dense=dense).read(config.reads) for part in splits.values()])
    columns = {
        "key": np.concatenate([part.keys.astype(str) for part in splits.values()]),
        "split": np.repeat(list(splits), [len(part) for part in splits.values()]),
        "label": np.concatenate([_labels(part) for part in splits.values()]),
    }
    write_atomic(out, _npz(columns, features) if out.suffix == ".npz" else _parquet(columns, features))
    return features.shape[0], features.shape[1]


def _labels(cases: Cases) -> np.ndarray:
    if cases.labels is None:
        return np.full(len(cases), "")
    if cases.target.classifies and cases.labels.shape[1] == 1:
        return np.array([cases.classes[int(index)] for index in cases.labels[:, 0]])
    return cases.labels if cases.labels.shape[1] > 1 else cases.labels[:, 0]


def _npz(columns: dict[str, np.ndarray], features: np.ndarray) -> bytes:
    text = io.BytesIO()
    np.savez_compressed(text, features=features, **columns)  # type: ignore[arg-type]
    return text.getvalue()


def _parquet(columns: dict[str, np.ndarray], features: np.ndarray) -> bytes:
    import pyarrow
    import pyarrow.parquet

    table = {name: list(column) for name, column in columns.items()}
    table |= {f"f{number}": column for number, column in enumerate(features.T)}
    text = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(table), text)
    return text.getvalue()
