"""Giving an alias to a version, and taking it away, so that nobody's move is lost; see :mod:`cluster.history`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.errors import RegistryError
from cluster.history import AliasMove, as_tag, new_move, newest, read_moves
from cluster.records import Promotion
from cluster.store import store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

# How often an alias is put right; each time is needed only when somebody else moved it meanwhile.
_MOST_MOVES = 100


def aliases_of(model: RegisteredModel) -> dict[str, str]:
    """Alias to version; MLflow gives the versions as text over HTTP and as numbers from SQL."""
    return {alias: str(version) for alias, version in sorted(model.aliases.items())}


def agree(aliases: Mapping[str, str], moves: Sequence[AliasMove], alias: str) -> bool:
    """Whether an alias is where its newest move says, also when that is nowhere."""
    last = newest(moves, alias)
    return last is not None and aliases.get(alias) == last.version


def move_alias(
    client: MlflowClient, model: RegisteredModel, alias: str, version: str | None, *, required: str = ""
) -> Promotion:
    """Write a move down, then make it.

    Args:
        client: MLflow's.
        model: as it was read just now.
        alias: what moves.
        version: where to; None takes it away.
        required: what the version was shown not to be worse in.

    Raises:
        RegistryError: the store refuses; whether the move is recorded is said.
    """
    name, before = model.name, read_moves(model.tags)
    move = new_move(alias, version, aliases_of(model).get(alias), before, required)
    key, value = as_tag(move)
    doing = f"the promotion of {name}:{version}" if version else f"taking {alias!r} from {name}"
    with store_errors(f"{doing} failed"):
        # First the record: an alias never moves without one.
        client.set_registered_model_tag(name, key, value)
    with store_errors(f"{doing} is recorded but may not have taken effect; try again"):
        moves = follow_history(client, name, alias)
    holds = newest(moves, alias) or move
    # As it stands in the history, where it may have come after a move that was not seen.
    recorded = next((each for each in moves if replace(each, previous=move.previous) == move), move)
    return Promotion(recorded, holds)


def follow_history(client: MlflowClient, name: str, alias: str) -> tuple[AliasMove, ...]:
    """Put the alias where its newest move says, until both are seen to agree; returns the history.

    Whoever moves an alias last looks once more afterwards, and sees all that was recorded before: so however many
    promote at the same time, the last of them leaves agreement.
    """
    from mlflow.exceptions import MlflowException

    problem: Exception | None = None
    for _ in range(_MOST_MOVES):
        model = client.get_registered_model(name)
        moves = read_moves(model.tags)
        if agree(aliases_of(model), moves, alias):
            return moves
        last = newest(moves, alias)
        assert last is not None, "a move was recorded"
        try:
            if last.version is None:
                client.delete_registered_model_alias(name, alias)
            else:
                client.set_registered_model_alias(name, alias, last.version)
        except MlflowException as error:
            # MLflow looks whether an alias is there before it writes it: of two that make one at once, one fails.
            problem = error
    raise problem or RegistryError(f"{name}@{alias} is moved again and again by others")
