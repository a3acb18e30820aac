"""What the predictions of a run allow one to say, in sentences that a reader finishes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from data_shards.vocabulary import Task
from finetune.fit.linear import RAW
from finetune.report.run import numbers
from finetune.report.run.results import CROSS_VALIDATION, Results, Run
from finetune.scores.bootstrap import Interval

GOOD_ORDER, POOR_RECALL = 0.85, 0.7
"""An area above the first beside a recall below the second needs a word."""

VOTE = "vote"
"""How a record calls the vote of all reads, raw pixels among them."""

APART = 0.1
"""Shares of a class that differ by more are worth a word."""

ROUGH = 0.2
"""Width of an interval from which on a score is called rough."""


def quoted(name: str) -> str:
    """A class by its name."""
    return f"“{name}”"


PERCENT = "\N{NO-BREAK SPACE}%"
INTERVAL = f"95{PERCENT} interval "


def percent(share: float) -> str:
    """Whole per cent; 100 % only where nothing is missing."""
    return f"{min(100 * share, 99.9):.1f}{PERCENT}" if 0.995 <= share < 1 else f"{100 * share:.0f}{PERCENT}"


def ends(found: Interval | None, words: str = "") -> str:
    """The interval of a share; what is not known is said."""
    if found is None or math.isnan(found.low):
        return "no interval"
    return f"{words}{percent(found.low).removesuffix(PERCENT)} to {percent(found.high)}"


def number(value: float, *, bounded: bool = True) -> str:
    """A score: two decimals of what is a share, three where two would round it to 1; else four digits."""
    if math.isnan(value):
        return "undefined"
    if bounded:
        return f"{value:.2f}" if not 0.995 <= value < 1 else f"{min(value, 0.999):.3f}"
    return measured(value)


def measured(value: float) -> str:
    """A number in whatever unit: three decimals, or four digits of what is large or small."""
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:.4g}"


def scored(found: Interval, *, bounded: bool = True, words: str = INTERVAL) -> str:
    """A score with its interval."""
    if math.isnan(found.estimate):
        return "undefined"
    if math.isnan(found.low):
        return f"{number(found.estimate, bounded=bounded)} (no interval)"
    low, high = (number(end, bounded=bounded) for end in (found.low, found.high))
    return f"{number(found.estimate, bounded=bounded)} ({words}{low} to {high})"


def cases_of(results: Results) -> str:
    """How many images of how many subjects were scored, and how the models did not see them."""
    scores = results.scores
    images = f"{scores.images} image{'s' * (scores.images != 1)}"
    subjects = f" of {scores.subjects} subject{'s' * (scores.subjects != 1)}" * (scores.subjects < scores.images)
    where = "each predicted by a model that had not seen it" if results.split == CROSS_VALIDATION else "not seen before"
    return f"{images}{subjects}, {where} ({results.how})"


def headline(results: Results) -> str:
    """What was found and how sure, in one sentence."""
    scores = results.scores
    kind = results.target.metrics[0]
    found = scores.metrics[kind.name]
    if math.isnan(found.estimate):
        return scores.learnt
    said = scored(found, bounded=kind.bounded)
    if scores.learnt:
        return f"{scores.learnt} ({kind.words} {said}, {cases_of(results)}.)"
    if results.binary:
        told = f"tells {quoted(results.classes[results.positive])} from {quoted(results.classes[1 - results.positive])}"
        told += f" with an AUC of {said}"
    elif results.task is Task.multilabel:
        told = f"finds {len(results.classes)} labels with a mean AUC of {said}"
    elif results.target.classifies:
        told = f"tells {len(results.classes)} classes apart with a mean AUC of {said}"
    else:
        what = quoted(results.classes[0]) if len(results.classes) == 1 else f"{len(results.classes)} numbers"
        told = f"explains {percent(max(found.estimate, 0))} of the variance of {what}: R2 {said}"
    return f"The model {told}, on {cases_of(results)}."


def findings(results: Results) -> Iterator[str]:
    """What follows the headline: the decision, against the constant answer, and what has to be minded."""
    if results.binary:
        yield _at_threshold(results)
    elif results.task is Task.multilabel:
        yield _labels(results)
    elif results.target.classifies:
        yield _classes(results)
    else:
        yield _errors(results)
    if results.target.classifies:
        answer, share = numbers.constant(results)
        right = numbers.right_share(results)
        what = "all labels of" if results.task is Task.multilabel else ""
        less = ", which is not shown to be more" if right.low <= share else ""
        less = ", which is less" if right.high < share else less
        yield (
            f"Always answering {quoted(answer)} would be right for {' '.join(filter(None, (what, percent(share))))} of "
            f"these images; the model is right for {percent(right.estimate)} ({ends(right, INTERVAL)}){less}."
        )
    yield from tension(results)
    width = _width(results)
    if width > ROUGH:
        subjects = results.scores.subjects
        yield f"The interval is wide: {subjects} subjects allow a rough figure only. More would narrow it."


def tension(results: Results) -> Iterator[str]:
    """A sentence where a good order of the probabilities stands beside decisions that miss much of a class."""
    if results.task not in (Task.binary, Task.multiclass, Task.ordinal):
        return
    found = results.scores.metrics["auc"].estimate
    shares = [each for each in numbers.class_shares(results) if each.recall is not None]
    worst = min(shares, key=lambda each: each.recall.estimate if each.recall else 1.0)
    assert worst.recall is not None
    if found < GOOD_ORDER or worst.recall.estimate >= POOR_RECALL:
        return
    yield (
        f"Mind the difference: the AUC of {number(found)} speaks of the order of the probabilities, yet of "
        f"{quoted(worst.name)} only {percent(worst.recall.estimate)} are recognised as decisions are made here."
        + (" Another threshold finds more of them, at the price of more false alarms." if results.binary else "")
    )


def raw_pixels(run: Run) -> Iterator[str]:
    """Whether the network gave more than raw pixels, where a fit tried both on labels it held out."""
    losses = (run.metrics["fit"].get("chosen") or {}).get("held_out_loss") or {}
    others = [loss for name, loss in losses.items() if name not in (RAW, VOTE) and loss is not None]
    raw = losses.get(RAW)
    if raw is None or not others:
        return
    best, vote = min(others), losses.get(VOTE)
    helps = "the network helps" if max(best, vote or 0.0) < raw else "it is not shown that the network helps"
    told = f"{raw:.3f} on raw pixels and {best:.3f} on the best of what the network reads"
    if vote is not None:
        told += f" ({vote:.3f} on the vote of all)"
    yield f"Within the labels, held-out log loss was {told}: {helps}."


def prevalence(run: Run, results: Results) -> Iterator[str]:
    """A sentence where a class was more or less common among the labels than it is among these cases."""
    given = run.metrics["data"]["given"]
    if results.task is Task.multilabel or "classes" not in given:
        return
    shares = [
        (name, given["classes"].get(name, 0) / given["cases"], count / len(results))
        for name, count in results.target.counts(results.labels).items()
    ]
    name, there, here = max(shares, key=lambda each: abs(each[1] - each[2]))
    if abs(there - here) > APART:
        yield (
            f"{percent(there)} of the labels used were {quoted(name)}, of these images {percent(here)}: probabilities "
            "are those of the labels used, so they are off where a class is more or less common."
        )


def tiles(results: Results) -> dict[str, tuple[str, str]]:
    """The few numbers that matter: what each is, its value, and its interval."""
    kind = results.target.metrics[0]
    first = results.scores.metrics[kind.name]
    found = {kind.words: (number(first.estimate, bounded=kind.bounded), _ends(first, bounded=kind.bounded))}
    if results.binary:
        shares = numbers.class_shares(results)
        for place, word in ((results.positive, "sensitivity"), (1 - results.positive, "specificity")):
            recall = shares[place].recall
            if recall is not None:
                found[f"{word}: {quoted(shares[place].name)} recognised"] = (percent(recall.estimate), ends(recall))
    elif results.target.classifies:
        right = numbers.right_share(results)
        what = "all labels right" if results.task is Task.multilabel else "right answers"
        found[what] = (percent(right.estimate), ends(right))
    if not results.target.classifies:
        error = results.scores.metrics["mae"]
        found["off by, in the mean"] = (number(error.estimate, bounded=False), _ends(error, bounded=False))
    return found


def _ends(found: Interval, *, bounded: bool) -> str:
    if math.isnan(found.low):
        return "no interval"
    return f"{number(found.low, bounded=bounded)} to {number(found.high, bounded=bounded)}"


def threshold_rule(results: Results) -> str:
    """Above what a case counts as the class that is looked for, and where that comes from."""
    name = quoted(results.classes[results.positive])
    if results.threshold is None:
        return f"The threshold was {results.rule}."
    limit = results.threshold if results.positive else 1 - results.threshold
    return f"A case counts as {name} where its probability is above {limit:.3g}; the threshold was {results.rule}."


def decided_how(results: Results) -> str:
    """Why a case of a binary target is decided as it is, and why one with a lower probability may be decided for more.

    In a cross-validation each fold has a threshold of its own, and decisions are those of the first repeat.
    """
    if results.threshold is not None:
        return threshold_rule(results)
    name = quoted(results.classes[results.positive])
    mean = "the mean over the repeats" if len(results.said) > 1 else "of a model that had not seen the case"
    which = " of the first repeat" * (len(results.said) > 1)
    return (
        f"Probabilities are {mean}; a decision is that{which} at the threshold of its fold, {results.rule}. So a case "
        f"may be decided to be {name} at a lower probability than another that is not."
    )


def _at_threshold(results: Results) -> str:
    shares = numbers.class_shares(results)
    positive, negative = shares[results.positive], shares[1 - results.positive]
    parts = [
        f"{each.recognised} of {each.count} {quoted(each.name)} are recognised ({word} "
        f"{percent(each.recall.estimate)}, {ends(each.recall)})"
        for each, word in ((positive, "sensitivity"), (negative, "specificity"))
        if each.recall is not None
    ]
    chosen = "a threshold that was " + results.rule if results.threshold != 0.5 else "a threshold of one half"
    return f"At {chosen}, {' and '.join(parts)}."


def _classes(results: Results) -> str:
    shares = [each for each in numbers.class_shares(results) if each.recall is not None]
    ranked = sorted(shares, key=lambda each: each.recall.estimate if each.recall else 0.0)
    best, worst = ranked[-1], ranked[0]
    assert best.recall is not None and worst.recall is not None
    told = (
        f"Best recognised is {quoted(best.name)} ({best.recognised} of {best.count}, {percent(best.recall.estimate)}), "
        f"worst {quoted(worst.name)} ({worst.recognised} of {worst.count}, {percent(worst.recall.estimate)})."
    )
    if results.task is Task.ordinal:
        off = abs(results.decided - results.labels)[:, 0]
        told += f" {percent(float((off <= 1).mean()))} are right or off by one class."
    return told


def _labels(results: Results) -> str:
    areas = [(name, numbers.area(results, truth, said)) for name, truth, said in numbers.columns(results)]
    if not areas:
        return "No label is on some of these images and not on others."
    ranked = sorted(areas, key=lambda each: each[1].estimate)
    (worst, low), (best, high) = ranked[0], ranked[-1]
    return f"Best found is {quoted(best)} (AUC {scored(high)}), worst {quoted(worst)} (AUC {scored(low)})."


def _errors(results: Results) -> str:
    error = results.scores.metrics["mae"]
    _, constant = numbers.constant(results)
    less = ": it is not shown that the model does better" if error.high >= constant else ""
    return (
        f"Its numbers are off by {scored(error, bounded=False)} in the mean, in units of the label; saying the mean of "
        f"these cases every time would be off by {number(constant, bounded=False)}{less}."
    )


def _width(results: Results) -> float:
    kind = results.target.metrics[0]
    found = results.scores.metrics[kind.name]
    return 0.0 if math.isnan(found.low) else found.high - found.low
