"""The table of a collection: what LONI IDA knows of each image, in the form of the download or of the search page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from data_shards.sources.adni import roles
from data_shards.sources.adni.facts import (
    Facts,
    age_of,
    date_of,
    image_id_of,
    is_withdrawn,
    modality_of,
    ptid_of,
    sex_of,
)
from data_shards.sources.adni.left_out import LeftOut
from data_shards.sources.adni.table import Table
from data_shards.sources.tables.roles import plain


@dataclass(frozen=True)
class Row:
    """One row and how messages call it."""

    item: str
    facts: Facts = field(repr=False)


@dataclass
class Collection:
    """The usable rows of all collections of an export, and what of them was left out."""

    by_image: dict[int, Row] = field(default_factory=dict)
    by_description: dict[tuple[str, str], list[Row]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return [*self.by_image.values(), *(row for rows in self.by_description.values() for row in rows)]

    def find(self, facts: Facts) -> list[Row]:
        """The rows of the image of which a path says ``facts``.

        A row without image identifier is found by subject, description and, where it has one, the date.
        """
        row = self.by_image.get(facts.image_id or 0)
        if row is not None:
            return [row]
        alike = self.by_description.get((facts.ptid, plain(facts.description)), [])
        return [row for row in alike if row.facts.date is None or row.facts.date == facts.date]


def is_collection(table: Table) -> bool:
    """Whether the columns are those of a collection."""
    found = table.columns(roles.COLLECTION).keys()
    return {"ptid", "description"} <= found and not found.isdisjoint(("image", "modality", "kind"))


def read_collections(tables: Iterable[Table]) -> Collection:
    """Read the rows of all collections together."""
    collection = Collection()
    for table in tables:
        for item, cells in table.cells(table.columns(roles.COLLECTION)):
            reason = "more or fewer cells than the header"
            facts = Facts()
            if cells is not None:
                facts = _facts(cells)
                reason = _problem(facts, cells, collection)
            if reason:
                collection.left_out.append(LeftOut(item, reason, facts.ptid))
            elif facts.image_id is not None:
                collection.by_image.setdefault(facts.image_id, Row(item, facts))
            else:
                key = (facts.ptid, plain(facts.description))
                collection.by_description.setdefault(key, []).append(Row(item, facts))
    return collection


def _problem(facts: Facts, cells: Mapping[str, str], collection: Collection) -> str:
    """Why a row cannot be used; empty when it can, also when it repeats an earlier one."""
    if not facts.ptid:
        return "no subject identifier that can be read"
    if is_withdrawn(facts.ptid):
        return "its subject was withdrawn by ADNI (381_S_10###)"
    if facts.image_id is None and cells.get("image"):
        return "no image identifier that can be read"
    earlier = collection.by_image.get(facts.image_id or 0)
    if earlier is not None and earlier.facts.ptid != facts.ptid:
        return f"gives the image of {earlier.item} to another subject"
    return ""


def _facts(cells: Mapping[str, str]) -> Facts:
    return Facts(
        ptid=ptid_of(cells["ptid"]),
        image_id=image_id_of(cells.get("image", "")),
        description=cells["description"],
        modality=modality_of(cells.get("modality", "")),
        kind=cells.get("kind", ""),
        date=date_of(cells.get("date", "")),
        visit=cells.get("visit", ""),
        group=cells.get("group", ""),
        sex=sex_of(cells.get("sex", "")),
        age_years=age_of(cells.get("age", "")),
    )
