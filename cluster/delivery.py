"""The documents and pictures of a run, sent to MLflow once each."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.support.secrets import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

# In the folder of a run: the resolved document, and what the engine draws.
_PATTERNS = ("config.yaml", "figures/**/*.png")
_IN_WORDS = (".yaml", ".json")


class Delivery:
    """Sends what is not there yet; what fails is tried again the next time, since the files stay where they are.

    Addresses in documents are sent without passwords and query strings.
    """

    def __init__(self, client: MlflowClient, run_id: str, out: Path, texts: Mapping[str, str]) -> None:
        """Nothing is sent yet.

        Args:
            client: MLflow's.
            run_id: the run.
            out: its folder.
            texts: what is sent beside the files in it, by name.
        """
        self._client, self._run_id, self._out = client, run_id, out
        self._texts = dict(texts)
        self._sent: set[str] | None = None

    def send(self) -> None:
        """Send what is new.

        Raises:
            Exception: of MLflow or the network.
        """
        waiting = [*self._texts, *self._found()]
        if self._sent is None and waiting:
            self._sent = set(self._there(""))  # What an earlier process of the same run sent.
        for name in waiting:
            if self._sent is not None and name not in self._sent:
                self._send(name)
                self._sent.add(name)

    def _found(self) -> list[str]:
        paths = [path for pattern in _PATTERNS for path in self._out.glob(pattern)]
        return sorted(path.relative_to(self._out).as_posix() for path in paths if not path.name.startswith("."))

    def _send(self, name: str) -> None:
        path = self._out / name
        if name in self._texts or name.endswith(_IN_WORDS):
            text = self._texts.get(name) or path.read_text()
            self._client.log_text(self._run_id, without_secrets(text), name)
        else:
            self._client.log_artifact(self._run_id, str(path), posixpath.dirname(name))

    def _there(self, folder: str) -> Iterator[str]:
        for each in self._client.list_artifacts(self._run_id, folder or None):
            if each.is_dir:
                yield from self._there(each.path)
            else:
                yield each.path
