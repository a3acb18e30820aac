"""What of a person may be passed on: one rule for ages, one for columns that identify somebody.

Ages above 89 tell people apart, and so do birth dates, names and numbers of patients (US 45 CFR 164.514 (b)(2)(i)).
Every source, every table and every index of tars uses these functions; a test searches all outputs for marked values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from data_shards.sources.tables.cells import number
from data_shards.support.errors import DataError

OLDEST_YEARS = 90.0
"""The age of everybody above 89."""

_DAYS_OF_YEAR = 365.25
# How many of a unit make a year.
_UNITS = {
    **dict.fromkeys(("y", "yr", "yrs", "year", "years", "yo", "yearsold", "jahr", "jahre", "jahren"), 1.0),
    **dict.fromkeys(("m", "mo", "mos", "month", "months", "monat", "monate", "monaten"), 12.0),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks", "woche", "wochen"), _DAYS_OF_YEAR / 7),
    **dict.fromkeys(("d", "day", "days", "tag", "tage", "tagen"), _DAYS_OF_YEAR),
}
# 091Y, 18 months, 90+, >89, 89.5 years old
_AGE = re.compile(r"([<>≥≤=]*)\s*(-?\d[\d.,]*)\s*([a-z/ ]*)(\+?)\s*([a-z/ ]*)\.?", re.IGNORECASE | re.ASCII)

# "PatientAge", "patient_age" and "MRIAge at 12 months" as words and numbers.
_WORDS = re.compile(r"[^\W\d_]+|\d+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Words that are glued to "age" in the names of columns: PTAGE, ageatscan, agemonths, AGEDX.
_EVENT = (
    "acq|acquisition|mri?|ct|pet|dx|diag|diagnosis|scan|study|series|exam|visit|entry|onset|death|baseline|bl|surgery|"
    "img|imaging|inclusion|enrol+ment|screening"
)
_BEFORE = f"pt|pat|patients?|subj|subjects?|participant|person|donor|case|current|{_EVENT}"
_UNIT = "y|yrs?|years?|m|mos?|months?|wks?|weeks?|d|days?"
_AGE_WORD = re.compile(rf"(?:{_BEFORE})?age(?:s|group|(?:in)?({_UNIT}))?(?:at[a-z]*|{_EVENT})?")
_GERMAN = "patient(?:en)?|probanden|lebens|untersuchungs|diagnose|erkrankungs"
_AGE_ELSEWHERE = re.compile(
    rf"(?:{_GERMAN})?alter(?:s|sgruppe|(?:in)?(jahren?|monaten?|wochen?|tagen?))?"
    "|edad|idade|leeftijd|âge|età|ålder|alder|wiek"
)

_WHEN_WORD = "date|day|years?|yr|month|time|dt|datum|jahr|tag|monat|fecha|año|année"
_WHEN = frozenset((*_WHEN_WORD.split("|"), "data", "ano", "annee", "anno", "jaar"))
_BORN = frozenset(
    ("birth", "born", "geburt", "geburts", "naissance", "nacimiento", "nascimento", "nascita", "geboorte")
)
_BIRTH = re.compile(
    rf"dob|yob|bday|born|(?:birth|born|geburts|geboorte)(?:{_WHEN_WORD})|(?:{_WHEN_WORD})(?:of)?(?:birth|born)"
)
_DATE = re.compile(
    f"(?:{_EVENT}|content|image|birth|followup)?date(?:time)?|(?:{_EVENT}|image|followup)dt|[a-zäöüß]*datum|fecha"
)
_NUMBER_OF_PERSON = frozenset((
    "mrn", "ssn", "ptid", "rid", "pid", "patid", "patientid", "patientname", "subjectid", "subjid", "accession",
    "accessionnumber", "nhs", "phone", "telephone", "fax", "email", "zip", "zipcode", "postcode", "insurance",
    "hospitalno", "hospitalnr", "hospitalnum", "hospitalnumber",
))  # fmt: skip
_PERSON = frozenset((
    "patient", "patients", "subject", "subj", "participant", "person", "donor", "pt", "pat", "medical", "record",
    "patienten",
))  # fmt: skip
_NUMBER = frozenset(
    ("id", "ids", "uid", "uuid", "identifier", "number", "no", "nr", "num", "code", "key", "name", "nummer")
)
# Patientennummer, PATNR, Fallnummer; "fall number" in two words counts falls.
_PERSON_NUMBER = re.compile("(?:pat|patient(?:en)?|probanden|fall|versicherten|kranken)(?:nummer|nr|id|name|kennung)")


# Words that are the name or number of a person where no other word stands beside them: patient, but not patient_age.
_PERSON_ALONE = _PERSON | {
    "case", "caseid", "firstname", "forename", "lastname", "surname", "fullname", "vorname", "nachname", "proband",
    "probanden", "patientin", "patienti", "paciente", "paziente",
}  # fmt: skip

_MONTH = "jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez"
# 2021-03-09, 2021/03, 20210309, 9.3.2021, 3/9/21, 9 Mar 2021, March 9, 2021; an hour may follow. A year alone is none.
_DATED = re.compile(
    r"(?:(?:1[89]|2[01])\d\d[-/.](?:0?[1-9]|1[0-2])(?:[-/.](?:0?[1-9]|[12]\d|3[01]))?"
    r"|(?:1[89]|2[01])\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])([-/.])(?:0?[1-9]|[12]\d|3[01])\1(?:(?:1[89]|2[01])\d\d|\d\d)"
    rf"|(?:\d{{1,2}}\.?[- ]?)?(?:{_MONTH})[a-zä]*\.?[- ]?(?:\d{{1,2}},?[- ])?(?:1[89]|2[01])\d\d)"
    r"(?:[T ]\d{1,2}:?\d\d.*)?",
    re.IGNORECASE,
)


def words_of(name: str) -> list[str]:
    """The words and numbers in the name of a column, in small letters."""
    return [word.casefold() for word in _WORDS.findall(_HUMP.sub(" ", name))]


def is_age(*names: str) -> bool:
    """Whether one of the names is that of an age, however it is written: ``PatientAge``, ``age_months``, ``AGE``."""
    for name in names:
        words = words_of(name)
        if any(_AGE_WORD.fullmatch(word) or _AGE_ELSEWHERE.fullmatch(word) for word in (*words, "".join(words))):
            return True
    return False


def identifies(name: str) -> str:
    """What the column of this name says of a person that is never kept; empty when it may be kept.

    An age may be kept, see :func:`kept_age`.
    """
    apart = words_of(name)
    words = {*apart, "".join(apart)}
    born = words & _BORN
    if any(map(_BIRTH.fullmatch, words)) or (born and (words & _WHEN or set(apart) - _PERSON <= _BORN)):
        return "a birth date; keep the age instead"
    if any(map(_DATE.fullmatch, words)):
        return "a date; keep the time since another event instead"
    numbered = any(map(_PERSON_NUMBER.fullmatch, set(apart)))
    if numbered or words & _NUMBER_OF_PERSON or (words & _PERSON and words & _NUMBER):
        return "the number or name of a person"
    return ""


def names_person(name: str) -> bool:
    """Whether the column of this name tells who is shown though nothing says "number": ``patient``, ``Surname``."""
    apart = words_of(name)
    return bool(apart) and (set(apart) <= _PERSON_ALONE or "".join(apart) in _PERSON_ALONE)


def is_date(text: str) -> bool:
    """Whether a cell is a date to the day or month, however it is written; a year alone is none."""
    return _DATED.fullmatch(text.strip()) is not None


def age_in_years(text: str) -> float:
    """The age in a cell, as DICOM (``091Y``, ``018M``), a spreadsheet (``47,5``) or a protocol (``90+``) writes it.

    Returns:
        Years; :data:`OLDEST_YEARS` above 89. A number without unit is in years.

    Raises:
        DataError: there is none; the message completes a sentence about the cell.
    """
    return kept_age(_age(text, 1.0))


def kept_age(age: float, per_year: float = 1.0) -> float:
    """An age as it may be passed on: above 89 years it is 90.

    Args:
        age: in any unit.
        per_year: how many of the unit make a year.
    """
    return OLDEST_YEARS * per_year if age > (OLDEST_YEARS - 1) * per_year else age


def kept_value(value: float, *names: str) -> float:
    """A number as it may be passed on: an age by :func:`kept_age`, in the unit that a name says.

    Args:
        value: the number; one that is whole stays an int.
        names: as for :func:`kept_number`.
    """
    return kept_age(value, _per_year(names)) if is_age(*names) else value


def kept_number(text: str, *names: str, decimal_comma: bool = False) -> float:
    """The number in a cell as it may be passed on: an age by :func:`kept_age`, in the unit that a name says.

    Args:
        text: the cell.
        names: all that the number is called, in the table and in the shards; an age is an age if one of them says so.
        decimal_comma: see :func:`~data_shards.sources.tables.cells.number`.

    Raises:
        DataError: there is none; the message completes a sentence about the cell.
    """
    if not is_age(*names):
        return number(text, decimal_comma=decimal_comma)
    per_year = _per_year(names)
    return kept_age(_age(text, per_year, decimal_comma=decimal_comma), per_year)


def _per_year(names: Iterable[str]) -> float:
    """The unit of an age by its names; years where none says one.

    A unit beside a number, after ``at`` or before ``of`` says when: ``age_at_12_months`` and ``age_on_day_of_scan`` are
    in years, ``age_months_at_scan`` and ``months_of_age`` are not.
    """
    for name in names:
        words = ["", *words_of(name), "", ""]
        for before, word, after, next_one in zip(words, words[1:], words[2:], words[3:], strict=False):
            glued = _AGE_WORD.fullmatch(word) or _AGE_ELSEWHERE.fullmatch(word)
            unit = glued[1] if glued and glued[1] else word
            of_something = after == "of" and not is_age(next_one)
            says_when = before.isdecimal() or before == "at" or after.isdecimal() or of_something
            if unit in _UNITS and not says_when:
                return _UNITS[unit]
    return 1.0


def _age(text: str, per_year: float, *, decimal_comma: bool = False) -> float:
    """The age in a cell in the unit of which ``per_year`` make a year, if the cell does not say its own."""
    found = _AGE.fullmatch(text.strip())
    unit = re.sub(r"[^a-z]", "", (found[3] + found[5]).lower()) if found else ""
    if found is None or (unit and unit not in _UNITS):
        raise DataError("is not an age")
    age = number(found[2], decimal_comma=decimal_comma)
    if unit:
        age *= per_year / _UNITS[unit]
    if found[1] in ("", "=") and not found[4]:
        return age
    # "90+", ">89": a group, which has no number of its own unless it is that of the oldest.
    if "<" in found[1] or "≤" in found[1] or age < (OLDEST_YEARS - 1) * per_year:
        raise DataError("is a range of ages")
    return math.inf
