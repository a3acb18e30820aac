"""``medformer evaluate``: what a model's features are worth, beside raw pixels and a random network."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medformer.commands.finetune import add_data_options

if TYPE_CHECKING:
    from finetune.comparison import ComparisonRow
    from finetune.evaluation import EvaluationRow


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``evaluate`` to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        help="kNN, linear probe and few-label comparison of a model",
        description="kNN and linear probe on the test split, scored as medmnist.Evaluator does, with intervals over "
        "test subjects; with --per-class also the few-label comparison with the same network from scratch.",
        usage="%(prog)s MODEL --data DATA [DATA ...] --out FOLDER [options]",
    )
    add_data_options(parser)
    # The metavar is what argparse calls the word when --data has swallowed it.
    parser.add_argument("model", metavar="MODEL (before --data)", help="a bundle's folder or NAME@ALIAS")
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        action="extend",
        type=Path,
        help="MedMNIST npz, folders of shards, or a folder of images; takes every word up to the next option",
    )
    parser.add_argument("--k", type=int, default=20, help="neighbours of the kNN probe (default: 20)")
    parser.add_argument("--per-class", type=int, nargs="+", default=[], metavar="N", help="label budgets to compare at")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="draws of the comparison (default: 0 1 2)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the results go")
    parser.set_defaults(run=run_evaluate)


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Evaluate, write the results, print a table."""
    from data_shards.support.documents import parse
    from finetune.config import EvaluateConfig
    from finetune.runs import evaluate_bundle
    from medformer.model_reference import local_model

    content = {name: value for name, value in vars(arguments).items() if name in EvaluateConfig.model_fields}
    config = parse(EvaluateConfig, content, "medformer evaluate")
    with local_model(config.model, arguments.tracking_uri) as bundle:
        rows, few = evaluate_bundle(
            config,
            Path(bundle),
            arguments.out,
            overwrite=arguments.overwrite,
            say=lambda line: print(line, file=sys.stderr),
        )
    _print_probes(rows)
    if few:
        _print_comparison(few)
    for name, note in {row.dataset: row.note for row in rows if not row.official}.items():
        print(f"* {name} is not an official dataset: {note}")
    print(arguments.out)
    return 0


def _print_probes(rows: list[EvaluationRow]) -> None:
    print(f"{'dataset':<18}{'features':<17}{'probe':<8}{'AUC':<23}{'ACC':<7}{'balanced':<10}test images")
    for row in rows:
        scores = row.scores
        name = row.dataset + ("" if row.official else "*")
        area = f"{scores.auc.estimate:.3f} ({scores.auc.low:.3f} to {scores.auc.high:.3f})"
        print(
            f"{name:<18}{row.representation:<17}{row.probe:<8}{'undefined' if scores.lacking else area:<23}"
            f"{scores.acc.estimate:<7.3f}{scores.balanced_acc.estimate:<10.3f}{scores.images}"
        )
    for row in {row.dataset: row for row in rows}.values():
        for gap in row.scores.lacking:
            print(
                f"{row.dataset}: {gap} in the test split; its AUC is undefined, balanced ACC is over the other classes"
            )
        if row.scores.subjects < row.scores.images:
            print(f"{row.dataset}: {row.scores.images} test images of {row.scores.subjects} subjects")


def _print_comparison(rows: list[ComparisonRow]) -> None:
    from finetune.summary import remarks, summarise

    summary = summarise(rows)
    labels = {(row.dataset, row.budget): row.labelled_images for row in rows}
    print("\nfew labels: test AUC, mean over draws")
    for arm in summary.arms:
        if arm.metric == "auc":
            over = arm.over_seeds
            given = f"{arm.budget}, {labels[arm.dataset, arm.budget]} labels"
            mean = "undefined" if math.isnan(over.mean) else f"{over.mean:.3f}  sd {over.sd:.3f}"
            print(f"{arm.dataset:<18}{given:<28}{arm.arm:<26}{mean}  n {over.n}")
    print("\npaired differences of test AUC, 95 % t interval over draws")
    for pair in summary.pairs:
        if pair.metric == "auc" and not math.isnan(pair.over_seeds.mean):
            over = pair.over_seeds
            spread = "no spread" if math.isnan(over.low) else f"{over.low:+.3f} to {over.high:+.3f}"
            arms = f"{pair.arm} - {pair.baseline}"
            print(f"{pair.dataset:<18}{pair.budget:<15}{arms}: {over.mean:+.3f} ({spread})  n {over.n}")
    for remark in remarks(rows):
        print(remark)
