"""Jobs of a Ray cluster through its dashboard: submit, list, ask, follow and stop them by the name of the run.

A run has one name; each time it is submitted is an attempt, the job ``NAME.ATTEMPT`` of Ray. An attempt goes on from
the newest checkpoint of those before it.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cluster import defaults, status_lines
from cluster.errors import TOKEN_NEEDED, TOKEN_REFUSED, ClusterError
from cluster.jobs.chunks import waited_for
from cluster.jobs.package import DOCUMENT, check_paths, pack
from cluster.store import first_line
from data_shards.support.documents import digest
from data_shards.support.errors import ConfigError, nearest
from data_shards.support.secrets import has_password, shown
from pretrain.config import PretrainConfig

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
STOP_WAIT_S = 600
"""A job that is asked to stop may take so long for the step it is in and for a checkpoint before it is killed."""
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_KIND = "medformer"
_NO_AGENT, _PATIENCE_S = "No available agent", 60.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """An attempt of a run.

    Attributes:
        name: of the run.
        attempt: from 1.
        state: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.
        message: what Ray says of it.
        out: the folder of the run, on the storage of the cluster.
        started: when, or None.
        ended: when, or None.
    """

    name: str
    attempt: int
    state: str
    message: str
    out: str
    started: datetime.datetime | None
    ended: datetime.datetime | None

    @property
    def id(self) -> str:
        """Of Ray."""
        return f"{self.name}.{self.attempt}"


class Jobs:
    """The jobs of a cluster.

    Args:
        address: of its dashboard, ``http://HOST:PORT``; ``$RAY_API_SERVER_ADDRESS`` or :data:`DEFAULT_ADDRESS` when
            left out.

    Raises:
        ClusterError: nobody answers there, or what answers is no Ray.
    """

    def __init__(self, address: str | None = None) -> None:
        defaults.apply()
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        logging.getLogger("ray").setLevel(logging.WARNING)  # it tells of every upload
        given = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
        self.address = shown(given)
        if not given.startswith(("http://", "https://")):
            raise ConfigError(f"--address {self.address}: expected that of the dashboard, such as {DEFAULT_ADDRESS}")
        if has_password(given):
            raise ConfigError(
                f"--address {self.address}: expected one without a password; RAY_AUTH_TOKEN has the token"
            )
        try:
            self._client = JobSubmissionClient(self.address)
        except AuthenticationError as error:
            reason = TOKEN_REFUSED if "Forbidden" in str(error) else TOKEN_NEEDED
            raise ClusterError(f"Ray at {self.address}: {reason}") from None
        except Exception as error:  # requests, aiohttp and Ray each have their own
            raise ClusterError(
                f"no dashboard of Ray answers at {self.address}: {first_line(error)}; `ray start --head` starts one, "
                "and a cluster on Kubernetes or behind a firewall needs its port forwarded"
            ) from None

    def submit(
        self,
        config: PretrainConfig,
        *,
        name: str | None = None,
        include: Sequence[Path] = (),
    ) -> Job:
        """Send a run; what it needs of the cluster is decided there.

        A run that has been submitted before goes on from its newest checkpoint.

        Args:
            config: the run.
            name: of the run; that of its output folder when left out.
            include: see :func:`~cluster.jobs.package.pack`.

        Raises:
            ConfigError: the name is none, or a path of the document means nothing on another machine.
            ClusterError: it runs already, another run has its name, or the cluster does not take it.
        """
        check_paths(config)
        name = name or config.out.name
        if not _NAME.fullmatch(name):
            raise ConfigError(f"name {name!r}: expected letters, digits, - and _; --name gives one")
        config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"address": None})})
        before = [job for job in self.list() if job.name == name]
        if before and before[-1].state not in ENDED:
            raise ClusterError(f"{before[-1].id} is {before[-1].state.lower()}; `medformer jobs stop {name}` ends it")
        if before and before[-1].out != str(config.out):
            raise ClusterError(
                f"the name {name} is that of the run in {before[-1].out}, this one is in {config.out}; --name gives "
                "another"
            )
        attempt = before[-1].attempt + 1 if before else 1
        with tempfile.TemporaryDirectory(prefix="medformer-job-") as folder:
            pack(config, Path(folder), include)
            self._asked(
                lambda: self._client.submit_job(
                    entrypoint=f"python -m medformer pretrain {DOCUMENT} --resume",
                    submission_id=f"{name}.{attempt}",
                    runtime_env={"working_dir": folder, "env_vars": _environment()},
                    metadata={
                        "kind": _KIND,
                        "name": name,
                        "attempt": str(attempt),
                        "out": str(config.out),
                        "config_sha256": digest(config),
                    },
                )
            )
        return self.job(name)

    def list(self) -> list[Job]:
        """Every attempt of every run, by name and attempt; jobs of others are left out."""
        found = []
        for details in self._asked(self._client.list_jobs):
            about = details.metadata or {}
            if about.get("kind") == _KIND:
                state = str(getattr(details.status, "value", details.status))
                times = [_time(details.start_time), _time(details.end_time)]
                message = details.message or ""
                found.append(Job(about["name"], int(about["attempt"]), state, message, about["out"], *times))
        return sorted(found, key=lambda job: (job.name, job.attempt))

    def job(self, name: str) -> Job:
        """The newest attempt of a run, or the one that ``NAME.ATTEMPT`` names.

        Raises:
            ClusterError: there is none; the nearest name is given.
        """
        jobs = self.list()
        for job in reversed(jobs):
            if name in (job.name, job.id):
                return job
        raise ClusterError(f"no job {name!r} on {self.address}{nearest(name, [job.name for job in jobs])}")

    def logs(self, name: str, *, statuses: bool = False) -> str:
        """What a run has written so far; lines for programs are left out unless asked for."""
        job = self.job(name)
        text: str = self._asked(lambda: self._client.get_job_logs(job.id))
        return text if statuses else "".join(line for line in text.splitlines(keepends=True) if not _is_status(line))

    def follow(self, name: str) -> Generator[str]:
        """Lines of a run as they are written, until it ends; a caller that ends before closes it.

        Raises:
            ClusterError: the head was lost; the job may go on.
        """
        job = self.job(name)
        rest = ""
        with contextlib.closing(waited_for(self._client.tail_job_logs(job.id))) as chunks:
            while True:
                try:
                    rest += next(chunks)
                except StopIteration:
                    break
                except Exception as error:
                    raise ClusterError(f"{job.id}: its log can no longer be followed: {first_line(error)}") from None
                *lines, rest = rest.split("\n")
                yield from lines
        if rest:
            yield rest

    def stop(self, name: str) -> Job:
        """Ask a run to write a checkpoint and end; it is killed if that takes longer than :data:`STOP_WAIT_S`.

        Raises:
            ClusterError: it does not run.
        """
        job = self.job(name)
        if job.state in ENDED:
            raise ClusterError(f"{job.id} has ended: {job.state.lower()}")
        self._asked(lambda: self._client.stop_job(job.id))
        return job

    def _asked(self, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return call()
            except Exception as error:  # requests, aiohttp and Ray each have their own
                # A head that has just started has no agent yet; nothing was done, so asking again does no harm.
                if _NO_AGENT not in str(error) or time.monotonic() > deadline:
                    raise ClusterError(f"Ray at {self.address}: {_reason(error)}") from None
                time.sleep(1)


def _environment() -> dict[str, str]:
    """Of the job. Never a secret: the dashboard shows it to everybody who can open it."""
    found = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), status_lines.ENABLE: "1", "PYTHONUNBUFFERED": "1"}
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith(("http://", "https://")) and not has_password(uri):
        found["MLFLOW_TRACKING_URI"] = uri
    return found


def _is_status(line: str) -> bool:
    return line.startswith(status_lines.MARK)


def _time(milliseconds: Any) -> datetime.datetime | None:
    if not milliseconds:
        return None
    return datetime.datetime.fromtimestamp(int(milliseconds) / 1000, datetime.UTC)


def _reason(error: Exception) -> str:
    """The last line of a traceback that came through HTTP, or the first of anything else."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        return lines[-1]
    return first_line(error)
