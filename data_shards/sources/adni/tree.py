"""What lies in the folder of an export: images by their paths, and the XML file that each can have.

An image is ``PTID/description/date/I123/ADNI_..._S45_I123.nii``; XML files are below ``idaxs``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from data_shards.sources.adni.facts import (
    Facts,
    LeftOut,
    age_of,
    date_of,
    image_id_of,
    is_withdrawn,
    modality_of,
    ptid_of,
    sex_of,
)
from data_shards.sources.images.folder import list_files, outside
from data_shards.sources.tables.csv_file import SUFFIXES
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError
from data_shards.support.limits import open_regular

_NIFTI = (".nii", ".nii.gz")
_IMAGES = (*_NIFTI, ".dcm")
_NAME = re.compile(r"_S[0-9]+_I([0-9]{1,12})\.(?:nii|nii\.gz|dcm)", re.IGNORECASE)
_IMAGE_FOLDER = re.compile(r"I([0-9]{1,12})")
_DATE_FOLDER = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}_.*")
_PARTS = re.compile(r"_(MR|PT|PET|CT)_(.*?)(?:_Br_|_br_raw_|_S[0-9]+_I[0-9]+\.)")
MAX_SIDECAR_BYTES = 1 << 20
_ENCODING = re.compile(r"""<\?xml[^>]*\bencoding\s*=\s*["']([^"']*)""")


@dataclass(frozen=True)
class Entry:
    """One image as it lies on the disk.

    Attributes:
        item: how messages call it.
        files: paths relative to the root: one NIfTI file, or the slices of one DICOM image.
        dicom: which of the two.
        facts: what path and names say.
    """

    item: str
    files: tuple[str, ...] = field(repr=False)
    dicom: bool
    facts: Facts = field(repr=False)


@dataclass
class Tree:
    """What lies below the root: images, and the paths of tables and sidecars with how messages call them."""

    entries: list[Entry] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)
    sidecars: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def read_tree(root: Path, *, show_paths: bool) -> Tree:
    """List an export. Hidden files are left out, links to folders and out of the root are not followed.

    Raises:
        DataError: a folder cannot be listed.
    """
    files, hidden = list_files(root)
    tree = Tree()
    if hidden:
        tree.left_out.append(LeftOut(f"{hidden} hidden files and folders", "names that start with a dot"))
    images: dict[tuple[str, int], dict[str, str]] = {}
    for number, path in enumerate(files, start=1):
        item = path if show_paths else f"file {number}"
        ptid = ptid_of(path)
        lower = path.casefold()
        if os.path.islink(root / path) and (outside(root, path) or (root / path).is_dir()):
            tree.left_out.append(LeftOut(item, "a link to a folder or out of the root", ptid))
        elif lower.endswith(SUFFIXES):
            tree.tables[path] = item
        elif lower.endswith(".xml"):
            tree.sidecars[path] = item
        elif not lower.endswith(_IMAGES):
            tree.left_out.append(LeftOut(item, "neither NIfTI, DICOM, CSV, TSV nor XML by its ending", ptid))
        else:
            reason = _problem(path)
            if reason:
                tree.left_out.append(LeftOut(item, reason, ptid))
            else:
                images.setdefault((ptid, _image_id(path) or 0), {})[path] = item
    for paths in images.values():
        _add(tree, paths)
    return tree


def _problem(path: str) -> str:
    """Why an image file cannot be used by its path; empty when it can."""
    subjects = {ptid_of(part) for part in PurePosixPath(path).parts} - {""}
    if not subjects:
        return "no subject identifier in its path"
    if len(subjects) > 1:
        return "folder and file name two different subjects"
    if is_withdrawn(subjects.pop()):
        return "its subject was withdrawn by ADNI (381_S_10###)"
    return "" if _image_id(path) is not None else "no image identifier in its path"


def _image_id(path: str) -> int | None:
    *folders, name = PurePosixPath(path).parts
    found = _NAME.search(name)
    if found:
        return image_id_of(found.group(1))
    return next((image_id_of(part) for part in reversed(folders) if _IMAGE_FOLDER.fullmatch(part)), None)


def _add(tree: Tree, paths: dict[str, str]) -> None:
    """Add the image whose files are ``paths``, all of one subject and one image identifier."""
    folders: dict[str, list[str]] = {}
    for path in paths:
        folders.setdefault(path.rpartition("/")[0], []).append(path)
    first, *others = folders.values()
    for path in (path for group in others for path in group):
        tree.left_out.append(LeftOut(paths[path], "the image lies at another place too", ptid_of(path)))
    nifti = [path for path in first if path.casefold().endswith(_NIFTI)]
    plain = {path for path in nifti if not path.casefold().endswith(".gz")}
    copies = [path for path in nifti if path.casefold().endswith(".gz") and path[:-3] in plain]
    volumes = [path for path in nifti if path not in copies]
    slices = [path for path in first if path not in nifti]
    for path in copies:
        tree.left_out.append(LeftOut(paths[path], "a compressed copy of the file beside it", ptid_of(path)))
    if len(volumes) > 1 or (volumes and slices):
        for path in (*volumes, *slices):
            reason = "several volumes have one image identifier"
            tree.left_out.append(LeftOut(paths[path], reason, ptid_of(path)))
        return
    chosen = tuple(volumes or slices)
    tree.entries.append(Entry(paths[chosen[0]], chosen, not volumes, _facts(chosen)))


def _facts(files: Sequence[str]) -> Facts:
    *folders, name = PurePosixPath(files[0]).parts
    dated = [place for place, part in enumerate(folders) if _DATE_FOLDER.fullmatch(part)]
    found = _PARTS.search(name)
    description = found.group(2) if found else ""
    if dated and dated[-1] > 0 and not ptid_of(folders[dated[-1] - 1]):
        description = folders[dated[-1] - 1]
    return Facts(
        ptid=ptid_of(files[0]),
        image_id=_image_id(files[0]),
        description=description,
        modality=modality_of(found.group(1)) if found else "",
        kind="Original" if "_br_raw_" in name else "",
        date=date_of(folders[dated[-1]]) if dated else None,
    )


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
            facts = _facts_of_xml(_read_xml(root / path))
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


def _read_xml(path: Path) -> ElementTree.Element:
    """The document, refused when it could make the parser read files, fetch addresses or grow."""
    try:
        with open_regular(path) as file:
            content = file.read(MAX_SIDECAR_BYTES + 1)
        text = content[:MAX_SIDECAR_BYTES].decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("the XML file is not UTF-8") from None
    except OSError as error:
        raise_out_of_files(error)
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


def _facts_of_xml(top: ElementTree.Element) -> Facts:
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
