"""Parts that a user calls by name: each registers itself with a class decorator, and is found by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from data_shards.support.documents import parse
from data_shards.support.errors import ConfigError, MedformerError, nearest
from data_shards.support.plugins import load_plugins


class Named(Protocol):
    """A part that knows what it is called; its ``Config``, where it has one, is a document of its options."""

    name: ClassVar[str]


T = TypeVar("T", bound=Named)


class Registry(dict[str, type[T]]):
    """The classes of one kind of part by name.

    Args:
        kind: what messages call one: ``head``.
        plugins: group of the entry points by which other distributions add parts, see
            :func:`~data_shards.support.plugins.load_plugins`; empty where there is no such group. The modules are
            imported when a name is asked for that is not here: what they import of this system is complete by then, and
            one that is broken is in nobody's way but its own.
        where: what begins the message about an unknown name, such as the key of a document.
        error: what is raised of a name.
    """

    def __init__(
        self, kind: str, *, plugins: str = "", where: str = "", error: type[MedformerError] = ConfigError
    ) -> None:
        super().__init__()
        self.kind, self.plugins, self.where, self.error = kind, plugins, where, error

    def register(self, name: str, *, replace: bool = False) -> Callable[[type[T]], type[T]]:
        """Class decorator: makes a part known by ``name``.

        Args:
            name: what it is called.
            replace: whether it may take the place of another one.

        Raises:
            MedformerError: another class has the name. The same one may come again, from a module that is reloaded or
                a cell that is run twice.
        """

        def add(part: type[T]) -> type[T]:
            other = self.get(name, part)
            same = (other.__module__, other.__qualname__) == (part.__module__, part.__qualname__)
            if not same and not replace:
                raise self.error(
                    f"{self.kind} {name!r} of {part.__module__} has the name of that of {other.__module__}; choose "
                    "another"
                )
            part.name = name
            self[name] = part
            return part

        return add

    def names(self) -> list[str]:
        """The names of all parts that are here."""
        return sorted(self)

    def load(self) -> None:
        """Import what other distributions bring; by itself only where all names have to be known.

        Raises:
            DataError: one cannot be imported; its package is named.
        """
        if self.plugins:
            load_plugins(self.plugins)

    def named(self, name: str) -> type[T]:
        """The part called ``name``.

        Raises:
            MedformerError: there is none; the nearest name is given.
        """
        if name not in self:
            self.load()
        if name not in self:
            raise self.error(f"{self.where}unknown {self.kind} {name!r}{nearest(name, self)}")
        return self[name]

    def config(self, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """The options of the part called ``name``, checked by its ``Config``.

        Raises:
            MedformerError: there is no such part or option (the nearest is given), or a value is out of its bounds.
        """
        part: Any = self.named(name)
        return parse(part.Config, dict(options or {}), f"{self.kind} {name}")
