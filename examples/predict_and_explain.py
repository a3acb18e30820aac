"""Open a saved classifier, predict new pictures with what is not certain about it, and map what it looked at.

After ``examples/finetune_folder.py``, on other synthetic pictures, or on yours::

    python examples/predict_and_explain.py
    python examples/predict_and_explain.py --classifier runs/mine --data new-images --out runs/maps
"""

from __future__ import annotations

import argparse
from pathlib import Path

from synthetic import write_pictures

from finetune.explain.document import ExplainConfig
from finetune.explain.run import explain
from medformer import open_classifier, read_new


def main(argv: list[str] | None = None) -> None:
    """Predict and explain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classifier", type=Path, default=Path("runs/example/classifier"))
    parser.add_argument("--data", type=Path, help="without it six other synthetic pictures are made")
    parser.add_argument("--out", type=Path, default=Path("runs/example/maps"))
    arguments = parser.parse_args(argv)

    if (data := arguments.data) is None:
        data = Path("runs/example/new")
        write_pictures(data, subjects=6, seed=1).unlink()  # new pictures have no labels

    classifier = open_classifier(arguments.classifier)
    # The preparation is that of the pictures it was fitted on; what does not fit is refused.
    cases = read_new(data, classifier.record_.recipe)
    said = classifier.told(cases)
    for key, label, uncertainty in zip(cases.keys, classifier.predict(cases), said.uncertainty, strict=True):
        print(f"{key}: {label}, uncertainty {uncertainty:.2f}")

    config = ExplainConfig(
        classifier=str(arguments.classifier), data=data, method="occlusion", options={"block": 8, "step": 8}
    )
    result = explain(config, arguments.classifier, arguments.out, overwrite=True)
    print(f"{len(result.rows)} maps: {arguments.out / 'maps.html'}")


if __name__ == "__main__":
    main()
