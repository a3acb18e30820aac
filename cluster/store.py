"""Where runs and models are kept: an embedded SQLite file by default, or a tracking server over HTTP."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cluster import defaults
from cluster.errors import RegistryError
from data_shards.support.disk import FULL, is_full_disk
from data_shards.support.files import home_folder
from data_shards.support.secrets import has_password, shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PROBE_TIMEOUT_S = 10.0
_SQLITE = "sqlite:///"


class Store:
    """A connection to MLflow.

    Attributes:
        uri: the tracking URI, resolved.
        shown: the same for messages and records, without user and password.
        client: MLflow's own client, for runs and models alike.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        """Connect.

        Args:
            tracking_uri: ``sqlite:///FILE``, ``http://HOST:PORT`` or another URI of MLflow; the default is
                ``$MLFLOW_TRACKING_URI``, else an SQLite file in :func:`~data_shards.support.files.home_folder`.

        Raises:
            RegistryError: the server does not answer, or the database cannot be opened.
        """
        defaults.apply()
        self.uri = _resolved(tracking_uri)
        # Beside the database, so that the two move together; a server decides for itself.
        self._artifacts: Path | None = None
        if self.uri.startswith(_SQLITE):
            database = Path(self.uri.removeprefix(_SQLITE)).absolute()
            self.uri = f"{_SQLITE}{database}"
            self._artifacts = database.parent / "artifacts"
            with _readable(f"the model store {database}"):
                database.parent.mkdir(parents=True, exist_ok=True)
        elif self.uri.startswith(("http://", "https://")):
            _probe(self.uri)
        self.shown = shown(self.uri)
        with _readable(f"the model store {self.shown}"):
            self.client = _client(self.uri)

    def experiment_id(self, name: str) -> str:
        """The id of the experiment called ``name``, which is made when it is missing."""
        from mlflow.exceptions import MlflowException

        location = None if self._artifacts is None else (self._artifacts / name).as_uri()
        with _readable(f"the experiment {name!r}"):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                try:
                    return self.client.create_experiment(name, artifact_location=location)
                except MlflowException as error:
                    # Another process made it between the two calls.
                    found = self.client.get_experiment_by_name(name)
                    if found is None:
                        raise error
            return str(found.experiment_id)

    def discard(self, location: str) -> None:
        """Remove files that were half written, where this process can: a server looks after its own."""
        if self._artifacts is not None and location.startswith("file:"):
            shutil.rmtree(urllib.request.url2pathname(urllib.parse.urlparse(location).path), ignore_errors=True)

    @contextlib.contextmanager
    def as_default(self) -> Iterator[None]:
        """Make this store MLflow's own default for a while.

        MLflow's SQL store looks up logged models and ``models:/`` addresses in the default store, whatever store it
        is itself.
        """
        import mlflow

        # MLflow keeps the environment variable equal to what was set, so this one value is all there is to restore.
        previous = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(self.uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)
            if previous is not None:
                os.environ["MLFLOW_TRACKING_URI"] = previous


def first_line(error: BaseException) -> str:
    """What an exception of another library says, short enough for a message of ours."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise RegistryError(f"{what}: {FULL if is_full_disk(error) else first_line(error)}") from error
    except OSError as error:
        raise RegistryError(f"{what}: {error.strerror or error}") from error


def is_there(tracking_uri: str | None = None) -> bool:
    """Whether connecting would find a store; false where an embedded one would have to be made first."""
    uri = _resolved(tracking_uri)
    return not uri.startswith(_SQLITE) or Path(uri.removeprefix(_SQLITE)).is_file()


def _resolved(tracking_uri: str | None) -> str:
    embedded = f"{_SQLITE}{home_folder() / 'medformer.db'}"
    return _without_password(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or embedded)


def _without_password(uri: str) -> str:
    """The address of a server; user and password go where MLflow looks for them too.

    MLflow writes the address it asks into its error messages.
    """
    if not uri.startswith(("http://", "https://")) or not has_password(uri):
        return uri
    parts = urllib.parse.urlsplit(uri)
    os.environ["MLFLOW_TRACKING_USERNAME"] = urllib.parse.unquote(parts.username or "")
    os.environ["MLFLOW_TRACKING_PASSWORD"] = urllib.parse.unquote(parts.password or "")
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _probe(uri: str) -> None:
    """Ask the server for a sign of life: MLflow's own client would retry in silence for minutes."""
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return  # Something answers; what it allows shows later.
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RegistryError(f"tracking server {shown(uri)} does not answer: {reason}") from None


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient
    from mlflow.utils.file_utils import ExclusiveFileLock

    logging.getLogger("alembic").setLevel(logging.WARNING)
    # A database that refuses is an error of ours in one line, not a traceback before it.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if not uri.startswith(_SQLITE):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    # Two processes that make the tables of a new database at once would trip over each other.
    with ExclusiveFileLock(f"{uri.removeprefix('sqlite:///')}.lock"):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
    return client
