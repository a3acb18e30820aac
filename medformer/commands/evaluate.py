"""``medformer evaluate``: what models are worth on datasets, beside raw pixels, random networks and a constant."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medformer.commands.data_options import (
    add_data_options,
    add_document_options,
    add_run_options,
    add_window_options,
    document,
)
from medformer.commands.text_table import print_table

if TYPE_CHECKING:
    from finetune.study.compare import ComparisonRow
    from finetune.study.probing import EvaluationRow


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``evaluate`` to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        help="kNN, linear probe, few-label comparison and full fine-tuning of models over datasets",
        description="kNN and linear probe on the test split, scored as medmnist.Evaluator does, with intervals over "
        "test subjects; with --per-class also the few-label comparison with the same network from scratch, with --full "
        "training on all labels. One table of everything, results.csv and results.json, and one page.",
        usage="%(prog)s MODEL [MODEL ...] --data DATA [DATA ...] --out FOLDER [options]",
    )
    given = argparse.SUPPRESS
    # The metavar is what argparse calls the word when --data has swallowed it.
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL (before --data)",
        help="bundles' folders, NAME@ALIAS or networks' names, one or several",
    )
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        action="extend",
        type=Path,
        help="MedMNIST npz, folders of shards or of images; takes every word up to the next option",
    )
    add_document_options(parser)
    add_data_options(parser)
    add_window_options(parser)
    parser.add_argument("--k", default=given, type=int, help="neighbours of the kNN probe (default: 20)")
    parser.add_argument(
        "--per-class", default=given, type=int, nargs="+", metavar="N", help="label budgets to compare at"
    )
    parser.add_argument(
        "--fraction", default=given, type=float, nargs="+", metavar="F", help="label budgets as shares of each class"
    )
    parser.add_argument("--heads", default=given, nargs="+", metavar="NAME", help="of the comparison (default: linear)")
    parser.add_argument(
        "--strategies",
        default=given,
        nargs="+",
        metavar="NAME",
        help="of the comparison: frozen, selective, two_stage, full, low_rank (default: frozen full)",
    )
    parser.add_argument(
        "--full",
        default=given,
        action="store_true",
        help="train whole networks on all labels, too, by MedMNIST's recipe",
    )
    parser.add_argument("--epochs", default=given, type=int, metavar="N", help="of that recipe (default: 100)")
    parser.add_argument(
        "--baselines",
        default=given,
        nargs="+",
        metavar="NAME",
        help="further arms: resnet18, MedMNIST's baseline by its recipe; tangent, covariances of tokens",
    )
    parser.add_argument(
        "--groups", default=given, nargs="+", metavar="COLUMN", help="of the table: scores of each site, sex ..., too"
    )
    parser.add_argument("--seeds", default=given, type=int, nargs="+", help="draws of the comparison (default: 0 1 2)")
    add_run_options(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the results go")
    parser.set_defaults(run=run_evaluate)


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Evaluate, write the results, print a table."""
    from finetune.config import EvaluateConfig
    from finetune.evaluation import evaluate_bundles
    from finetune.origin import remark
    from finetune.progress import watched
    from medformer.model_reference import local_model

    config = document(arguments, EvaluateConfig, "medformer evaluate")
    with contextlib.ExitStack() as stack, watched():
        bundles = {
            name: stack.enter_context(local_model(name, arguments.tracking_uri, networks=True))
            for name in config.models
        }
        found = evaluate_bundles(
            config,
            bundles,
            arguments.out,
            overwrite=arguments.overwrite,
            say=lambda line: print(line, file=sys.stderr),
        )
    _print_probes(found.probes)
    for sentence in found.trivial:
        print(sentence)
    if found.compared:
        _print_comparison(found.compared)
    for name, note in {row.dataset: row.note for row in found.probes if not row.official}.items():
        print(f"* {name}: {remark(note)}")
    print(arguments.out)
    return 0


def _print_probes(rows: list[EvaluationRow]) -> None:
    kinds = dict.fromkeys(row.scores.kinds for row in rows)
    for number, kind in enumerate(kinds):
        if number:
            print()
        _print_probes_of([row for row in rows if row.scores.kinds == kind])
    for row in {row.dataset: row for row in rows}.values():
        for gap in row.scores.lacking:
            print(
                f"{row.dataset}: {gap} in the test split; its AUC is undefined, balanced ACC is over the other classes"
            )
        if row.scores.subjects < row.scores.images:
            print(f"{row.dataset}: {row.scores.images} test images of {row.scores.subjects} subjects")


def _print_probes_of(rows: list[EvaluationRow]) -> None:
    """A table of rows that have the same scores: the first with its interval, the next two without."""
    first, *others = rows[0].scores.kinds[:3]
    lines = []
    for row in rows:
        scores, found = row.scores, row.scores.metric(first.name)
        interval = f"({found.low:.3f} to {found.high:.3f})" if not math.isnan(found.low) else "(no interval)"
        said = "undefined" if scores.lacking else f"{found.estimate:.3f} {interval}"
        rest = [f"{scores.metric(kind.name).estimate:.3f}" for kind in others]
        name = row.dataset + ("" if row.official else "*")
        lines.append([name, row.representation, row.probe, said, *rest, str(scores.images)])
    print_table(["dataset", "features", "probe", first.words, *(kind.words for kind in others), "test images"], lines)


def _print_comparison(rows: list[ComparisonRow]) -> None:
    from finetune.study.summary import remarks, summarise

    summary = summarise(rows)
    labels = {(row.dataset, row.budget): row.labelled_images for row in rows}
    deciding = {row.dataset: row.scores.kinds[0] for row in rows}
    print("\ncomparison: score of the test split, mean over draws")
    lines = []
    for arm in summary.arms:
        if arm.metric == deciding[arm.dataset].name:
            over, words = arm.over_seeds, deciding[arm.dataset].words
            given = f"{arm.budget}, {labels[arm.dataset, arm.budget]} labels"
            mean = ["undefined", ""] if math.isnan(over.mean) else [f"{words} {over.mean:.3f}", f"{over.sd:.3f}"]
            lines.append([arm.dataset, given, arm.arm, *mean, str(over.n)])
    print_table(["dataset", "given", "arm", "mean", "sd", "draws"], lines)
    print("\npaired differences of it, 95 % t interval over draws")
    lines = []
    for pair in summary.pairs:
        if pair.metric == deciding[pair.dataset].name and not math.isnan(pair.over_seeds.mean):
            over = pair.over_seeds
            spread = "no spread" if math.isnan(over.low) else f"{over.low:+.3f} to {over.high:+.3f}"
            lines.append(
                [
                    pair.dataset,
                    pair.budget,
                    f"{pair.arm} - {pair.baseline}",
                    f"{over.mean:+.3f} ({spread})",
                    str(over.n),
                ]
            )
    print_table(["dataset", "given", "arms", "difference", "draws"], lines)
    for remark in remarks(rows):
        print(remark)
