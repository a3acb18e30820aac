"""Configuration documents: one YAML file, typed, overridable, and refused when a key is unknown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import ConfigError, nearest
from data_shards.support.files import write_atomic
from data_shards.support.secrets import without_secrets

CONFIG_FILE = "config.yaml"
"""Name of the resolved document beside every output."""


class Document(BaseModel):
    """Base of every typed configuration model: immutable; unknown keys, and true or false for a number, are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    elsewhere: ClassVar[dict[str, str]] = {}
    """Keys that are looked for here and stand elsewhere: what is said of each in place of the nearest key."""

    @classmethod
    def key_types(cls) -> dict[str, Any]:
        """The type of what may stand at each key; those whose keys are not fields of the model say so here."""
        return {name: field.annotation for name, field in cls.model_fields.items()}

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, content: Any) -> Any:
        # To Python, and so to pydantic, true is the number 1. Pydantic takes no validator of the fields by which
        # members of a union are told apart, so this is one of the whole.
        for key, given in content.items() if isinstance(content, dict) else ():
            if key in cls.model_fields and _holds_truth(given) and _is_of_numbers(cls.model_fields[key].annotation):
                raise NotANumber(key, given)
        return content


class NotANumber(ValueError):
    """True or false at a key that holds numbers.

    Args:
        key: of the document.
        found: what stands there.
    """

    def __init__(self, key: str, found: Any) -> None:
        super().__init__(f"{key}: expected a number, and not true or false")
        self.key, self.found = key, found


def _holds_truth(given: Any) -> bool:
    """Whether true or false is or stands in what was given."""
    if isinstance(given, list | tuple | dict):
        return any(map(_holds_truth, given.values() if isinstance(given, dict) else given))
    return isinstance(given, bool)


def _is_of_numbers(annotation: Any) -> bool:
    """Whether numbers may stand here, and neither true and false nor what says by itself what it takes."""
    kinds = set(_kinds_in(annotation))
    apart = {bool, Any} & kinds or any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)
    return bool({int, float} & kinds) and not apart


def _kinds_in(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of, those of the values of a ``Literal`` among them."""
    if get_origin(annotation) is Literal:
        yield from map(type, get_args(annotation))
    elif inner := get_args(annotation):
        for each in inner:
            yield from _kinds_in(each)
    elif isinstance(annotation, type) or annotation is Any:
        yield annotation


def _listed(given: Any) -> Any:
    if given in ([], ()):  # min_length would complain of a wrong number too
        raise ValueError("expected a number, or one for each axis")
    return [given] if isinstance(given, int) else given


Sides = Annotated[tuple[Annotated[int, Field(gt=0)], ...], BeforeValidator(_listed)]
"""Voxels along every axis, or along each: one number, which is read as a list of one, or a list of several."""

T = TypeVar("T", bound=Document)


class _Loader(yaml.SafeLoader):
    """YAML as people write it today: version 1.1, but without numbers in base 60, in which ``1:4`` is 64.

    A key that stands twice in a mapping is refused, of which YAML's reader would take the last.
    """

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        base_60 = kind is yaml.ScalarNode and tag in _NUMBERS and ":" in value
        return self.DEFAULT_SCALAR_TAG if base_60 else tag

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise yaml.YAMLError(f"key {key.value!r} stands twice, in lines {lines[key.value]} and {line}")
                lines[key.value] = line
        return super().construct_mapping(node, deep)


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def load(model: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML document into ``model``.

    Args:
        model: the typed model of the document.
        path: the YAML file.
        overrides: ``key.inner=value`` assignments, applied in order; values are read as YAML.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown (the nearest valid one is named), or a value
            is not of its type.
    """
    return parse(model, read_mapping(path), str(path), overrides)


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping of keys in a YAML file.

    Raises:
        ConfigError: the file is missing, not YAML or not a mapping.
    """
    try:
        content = yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise_out_of_files(error)
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not a YAML document: {' '.join(str(error).split())}") from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, found {type(content).__name__}")
    return content


def parse(model: type[T], content: dict[str, Any], origin: str, overrides: Sequence[str] = ()) -> T:
    """Validate a mapping after applying ``overrides``; errors name ``origin`` and the full key.

    Raises:
        ConfigError: as for :func:`load`.
    """
    apply_overrides(content, overrides)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(_explained(model, error, content, origin))) from None


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Apply ``key.inner=value`` assignments to ``content``, in order; values are read as YAML.

    Raises:
        ConfigError: an assignment that cannot be applied.
    """
    for override in overrides:
        _assign(content, override)


def resolved(document: Document) -> dict[str, Any]:
    """The document with every default filled in, as plain JSON types."""
    return document.model_dump(mode="json")


def recorded(document: Document) -> dict[str, Any]:
    """As :func:`resolved`, for what others read: addresses without user, password and query string."""
    return dict(without_secrets(resolved(document)))


def digest(document: Document, *, without: Sequence[str] = ()) -> str:
    """SHA-256 of the resolved document.

    Args:
        document: what to hash.
        without: top-level keys that do not count, such as where the output goes.
    """
    content = {key: value for key, value in resolved(document).items() if key not in without}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_resolved(document: Document, folder: Path) -> Path:
    """Write ``config.yaml`` with its hash in the first line into ``folder``; returns its path.

    With a secret in an address only the owner may read it.
    """
    path = folder / CONFIG_FILE
    content = resolved(document)
    body = yaml.safe_dump(content, sort_keys=False)
    text = f"# sha256 of the resolved configuration: {digest(document)}\n{body}"
    write_atomic(path, text, private=content != recorded(document))
    return path


def _assign(content: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"{override!r}: an override has the form key=value")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise ConfigError(f"{override!r}: the value is not YAML") from None
    place: Any = content
    *outer, last = key.split(".")
    for part in outer:
        place = (
            place[int(part)] if isinstance(place, list) and _is_index(part, place) else _descend(place, part, override)
        )
    if isinstance(place, list) and _is_index(last, place):
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ConfigError(f"{override!r}: {key.rpartition('.')[0]!r} has no keys of its own")


def _is_index(part: str, place: list[Any]) -> bool:
    return part.isdecimal() and int(part) < len(place)


def _descend(place: Any, part: str, override: str) -> Any:
    if isinstance(place, list) and part.isdecimal():
        raise ConfigError(f"{override!r}: no entry {part} in a list of {len(place)}, counted from 0")
    if not isinstance(place, dict):
        raise ConfigError(f"{override!r}: {part!r} is not inside a mapping")
    if place.get(part) is None:
        place[part] = {}
    return place[part]


def _explained(model: type[BaseModel], error: ValidationError, content: dict[str, Any], origin: str) -> list[str]:
    """A line for each key that something is wrong with.

    Of a value that may be one of several kinds there is a problem for each kind. Those below it count, if there are
    any: it is of the kind that got furthest, and documents are not checked as a whole while a key of theirs is wrong.
    """
    by_key: dict[tuple[str, ...], list[Any]] = {}
    for problem in error.errors():
        place = problem["loc"]
        missing = () if problem["type"] != "missing" else (str(place[-1]),)
        by_key.setdefault(_written(place[: len(place) - len(missing)], content) + missing, []).append(problem)
    deepest = [key for key in by_key if not any(other[: len(key)] == key and other != key for other in by_key)]
    return [_explain(model, by_key[key], ".".join(key), origin) for key in deepest]


def _written(location: Sequence[int | str], content: Any) -> tuple[str, ...]:
    """A place as it stands in a document: without the names of kinds, and what validators have put between."""
    found = []
    for part in location:
        if isinstance(content, dict):
            inside = part in content
        else:
            inside = isinstance(content, list | tuple) and isinstance(part, int) and part < len(content)
        if inside:
            content = content[part]
            found.append(str(part))
    return tuple(found)


def _explain(model: type[BaseModel], problems: Sequence[Any], key: str, origin: str) -> str:
    problem = problems[0]
    location = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        models = _models_at(model, problem["loc"][:-1])
        for each in models:
            if issubclass(each, Document) and location[-1] in each.elsewhere:
                return f"{origin}: unknown key {key!r}; {each.elsewhere[location[-1]]}"
        known = [name for each in models for name in _keys_of(each)]
        return f"{origin}: unknown key {key!r}{nearest(location[-1], known)}"
    if problem["type"] == "missing":
        field = model.model_fields.get(key)  # deeper ones stand below a key that is there, and so explains them
        return f"{origin}: key {key!r} is missing" + (f": {field.description}" if field and field.description else "")
    if isinstance(error := problem.get("ctx", {}).get("error"), NotANumber):
        return f"{origin}: {'.'.join([*filter(None, [key]), str(error)])}; found {error.found!r}"
    message = ", or: ".join(dict.fromkeys(each["msg"].removeprefix("Value error, ") for each in problems))
    said = f"{origin}: {key}: {message}" if key else f"{origin}: {message}"
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):
        return said  # of several keys together: the message names them, and all of the document is no value to look at
    return f"{said}; found {without_secrets(problem['input'])!r}"[:1000]


def _models_at(model: type[BaseModel], location: Sequence[int | str]) -> list[type[BaseModel]]:
    """The models whose keys are valid at ``location``: follow names, step over list indices and mapping keys."""
    candidates: list[Any] = [model]
    for part in location:
        inner: list[Any] = []
        for candidate in candidates:
            keys = _keys_of(candidate)
            if part in keys:
                inner += _models_in(keys[str(part)])
            elif not keys:
                inner.append(candidate)
        candidates = inner or candidates
    return [each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)]


def _keys_of(candidate: Any) -> dict[str, Any]:
    if not (isinstance(candidate, type) and issubclass(candidate, BaseModel)):
        return {}
    if issubclass(candidate, Document):
        return candidate.key_types()
    return {name: field.annotation for name, field in candidate.model_fields.items()}


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]
