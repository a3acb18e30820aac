"""One file out of the registry's storage: what is there of it already is not sent again, where the storage can."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster.errors import RegistryError
from cluster.store import first_line
from data_shards.support.disk import FULL, is_full_disk
from data_shards.support.secrets import shown

if TYPE_CHECKING:
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

_CHUNK_BYTES = 1 << 20
_HTTP = ("http", "https", "mlflow-artifacts")
_PARTIAL_CONTENT = 206


def check_location(tracking_uri: str, location: str) -> None:
    """See that the files of a model lie with the registry that names them.

    Who may register a model may write any address into it; the token of whoever pulls would be sent there.

    Raises:
        RegistryError: they are on another host.
    """
    parts, home = urlsplit(location), urlsplit(tracking_uri)
    if parts.scheme in _HTTP and parts.netloc and parts.hostname != home.hostname:
        raise RegistryError(
            f"{shown(location)}: not on the host of the registry {shown(tracking_uri)}; refused, since tokens for the "
            "registry would be sent there"
        )


def download(tracking_uri: str, location: str, name: str, path: Path) -> None:
    """Copy a file of a model.

    Args:
        tracking_uri: the store.
        location: the artifact URI of the model.
        name: the file in it, as the registry's own record names it; no listing of the server is asked for.
        path: where to; what stands there is taken for the beginning of the file. After an error what has come is kept.

    Raises:
        RegistryError: it cannot be fetched.
        OSError: the disk refuses.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    try:
        repository = get_artifact_repository(location, tracking_uri, tracking_uri)
        if isinstance(repository, HttpArtifactRepository):
            _over_http(repository, name, path)
        elif isinstance(repository, LocalArtifactRepository):
            with open(Path(repository.artifact_dir) / name, "rb") as source, open(path, "ab") as target:
                source.seek(target.tell())
                shutil.copyfileobj(source, target, _CHUNK_BYTES)
        else:
            with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
                shutil.move(repository.download_artifacts(name, folder), path)
    except (MlflowException, OSError) as error:  # requests' exceptions are OSErrors
        if is_full_disk(error):
            raise OSError(errno.ENOSPC, FULL) from error
        raise RegistryError(f"cannot fetch {shown(location)}/{name}: {first_line(error)}") from error


def _over_http(repository: HttpArtifactRepository, name: str, path: Path) -> None:
    """Ask for the bytes after those that are there; a server that sends all of them is taken at its word."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import augmented_raise_for_status, http_request

    have = path.stat().st_size if path.exists() else 0
    credentials = get_default_host_creds(repository.artifact_uri)
    headers = {"Range": f"bytes={have}-"} if have else None
    with http_request(credentials, f"/{name}", "GET", stream=True, extra_headers=headers) as response:
        augmented_raise_for_status(response)
        went_on = response.status_code == _PARTIAL_CONTENT
        with open(path, "ab" if went_on else "wb") as file:
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
