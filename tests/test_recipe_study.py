"""The study of the reference recipe: what its table says of kept fits, and that a kept fit is not made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from medmnist.evaluator import getACC, getAUC

from benchmarks.studies import recipe
from finetune.readers import read_cases


def kept(folder: Path, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A fit as the study keeps it, of random predictions."""
    generator = np.random.default_rng(seed)
    chosen, last = (generator.dirichlet(np.ones(2), size=len(labels)) for _ in range(2))
    place = recipe.place(folder, "breastmnist", 100, seed)
    place.parent.mkdir(parents=True, exist_ok=True)
    record = {"epoch": 10 + seed, "cpu_s": 60.0 * (1 + seed)}
    with place.open("wb") as file:
        np.savez(file, test=chosen, last=last, labels=labels, record=json.dumps(record))
    return chosen, last


def test_the_table_says_what_the_kept_fits_score_and_how_far_that_is_from_what_was_published(
    shared_data: Path, tmp_path: Path
) -> None:
    splits = read_cases(shared_data / "medmnist" / "breastmnist.npz")
    labels = splits["test"].known_labels
    fits = [kept(tmp_path, labels, seed) for seed in (0, 2)]
    table = recipe.table(tmp_path, ["breastmnist", "retinamnist"], 100, 3)
    (row,) = table.rows
    cells = dict(zip(table.columns, row, strict=False))
    areas = [getAUC(labels, chosen, "binary-class") for chosen, _ in fits]
    assert row[:2] == ("breastmnist", "2 of 3")
    assert cells["AUC"].startswith(f"{np.mean(areas):.3f} ({min(areas):.3f} to {max(areas):.3f}) [")
    assert cells["difference"] == f"{np.mean(areas) - 0.901:+.3f}" and cells["within 0.03"] == "no"
    last = np.mean([getAUC(labels, last, "binary-class") for _, last in fits])
    assert cells["AUC of the last epoch"] == f"{last:.3f}"
    assert cells["ACC"] == f"{np.mean([getACC(labels, chosen, 'binary-class') for chosen, _ in fits]):.3f}"
    assert cells["commonest class"] == "0.731"
    assert cells["epochs chosen"] == "10 12" and cells["CPU time of a fit"] == "0:02:00"


def test_a_fit_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    place = recipe.place(tmp_path, "breastmnist", 100, 0)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"kept")
    recipe.fit(tmp_path, "breastmnist", {}, 100, 0)
    assert place.read_bytes() == b"kept"


def test_published_figures_are_those_of_the_benchmark_and_sets_come_in_the_order_of_their_cost(
    shared_data: Path,
) -> None:
    assert {name: (each.auc, each.acc) for name, each in recipe.PUBLISHED.items()} == {
        "breastmnist": (0.901, 0.863),
        "retinamnist": (0.717, 0.524),
        "pneumoniamnist": (0.944, 0.854),
        "adrenalmnist3d": (0.827, 0.721),
    }
    sizes = []
    for name in recipe.PUBLISHED:
        train = recipe.read(name)["train"]
        sizes.append(len(train) * int(np.prod(np.asarray(train.images).shape[2:])))
    assert sizes == sorted(sizes)
    assert not recipe.read("pneumoniamnist")["test"].official
