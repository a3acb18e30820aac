"""Pictures of a run show what they say they show, and drawing them changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from data_shards.support.secrets import without_secrets
from pretrain.figures.scatter import COLOURS, draw_scatter


def test_points_are_drawn_in_the_colour_of_their_class_where_they_are(tmp_path: Path) -> None:
    corners_N2 = np.array([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    draw_scatter(corners_N2, np.array([0, 1, 2]), ["a", "b", "c"], "corners", tmp_path / "plots" / "p.png")
    pixels = np.asarray(PIL.Image.open(tmp_path / "plots" / "p.png"))
    places = {}
    for index in range(3):
        rows, columns = np.where((pixels[:, :540] == COLOURS[index]).all(axis=-1))  # left of the legend
        places[index] = (rows.mean(), columns.mean())
    # The second axis points up: class 0 is bottom left, 1 top right, 2 top left.
    assert places[0][0] > places[1][0] and places[0][1] < places[1][1]
    assert abs(places[2][0] - places[1][0]) < 1 and abs(places[2][1] - places[0][1]) < 1
    # The same scale along both axes.
    assert abs((places[0][0] - places[2][0]) - (places[1][1] - places[2][1])) < 1


def test_a_single_place_and_letters_the_font_lacks_are_no_trouble(tmp_path: Path) -> None:
    draw_scatter(np.zeros((4, 2)), np.zeros(4, int), ["膝"], "膝, step 1", tmp_path / "p.png")
    assert PIL.Image.open(tmp_path / "p.png").size == (780, 580)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://ann:pw@host:5000/x", "http://host:5000/x"),
        ("lost 'https://bucket/a?X-Sig=abc' (403)", "lost 'https://bucket/a' (403)"),
        ("postgresql://u:p@db/mlflow failed", "postgresql://db/mlflow failed"),
        ("simplecache::s3://key:secret@bucket/a", "simplecache::s3://bucket/a"),
        ("uri: http://u:p@h/#/runs\nnext: s3://bucket/a", "uri: http://h/\nnext: s3://bucket/a"),
        ("what? see http://host/a", "what? see http://host/a"),
        ("mail ann@example.org", "mail ann@example.org"),
    ],
)
def test_addresses_lose_what_may_be_secret_and_other_words_stay(text: str, told: str) -> None:
    assert without_secrets(text) == told
    assert without_secrets({"a": [text, 1, None]}) == {"a": [told, 1, None]}
