"""Cases that show the same pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_shards.support.errors import DataError
from data_shards.support.files import sha256_of
from finetune.cases import Cases
from finetune.readers.listed import NAMED


def together(whole: Cases, splits: Sequence[str | None] | None, csv: Path | None) -> Cases:
    """Cases with the same prepared pixels as one subject, so that none tells the label of another; and the digests.

    Args:
        whole: all cases.
        splits: of each; None for new cases, which are not compared.
        csv: the table.

    Raises:
        DataError: two have different labels, or stand in different splits; names both.
    """
    digests = whole.digests()
    source = {} if csv is None else {"csv_sha256": sha256_of(csv)}
    whole = replace(whole, source=source | {"pixels_sha256": hashlib.sha256(b"".join(digests)).hexdigest()})
    if whole.labels is None or splits is None:
        return whole
    first: dict[bytes, int] = {}
    pairs = [(case, home) for case, digest in enumerate(digests) if (home := first.setdefault(digest, case)) != case]
    if not pairs:
        return whole
    subjects = np.arange(len(whole)) if whole.subjects is None else whole.subjects.copy()
    for case, home in pairs:
        both = f"{whole.keys[home]} and {whole.keys[case]} have the same pixels once prepared"
        if not np.array_equal(whole.labels[case], whole.labels[home]):
            raise DataError(f"{both} and different labels")
        if splits[case] != splits[home]:
            raise DataError(f"{both} and are in splits {splits[home]} and {splits[case]}")
        subjects[subjects == subjects[case]] = subjects[home]
    some = ", ".join(f"{whole.keys[case]} as {whole.keys[home]}" for case, home in pairs[:NAMED])
    warning = (
        f"{len(pairs)} of {len(whole)} cases have the pixels of another and count as its subject: "
        f"{some}{', ...' * (len(pairs) > NAMED)}"
    )
    return replace(whole, subjects=subjects, warnings=(*whole.warnings, warning))
