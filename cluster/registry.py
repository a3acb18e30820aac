"""The model registry: publish a bundle, give it an alias, find it, pull it.

A published bundle is a logged model and a model version of MLflow 3, so that ``models:/name@alias`` means the same
model to MLflow's own tools. The files are stored as they are; nothing is pickled.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.digests import architecture_of, decode, digest_model, encode, is_classifier, is_generator
from cluster.errors import RegistryError
from cluster.history import AliasMove, as_tag, new_move, newest, read_moves
from cluster.pull import fetch
from cluster.records import ModelDetails, ModelSummary, Promotion, PublishedModel
from cluster.reference import check_alias, check_name, check_version, parse_reference
from cluster.store import Store, first_line
from data_shards.support.disk import FULL, is_full_disk
from data_shards.support.errors import nearest

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

EXPERIMENT = "medformer-models"
_DIGESTS = "medformer.files"
_ARCHITECTURE = "medformer.architecture"
# How often an alias is put right; each time is needed only when somebody else moved it meanwhile.
_MOST_MOVES = 100
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
        with _store_errors(f"cannot publish {bundle} as {name!r} in {self.store.shown}"):
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
                    tags={_DIGESTS: encode(files), _ARCHITECTURE: architecture},
                )
            return self._published(created, {})

    def promote(self, name: str, version: str, alias: str) -> Promotion:
        """Give ``alias`` to a version; the version that had it loses it, and the move is written down.

        Raises:
            RegistryError: there is no such model or version, or the alias is not a valid one.
        """
        check_alias(alias)
        model = self._model(name)
        found = self.resolve(f"{name}:{check_version(version)}")
        before = read_moves(model.tags)
        move = new_move(alias, found.version, _aliases(model).get(alias), before)
        key, value = as_tag(move)
        with _store_errors(f"cannot promote {name}:{version}"):
            # First the record: an alias never moves without one.
            self._client.set_registered_model_tag(name, key, value)
        with _store_errors(f"the promotion of {name}:{version} is recorded but may not have taken effect; try again"):
            moves = self._follow_history(name, alias)
        holds = newest(moves, alias) or move
        # As it stands in the history, where it may have come after a move that was not seen.
        recorded = next((each for each in moves if replace(each, previous=move.previous) == move), move)
        return Promotion(recorded, holds)

    def list(self) -> tuple[ModelSummary, ...]:
        """Every model, by name."""
        summaries = []
        with _store_errors("cannot list the models"):
            for model in self._models():
                versions = self._versions(model.name)
                summaries.append(
                    ModelSummary(
                        name=model.name,
                        latest_version=versions[0].version if versions else None,
                        aliases=_aliases(model),
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
            aliases, history = _aliases(model), read_moves(model.tags)
            known = sorted({*aliases, *(move.alias for move in history)})
            unrecorded = [alias for alias in known if not _agree(aliases, history, alias)]
            if not unrecorded:
                break
            time.sleep(_LOOK_S)  # A promotion may be between its record and its alias.
            model = self._model(name)
        with _store_errors(f"cannot show {name!r}"):
            return ModelDetails(
                name=name,
                versions=self._versions(name, aliases),
                aliases=aliases,
                history=history,
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
        aliases = _aliases(model)
        if wanted.alias is not None and wanted.alias not in aliases:
            hint = nearest(wanted.alias, aliases) if aliases else "; it has none yet, see 'medformer models promote'"
            raise RegistryError(f"model {wanted.name!r} has no alias {wanted.alias!r}{hint}")
        number = aliases[wanted.alias] if wanted.alias is not None else wanted.version
        with _store_errors(f"cannot read {reference}"):
            versions = self._versions(wanted.name, aliases)
        for published in versions:
            if published.version == number:
                return published
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

    def _follow_history(self, name: str, alias: str) -> tuple[AliasMove, ...]:
        """Put the alias where its newest move says, until both are seen to agree; returns the history.

        Whoever moves an alias last looks once more afterwards, and sees all that was recorded before: so however many
        promote at the same time, the last of them leaves agreement.
        """
        for _ in range(_MOST_MOVES):
            model = self._client.get_registered_model(name)
            moves = read_moves(model.tags)
            if _agree(_aliases(model), moves, alias):
                return moves
            last = newest(moves, alias)
            assert last is not None, "a move was recorded"
            self._client.set_registered_model_alias(name, alias, last.version)
        raise RegistryError(f"{name}@{alias} is moved again and again by others")

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

        with _store_errors(f"cannot read model {name!r}"):
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
        found = _pages(self._client.search_model_versions, filter_string=f"name='{name}'")
        ours = [self._published(version, aliases or {}) for version in found if _DIGESTS in version.tags]
        return tuple(sorted(ours, key=lambda published: int(published.version), reverse=True))

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


def _pages(search: Any, **arguments: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


def _aliases(model: RegisteredModel) -> dict[str, str]:
    """Alias to version; MLflow gives the versions as text over HTTP and as numbers from SQL."""
    return {alias: str(version) for alias, version in sorted(model.aliases.items())}


def _agree(aliases: Mapping[str, str], moves: Sequence[AliasMove], alias: str) -> bool:
    last = newest(moves, alias)
    return last is not None and aliases.get(alias) == last.version


def _iso(timestamp_ms: int) -> str:
    return datetime.datetime.fromtimestamp(timestamp_ms / 1000, datetime.UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def _store_errors(doing: str) -> Iterator[None]:
    """MLflow's and the network's errors as one line; requests' exceptions are OSErrors."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise RegistryError(f"{doing}: {FULL if is_full_disk(error) else first_line(error)}") from error
