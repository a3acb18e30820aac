"""The XML file that an export can have for each image (root ``idaxs``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from data_shards.sources.adni.facts import Facts, age_of, date_of, image_id_of, modality_of, ptid_of, sex_of
from data_shards.sources.adni.left_out import LeftOut
from data_shards.support.errors import DataError
from data_shards.support.limits import open_regular

MAX_SIDECAR_BYTES = 1 << 20
_ENCODING = re.compile(r"""<\?xml[^>]*\bencoding\s*=\s*["']([^"']*)""")


def read_sidecars(root: Path, paths: Mapping[str, str]) -> tuple[dict[int, Facts], list[LeftOut]]:
    """Facts by image identifier, and which files are not used.

    Args:
        root: folder of the export.
        paths: relative paths of XML files, and how messages call them.
    """
    found: dict[int, Facts] = {}
    left_out = []
    for path, item in paths.items():
        try:
            facts = _facts(_read(root / path))
        except DataError as error:
            # Any other XML file may lie in the folder; one with a subject in its name or folder belongs to an image.
            left_out.append(LeftOut(item, str(error), ptid_of(path), lost=bool(ptid_of(path))))
            continue
        if facts.image_id is None:
            left_out.append(LeftOut(item, "the XML file has no image identifier", ptid_of(path)))
            continue
        if found.setdefault(facts.image_id, facts) != facts:
            left_out.append(LeftOut(item, "the XML file contradicts another one of the same image", ptid_of(path)))
    return found, left_out


def _read(path: Path) -> ElementTree.Element:
    """The document, refused when it could make the parser read files, fetch addresses or grow."""
    try:
        with open_regular(path) as file:
            content = file.read(MAX_SIDECAR_BYTES + 1)
        text = content[:MAX_SIDECAR_BYTES].decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("the XML file is not UTF-8") from None
    except OSError as error:
        raise DataError(f"the XML file cannot be read ({type(error).__name__})") from None
    if len(content) > MAX_SIDECAR_BYTES:
        raise DataError("the XML file is larger than 1 MiB")
    encoding = _ENCODING.search(text)
    foreign = encoding is not None and encoding.group(1).casefold() not in ("utf-8", "utf8", "us-ascii", "ascii")
    if foreign or "\0" in text or re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise DataError("the XML file has a document type, an entity or another encoding")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise DataError("the XML file is not XML") from None


def _facts(top: ElementTree.Element) -> Facts:
    texts: dict[str, str] = {}
    for name, text in _texts(top):
        texts.setdefault(name, text)
    return Facts(
        ptid=ptid_of(texts.get("subjectidentifier", "")),
        image_id=image_id_of(texts.get("imageuid", "")),
        description=texts.get("processeddatalabel", "") or texts.get("description", ""),
        modality=modality_of(texts.get("modality", "")),
        date=date_of(texts.get("dateacquired", "")),
        visit=texts.get("visitidentifier", ""),
        group=texts.get("researchgroup", ""),
        sex=sex_of(texts.get("subjectsex", "")),
        age_years=age_of(texts.get("subjectage", "")),
        tracer=texts.get("radiopharmaceutical", ""),
    )


def _texts(top: ElementTree.Element) -> Iterator[tuple[str, str]]:
    """Name and text of each element; an element ``protocol`` is called as its attribute ``term`` says."""
    for element in top.iter():
        name = str(element.tag).rpartition("}")[2]
        if name == "protocol":
            name = element.get("term", "")
        if element.text and element.text.strip():
            yield name.casefold(), element.text.strip()
