"""The drawings of the documents are what their scripts draw."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from docs.figures.__main__ import FIGURES
from docs.figures.architecture import floors
from tests.documents import ROOT

FOLDER = ROOT / "docs" / "figures"


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_figure_is_what_its_script_draws_and_needs_nothing_from_elsewhere(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert text == FIGURES[name](), f"python -m docs.figures draws {name} anew"
    links = [value for each in ElementTree.fromstring(text).iter() for key, value in each.items() if "href" in key]
    assert all(link.startswith("data:image/png;base64,") for link in links)


def test_every_package_is_on_the_map() -> None:
    packages = {name for floor in floors() for name in floor}
    assert packages == {path.parent.name for path in ROOT.glob("*/py.typed")}
    assert all(f">{name}/</text>" in (FOLDER / "architecture.svg").read_text() for name in packages)
