from __future__ import annotations

import datetime
import random

import pytest

from data_shards.sources.adni.facts import (
    Code,
    Facts,
    Filling,
    age_of,
    date_of,
    diagnosis_of,
    fill,
    image_id_of,
    is_withdrawn,
    number_of,
    ptid_of,
    rid_of,
    sex_of,
    visit_code,
)
from data_shards.sources.adni.study import Exam, Study, read_study
from data_shards.sources.adni.table import Table
from data_shards.sources.adni.visits import PASSED_OVER, Preference, image_name, rank

N3 = "MPR; GradWarp; B1 Correction; N3; Scaled"


@pytest.mark.parametrize(
    "written, month, phase",
    [
        ("sc", 0, ""), ("SC", 0, ""), ("scmri", 0, ""), ("bl", 0, ""), ("BL ", 0, ""), ("ADNI Screening", 0, ""),
        ("ADNIGO Screening MRI", 0, ""), ("ADNI2 Baseline-New Pt", 0, ""), ("v01", 0, ""), ("v02", 0, ""),
        ("v03", 0, ""), ("M6", 6, ""), ("m06", 6, ""), ("m006", 6, ""), ("m120", 120, ""), ("ADNI1/GO Month 6", 6, ""),
        ("v04", 3, "ADNI2"), ("v05", 6, "ADNI2"), ("v11", 12, "ADNI2"), ("v12", 18, "ADNI2"), ("v21", 24, "ADNI2"),
        ("v51", 60, "ADNI2"), ("ADNI2 Year 1 Visit", 12, "ADNI2"), ("ADNI2 Month 3 MRI-New Pt", 3, "ADNI2"),
        ("y2", 24, "ADNI3"), ("ADNI3 Year 2 Visit", 24, "ADNI3"), ("", None, ""), ("f", None, ""), ("nv", None, ""),
        ("uns1", None, ""), ("init", None, ""), ("v06", None, ""), ("1", None, ""), ("12", None, ""),
        ("ADNI3 Initial Visit-Cont Pt", None, ""), ("something else", None, ""),
    ],
)  # fmt: skip
def test_visit_codes_of_all_phases(written: str, month: int | None, phase: str) -> None:
    code = visit_code(written)
    assert (code.month, code.phase) == (month, phase)
    assert bool(code.text) == bool(written.strip())


def test_a_count_of_a_phase_means_a_month_only_for_those_who_joined_in_it() -> None:
    assert [visit_code("v11").month_for(joined) for joined in ("ADNI2", "ADNI1", "")] == [12, None, None]
    assert [visit_code("m12").month_for(joined) for joined in ("ADNI2", "ADNI1", "")] == [12, 12, 12]


@pytest.mark.parametrize(
    "diagnosis, spellings",
    [
        (0, ("CN", "NL", "Normal", "SMC", "cn ", "MCI to NL", "Cognitively normal")),
        (1, ("MCI", "EMCI", "LMCI", "NL to MCI", "Dementia to MCI")),
        (2, ("Dementia", "AD", "MCI to Dementia", "Alzheimer's Disease")),
        (None, ("", "Patient", "-4", "MCI to", "unknown")),
    ],
)
def test_spellings_of_diagnoses(diagnosis: int | None, spellings: tuple[str, ...]) -> None:
    assert {diagnosis_of(spelling) for spelling in spellings} == {diagnosis}


@pytest.mark.parametrize(
    "how, expected",
    [
        ("drop", [None, 0, None, None, 2, None]),
        ("forward", [None, 0, 0, 0, 2, 2]),
        ("backward", [0, 0, 2, 2, 2, None]),
        ("nearest", [0, 0, 0, 2, 2, 2]),
    ],
)
def test_missing_diagnoses_are_filled_as_asked(how: Filling, expected: list[int | None]) -> None:
    # The third visit is 30 days from both neighbours with a diagnosis: a tie goes to the earlier one.
    assert fill([None, 0, None, None, 2, None], [0, 10, 40, 45, 70, 400], how) == expected


@pytest.mark.parametrize(
    "description, modality, name",
    [
        ("MPR; GradWarp; B1 Correction; N3; Scaled", "mri", "mri"), ("MPR-R", "mri", "mri"), ("MP-RAGE", "mri", "mri"),
        ("MP_RAGE", "mri", "mri"), ("t1_mprage", "mri", "mri"), ("MPRAGE_repeat", "", "mri"), ("Sag T1", "mri", "mri"),
        ("MT1; GradWarp; N3m", "mri", "mri"), ("Accelerated SAG IR-SPGR", "mri", "mri"),
        ("Coreg,_Avg,_Std_Img", "pet", "pet"), ("ADNI Brain PET: Raw", "", "pet"), ("FDG Coreg, Avg", "pet", "pet_fdg"),
        ("AV-45 Early Frames", "pet", "pet_av45"), ("PIB_Coreg", "pet", "pet_pib"), ("Florbetaben", "", "pet_fbb"),
        ("AV1451 Coreg", "pet", "pet_tau"), ("Tau_scan", "pet", "pet_tau"), ("", "mri", ""), ("something", "", ""),
        ("3-Plane_Localizer", "mri", ""), ("Axial FLAIR", "mri", ""), ("Sag T1 FLAIR", "mri", ""),
        ("T2 TSE", "mri", ""), ("Axial_DTI", "mri", ""), ("Field Mapping", "mri", ""), ("Cal 8HRBRAIN", "mri", ""),
        ("MPR Brain Mask", "mri", ""), ("MPRAGE phantom", "mri", ""), ("MPRAGE", "dti", ""),
        ("Resting State fMRI", "fmri", ""), ("FDG NAC", "pet", ""), ("CTAC", "ct", ""), ("CTAC", "pet", ""),
    ],
)  # fmt: skip
def test_descriptions_tell_what_an_image_is(description: str, modality: str, name: str) -> None:
    found, reason = image_name(Facts(description=description, modality=modality))
    assert found == name
    assert bool(reason) == (not name)


def test_the_sidecar_names_the_tracer_where_the_description_does_not() -> None:
    assert image_name(Facts(description="Coreg, Avg", modality="pet", tracer="18F-AV45"))[0] == "pet_av45"
    assert image_name(Facts(description="Coreg, Avg", modality="pet", tracer="11C-PIB"))[0] == "pet_pib"


def test_the_order_of_preference() -> None:
    ordered = [
        Facts(description=f"{N3}_2", kind="Processed", image_id=90),
        Facts(description=N3, kind="Processed", image_id=80),
        Facts(description="MPR; GradWarp; N3", kind="Processed", image_id=5),
        Facts(description="MPR; GradWarp; N3", kind="Processed", image_id=70),
        Facts(description=f"{N3.replace('MPR', 'MPR-R')}_2", kind="Processed", image_id=4),
        Facts(description="MPR", kind="Original", image_id=3),
        Facts(description="MPR-R", kind="Original", image_id=2),
    ]
    shuffled = random.Random(0).sample(ordered, len(ordered))

    def by(prefer: Preference, *words: str) -> list[int | None]:
        return [facts.image_id for facts in sorted(shuffled, key=lambda facts: rank(facts, prefer, words))]

    assert by("processed") == [90, 80, 5, 70, 4, 3, 2]
    assert by("original") == [3, 2, 90, 80, 5, 70, 4]
    assert by("processed", "mpr_r", "scaled 2") == [4, 2, 90, 80, 5, 70, 3]
    assert len(rank(ordered[0], "processed", [])) == len(PASSED_OVER)


def test_the_code_comes_before_the_date_and_a_tie_goes_to_the_earlier_exam() -> None:
    exams = [Exam(visit_code(code), datetime.date.fromisoformat(day)) for code, day in (
        ("bl", "2006-01-01"), ("m06", "2006-07-01"), ("m12", "2007-01-01"))]  # fmt: skip
    study = Study({"011_S_0001": exams, "7": exams[:1]})

    def found(code: str, day: str, days: int = 90) -> str:
        exam = study.find("011_S_0001", visit_code(code), date_of(day), days)
        return exam.code.text if exam else ""

    assert found("m12", "2006-01-01") == "m12"
    assert found("", "2006-01-20") == "bl"
    assert found("m18", "2007-01-03") == "m12"  # no such examination: the date decides
    assert found("4", "2006-10-01", 91) == "" and found("4", "2006-10-01", 92) == "m06"  # 92 days from both
    assert found("", "") == "" and found("m12", "") == "m12"
    assert study.find("099_S_0007", Code("bl", 0), None, 90) == exams[0]  # by RID alone
    assert study.find("099_S_0008", Code("bl", 0), None, 90) is None


def test_examinations_without_date_are_placed_by_their_month() -> None:
    header = ["PTID", "VISCODE", "EXAMDATE", "DX", "AGE"]
    cells = [("m12", "", "MCI"), ("bl", "2006-01-01", "CN"), ("m18", "", ""), ("m24", "2008-01-01", "Dementia")]
    cells.append(("m06", "2006-07-01", ""))
    table = Table(
        "t",
        "t.csv",
        header,
        [["011_S_0001", code, date, dx, "70"] for code, date, dx in cells],
        [*range(2, 2 + len(cells))],
    )
    exams = read_study(table, [], "nearest").of("011_S_0001")
    assert [exam.code.text for exam in exams] == ["bl", "m06", "m12", "m18", "m24"]
    assert [exam.diagnosis for exam in exams] == [0, 0, 1, 1, 2]
    assert [exam.age_years for exam in exams] == [70, 70.5, 71, 71.5, 72]  # the table has no Years_bl


def test_values_of_tables() -> None:
    day = datetime.date(2006, 1, 2)
    spellings = ("2006-01-02", "1/2/2006", "01/02/2006", "2006-01-02_08_00_00.0", "2006-01-02 08:00:00.0", "1/2/06")
    assert {date_of(text) for text in spellings} == {day}
    assert [date_of(text) for text in ("", "13/13/2006", "yesterday", "2006")] == [None] * 4
    assert [number_of(text) for text in ("<8", ">1700", "", "nan", "inf", "8.5")] == [None] * 5 + [8.5]
    assert [number_of(text, 0, 30) for text in ("-4", "-1", "31", "30")] == [None, None, None, 30]
    assert [age_of(text) for text in ("70", "0", "-4", "131", "x")] == [70, None, None, None, None]
    assert [age_of(text) for text in ("90+", "091Y", "70,5")] == [90, 90, 70.5]
    assert [sex_of(text) for text in ("M", "Male", "F", "female", "X", "")] == [0, 0, 1, 1, None, None]
    assert [image_id_of(text) for text in ("I123", "123", " i123 ", "S12", "", "12.0")] == [
        123,
        123,
        123,
        None,
        None,
        None,
    ]
    assert [ptid_of(text) for text in ("a/011_S_0001/b", "381_S_10123", "1011_S_0001", "011_S_00012345", "x")] == [
        "011_S_0001", "381_S_10123", "", "", "",
    ]  # fmt: skip
    assert (rid_of("011_S_0001"), rid_of("016_S_10123")) == ("1", "10123")
    assert [is_withdrawn(ptid) for ptid in ("381_S_10123", "381_S_1012", "380_S_10123")] == [True, False, False]
