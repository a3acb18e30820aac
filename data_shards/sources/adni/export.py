"""The visits of an export: tree, tables and sidecars joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from data_shards.sources.adni.facts import Facts, LeftOut, visit_code
from data_shards.sources.adni.options import Options
from data_shards.sources.adni.study import Study, is_study, missing_columns, read_study
from data_shards.sources.adni.table import Collection, Row, is_collection, read_collections, read_table
from data_shards.sources.adni.tree import Entry, Tree, read_sidecars, read_tree
from data_shards.sources.adni.visits import Scan, Visit, choose, image_name, join
from data_shards.sources.tables.csv_file import SUFFIXES
from data_shards.support.errors import DataError

STUDY_PREFIX = "adnimerge"
_ALWAYS = ("MMSE", "APOE4")


@dataclass
class Export:
    """What was found.

    Attributes:
        visits: with one image of each kind.
        study: the study table; empty without one.
        warnings: tables that are not there, and what follows from it.
        left_out: everything else, with the reason.
    """

    study: Study
    visits: list[Visit] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_export(options: Options) -> Export:
    """List an export; no pixel is read.

    Raises:
        DataError: a folder or a table cannot be read, or there are two study tables.
    """
    if not options.root.is_dir():
        raise DataError(f"{options.root}: no such folder")
    tree = read_tree(options.root, show_paths=options.show_paths)
    study, collection = _tables(tree, options)
    sidecars, unused = read_sidecars(options.root, tree.sidecars)
    export = Export(study, left_out=[*tree.left_out, *study.left_out, *collection.left_out, *unused])
    if not collection.rows:
        export.warnings.append("no collection table: visits are known by dates and XML files alone")
    if not study.exams:
        export.warnings.append("no study table (ADNIMERGE): diagnoses are known at the baseline alone")
    by_subject: dict[str, list[Scan]] = {}
    seen: set[str] = set()
    for entry in tree.entries:
        rows = collection.find(entry.facts)
        seen.update(row.item for row in rows)
        facts, reason = _facts(entry, rows, sidecars, collection)
        name = ""
        if not reason:
            name, reason = image_name(facts)
        if not reason and not matches(name, options.images):
            reason = "not among the kinds asked for"
        if reason:
            export.left_out.append(LeftOut(entry.item, reason, entry.facts.ptid))
            continue
        code = visit_code(facts.visit)
        exam = study.find(facts.ptid, code, facts.date, options.exam_days)
        by_subject.setdefault(facts.ptid, []).append(Scan(entry, facts, name, code, exam))
    for row in collection.rows:
        if row.item not in seen:
            export.left_out.append(LeftOut(row.item, "no usable image of it in the folder", row.facts.ptid))
    for scans in by_subject.values():
        for visit in join(scans, options.join_days):
            _add(export, visit, options)
    return export


def matches(name: str, kinds: Sequence[str]) -> bool:
    """Whether an image name is one of ``kinds``, where ``pet`` stands for every tracer."""
    return name in kinds or ("pet" in kinds and name.startswith("pet"))


def _add(export: Export, visit: Visit, options: Options) -> None:
    chosen, passed_over = choose(visit.scans, options.prefer, options.words)
    export.left_out += [LeftOut(scan.entry.item, f"passed over: {why}", visit.ptid) for scan, why in passed_over]
    missing = [kind for kind in options.require if not any(matches(scan.name, (kind,)) for scan in chosen)]
    if missing:
        reason = f"its visit has no {' and no '.join(missing)}"
        export.left_out += [LeftOut(scan.entry.item, reason, visit.ptid) for scan in chosen]
    else:
        export.visits.append(replace(visit, scans=tuple(chosen)))


def _facts(entry: Entry, rows: Sequence[Row], sidecars: dict[int, Facts], collection: Collection) -> tuple[Facts, str]:
    """All that is known of an image, the table before the sidecar before the path; and why it cannot be used."""
    path = entry.facts
    if not rows and collection.rows:
        return path, "in no collection table"
    if any(row.facts.ptid != path.ptid for row in rows):
        return path, "the collection table gives this image to another subject"
    facts = _agreed([row.facts for row in rows]) if rows else Facts()
    sidecar = sidecars.get(path.image_id or 0)
    if sidecar is not None:
        if sidecar.ptid not in ("", path.ptid):
            return path, "its XML file names another subject"
        facts = facts.filled_from(sidecar)
    return replace(facts.filled_from(path), ptid=path.ptid, image_id=path.image_id), ""


def _agreed(all_facts: Sequence[Facts]) -> Facts:
    """What several rows say alike."""
    first = all_facts[0]
    empty = Facts()
    differing = [
        each.name
        for each in fields(Facts)
        if any(getattr(other, each.name) != getattr(first, each.name) for other in all_facts)
    ]
    return replace(first, **{name: getattr(empty, name) for name in differing})


def _tables(tree: Tree, options: Options) -> tuple[Study, Collection]:
    """Read all tables and tell them apart by their columns; a table of another kind is left out."""
    named: dict[Path, str] = {}
    for path in options.tables:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.casefold() in SUFFIXES)
        if not files:
            raise DataError(f"{path}: no CSV file in this folder")
        for file in files:  # what the user named is no secret of the archive
            named[file] = str(file) if options.show_paths or file == path else f"table {len(named) + 1}"
    if not named:
        named = {options.root / path: item for path, item in tree.tables.items()}
    study_file = options.study_table
    if study_file is not None:
        named = {path: item for path, item in named.items() if path.resolve() != study_file.resolve()}
    tables = [read_table(path, name) for path, name in named.items()]
    studies = [table for table in tables if is_study(table)]
    studies = [table for table in studies if table.file.startswith(STUDY_PREFIX)] or studies
    if study_file is not None:
        studies = [read_table(study_file, str(study_file))]
    if len(studies) > 1:
        names = " and ".join(table.name for table in studies)
        raise DataError(f"{len(studies)} study tables: {names}; study_table says which is to be used")
    collections = [table for table in tables if is_collection(table) and table not in studies]
    collection = read_collections(collections)
    for table in tables:
        if table not in studies and table not in collections:
            other = "another study table is used" if is_study(table) else "neither a collection nor a study table"
            collection.left_out.append(LeftOut(table.name, other))
    if not studies:
        return Study(), collection
    missing = missing_columns(studies[0])
    if missing:
        raise DataError(f"{studies[0].name}: a study table has no column {', no '.join(missing)}")
    return read_study(studies[0], (*_ALWAYS, *options.attributes), options.fill), collection
