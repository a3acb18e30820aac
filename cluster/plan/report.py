"""A plan in words, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.plan.parameters import total
from cluster.plan.plan import HEADROOM, Checkpoints, Plan

_GIB = 1 << 30
_MIB = 1 << 20
_COLUMNS = ("weights", "gradients", "optimizer", "buckets", "activations")


def lines(plan: Plan) -> list[str]:
    """What the plan says, a line each."""
    return [
        *_parameters(plan),
        "",
        *_compute(plan),
        "",
        *_memory(plan),
        "",
        *_checkpoints(plan.checkpoints, plan),
        *(["", *(f"note: {note}" for note in plan.notes)] if plan.notes else []),
    ]


def memory_table(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """Memory of a rank by stage: headings and rows."""
    rows = []
    for each in plan.memory:
        mark = " *" if each.stage == plan.stage else ""
        parts = [size(getattr(each, name)) for name in _COLUMNS]
        rows.append([f"{each.stage}{mark}", *parts, size(each.peak)])
    return ["ZERO", *(name.upper() for name in _COLUMNS), "PEAK"], rows


def _parameters(plan: Plan) -> list[str]:
    every = total(plan.parameters)
    found = [f"parameters   {every.trained:,} trained, {every.frozen:,} that follow or stay"]
    for each in plan.parameters:
        frozen = f", {each.frozen:,} that follow or stay" if each.frozen else ""
        found.append(f"  {each.part:<15}{each.trained:,} trained{frozen}")
    return found


def _compute(plan: Plan) -> list[str]:
    found = [
        f"a step       {plan.flops / 1e12:.4g} TFLOP of each of {plan.machines.gpus} GPUs on {plan.rows} images "
        f"({plan.forward_flops / plan.flops:.0%} of it forward)"
    ]
    if plan.rate is None:
        found.append("time         not known: give --gpu NAME, --images-per-s or --measure")
        return found
    found.append(f"             {duration(plan.rate.step_s)}: {plan.rate.basis}")
    if plan.steps is None:
        found.append("time         not known: give --images, the number of images, as there are no shards")
        return found
    assert plan.work_s is not None
    lost = f"; {duration(plan.expected_s)} with checkpoints and failures" if plan.expected_s else ""
    found.append(f"time         {duration(plan.work_s)} for {plan.steps:,} steps{lost}")
    if plan.checkpoints.document_goodput == 0:
        found.append("             it does not end: failures come faster than checkpoints, see below")
    return found


def _memory(plan: Plan) -> list[str]:
    head, rows = memory_table(plan)
    found = ["memory of a GPU by stage of ZeRO (* as the document says; not all parts are there at once):"]
    found += [f"  {line}" for line in _columns(head, rows)]
    fit = plan.fit
    if fit is None:
        return [*found, "             whether the batch fits: give --gpu-memory"]
    space = f"{plan.machines.memory_gib:g} GiB ({HEADROOM:.0%} of it planned with)"
    if fit.rows:
        found.append(f"at once      {fit.rows} images of a GPU fit into {space}: data.batch_size={fit.batch_size}")
    if fit.fits:
        found.append(f"             the {plan.rows} of the document fit")
    elif fit.micro_batch_size:
        found.append(
            f"             the {plan.rows} of the document do not; data.micro_batch_size={fit.micro_batch_size} makes "
            "them, for one more forward pass"
        )
    else:
        found.append(
            f"             the {plan.rows} of the document do not, with no data.micro_batch_size; try "
            "model.grad_checkpointing=true, another stage of ZeRO, smaller buckets or more GPUs"
        )
    return found


def _checkpoints(kept: Checkpoints, plan: Plan) -> list[str]:
    found = [f"checkpoint   {size(kept.bytes)}, written in {duration(kept.write_s)}"]
    if kept.mtbf_s is None:
        return [*found, "failures     not counted: give --mtbf"]
    assert kept.young_s is not None and kept.daly_s is not None and kept.goodput is not None
    steps = "" if kept.best_steps is None else f", checkpoint.every_steps={kept.best_steps}"
    found.append(f"failures     one in {duration(kept.mtbf_s)} of the run")
    found.append(f"interval     {duration(kept.daly_s)} (Daly; {duration(kept.young_s)} by Young){steps}")
    found.append(f"goodput      {kept.goodput:.1%} of the time is kept work with that interval")
    if kept.document_goodput is not None:
        found.append(f"             {kept.document_goodput:.1%} with that of the document")
    return found


def size(count: int) -> str:
    """Bytes in the unit that suits them."""
    return f"{count / _GIB:.2f} GiB" if count >= _GIB // 10 else f"{count / _MIB:.1f} MiB"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.3g} s"


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
