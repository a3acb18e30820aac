"""Fine-tune on a folder of pictures with a table, and say how good the classifier is.

On synthetic pictures, or on yours (columns file, label, subject)::

    python examples/finetune_folder.py
    python examples/finetune_folder.py --data images --csv labels.csv --model runs/models/chest --out runs/mine
"""

from __future__ import annotations

import argparse
from pathlib import Path

from synthetic import write_pictures

from medformer import FewLabelClassifier, cross_validated, read_cases


def main(argv: list[str] | None = None) -> None:
    """Read, fit, estimate, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/example/pictures"))
    parser.add_argument("--csv", type=Path, help="without it synthetic pictures are written into --data")
    parser.add_argument(
        "--model", default="medformer_nano", help="a bundle's folder; a name starts from random weights"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/example/classifier"))
    arguments = parser.parse_args(argv)

    table = arguments.csv or write_pictures(arguments.data, subjects=24)
    cases = read_cases(arguments.data, csv=table, size=32)["train"]
    print(f"{len(cases)} cases, classes {', '.join(cases.classes.values())}")

    # The linear head on frozen features takes seconds. Its penalty, and what it reads, are chosen within the labels.
    classifier = FewLabelClassifier(arguments.model, seed=0).fit(cases)
    # Every case is predicted by classifiers that saw no image of its subject.
    estimate = cross_validated(classifier, cases, folds=3, repeats=1)
    print(*estimate.told, sep="\n")

    classifier.save(arguments.out, estimate={"cross-validation": estimate.as_json()}, overwrite=True)
    print(arguments.out)


if __name__ == "__main__":
    main()
