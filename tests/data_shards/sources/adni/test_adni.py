from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from data_shards.sample import subject_hash
from data_shards.sources.adni.source import ADNI, Options
from data_shards.sources.base import source_named
from data_shards.support.documents import parse
from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Modality, Organ, Task
from tests.data_shards.sources.adni.export import (
    ADNIMERGE,
    COREG,
    EXAMS,
    SCANS,
    SEARCH,
    SPACING_DHW,
    Scan,
    exam,
    write_export,
    write_table,
)
from tests.data_shards.sources.adni.reading import SALT, labels, read, reasons, same, sample_of, taken, visits

A, B, C, D, E = "011_S_0001", "022_S_0002", "033_S_0003", "044_S_4004", "055_S_6005"
X, Y = "099_S_0009", "012_S_0010"


def test_the_source_is_found_and_built_from_options(export: Path, tmp_path: Path) -> None:
    kind = source_named("adni")
    (tmp_path / "salt").write_text(SALT)
    (source,) = kind.from_config(parse(kind.Config, {"root": export, "salt_file": tmp_path / "salt"}, "options"))
    assert isinstance(source, ADNI)
    assert [sample.key for sample in source] == [sample.key for sample in read(export)]
    card = source.card
    assert (card.organ, card.modality, card.dimensionality, card.task) == ("brain", "mri", "volumetric", "multiclass")
    assert card.classes == {0: "CN", 1: "MCI", 2: "Dementia"}
    assert not card.official and card.note and "may not be redistributed" in card.licence


def test_the_diagnosis_is_that_of_the_visit_and_without_one_the_visit_is_dropped(export: Path) -> None:
    source = read(export)
    assert labels(source) == {
        (A, "m000"): 0, (A, "m006"): 1, (B, "m000"): 1, (B, "m012"): 2, (C, "m000"): 1, (C, "m012"): 2,
        (D, "m000"): 1, (D, "m012"): 0, (E, "m000"): 0, (E, "m012"): 1, (X, "m000"): 0,
    }  # fmt: skip
    assert reasons(source)["no diagnosis at its visit"] == 6  # 3002, 5003, 9002, 9101, 9102, 9103


@pytest.mark.parametrize("how, expected", [("forward", 1), ("backward", 2), ("nearest", 2)])
def test_a_missing_diagnosis_is_filled_from_other_visits_on_request(
    export: Path, tmp_path: Path, how: str, expected: int
) -> None:
    # The examination without diagnosis is 212 days after one and 153 days before the other.
    exams = [{**row, "EXAMDATE": "2006-09-01"} if row["EXAMDATE"] == "2006-08-01" else row for row in EXAMS]
    write_table(tmp_path / "study.csv", ADNIMERGE, exams)
    source = read(export, fill=how, study_table=tmp_path / "study.csv")
    assert labels(source)[C, "m006"] == expected
    assert (A, "m006") in labels(source) and (X, "m012") not in labels(source)
    assert reasons(source)["another study table is used"] == 1


def test_the_revised_processed_first_acquisition_is_taken_with_the_pet_of_the_visit(export: Path) -> None:
    sample = sample_of(read(export), A, "m000")
    assert taken(sample) == {"mri": 1003, "pet": 1004}
    assert [sample.images[name].modality for name in ("mri", "pet")] == [Modality.mri, Modality.pet]
    assert all(image.pixels.shape == (1, 10, 8, 6) for image in sample.images.values())
    assert all(image.spacing_mm == pytest.approx(SPACING_DHW) for image in sample.images.values())
    assert (sample.organ, sample.task) == (Organ.brain, Task.multiclass)


def test_the_preference_can_be_turned_to_originals_or_given_by_words(export: Path) -> None:
    assert taken(sample_of(read(export, prefer="original"), A, "m000"))["mri"] == 1001
    assert taken(sample_of(read(export, words="mpr-r"), A, "m000"))["mri"] == 1000
    assert taken(sample_of(read(export, words=["nothing", "Scaled_2"]), A, "m000"))["mri"] == 1003


def test_equal_images_are_told_apart_by_the_smallest_id(tmp_path: Path) -> None:
    scans = [Scan(number, A, "bl", "2006-01-02") for number in (30, 9, 200)]
    source = read(write_export(tmp_path, scans), label="none")
    assert taken(source.sample(0)) == {"mri": 9}
    assert reasons(source) == {"passed over: the smallest image identifier is taken": 2}


def test_codes_of_adni2_dicom_folders_and_tracers(export: Path) -> None:
    source = read(export)
    first = sample_of(source, D, "m000")  # v02 and v03; the PET has two frames of 4002 and 4004
    assert taken(first) == {"mri": 4001, "pet_av45": 4003}
    assert first.images["pet_av45"].pixels.dtype == np.float32
    assert first.images["mri"].spacing_mm == pytest.approx(SPACING_DHW)
    assert taken(sample_of(source, D, "m012")) == {"mri": 4003}  # v11


def test_a_count_from_the_start_of_a_phase_is_no_month_for_those_who_joined_before(tmp_path: Path) -> None:
    # v11 is the first year of ADNI2: month 12 for those who joined in it, month 72 for this subject by its date.
    scans = [Scan(1, A, "v11", "2012-01-03", "MP-RAGE", kind="Original")]
    exams = [
        exam(A, "bl", "2006-01-10", "CN", age="70.0"),
        exam(A, "m12", "2007-01-10", "MCI", age="70.0", years="1.0"),
        exam(A, "m72", "2012-01-10", "Dementia", age="70.0", years="6.0"),
    ]
    assert labels(read(write_export(tmp_path / "before", scans, exams))) == {(A, "m072"): 2}
    joined = [{**row, "ORIGPROT": "ADNI2"} for row in exams]
    assert labels(read(write_export(tmp_path / "joined", scans, joined))) == {(A, "m012"): 1}


def test_a_month_without_examination_is_a_visit_of_its_own_with_the_nearest_diagnosis(tmp_path: Path) -> None:
    scans = [Scan(2, A, "bl", "2006-01-02"), Scan(1, A, "m03", "2006-03-30")]
    source = read(write_export(tmp_path, scans, EXAMS[:1]))
    assert labels(source) == {(A, "m000"): 0, (A, "m003"): 0}
    assert sample_of(source, A, "m003").attributes["month"] == 3


def test_whole_numbers_as_codes_are_matched_by_the_nearest_examination_within_the_window(export: Path) -> None:
    assert (E, "m012") in visits(read(export))  # 50 days from it
    assert (E, "m012") not in visits(read(export, exam_days=49))
    assert (E, "m012") in visits(read(export, exam_days=50))


def test_an_image_far_from_every_examination_keeps_its_own_visit_with_month_and_age_by_date(export: Path) -> None:
    sample = sample_of(read(export, label="none"), E, "9")
    days = (np.datetime64("2021-06-01") - np.datetime64("2017-06-20")).astype(int)
    assert sample.attributes["month"] == round(days / 365.25 * 12)
    assert sample.attributes["age_years"] == pytest.approx(60 + days / 365.25, abs=0.005)
    assert "mmse" not in sample.attributes


def test_images_without_codes_are_joined_within_the_days_given(export: Path) -> None:
    def images_of(source: ADNI) -> list[dict[str, float]]:
        return [taken(sample_of(source, *visit)) for visit in visits(source) if visit[0] == Y]

    assert images_of(read(export, label="none")) == [{"mri": 9101, "pet_pib": 9102}, {"pet_pib": 9103}]
    assert len(images_of(read(export, label="none", join_days=28))) == 3
    assert len(images_of(read(export, label="none", join_days=29))) == 2
    # All within 151 days of the first: one visit, with the PET of the smallest identifier.
    assert images_of(read(export, label="none", join_days=151)) == [{"mri": 9101, "pet_pib": 9102}]


def test_an_image_without_code_joins_the_visit_of_one_with_code(tmp_path: Path) -> None:
    pet = Scan(2, A, "", "2006-08-10", f"FDG {COREG}", "PET")
    scans = [Scan(1, A, "m06", "2006-07-05"), pet]
    for days, expected in ((36, [{"mri": 1, "pet_fdg": 2}]), (35, [{"pet_fdg": 2}, {"mri": 1}])):
        source = read(write_export(tmp_path / str(days), scans, None), label="none", join_days=days)
        assert [taken(sample_of(source, *visit)) for visit in visits(source)] == expected


def test_kinds_can_be_asked_for_and_required(export: Path) -> None:
    assert all(set(taken(sample)) == {"mri"} for sample in read(export, images="mri"))
    tracer = read(export, label="none", images=["pet_pib"])
    assert visits(tracer) == [(Y, "date 2010-01-30"), (Y, "date 2010-06-01")]
    both = read(export, label="none", require=["mri", "pet"])
    assert visits(both) == [(A, "m000"), (Y, "date 2010-01-01"), (D, "m000")]
    assert reasons(both)["its visit has no pet"] == 12
    assert reasons(both)["its visit has no mri"] == 1
    assert visits(read(export, label="none", require="pet_av45")) == [(D, "m000")]


def test_ages_above_89_are_90_and_numbers_of_the_study_are_attributes(export: Path) -> None:
    source = read(export, label="none")
    assert sample_of(source, B, "m000").attributes == {
        "age_years": 88.5, "sex": 0, "month": 0, "mmse": 29, "apoe4": 2,
    }  # fmt: skip
    later = sample_of(source, B, "m012").attributes  # 88.5 + 1.0; the MMSE of -4 is a code for none
    assert later == {"age_years": 90, "sex": 0, "month": 12, "apoe4": 1}
    assert sample_of(source, X, "m000").attributes["age_years"] == 90  # 91 in the collection
    assert sample_of(source, A, "m006").attributes["age_years"] == 70.5


def test_age_and_sex_are_labels_too(export: Path) -> None:
    ages = read(export, label="age")
    assert ages.card.task == "regression" and ages.sample(0).task is Task.regression
    assert ages.sample(0).label.dtype == np.float64  # type: ignore[union-attr]
    assert (labels(ages)[B, "m012"], labels(ages)[A, "m006"]) == (90, 70.5)
    assert max(label for label in labels(ages).values() if label is not None) == 90
    sexes = read(export, label="sex")
    assert (sexes.card.task, sexes.card.classes) == ("binary", {0: "male", 1: "female"})
    assert {ptid for (ptid, _), label in labels(sexes).items() if label == 0} == {B}
    nothing = read(export, label="none")
    assert nothing.card.task == "self_supervised" and set(labels(nothing).values()) == {None}


def test_values_beyond_an_assay_are_left_out_and_other_measurements_are_kept_on_request(export: Path) -> None:
    source = read(export, attributes=["ABETA"])
    assert sample_of(source, E, "m012").attributes["abeta"] == 712.3
    assert "abeta" not in sample_of(source, A, "m000").attributes  # "<8"


@pytest.mark.parametrize("name, hint", [("MMS", "'MMSE'"), ("PTID", "PTAU"), ("SITE", "valid")])
def test_only_measurements_can_be_attributes(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        parse(Options, {"root": ".", "attributes": [name]}, "options")


def test_without_a_study_table_the_group_is_a_label_at_the_baseline_only(tmp_path: Path) -> None:
    source = read(write_export(tmp_path, exams=None))
    # EMCI is MCI and SMC is CN; m06, m12 and the visits without code have no label.
    assert labels(source) == {(A, "m000"): 0, (B, "m000"): 1, (C, "m000"): 1, (D, "m000"): 1, (X, "m000"): 0}


def test_without_any_table_paths_say_what_they_can(tmp_path: Path) -> None:
    scans = [scan for scan in SCANS if scan.ptid in (A, Y)]
    source = read(write_export(tmp_path, scans, None, header=None), label="none")
    found = [taken(sample_of(source, *visit)) for visit in visits(source)]
    assert found == [{"mri": 1003, "pet": 1004}, {"mri": 1005}, {"mri": 9101, "pet_pib": 9102}, {"pet_pib": 9103}]
    original = read(tmp_path, label="none", prefer="original")
    assert taken(sample_of(original, *visits(original)[0])) == {"mri": 1001, "pet": 1004}


def test_both_headers_give_the_same_samples(export: Path, tmp_path: Path) -> None:
    searched = write_export(tmp_path, header=(*SEARCH, "Image Data ID"), rename={"Image Data ID": "Image ID"})
    one_by_one = zip(read(export), read(searched), strict=True)
    assert all(same(one, other) for one, other in one_by_one)


def test_a_search_table_without_image_ids_is_joined_by_description_and_date(export: Path, tmp_path: Path) -> None:
    source = read(write_export(tmp_path, header=SEARCH))
    assert all(same(one, other) for one, other in zip(read(export), source, strict=True))
    assert reasons(source) == reasons(read(export))


def test_the_order_in_which_the_disk_lists_does_not_matter(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(export)
    walk = os.walk

    def backwards(*args: object, **options: object) -> object:
        for folder, folders, files in walk(*args, **options):  # type: ignore[call-overload]
            folders.sort(reverse=True)
            yield folder, folders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    source = read(export)
    assert all(same(one, other) for one, other in zip(expected, source, strict=True))
    assert source.skipped == expected.skipped and source.card == expected.card


def test_what_cannot_be_used_is_reported_with_its_reason_and_hashed_subject(export: Path) -> None:
    source = read(export)

    def reason_of(ptid: str) -> set[str]:
        return {entry.reason for entry in source.skipped if entry.subject == subject_hash(ptid, SALT)}

    assert reason_of("066_S_0006") == {"in no collection table"}
    assert reason_of("077_S_0007") == {"no usable image of it in the folder"}
    assert reason_of("381_S_10123") == {"its subject was withdrawn by ADNI (381_S_10###)"}
    assert reason_of("088_S_0008") == {
        "a localizer, calibration, mask or phantom",
        "another modality than T1-weighted MRI and PET",
        "not known as a T1-weighted MRI by its description",
    }
    assert reason_of(A) == {
        "passed over: a revised version is there",
        "passed over: a repeated acquisition",
        "passed over: the other of original and processed is preferred",
    }
    files = sum(len(entry.item.split()) == 2 for entry in source.skipped)
    assert files + sum(len(source.sample(position).images) for position in range(len(source))) == 28  # none is lost


def test_subjects_do_not_cross_splits_and_keys_are_unique_and_sorted(tmp_path: Path) -> None:
    scans = [
        Scan(10 * subject + visit, f"{subject % 60:03d}_S_{subject:04d}", code, "2006-01-02")
        for subject in range(1, 121)
        for visit, code in enumerate(("bl", "m12"))
    ]
    shares = {"train": 0.5, "val": 0.3, "test": 0.2}
    samples = list(read(write_export(tmp_path, scans, None), label="none", shares=shares))
    keys = [sample.key for sample in samples]
    assert len(set(keys)) == 240 and keys == sorted(keys)
    splits = {(sample.subject, sample.split) for sample in samples}
    assert len(splits) == len({subject for subject, _ in splits}) == 120
    counts = [sum(split == name for _, split in splits) for name in shares]
    assert 40 <= counts[0] <= 80 and counts[0] > counts[2] > 0  # 60 +- 3.6 standard deviations


def test_a_damaged_image_is_an_error_that_names_the_item_and_nobody(tmp_path: Path) -> None:
    scan = Scan(1, A, "bl", "2006-01-02")
    source = read(write_export(tmp_path, [scan]))
    file = tmp_path / scan.file
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(DataError) as caught:
        source.sample(0)
    assert str(caught.value).startswith("visit 1: mri: ")
    assert not {"0001", "I1", "GradWarp", "2006", str(tmp_path)} & set(str(caught.value).replace("_", " ").split())
    assert A not in str(caught.value)
    file.unlink()
    with pytest.raises(DataError, match="^visit 1: mri: cannot be opened: No such file or directory$"):
        source.sample(0)


def test_a_pickled_source_gives_the_same_samples(export: Path) -> None:
    source = read(export)
    again = pickle.loads(pickle.dumps(source))
    assert all(same(one, other) for one, other in zip(source, again, strict=True))


def test_the_owner_can_ask_where_an_item_comes_from(export: Path) -> None:
    source = read(export)
    position = next(p for p in range(len(source)) if source.origin(p)["ptid"] == D and len(source.origin(p)) == 6)
    origin = source.origin(position)
    assert origin["key"] == source.sample(position).key and origin["subject"] == subject_hash(D, SALT)
    assert all((export / origin[name]).is_file() for name in ("path_mri", "path_pet_av45"))


def test_paths_are_shown_on_request(export: Path, tmp_path: Path) -> None:
    scans = [Scan(1, A, "bl", "2006-01-02"), Scan(2, B, "bl", "2007-03-01", "Axial FLAIR")]
    source = read(write_export(tmp_path, scans), show_paths=True)
    assert source.name_of(0) == f"visit 1 ({scans[0].file.as_posix()})"
    assert [entry.item for entry in source.skipped] == [scans[1].file.as_posix()]
    assert read(tmp_path).name_of(0) == "visit 1"


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no visit with a usable image"):
        read(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read(tmp_path / "absent")
