"""Where runs and models are kept: an embedded SQLite file by default, or a tracking server over HTTP."""

from __future__ import annotations

import contextlib
import logging
import os
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
from data_shards.support.secrets import has_password, shown, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PROBE_TIMEOUT_S = 10.0
SQLITE = "sqlite:///"
# What tells an experiment of training from one of an application of language models. The side bar of MLflow 3.17 goes
# by the address (see cluster/page.py) and by what was chosen last in that browser; its older pages go by the tag.
_KIND_TAG, _KIND = "mlflow.experimentKind", "custom_model_development"


class Store:
    """A connection to MLflow.

    Attributes:
        uri: the tracking URI, resolved, without user and password.
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
        if self.uri.startswith(SQLITE):
            database = Path(self.uri.removeprefix(SQLITE)).absolute()
            self.uri = f"{SQLITE}{database}"
            self._artifacts = database.parent / "artifacts"
            with _readable(f"the model store {database}"):
                database.parent.mkdir(parents=True, exist_ok=True)
        elif self.uri.startswith(("http://", "https://")):
            _probe(self.uri)
        with _readable(f"the model store {self.shown}"):
            self.client = _client(self.uri)

    @property
    def shown(self) -> str:
        """The address for messages: without user, password and query string."""
        return shown(self.uri)

    def experiment_id(self, name: str) -> str:
        """The id of the experiment called ``name``, which is made when it is missing, as one of model training."""
        from mlflow.exceptions import MlflowException

        location = None if self._artifacts is None else (self._artifacts / name).as_uri()
        with _readable(f"the experiment {name!r}"):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                try:
                    return self.client.create_experiment(name, location, {_KIND_TAG: _KIND})
                except MlflowException as error:
                    # Another process made it between the two calls.
                    found = self.client.get_experiment_by_name(name)
                    if found is None:
                        raise error
            if _KIND_TAG not in found.tags:
                self.client.set_experiment_tag(found.experiment_id, _KIND_TAG, _KIND)
            return str(found.experiment_id)

    def discard(self, location: str) -> bool:
        """Remove the files of a model where they lie with this store; whether they are gone.

        Addresses come out of the registry, where others may have written them: any other place is left alone.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if location.startswith("file:"):
            path = Path(urllib.request.url2pathname(urllib.parse.urlparse(location).path)).resolve()
            ours = self._artifacts is not None and self._artifacts.resolve() in path.parents
        else:
            ours = location.startswith("mlflow-artifacts:/") and not urllib.parse.urlparse(location).netloc
        if not ours:
            return False
        try:
            get_artifact_repository(location, self.uri, self.uri).delete_artifacts()
        except (MlflowException, OSError):
            return False
        return True

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


def first_line(error: object) -> str:
    """What an exception of another library says, short enough for a message of ours, and without what is secret."""
    text = str(error).strip()
    return str(without_secrets(text.splitlines()[0]))[:300] if text else type(error).__name__


@contextlib.contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """MLflow's and the network's errors as one line; requests' exceptions are OSErrors."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise RegistryError(f"{doing}: {FULL if is_full_disk(error) else first_line(error)}") from error


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
    return not uri.startswith(SQLITE) or Path(uri.removeprefix(SQLITE)).is_file()


def _resolved(tracking_uri: str | None) -> str:
    embedded = f"{SQLITE}{home_folder() / 'medformer.db'}"
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
        raise RegistryError(f"tracking server {shown(uri)} does not answer: {first_line(reason)}") from None


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient
    from mlflow.utils.file_utils import ExclusiveFileLock

    logging.getLogger("alembic").setLevel(logging.WARNING)
    # A database that refuses is an error of ours in one line, not a traceback before it.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if not uri.startswith(SQLITE):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    # Two processes that make the tables of a new database at once would trip over each other.
    with ExclusiveFileLock(f"{uri.removeprefix('sqlite:///')}.lock"):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
    return client
