"""One rule for ages and one for columns that identify somebody, whatever they are called."""

from __future__ import annotations

import pytest

from data_shards.sources.tables.privacy import (
    age_in_years,
    identifies,
    is_age,
    is_date,
    kept_number,
    kept_value,
    names_person,
)
from data_shards.support.errors import DataError

AGES = (
    "age", "Age", "AGE", "PatientAge", "patient_age", "PATIENT_AGE", "Patient's Age", "PTAGE", "Age at scan",
    "ageAtScan",
    "AGEatScan", "age_months", "agemonths", "Age (years)", "subject age", "mriAge", "Alter", "Âge", "edad", "age2",
    "AGEDX", "mriage", "agemri", "DXAGE", "age_dx", "Patientenalter", "Lebensalter", "Altersgruppe", "Alter in Monaten",
    "agemonthsatscan",
)  # fmt: skip
NO_AGES = (
    "dosage",
    "stage",
    "image",
    "average",
    "page",
    "coverage",
    "agent",
    "language",
    "voltage",
    "cartilage",
    "ageing",
    "triage",
    "salter_harris",
    "Walter",
    "dxa",
)
IDENTIFYING = (
    "PatientID", "patient_id", "patient no", "MRN", "subject-id", "AccessionNumber", "ptid", "patient name", "zip",
    "dob", "PatientBirthDate", "patient.birth", "birth", "birth date", "Year of birth", "birthYear", "StudyDate",
    "acq_date", "DateOfDeath", "born",
    "Geburtsjahr", "Geburtsdatum", "birth_yr", "BirthYr", "BIRTHYR", "yr_birth", "yearborn", "year_born", "Geburt",
    "fecha_nacimiento", "date de naissance", "Patientennummer", "PatNr", "PATNR", "Patienten-Nr.", "Fallnummer",
    "hospital_no", "Datum", "Untersuchungsdatum", "scan_dt", "SCANDT", "MRI date",
)  # fmt: skip
HARMLESS = (
    "weight", "birth_weight", "slice_id", "subject_count", "candidate", "score", "months", "age", "name_length",
    "Geburtsgewicht", "fall_number", "hospital", "dt", "birth_order",
)  # fmt: skip


def test_columns_of_ages_are_known_by_every_spelling() -> None:
    assert [name for name in AGES if not is_age(name)] == []
    assert [name for name in NO_AGES if is_age(name)] == []


def test_columns_that_identify_are_known_and_measurements_are_not_taken_for_them() -> None:
    assert [name for name in IDENTIFYING if not identifies(name)] == []
    assert [name for name in HARMLESS if identifies(name)] == []


def test_a_person_alone_is_told_from_what_is_said_of_a_person() -> None:
    people = ("patient", "Patients", "SUBJECT", "person", "participant", "Donor", "medical record", "surname", "Case",
              "Patienten", "last_name", "pt")  # fmt: skip
    others = (
        "patient_age",
        "patient sex",
        "subject_count",
        "site",
        "sex",
        "scanner",
        "hospital",
        "",
        "patientposition",
    )
    assert [name for name in people if not names_person(name)] == []
    assert [name for name in others if names_person(name)] == []


def test_dates_are_known_by_every_spelling_and_years_and_measures_are_none() -> None:
    dates = ("2021-03-09", "2021/3/9", "2021-03", "20210309", "09.03.2021", "3/9/21", "9 Mar 2021", "March 9, 2021",
             "Mar 2021", "2021-03-09T08:30:00", "2021-03-09 08:30", " 9-Mar-2021 ", "3. März 2021")  # fmt: skip
    others = ("2021", "1.5", "3.0", "1.5T", "12", "site 3", "20219999", "60-69", "mar", "May", "3.2.1", "", "1/2",
              "Marburg 3", "20213", "10.5")  # fmt: skip
    assert [text for text in dates if not is_date(text)] == []
    assert [text for text in others if is_date(text)] == []


@pytest.mark.parametrize(
    "text, years",
    [
        ("47", 47), ("47.5", 47.5), ("47,5", 47.5), ("89", 89), ("89.01", 90), ("90", 90), ("118", 90), ("091Y", 90),
        ("089Y", 89), ("018M", 1.5), ("1200M", 90), ("70 years", 70), ("91 y/o", 90), ("90+", 90), ("89+", 90),
        (">89", 90), ("> 90 years", 90), ("≥90", 90), ("365.25 d", 1),
    ],
)  # fmt: skip
def test_ages_are_read_in_every_form_and_above_89_are_90(text: str, years: float) -> None:
    assert age_in_years(text) == pytest.approx(years)


@pytest.mark.parametrize("text", ["", "old", "85+", "<1", "60-69", "9 lives", "1,234", "nan"])
def test_what_is_no_age_is_refused_without_its_text(text: str) -> None:
    with pytest.raises(DataError) as caught:
        age_in_years(text)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("names", [(name, "x") for name in AGES] + [("x", name) for name in AGES])
def test_no_name_of_an_age_lets_one_above_89_years_pass(names: tuple[str, str]) -> None:
    in_months = any("mon" in name.lower() for name in names)
    most = 90 * (12 if in_months else 1)
    for age in (90, 97.5, 118):
        assert kept_number("0" + f"{age}Y".zfill(4), *names) == most
        assert kept_value(age * (12 if in_months else 1), *names) == most
    assert kept_number("300", *(name for name in names if not is_age(name)), "dosage") == 300


@pytest.mark.parametrize("name", ["age_at_12_months", "age at month 12", "age_at_days", "ageAtVisit2"])
def test_a_unit_that_says_when_is_not_taken_for_the_unit_of_the_age(name: str) -> None:
    assert kept_number("95", name) == 90


@pytest.mark.parametrize(
    "name, per_year",
    [
        ("age_months_at_scan", 12), ("months_of_age", 12), ("AgeInMonthsAtVisit", 12), ("age_mo_bl", 12),
        ("age_days_at_mri", 365.25), ("agemonthsatscan", 12), ("Alter_Monate_bei_Untersuchung", 12),
        ("age_weeks_corrected", 365.25 / 7), ("age_at_diagnosis_days", 365.25), ("age_years_at_scan", 1),
        ("age_on_day_of_scan", 1), ("age_month_12", 1),
    ],
)  # fmt: skip
def test_the_unit_of_an_age_stands_anywhere_in_its_name(name: str, per_year: float) -> None:
    for years in (0.5, 8.5, 88, 97):
        assert kept_number(repr(years * per_year), name) == (90 * per_year if years > 89 else years * per_year)
        assert kept_value(years * per_year, "x", name) == (90 * per_year if years > 89 else years * per_year)
