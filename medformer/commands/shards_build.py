"""What ``medformer shards build``, ``sources`` and ``index`` do."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from data_shards.format.manifest import Manifest
from data_shards.prepare import Intensity, Preparation, Prepared, Ruled, Storing
from data_shards.sources.base import Source, registered_sources, source_named
from data_shards.sources.listing import Listing, listing_with
from data_shards.support.documents import Document, apply_overrides, parse, read_mapping
from data_shards.support.errors import ConfigError
from data_shards.support.files import refuse_existing, write_atomic
from data_shards.support.progress import Progress
from data_shards.writing.build_folder import building
from data_shards.writing.notes import FILE_NAME as NOTES_FILE
from data_shards.writing.writer import SKIPPED_FILE, write_dataset

_MIB = 1 << 20
_KEY_WIDTH = 30


def build(arguments: argparse.Namespace) -> None:
    """Write every dataset that the arguments describe."""
    if not 0 < arguments.shard_mb < math.inf:
        raise ConfigError(f"--shard-mb: expected a size above 0, found {arguments.shard_mb:g}")
    if arguments.workers < 1:
        raise ConfigError(f"--workers: expected a number above 0, found {arguments.workers}")
    content, origin = _content(arguments)
    if arguments.sets:
        sets = content.get("sets", [])
        content["sets"] = [*([sets] if isinstance(sets, str) else sets), *arguments.sets]
    preparation = parse(Preparation, content.pop("prepare", None) or {}, f"{origin}: prepare")
    storing = parse(Storing, {key: content.pop(key) for key in Storing.model_fields if key in content}, origin)
    if storing.intensity and preparation.intensity != Intensity():
        raise ConfigError(
            f"{origin}: prepare.intensity brings values to 8 bits and intensity keeps them; give one of the two"
        )
    kind = source_named(arguments.source)
    config = parse(kind.Config, content, origin)
    listing = Listing(arguments.workers, arguments.out)
    try:
        with listing_with(listing):
            sources = kind.from_config(config)
        _build(sources, preparation, storing, config, arguments)
    finally:
        for name in listing.names:  # what was listed serves a build that can go on, and nothing else
            if not building(arguments.out / name):
                listing.forget(name)


def _build(
    sources: list[Source],
    preparation: Preparation,
    storing: Storing,
    config: Document,
    arguments: argparse.Namespace,
) -> None:
    for source in sources:
        refuse_existing(arguments.out / source.card.name, overwrite=arguments.overwrite)
    if arguments.key_table is not None:
        refuse_existing(arguments.key_table, overwrite=arguments.overwrite, file=True)
    # Other sets of the same source may be built now or later.
    options = config.model_dump(mode="json", exclude={"sets"}) | {"prepare": preparation.model_dump(mode="json")}
    options |= storing.model_dump(mode="json", exclude_defaults=True)
    for source in sources:
        for warning in source.warnings:
            print(f"{source.card.name}: warning: {warning}")
        prepared = Prepared(source, preparation) if preparation != Preparation() else source
        if storing != Storing():
            prepared = Ruled(prepared, storing.intensity, storing.stored)
        _write(prepared, arguments, options)
    if arguments.key_table is not None:
        write_atomic(arguments.key_table, _key_table(sources), private=True)


def explain(name: str | None) -> str:
    """The sources by name, or the options of one."""
    if name is None:
        lines = [f"  {known:<12}{_first_line(source)}" for known, source in registered_sources().items()]
        return "\n".join(["sources (`medformer shards sources NAME` lists the options of one):", *lines])
    source = source_named(name)
    lines = [f"{name}: {_first_line(source)}", "", *_options(source.Config)]
    lines += ["", "prepare.*: what is done to every sample", *_options(Preparation, "prepare.")]
    return "\n".join([*lines, "", "values that are stored as they are", *_options(Storing)])


def index(arguments: argparse.Namespace) -> None:
    """Index tar files of others."""
    from data_shards.foreign.adopt import AdoptConfig, adopt

    content, origin = _content(arguments)
    manifest = adopt(arguments.folder, parse(AdoptConfig, content, origin), overwrite=arguments.overwrite)
    print(f"{arguments.folder}: {_counts(manifest)}")


def _content(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The mapping of the document and of the key=value arguments, and what messages call it."""
    content = read_mapping(arguments.config) if arguments.config is not None else {}
    apply_overrides(content, arguments.overrides)
    return content, str(arguments.config) if arguments.config is not None else "options"


def _write(source: Source, arguments: argparse.Namespace, options: Mapping[str, Any]) -> None:
    out = arguments.out / source.card.name
    with Progress(len(source), "samples", source.card.name) as progress:
        manifest = write_dataset(
            source,
            out,
            shard_bytes=max(1, int(arguments.shard_mb * _MIB)),
            workers=arguments.workers,
            skip_errors=arguments.on_error == "skip",
            duplicates=arguments.duplicates,
            overwrite=arguments.overwrite,
            restart=arguments.restart,
            compress=arguments.compress,
            options=options,
            progress=progress,
        )
    print(f"{out}: {_counts(manifest)}" + (f"; {manifest.card.note}" if manifest.card.note else ""))
    if manifest.skipped:
        print(f"{out}: {manifest.skipped} left out, for the reasons in {out / SKIPPED_FILE}:")
        print("\n".join(_reasons(out / SKIPPED_FILE)))
    for line in _warnings(out / NOTES_FILE):
        print(f"{out}: warning: {line}")


def _counts(manifest: Manifest) -> str:
    return ", ".join(f"{entry.samples} {split}" for split, entry in manifest.splits.items())


def _warnings(table: Path) -> list[str]:
    """What was noted of the files, each with how many and the first of them."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return [f"{row['items']} of this kind: {row['warning']} ({row['first']})" for row in csv.DictReader(file)]


def _reasons(table: Path) -> list[str]:
    """How often each reason occurs, the commonest first."""
    with table.open(newline="") as file:
        reasons = [row["reason"] for row in csv.DictReader(file)]
    counts = sorted(((reasons.count(reason), reason) for reason in set(reasons)), key=lambda pair: (-pair[0], pair[1]))
    return [f"  {count:>6} {reason}" for count, reason in counts]


def _key_table(sources: list[Source]) -> str:
    """CSV of what :meth:`Source.origin` says of every item."""
    rows = [
        {"dataset": source.card.name, **source.origin(position)}
        for source in sources
        for position in range(len(source))
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _options(model: type[Document], prefix: str = "") -> list[str]:
    lines = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Document):
            lines += _options(inner, f"{prefix}{name}.")
            continue
        text = f"{field.description or ''} ({_default(field)})".strip()
        key = f"  {prefix + name:<{_KEY_WIDTH}}"
        lines += textwrap.wrap(text, 100, initial_indent=key, subsequent_indent=" " * (_KEY_WIDTH + 2))
    return lines


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", {}, []):
        return "default none"
    return f"default {value if isinstance(value, str) else json.dumps(value, default=str)}"


def _first_line(source: type[Source]) -> str:
    return (source.__doc__ or "").strip().splitlines()[0]
