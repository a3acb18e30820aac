"""Documents: what stands where a number belongs, and where a message says that something stands."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from data_shards.support.documents import Document, parse
from data_shards.support.errors import ConfigError


class Inner(Document):
    share: float = Field(0.5, ge=0, le=1)
    on: bool = False
    free: dict[str, Any] = {}
    weights: dict[str, float] = {}


class Round(Document):
    shape: Literal["round"] = "round"
    radius: int = 3


class Square(Document):
    shape: Literal["square"] = "square"
    side: int


class Outer(Document):
    count: int = 1
    pair: tuple[float, float] = (0.0, 1.0)
    many: list[Annotated[int, Field(gt=0)]] | None = None
    threshold: float | Literal["mean"] = "mean"
    axes: Literal[2, 3, "any"] = 2
    either: bool | int = 0
    words: str | int = "a"
    size: int | tuple[int, ...] = 4
    inner: Inner = Inner()
    figure: Annotated[Round | Square, Field(discriminator="shape")] = Round()


@pytest.mark.parametrize(
    ("override", "key", "found"),
    [
        ("count=true", "count", "True"),
        ("count=no", "count", "False"),
        ("pair=[0, true]", "pair", "[0, True]"),
        ("many=[true]", "many", "[True]"),
        ("threshold=true", "threshold", "True"),
        ("axes=true", "axes", "True"),
        ("words=true", "words", "True"),
        ("size=[4, false]", "size", "[4, False]"),
        ("inner.share=true", "inner.share", "True"),
        ("inner.weights.a=true", "inner.weights", "{'a': True}"),
        ("figure={shape: round, radius: true}", "figure.radius", "True"),
    ],
)
def test_true_and_false_are_no_numbers(override: str, key: str, found: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(Outer, {}, "doc", [override])
    assert str(raised.value) == f"doc: {key}: expected a number, and not true or false; found {found}"


def test_true_and_false_stand_where_they_may() -> None:
    found = parse(Outer, {}, "doc", ["either=true", "inner.on=true", "inner.free.any=[true, 1]", "count=1"])
    assert found.either is True and found.inner.on and found.inner.free == {"any": [True, 1]} and found.count == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("size=[3, x]", "doc: size.1: Input should be a valid integer"),
        (
            "size=x",
            "doc: size: Input should be a valid integer, unable to parse string as an integer, or: Input should",
        ),
        ("threshold=x", "doc: threshold: Input should be a valid number, .*, or: Input should be 'mean'; found 'x'"),
        ("figure={shape: round, radios: 1}", "doc: unknown key 'figure.radios'; did you mean 'radius'"),
        ("figure.shape=square", "doc: key 'figure.side' is missing"),
        ("figure={shape: square, side: x}", "doc: figure.side: Input should be a valid integer"),
    ],
)
def test_a_message_is_one_line_and_names_the_key_as_it_was_written(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}") as raised:
        parse(Outer, {}, "doc", [override])
    assert "\n" not in str(raised.value)


def test_each_wrong_key_has_its_line() -> None:
    with pytest.raises(ConfigError) as raised:
        parse(Outer, {}, "doc", ["count=x", "inner.share=2"])
    assert [line.split(": ")[1] for line in str(raised.value).splitlines()] == ["count", "inner.share"]
