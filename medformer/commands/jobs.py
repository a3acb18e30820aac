"""``medformer jobs``: pretraining on a cluster over HTTP, without a terminal that stays open."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medformer.commands.text_table import print_table

if TYPE_CHECKING:
    from cluster.jobs.client import Job
    from cluster.status_lines import Status

FAILED = 1
"""Exit status of ``watch`` and ``logs --follow`` of a run that failed."""


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its verbs."""
    parser = subparsers.add_parser(
        "jobs",
        help="submit pretraining to a Ray cluster over HTTP; list, follow and stop it",
        description="Jobs live on the cluster: they go on when this terminal is closed. A run has one name; submitting "
        "it again goes on from its newest checkpoint.",
    )
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument(
        "--address",
        metavar="URL",
        help="of the cluster's dashboard (default: $RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265)",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    verb = verbs.add_parser("submit", parents=[place], help="send a pretraining document to the cluster")
    verb.add_argument("config", type=Path, metavar="CONFIG", help="the YAML document of the run")
    verb.add_argument("overrides", nargs="*", metavar="key=value", help="replace single values, such as seed=1")
    verb.add_argument("--name", help="of the run (default: that of its output folder)")
    verb.add_argument("--workers", metavar="N or MIN:MAX", help="training processes, in place of cluster.workers")
    verb.add_argument(
        "--include", type=Path, action="append", default=[], metavar="PATH", help="also send this file or package"
    )
    verb.add_argument("--watch", action="store_true", help="then watch it, as `jobs watch` does")
    verb.set_defaults(run=run_submit)
    verb = verbs.add_parser("list", parents=[place], help="every run with its attempts")
    verb.set_defaults(run=run_list)
    for name, help_text, action in (
        ("status", "what is known of one run", run_status),
        ("watch", "follow steps, loss, rate, time left, checkpoints and restarts until the run ends", run_watch),
        ("stop", "ask a run to write a checkpoint and end", run_stop),
    ):
        verb = verbs.add_parser(name, parents=[place], help=help_text)
        verb.add_argument("name", metavar="NAME", help="of the run, or NAME.ATTEMPT")
        verb.set_defaults(run=action)
    verb = verbs.add_parser("logs", parents=[place], help="what a run has written")
    verb.add_argument("name", metavar="NAME", help="of the run, or NAME.ATTEMPT")
    verb.add_argument("--follow", action="store_true", help="go on until the run ends")
    verb.set_defaults(run=run_logs)


def run_submit(arguments: argparse.Namespace) -> int:
    """``jobs submit``."""
    from cluster.jobs.client import Jobs
    from data_shards.support.documents import load
    from pretrain.config import PretrainConfig

    overrides = [*arguments.overrides, *([f"cluster.workers={arguments.workers}"] if arguments.workers else [])]
    config = load(PretrainConfig, arguments.config, overrides)
    jobs = Jobs(arguments.address)
    job = jobs.submit(config, name=arguments.name, include=arguments.include)
    again = f" (attempt {job.attempt}: it goes on from its newest checkpoint)" if job.attempt > 1 else ""
    print(f"submitted {job.name}{again}; `medformer jobs watch {job.name} --address {jobs.address}` follows it")
    if arguments.watch:
        arguments.name = job.name
        return run_watch(arguments)
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """``jobs list``."""
    from cluster.jobs.client import Jobs

    jobs = Jobs(arguments.address)
    found = jobs.list()
    if not found:
        print(f"no job on {jobs.address}")
        return 0
    print_table(("NAME", "ATTEMPT", "STATE", "STARTED", "ENDED", "OUT"), [_row(job) for job in found])
    return 0


def run_status(arguments: argparse.Namespace) -> int:
    """``jobs status``."""
    from cluster.jobs.client import Jobs
    from cluster.status_lines import parsed

    jobs = Jobs(arguments.address)
    job = jobs.job(arguments.name)
    started = _when(job.started)
    print(f"{job.id}: {job.state.lower()}, started {started}, out {job.out}")
    points = [point for line in jobs.logs(job.id, statuses=True).splitlines() if (point := parsed(line)) is not None]
    if points:
        print(_told(points[-1]))
    if job.state in ("FAILED", "STOPPED") and job.message:
        print(job.message.strip().splitlines()[0])
    return 0


def run_watch(arguments: argparse.Namespace) -> int:
    """``jobs watch``; the status is 0 when the run succeeded or was stopped."""
    from cluster.jobs.client import Jobs
    from cluster.status_lines import parsed

    jobs = Jobs(arguments.address)
    job = jobs.job(arguments.name)
    moving, shown = sys.stdout.isatty(), False
    with contextlib.closing(jobs.follow(job.id)) as lines:
        for line in lines:
            point = parsed(line)
            if point is None:
                if "steps, loss" in line or not line.strip():
                    continue  # the same, for people
                print(("\r\x1b[K" if shown and moving else "") + line, flush=True)
                shown = False
            elif moving:
                print("\r\x1b[K" + f"{job.id}: {_told(point)}", end="", flush=True)
                shown = True
            else:
                print(f"{job.id}: {_told(point)}", flush=True)
    if shown:
        print()
    return _ended(jobs.job(job.id))


def run_logs(arguments: argparse.Namespace) -> int:
    """``jobs logs``."""
    from cluster.jobs.client import Jobs
    from cluster.status_lines import MARK

    jobs = Jobs(arguments.address)
    if not arguments.follow:
        print(jobs.logs(arguments.name), end="")
        return 0
    job = jobs.job(arguments.name)
    with contextlib.closing(jobs.follow(job.id)) as lines:
        for line in lines:
            if not line.startswith(MARK):
                print(line, flush=True)
    return _ended(jobs.job(job.id))


def run_stop(arguments: argparse.Namespace) -> int:
    """``jobs stop``."""
    from cluster.jobs.client import Jobs

    job = Jobs(arguments.address).stop(arguments.name)
    print(f"{job.id} was asked to write a checkpoint and end; submitting {job.name} again goes on from there")
    return 0


def _ended(job: Job) -> int:
    print(f"{job.id}: {job.state.lower()}")
    return FAILED if job.state == "FAILED" else 0


def _row(job: Job) -> tuple[str, ...]:
    return job.name, str(job.attempt), job.state.lower(), _when(job.started), _when(job.ended), job.out


def _when(time: object) -> str:
    return "-" if time is None else f"{time:%Y-%m-%d %H:%M:%S}Z"


def _told(point: Status) -> str:
    """A status in words."""
    parts = [f"step {point.step}" + (f" of {point.total}" if point.total else "")]
    if point.loss is not None:
        parts.append(f"loss {point.loss:.4g}")
    if point.images_per_s is not None:
        parts.append(f"{point.images_per_s:.4g} images/s")
    if point.data_wait is not None:
        parts.append(f"{point.data_wait:.1%} waiting for data")
    if point.workers > 1:
        parts.append(f"{point.workers} workers")
    if point.gpu_memory is not None:
        busy = "" if point.gpu_busy is None else f"{point.gpu_busy:.0%} busy, "
        parts.append(f"GPU {busy}{point.gpu_memory:.0%} of memory")
    if point.left_s is not None:
        hours, seconds = divmod(round(point.left_s), 3600)
        parts.append(f"{hours}:{seconds // 60:02d}:{seconds % 60:02d} left")
    parts.append(f"checkpoint at {point.checkpoint}" if point.checkpoint >= 0 else "no checkpoint yet")
    if point.attempt:
        parts.append(f"{point.attempt} restarts of the workers")
    return ", ".join(parts)
