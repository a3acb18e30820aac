"""The model registry: publish a bundle, give it an alias, find it, pull it.

A published bundle is a logged model and a model version of MLflow 3, so that ``models:/name@alias`` means the same
model to MLflow's own tools. The files are stored as they are; nothing is pickled.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.aliases import agree, aliases_of, move_alias
from cluster.digests import CLASSIFIER_FILE, architecture_of, decode, digest_model, encode, is_classifier, is_generator
from cluster.errors import RegistryError
from cluster.flavour import write_flavour
from cluster.gates import Requirement, compared
from cluster.history import as_tag, new_deletion, read_deletions, read_moves
from cluster.metrics import Measured, metrics_in
from cluster.pull import fetch
from cluster.records import ModelDetails, ModelSummary, Promotion, PublishedModel
from cluster.reference import check_alias, check_name, check_version, parse_reference
from cluster.store import Store, first_line, store_errors
from data_shards.storage.scratch import scratch_folder
from data_shards.support.errors import nearest
from data_shards.support.files import read_json

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

EXPERIMENT = "medformer-models"
_DIGESTS = "medformer.files"
_ARCHITECTURE = "medformer.architecture"
_SCHEMA_TAG = "medformer.schema"
SCHEMA = 1
"""Of what is written about a version. A higher number says that it cannot be read as here."""
# How often, and how long apart, an alias that does not agree with its history is looked at again.
_LOOKS, _LOOK_S = 5, 0.2


class Registry:
    """The models of one store."""

    def __init__(self, tracking_uri: str | None = None) -> None:
        """Connect; see :class:`cluster.store.Store` for the default and the errors."""
        self.store = Store(tracking_uri)
        self._client = self.store.client

    def publish(self, bundle: Path, name: str, *, run_id: str | None = None) -> PublishedModel:
        """Store a model as the next version of ``name``; the same files again give the version that exists.

        Args:
            bundle: the folder of the model bundle, of a fitted classifier, or of a generator of BrainFuse.
            name: the registered model; made when it is new.
            run_id: the MLflow run that made the bundle.

        Raises:
            RegistryError: the folder is none of these, the name is not valid, or the store refuses.
        """
        check_name(name)
        files = digest_model(bundle)
        architecture = architecture_of(bundle)
        with store_errors(f"cannot publish {bundle} as {name!r} in {self.store.shown}"):
            for published in self._versions(name):
                if published.files == files:
                    return published
            location, model_id = self._upload(bundle, name, run_id)
            self._ensure_model(name)
            with self.store.as_default():
                created = self._client.create_model_version(
                    name,
                    source=location,
                    run_id=run_id,
                    model_id=model_id,
                    tags={_DIGESTS: encode(files), _ARCHITECTURE: architecture, _SCHEMA_TAG: str(SCHEMA)},
                )
            return self._published(created, {})

    def promote(self, name: str, version: str, alias: str, *, not_worse: Sequence[Requirement] = ()) -> Promotion:
        """Give ``alias`` to a version; the version that had it loses it, and the move is written down.

        Args:
            name: the model.
            version: which of its versions.
            alias: what it is to be called.
            not_worse: in what the version must not be worse than the one that has the alias now. Where none has it
                there is nothing to be worse than, but the version must hold these metrics.

        Raises:
            RegistryError: there is no such model or version, the alias is not a valid one, or the version is worse:
                both numbers are told.
        """
        check_alias(alias)
        found = self.resolve(f"{name}:{check_version(version)}")
        model = self._model(name)
        required = ""
        if not_worse:
            holder = aliases_of(model).get(alias)
            champion = None if holder in (None, found.version) else self.resolve(f"{name}:{holder}")
            required = self._require(found, champion, not_worse)
        return move_alias(self._client, model, alias, found.version, required=required)

    def unpromote(self, name: str, alias: str) -> Promotion:
        """Take an alias away; which versions had it stays written down.

        Raises:
            RegistryError: there is no such model, or it has no such alias.
        """
        model = self._model(check_name(name))
        if check_alias(alias) not in (aliases := aliases_of(model)):
            hint = nearest(alias, aliases) if aliases else "; it has none"
            raise RegistryError(f"model {name!r} has no alias {alias!r}{hint}")
        return move_alias(self._client, model, alias, None)

    def delete(self, name: str, version: str) -> tuple[PublishedModel, bool]:
        """Delete a version and its files; that it was there, and what was called by it, stays written down.

        Its number is not given again. Files that another version has too, or that lie elsewhere than the store, stay.

        Returns:
            What was deleted, and whether its files are gone.

        Raises:
            RegistryError: there is no such version, or it has an alias.
        """
        found = self.resolve(f"{name}:{check_version(version)}")
        if found.aliases:
            ways = " and ".join(f"'medformer models unpromote {name}@{alias}'" for alias in found.aliases)
            raise RegistryError(f"{name}:{version} is {' and '.join(found.aliases)}; {ways} first")
        key, value = as_tag(new_deletion(found.version, found.digest))
        with store_errors(f"cannot delete {name}:{version}"):
            model_id = self._client.get_model_version(name, version).model_id
            self._client.set_registered_model_tag(name, key, value)
            self._client.delete_model_version(name, version)
            if model_id:
                self._client.delete_logged_model(model_id)
            shared = self._client.search_model_versions(f"source_path = '{found.location}'", max_results=1)
        return found, not shared and self.store.discard(found.location)

    def document(self, published: PublishedModel, file: str) -> dict[str, Any]:
        """A JSON document of a version, checked by its SHA-256, without the rest of the model.

        Raises:
            RegistryError: the version has no such file, or it cannot be fetched or is damaged.
        """
        reference = f"{published.name}:{published.version}"
        if file not in published.files:
            raise RegistryError(f"{reference}: no {file}; it has {', '.join(sorted(published.files))}")
        with scratch_folder("medformer-document-") as folder:
            files = {file: published.files[file]}
            pulled = fetch(self.store.uri, published.location, files, folder / "model", reference)
            return read_json(pulled / file, RegistryError)

    def metrics(self, published: PublishedModel) -> dict[str, Measured]:
        """What was measured of a version: its ``metrics.json``, or the estimate of a classifier.

        Raises:
            RegistryError: the document cannot be fetched or is damaged.
        """
        if CLASSIFIER_FILE in published.files:
            return metrics_in(self.document(published, CLASSIFIER_FILE).get("estimate") or {})
        return metrics_in(self.document(published, "metrics.json"))

    def list(self) -> tuple[ModelSummary, ...]:
        """Every model, by name."""
        summaries = []
        with store_errors("cannot list the models"):
            for model in self._models():
                versions = self._versions(model.name)
                summaries.append(
                    ModelSummary(
                        name=model.name,
                        latest_version=versions[0].version if versions else None,
                        aliases=aliases_of(model),
                        updated=_iso(model.last_updated_timestamp),
                    )
                )
        return tuple(summaries)

    def show(self, name: str) -> ModelDetails:
        """The versions, aliases and alias history of one model.

        Raises:
            RegistryError: there is no such model; the nearest name is given.
        """
        model = self._model(check_name(name))
        for _ in range(_LOOKS):
            aliases, history = aliases_of(model), read_moves(model.tags)
            known = sorted({*aliases, *(move.alias for move in history)})
            unrecorded = [alias for alias in known if not agree(aliases, history, alias)]
            if not unrecorded:
                break
            time.sleep(_LOOK_S)  # A promotion may be between its record and its alias.
            model = self._model(name)
        with store_errors(f"cannot show {name!r}"):
            versions = self._versions(name, aliases)
            there = {each.version for each in versions}
            return ModelDetails(
                name=name,
                versions=versions,
                newer=self._newer(name),
                aliases=aliases,
                history=history,
                deletions=tuple(each for each in read_deletions(model.tags) if each.version not in there),
                unrecorded=tuple(unrecorded),
            )

    def resolve(self, reference: str) -> PublishedModel:
        """The version that ``name@alias`` or ``name:version`` stands for.

        Raises:
            RegistryError: there is no such model, alias or version; the nearest one is given. The name alone is
                answered with the aliases there are.
        """
        if not set(reference) & {"@", ":"}:
            raise self.which_version(reference)
        wanted = parse_reference(reference)
        model = self._model(wanted.name)
        aliases = aliases_of(model)
        if wanted.alias is not None and wanted.alias not in aliases:
            hint = nearest(wanted.alias, aliases) if aliases else "; it has none yet, see 'medformer models promote'"
            raise RegistryError(f"model {wanted.name!r} has no alias {wanted.alias!r}{hint}")
        number = aliases[wanted.alias] if wanted.alias is not None else wanted.version
        with store_errors(f"cannot read {reference}"):
            versions = self._versions(wanted.name, aliases)
        for published in versions:
            if published.version == number:
                return published
        if number in self._newer(wanted.name):
            raise RegistryError(
                f"{wanted.name}:{number} was published by a newer Medformer than this one, which reads schema "
                f"{SCHEMA}; update medformer"
            )
        known = ", ".join(published.version for published in versions) or "none"
        raise RegistryError(f"model {wanted.name!r} has no version {number}; valid: {known}")

    def which_version(self, name: str) -> RegistryError:
        """What to answer when a model is named without saying which version: the ways to say it.

        Raises:
            RegistryError: there is no such model; the nearest name is given.
        """
        details = self.show(name)
        ways = [f"{name}@{alias} (version {version})" for alias, version in details.aliases.items()]
        ways += [f"{name}:{published.version}" for published in details.versions[:1]]
        return RegistryError(f"model {name!r}: which version? {' or '.join(ways) or 'it has none yet'}")

    def pull(self, reference: str, destination: Path) -> Path:
        """Copy a model bundle out of the registry; see :func:`cluster.pull.fetch`.

        Args:
            reference: ``name@alias`` or ``name:version``.
            destination: the folder to make.

        Returns:
            ``destination``.

        Raises:
            RegistryError: the model is not there, a file is not what was published, or ``destination`` is taken.
        """
        published = self.resolve(reference)
        return fetch(self.store.uri, published.location, published.files, destination, reference)

    def _require(
        self, found: PublishedModel, champion: PublishedModel | None, requirements: Sequence[Requirement]
    ) -> str:
        """What the version is not worse in, in words; an error where it is."""
        own, others = self.metrics(found), self.metrics(champion) if champion is not None else {}
        return "; ".join(compared(each, found, own, champion, others) for each in requirements)

    def _upload(self, bundle: Path, name: str, run_id: str | None) -> tuple[str, str]:
        """Store the files as a logged model; returns where they are and its id."""
        from mlflow.entities import LoggedModelStatus

        experiment = self._client.get_run(run_id).info.experiment_id if run_id else self.store.experiment_id(EXPERIMENT)
        model = self._client.create_logged_model(
            experiment,
            name=name,
            source_run_id=run_id,
            model_type=_kind(bundle),
        )
        try:
            self._client.log_model_artifacts(model.model_id, str(bundle))
            with scratch_folder("medformer-flavour-") as folder:
                if write_flavour(bundle, model.model_id, run_id, folder / "MLmodel"):
                    self._client.log_model_artifact(model.model_id, str(folder / "MLmodel"))
        except BaseException:
            self.store.discard(model.artifact_location)
            with contextlib.suppress(Exception):  # the first error counts, and may be the reason for a second one
                self._client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
            raise
        self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return model.artifact_location, model.model_id

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _model(self, name: str) -> RegisteredModel:
        from mlflow.exceptions import MlflowException

        with store_errors(f"cannot read model {name!r}"):
            try:
                return self._client.get_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                names = [model.name for model in self._models()]
        hint = nearest(name, names) if names else "; the registry is empty"
        raise RegistryError(f"no model {name!r} in {self.store.shown}{hint}")

    def _models(self) -> Iterator[RegisteredModel]:
        yield from _pages(self._client.search_registered_models, order_by=["name ASC"])

    def _versions(self, name: str, aliases: Mapping[str, str] | None = None) -> tuple[PublishedModel, ...]:
        """The versions that this registry published, newest first; others under the name are not ours to judge."""
        ours = [self._published(each, aliases or {}) for each in self._ours(name) if _schema(each) <= SCHEMA]
        return tuple(sorted(ours, key=lambda published: int(published.version), reverse=True))

    def _newer(self, name: str) -> tuple[str, ...]:
        """Numbers of the versions that a later Medformer published, and that this one cannot read."""
        return tuple(str(each.version) for each in self._ours(name) if _schema(each) > SCHEMA)

    def _ours(self, name: str) -> Iterator[ModelVersion]:
        found = _pages(self._client.search_model_versions, filter_string=f"name='{name}'")
        return (version for version in found if _DIGESTS in version.tags)

    def _published(self, version: ModelVersion, aliases: Mapping[str, str]) -> PublishedModel:
        number = str(version.version)
        try:
            files = decode(version.tags[_DIGESTS])
        except ValueError as error:
            raise RegistryError(
                f"{version.name}:{number}: its record of files is damaged: {first_line(error)}"
            ) from None
        return PublishedModel(
            name=version.name,
            version=number,
            aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
            created=_iso(version.creation_timestamp),
            architecture=version.tags.get(_ARCHITECTURE, "unknown"),
            run_id=version.run_id or None,
            files=files,
            location=version.source,
        )


def _kind(bundle: Path) -> str:
    """What MLflow shows as the type of a model."""
    if is_classifier(bundle):
        return "medformer-classifier"
    return "medformer-generator" if is_generator(bundle) else "medformer-backbone"


def _schema(version: ModelVersion) -> int:
    """Of what is written about a version; the first one was not written down."""
    written = version.tags.get(_SCHEMA_TAG, "1")
    return int(written) if written.isdecimal() else SCHEMA + 1


def _pages(search: Any, **arguments: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


def _iso(timestamp_ms: int) -> str:
    return datetime.datetime.fromtimestamp(timestamp_ms / 1000, datetime.UTC).isoformat(timespec="seconds")
