"""``medformer predict --instances``: the same numbers as the API, as a table of studies or as maps of tokens."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from finetune.classifier.estimator import FewLabelClassifier
from finetune.readers import read_cases, read_new
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, tiny_backbone


def mil(**options: object) -> dict:
    return {"head": "mil", "max_steps": 2, "head_options": options}


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, 48 pictures, and tables: each picture a case, and bags of two and four."""
    folder = tmp_path_factory.mktemp("made")
    save_bundle(folder / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    (folder / "images").mkdir()
    cases = blobs(48)
    for index, pixels in enumerate(cases.images):
        PIL.Image.fromarray(pixels[0]).save(folder / "images" / f"{index:02}.png")
    single = ["path,label", *(f"{index:02}.png,{'ab'[index % 2]}" for index in range(48))]
    (folder / "single.csv").write_text("\n".join(single) + "\n")
    bag_of = [bag for bag in range(16) for _ in range((2, 4)[bag % 2])]
    rows = ["path,bag,label", *(f"{index:02}.png,{bag},{'ab'[bag // 2 % 2]}" for index, bag in enumerate(bag_of))]
    (folder / "bags.csv").write_text("\n".join(rows) + "\n")
    return folder


def fitted(made: Path, out: Path, table: str, **options: object) -> Path:
    (cases,) = read_cases(made / "images", csv=made / table).values()
    FewLabelClassifier(made / "tiny", calibrate=False, **options).fit(cases).save(out)
    return out


def predicted(made: Path, model: Path, table: str, out: Path, *options: str) -> int:
    words = ["predict", str(model), "--data", str(made / "images"), "--csv", str(made / table)]
    return main([*words, "--out", str(out / "p.csv"), "--instances", str(out / "instances"), *options])


def test_studies_of_bags_are_rows_of_a_table(made: Path, tmp_path: Path) -> None:
    out = fitted(made, tmp_path / "out", "bags.csv", **mil(instances="studies", pooling="attention"))
    assert predicted(made, out, "bags.csv", tmp_path) == 0
    model = FewLabelClassifier.load(out)
    said = model.instances(read_new(made / "images", model.record_.recipe, csv=made / "bags.csv"))
    rows = rows_of(tmp_path / "instances" / "instances.csv")
    assert list(rows[0]) == ["key", "study", "name", "image", "modality", "p(a)", "p(b)", "weight"]
    keys = [row["key"] for row in rows_of(tmp_path / "p.csv")]
    expected = [
        (
            key,
            str(number + 1),
            "image",
            "unknown",
            *(str(float(p)) for p in case.probabilities_HC[number]),
            str(float(case.weights_H[number])),
        )
        for key, case in zip(keys, said, strict=True)
        for number in range(len(case.scores_HO))
    ]
    assert [row.pop("name") for row in rows] == [f"row {number}" for number in range(2, 50)]
    assert [tuple(row.values()) for row in rows] == expected
    assert [path.name for path in (tmp_path / "instances").iterdir()] == ["instances.csv"]


def test_tokens_are_maps_in_their_grid(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = fitted(made, tmp_path / "out", "bags.csv", **mil(pooling="attention", scales=[1, 2]))
    capsys.readouterr()
    assert predicted(made, out, "single.csv", tmp_path, "--show-paths") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "instances")
    model = FewLabelClassifier.load(out)
    said = model.instances(read_new(made / "images", model.record_.recipe, csv=made / "single.csv"))
    rows = rows_of(tmp_path / "instances" / "instances.csv")
    assert rows[3] == {
        "key": "03.png", "study": "1", "name": "03.png", "image": "image", "modality": "unknown", "file": "000004.npz",
        "grid": "4x4",
    }  # fmt: skip
    for row, case in zip(rows, said, strict=True):
        with np.load(tmp_path / "instances" / row["file"]) as found:  # nothing in it is pickled
            assert found["classes"].tolist() == ["a", "b"] and str(found["key"]) == row["key"]
            assert found["probabilities"].shape == (2, 4, 4) and found["scores"].shape == (1, 4, 4)
            np.testing.assert_array_equal(found["scores"][0].ravel(), case.scores_HO[:, 0])
            np.testing.assert_allclose(found["probabilities"].reshape(2, -1).T, case.probabilities_HC, rtol=1e-6)
            assert found["weights"].shape == (4, 4) and found["weights"].sum() == pytest.approx(1, abs=1e-5)


def test_without_paths_no_name_of_a_file_is_told(made: Path, tmp_path: Path) -> None:
    out = fitted(made, tmp_path / "out", "bags.csv", **mil(pooling="mean"))
    assert predicted(made, out, "bags.csv", tmp_path) == 0
    rows = rows_of(tmp_path / "instances" / "instances.csv")
    assert [(row["key"], row["study"]) for row in rows[:4]] == [
        ("row 2", "1"), ("row 2", "2"), ("row 4", "1"), ("row 4", "2"),
    ]  # fmt: skip
    for path in (tmp_path / "instances").iterdir():
        assert b".png" not in path.read_bytes()


def test_a_head_that_says_nothing_of_instances_is_refused_and_nothing_is_left(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = fitted(made, tmp_path / "out", "single.csv", head="attention", max_steps=2)
    assert predicted(made, out, "single.csv", tmp_path) == 2
    assert "head attention says nothing of instances; fit with head mil" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_folder_that_exists_is_refused_unless_told_otherwise(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = fitted(made, tmp_path / "out", "single.csv", head_options={"reads": "mean"})
    assert predicted(made, out, "single.csv", tmp_path) == 0
    (tmp_path / "p.csv").unlink()
    assert predicted(made, out, "single.csv", tmp_path) == 2
    assert "instances" in capsys.readouterr().err and not (tmp_path / "p.csv").exists()
    assert predicted(made, out, "single.csv", tmp_path, "--overwrite") == 0
    assert len(rows_of(tmp_path / "instances" / "instances.csv")) == 48


@pytest.mark.parametrize(
    ("table", "folder"), [("x", "x"), ("x/p.csv", "x"), ("x", "x/maps"), ("nowhere/p.csv", "maps")]
)
def test_table_and_folder_appear_both_or_neither(
    made: Path, tmp_path: Path, table: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = fitted(made, tmp_path / "out", "single.csv", head_options={"reads": "mean"})
    words = ["predict", str(out), "--data", str(made / "images"), "--csv", str(made / "single.csv"), "--overwrite"]
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / table), "--instances", str(tmp_path / folder)]) == 2
    expected = "cannot write" if table.startswith("nowhere") else "need places of their own"
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("medformer: error: ") and expected in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
