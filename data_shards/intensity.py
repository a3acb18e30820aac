"""How stored values become the range of the network, [-1, 1]: a rule that manifest and bundle hold as data.

Shards hold values as they were measured; :mod:`pretrain.intensity` applies the rule on the device, before views.
Folders without a rule hold 8 bits, which are read as 0 to 255.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, FiniteFloat, model_validator

from data_shards.sample import MASK
from data_shards.support.documents import Document
from data_shards.support.errors import DataError, nearest

PRESETS: dict[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "liver": (30.0, 150.0),
}
"""Centre and width of common CT windows in Hounsfield units, as radiopaedia.org/articles/windowing-ct lists them."""

HOUNSFIELD = (-4096.0, 32767.0)
"""What a CT can hold: air is -1024 and metal beyond 3071, and scanners write as little as -3024 outside their view."""

EVERY = "*"
"""In place of the name of an image: all that are not named."""


class Window(Document):
    """Linear from ``center - width / 2`` to ``center + width / 2``, as LINEAR_EXACT of DICOM PS3.3 C.11.2.1.3.2.

    In a document also a name of :data:`PRESETS`, or ``{low: , high: }``.
    """

    center: FiniteFloat = Field(description="the value in the middle, in the units of the image")
    width: FiniteFloat = Field(description="distance of the ends")
    name: str = Field("", description="of the preset it is; empty for none")

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, given: Any) -> Any:
        if isinstance(given, str):
            if given not in PRESETS:
                raise ValueError(f"no window is called {given!r}{nearest(given, PRESETS)}")
            return {"name": given, "center": PRESETS[given][0], "width": PRESETS[given][1]}
        if isinstance(given, dict) and set(given) == {"low", "high"}:
            try:
                if isinstance(given["low"], bool) or isinstance(given["high"], bool):
                    raise TypeError
                low, high = float(given["low"]), float(given["high"])
            except (TypeError, ValueError):
                raise ValueError("the ends of a window are two numbers") from None
            return {"center": (low + high) / 2, "width": high - low}
        return given

    @model_validator(mode="after")
    def _ends_rise(self) -> Window:
        if not self.width > 0:
            how = "equal" if self.width == 0 else "reversed"
            raise ValueError(
                f"a window from {self.low:g} to {self.high:g}: its ends are {how}, the low one comes first"
            )
        if self.name and (self.center, self.width) != PRESETS.get(self.name):
            raise ValueError(f"no preset {self.name!r} has center {self.center:g} and width {self.width:g}")
        return self

    @property
    def low(self) -> float:
        """The value that becomes -1."""
        return self.center - self.width / 2

    @property
    def high(self) -> float:
        """The value that becomes 1."""
        return self.center + self.width / 2

    @property
    def words(self) -> str:
        """Its name and ends."""
        return f"{self.name} {self.low:g} to {self.high:g}".strip()


class Bytes(Document):
    """Unsigned 8 bits, 0 to -1 and 255 to 1."""

    rule: Literal["bytes"] = "bytes"
    version: Literal[1] = 1

    def channels(self, stored: int) -> int:
        """How many channels become of so many."""
        return stored

    @property
    def words(self) -> str:
        """In words."""
        return "8 bits, 0 to 255"


class Windows(Document):
    """One channel for each window; what lies beyond the ends of one takes their value."""

    rule: Literal["windows"] = "windows"
    version: Literal[1] = 1
    windows: tuple[Window, ...] = Field(description="one, or several as channels in their order")

    @model_validator(mode="after")
    def _has_one(self) -> Windows:
        if not self.windows:  # as the length of the field it would be a second message beside that of a bad window
            raise ValueError("windows: at least one is expected")
        return self

    def channels(self, stored: int) -> int:
        """How many channels become of so many.

        Raises:
            DataError: several windows of several channels.
        """
        if len(self.windows) > 1 and stored != 1:
            raise DataError(f"{len(self.windows)} windows become the channels of an image that has one; found {stored}")
        return stored * len(self.windows)

    @property
    def hounsfield(self) -> bool:
        """Whether values are said to be Hounsfield units, as those of presets are."""
        return any(window.name for window in self.windows)

    @property
    def words(self) -> str:
        """In words."""
        each = ", ".join(window.words for window in self.windows)
        return f"windows {each} as {len(self.windows)} channels" if len(self.windows) > 1 else f"window {each}"


Foreground = FiniteFloat | Literal["mean", "all"]
"""Which values are counted: those above a number, those above the mean of the image, or all."""


class Percentiles(Document):
    """Linear between two percentiles of each image, all its channels together; beyond them the value of the end."""

    rule: Literal["percentiles"] = "percentiles"
    version: Literal[1] = 1
    low: float = Field(0.5, ge=0, le=100, description="in percent of the values")
    high: float = Field(99.5, ge=0, le=100, description="in percent of the values")
    foreground: Foreground = Field("all", description="which values are counted: above a number, above the mean, all")

    @model_validator(mode="after")
    def _rise(self) -> Percentiles:
        if not self.low < self.high:
            raise ValueError(f"percentiles {self.low:g} to {self.high:g}: the low one comes first")
        return self

    def channels(self, stored: int) -> int:
        """How many channels become of so many."""
        return stored

    @property
    def words(self) -> str:
        """In words."""
        return f"percentiles {self.low:g} to {self.high:g} of {_counted(self.foreground)}"


class ZScore(Document):
    """Less the mean, divided by the standard deviation, of the foreground of each image; then cut and scaled.

    The statistics are those of nnU-Net (Isensee et al., Nature Methods 2021) for all but CT, with a threshold in place
    of its mask.
    """

    rule: Literal["z-score"] = "z-score"
    version: Literal[1] = 1
    foreground: Foreground = Field("mean", description="which values are counted: above a number, above the mean, all")
    limit: float = Field(4.0, gt=0, le=100, description="so many standard deviations become -1 and 1")

    def channels(self, stored: int) -> int:
        """How many channels become of so many."""
        return stored

    @property
    def words(self) -> str:
        """In words."""
        return f"z-score of {_counted(self.foreground)}, -{self.limit:g} to {self.limit:g}"


Rule = Bytes | Windows | Percentiles | ZScore
BYTES = Bytes()


_RULES = ("bytes", "windows", "percentiles", "z-score")
_BY_NAME = ("bytes", "percentiles", "z-score")
"""Rules that have a default for everything."""


def _written_short(given: Any) -> Any:
    """A preset or a list of windows stands for a rule of windows, the name of another rule for it with its defaults."""
    _refuse_preparation(given)
    if isinstance(given, str):
        if given in _BY_NAME:
            return {"rule": given}
        if given not in PRESETS:
            raise ValueError(f"no rule and no window is called {given!r}{nearest(given, (*_BY_NAME, *PRESETS))}")
        return {"rule": "windows", "windows": [given]}
    if isinstance(given, Mapping):
        if "rule" not in given:
            raise ValueError(f"expected a key 'rule' beside {', '.join(map(repr, given))}; valid: {', '.join(_RULES)}")
        if given["rule"] not in _RULES:
            raise ValueError(f"no rule is called {given['rule']!r}{nearest(str(given['rule']), _RULES)}")
    elif not isinstance(given, list | Document):
        raise ValueError(f"expected the name of a rule or of a CT window, or a rule; valid: {', '.join(_RULES)}")
    return {"rule": "windows", "windows": given} if isinstance(given, list) else given


def _refuse_preparation(given: Any) -> None:
    """Point whoever writes the options of ``prepare.intensity`` to where they belong, and to the rule that is meant."""
    if not isinstance(given, Mapping) or len(given) != 1:
        return
    ((name, ends),) = given.items()
    if name not in ("window", "percentile") or not isinstance(ends, list | tuple) or len(ends) != 2:
        return
    if not all(isinstance(end, int | float) for end in ends):
        return
    one, other = ends
    rule = f"[{{center: {one}, width: {other}}}]"
    if name == "percentile":
        rule = f"{{rule: percentiles, low: {one}, high: {other}}}"
    raise ValueError(
        f"{name} makes 8 bits of values before they are stored: prepare.intensity.{name} of `medformer shards build`; "
        f"as a rule for values that are kept it is written {rule}"
    )


IntensityRule = Annotated[Rule, Field(discriminator="rule"), BeforeValidator(_written_short)]
"""A rule as a field of a document."""


def _by_name(given: Any) -> Any:
    _refuse_preparation(given)
    return given if given is None or (isinstance(given, Mapping) and "rule" not in given) else {EVERY: given}


IntensityRules = Annotated[dict[str, IntensityRule], BeforeValidator(_by_name)]
"""Rules by image name as a field of a document, :data:`EVERY` for the others; or one for all."""


def check_names(rules: Mapping[str, Rule], names: Collection[str]) -> None:
    """Refuse rules of images that there are not.

    Args:
        rules: by image name, or :data:`EVERY`.
        names: of the images.

    Raises:
        DataError: the first such name, where it stands, and the nearest one there is.
    """
    for name in rules:
        if name not in (EVERY, *names):
            raise DataError(
                f"intensity.{name}: no study has an image {name!r}{nearest(name, names)}; a rule for every image is "
                "written by its name or with a key 'rule', such as {rule: z-score, limit: 3}"
            )


def rule_of(rules: Mapping[str, Rule], image: str) -> Rule | None:
    """The rule of the images of a name; None where none is given, and for masks."""
    return None if image == MASK else rules.get(image, rules.get(EVERY))


Threshold = float | Literal["mean"]
"""Values above it are foreground; ``mean`` is the mean of the image."""


def foreground_of(rule: Rule | None) -> Threshold:
    """What counts as foreground of images that are read by a rule: its threshold, or the mean where it has none."""
    if isinstance(rule, Percentiles | ZScore) and rule.foreground != "all":
        return rule.foreground
    return "mean"


def check_values(rule: Rule, pixels: np.ndarray) -> None:
    """Refuse an image that the rule cannot be for.

    Args:
        rule: of the image.
        pixels: ``C,...``, finite, in their native dtype.

    Raises:
        DataError: it has too many channels or too many bits for the rule, or its values cannot be Hounsfield units
            where the rule says they are.
    """
    rule.channels(len(pixels))
    if isinstance(rule, Bytes) and pixels.dtype != np.uint8:
        raise DataError(f"rule bytes is for unsigned 8 bits, found {pixels.dtype}; windows, percentiles or z-score")
    if isinstance(rule, Windows) and rule.hounsfield:
        low, high = float(pixels.min()), float(pixels.max())
        if not HOUNSFIELD[0] <= low <= high <= HOUNSFIELD[1]:
            raise DataError(
                f"{pixels.dtype} values from {low:g} to {high:g} are no Hounsfield units: unsigned values were read as "
                "signed ones, signed as unsigned, or slope and intercept were not applied"
            )


def _counted(foreground: float | str) -> str:
    return {"all": "all values", "mean": "values above the mean"}.get(str(foreground), f"values above {foreground}")
