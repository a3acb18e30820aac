"""The studies of a table: one image in each row, rows of one study joined."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from data_shards.sample import SPLITS
from data_shards.sources.base import Skipped
from data_shards.sources.images.dicom import find_series
from data_shards.sources.images.folder import ages_of, list_files, outside, own_subject
from data_shards.sources.images.looking import Look, looks_at
from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.study import Found, Place, Study
from data_shards.sources.listing import current_listing
from data_shards.sources.tables.cells import is_missing
from data_shards.sources.tables.privacy import kept_number
from data_shards.sources.tables.roles import SPLIT_NAMES, Row, Table, read_table
from data_shards.support.errors import DataError, nearest
from data_shards.vocabulary import Modality, Organ


def studies_of_table(config: ImagesConfig, table: Path, salt: str) -> Found:
    """List the rows of a table; their files may be missing or damaged, which reading them then says.

    Args:
        config: the options.
        table: the CSV.
        salt: seals what is kept of the listing.

    Raises:
        DataError: the table is broken, a path leads out of the root, a cell has no valid entry, or rows of one study
            contradict each other.
    """
    content = read_table(table, config.columns)
    grouped: dict[str, list[Row]] = {}
    seen: dict[str, int] = {}
    joined = _bags_are_studies(content.rows)
    for row in content.rows:
        path = _relative(row, config)
        if seen.setdefault(path, row.number) != row.number:
            raise DataError(f"{row.name}: the same file as in row {seen[path]}")
        study = row.cells.get("study")
        if study == "":
            raise DataError(f"{row.name}: the study is empty")
        bag = row.cells.get("bag") if joined else None
        identifier = f"study {study}" if study is not None else f"bag {bag}" if bag else path
        grouped.setdefault(identifier, []).append(row)
    found = Found(warnings=list(content.warnings), label_names=content.label_names, decimal_comma=content.decimal_comma)
    places = _places(content.rows, config, salt, found)
    found.studies = [_study(identifier, rows, places, config, content) for identifier, rows in grouped.items()]
    return found


def _bags_are_studies(rows: Sequence[Row]) -> bool:
    """Whether the rows of a bag are the images of one study: they have names, and nothing else says their study.

    Raises:
        DataError: a name is twice in a bag, so that nobody knows which of its images belong together.
    """
    cells = rows[0].cells
    if "bag" not in cells or "image" not in cells or "study" in cells:
        return False
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        bag = row.cells["bag"]
        if bag and seen.setdefault((bag, row.cells["image"]), row.number) != row.number:
            first = seen[bag, row.cells["image"]]
            raise DataError(
                f"{row.name}: its bag has an image of this name in row {first}; a column study says which images "
                "of a bag belong together"
            )
    return True


def _study(
    identifier: str, rows: Sequence[Row], places: Mapping[int, Place], config: ImagesConfig, table: Table
) -> Study:
    images: dict[str, Place] = {}
    for row in rows:
        image = row.cells.get("image", "image")
        if not image.isascii() or not image.isidentifier():
            raise DataError(f"{row.name}: the name of the image is not an ASCII identifier")
        if image in images:
            raise DataError(f"{row.name}: its study has two images of this name")
        images[image] = places[row.number]
    first = rows[0]
    for row in rows[1:]:
        for role in ("subject", "split", "organ", "bag"):
            if row.cells.get(role) != first.cells.get(role):
                raise DataError(f"{row.name}: another {role} than in row {first.number} of the same study")
        if (row.label, row.attributes) != (first.label, first.attributes):
            raise DataError(f"{row.name}: another label or attribute than in row {first.number} of the same study")
        if row.groups != first.groups:
            raise DataError(f"{row.name}: another group than in row {first.number} of the same study")
    split = first.cells.get("split") if config.split == "auto" else None
    if split is not None:
        split = SPLIT_NAMES.get(split.casefold())
        if split is None:
            raise DataError(f"{first.name}: the split is none of {', '.join(SPLITS)}")
    return Study(
        identifier=identifier,
        images=images,
        subject=_subject(first, images, config),
        split=split,
        label=None if config.label == "none" else first.label or None,
        organ=_entry(first, "organ", list(Organ.__members__)),
        attributes=ages_of(next(iter(images.values()))) | _attributes(first, table),
        bag=first.cells.get("bag", ""),
        groups=first.groups,
    )


def _relative(row: Row, config: ImagesConfig) -> str:
    """The path of a row below the root, with slashes.

    Raises:
        DataError: it is empty or leads out of the root.
    """
    text = row.cells["path"].replace("\\", "/")
    if not text:
        raise DataError(f"{row.name}: the path is empty")
    path = PurePosixPath(text)
    if path.is_absolute() or PureWindowsPath(text).drive or ".." in path.parts:
        raise DataError(f"{row.name}: the path is absolute or has '..'; paths are relative to the root")
    problem = outside(config.root, str(path))
    if problem:
        raise DataError(f"{row.name}: the path is {problem}")
    return str(path)


def _places(rows: Sequence[Row], config: ImagesConfig, salt: str, found: Found) -> dict[int, Place]:
    """Where the image of each row lies, by the number of the row; copies of DICOM files are listed in ``found``."""
    files: dict[int, list[Path]] = {}
    for row in rows:
        file = config.root / _relative(row, config)
        files[row.number] = _inside(file) if os.path.isdir(file) else [file]  # Path.is_dir raises for a long name
    paths = [path for listed in files.values() for path in listed]
    looks = dict(zip(paths, looks_at(paths, current_listing(), config.name, salt), strict=True))
    return {row.number: _place(row, files[row.number], looks, config, found) for row in rows}


def _inside(folder: Path) -> list[Path]:
    try:
        return [folder / part for part in list_files(folder)[0] if not outside(folder, part)]
    except DataError:
        return []


def _place(row: Row, files: Sequence[Path], looks: Mapping[Path, Look], config: ImagesConfig, found: Found) -> Place:
    path = _relative(row, config)
    name = f"{row.name} ({path})" if config.show_paths else row.name
    modality = _entry(row, "modality", list(Modality.__members__))
    if files == [config.root / path] and looks[files[0]].kind != "dicom":
        look = looks[files[0]]
        return Place(name, path, look.kind, look.reason, modality=modality)
    closed = sum(looks[file].lost for file in files)
    if closed:
        return Place(name, path, None, f"{closed} of {len(files)} files cannot be opened", modality=modality)
    headers = {file: header for file in files if (header := looks[file].header) is not None}
    series, unused = find_series(list(headers), headers=list(headers.values()))
    lost = [reason for _, reason, damaged in unused if damaged]
    if lost:
        return Place(name, path, None, f"{len(lost)} of its {len(headers)} DICOM files cannot be used: {lost[0]}")
    if config.times == "first":
        series = [one for one in series if one.first]
    if len(series) == 1:
        found.skipped += [Skipped(f"a file of {name}", reason) for _, reason, _ in unused]
        return Place(name, path, "dicom", series=series[0], modality=modality)
    reason = f": {unused[0].reason}" if unused and not series else ""
    differs = sorted({trait for one in series for trait in one.differs})
    if differs:
        reason = f": they differ in {', '.join(differs)}" + (
            "" if config.times == "first" else "; see the option times"
        )
    return Place(name, path, None, f"{len(series)} DICOM images in place of one{reason}")


def _subject(row: Row, images: dict[str, Place], config: ImagesConfig) -> str:
    place = next(iter(images.values()))
    if config.subject == "folder":
        folders = PurePosixPath(place.path).parts[:-1]
        if not folders:
            raise DataError(f"{row.name}: no folder above the file says its subject")
        return folders[0]
    if config.subject == "auto" and "subject" in row.cells:
        if is_missing(row.cells["subject"]):
            raise DataError(f"{row.name}: the subject is empty")
        return row.cells["subject"]
    if config.subject == "auto" and place.series is not None and place.series.patient.strip():
        return place.series.patient.strip()
    return own_subject(config.name, place.path)


def _entry(row: Row, role: str, valid: Sequence[str]) -> str:
    """An entry of a vocabulary in a cell; empty when the cell is."""
    cell = row.cells.get(role, "").lower()
    if cell and cell not in valid:
        raise DataError(f"{row.name}: the {role} is not in the vocabulary{nearest('', valid)}")
    return cell


def _attributes(row: Row, table: Table) -> dict[str, float]:
    """Numbers by name; a cell that says nothing is left out, an age above 89 years becomes 90."""
    numbers = {}
    for name, cell in row.attributes.items():
        if is_missing(cell):
            continue
        try:
            numbers[name] = kept_number(cell, name, table.attribute_names[name], decimal_comma=table.decimal_comma)
        except DataError as error:
            raise DataError(f"{row.name}: attribute {name} {error}") from None
    return numbers
