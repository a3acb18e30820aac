"""The rule by which the images of a folder of shards are read, and the shape they have then."""

from __future__ import annotations

import numpy as np

from data_shards.intensity import BYTES, Bytes, Rule
from data_shards.reading.reader import ShardedDataset
from data_shards.support.errors import ConfigError, DataError


def dataset_rule(dataset: ShardedDataset, given: Rule | None = None, *, key: str = "") -> Rule:
    """The rule that is given, else that of the manifest, else that of 8 bits.

    Args:
        dataset: of shards.
        given: the rule that stands in a document.
        key: where in the document it can stand, for the message; empty where there is no such place, and the manifest
            alone can hold one.

    Raises:
        ConfigError: the values have more than 8 bits and nothing says how they are to be read, or the rule is not for
            such images.
    """
    rule = given or dataset.intensity or BYTES
    dtype, shape = dataset.layout.dtype, dataset.image_shape
    if isinstance(rule, Bytes) and (dtype is None or np.dtype(dtype) != np.uint8):
        found = "values of several dtypes" if dtype is None else f"{np.dtype(dtype)} values"
        building = "`intensity` of `medformer shards build`, which writes it into their manifest"
        raise ConfigError(
            f"{dataset.folder}: {found} and no rule that brings them to the range of a network; expected {key}"
            f"{', or ' if key else ''}{building}"
        )
    try:
        if shape is not None:
            rule.channels(shape[0])
    except DataError as error:
        raise ConfigError(f"{dataset.folder}: {error}") from None
    return rule


def shown_shape(dataset: ShardedDataset, rule: Rule) -> tuple[int, ...]:
    """Shape of every image under its rule.

    Raises:
        ConfigError: images are of several sizes or dtypes.
    """
    shape = dataset.image_shape
    expected = f"{dataset.folder}: expected images C,H,W or C,D,H,W of one size and one dtype in split {dataset.split}"
    if shape is None:
        layout = dataset.layout
        differing = {"sizes": layout.shape is None, "dtypes": layout.dtype is None}
        cures = {"sizes": "prepare.size=64", "dtypes": "prepare.intensity.percentile=[0.5,99.5]"}
        found = " and ".join(each for each, differs in differing.items() if differs)
        cure = " and ".join(cures[each] for each, differs in differing.items() if differs)
        raise ConfigError(f"{expected}; {found} differ: {cure} of medformer shards build makes them the same")
    if len(shape) not in (3, 4):
        raise ConfigError(f"{expected}; found {len(shape)} axes")
    return (rule.channels(shape[0]), *shape[1:])
