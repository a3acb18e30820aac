"""Names of models: what is understood, and one line for what is not."""

from __future__ import annotations

import pytest

from cluster.errors import RegistryError
from cluster.reference import ModelReference, parse_reference
from medformer.cli import main
from pretrain.foreign.reference import PREFIX


def test_a_model_is_named_by_alias_or_by_version() -> None:
    assert parse_reference("chest@champion") == ModelReference("chest", alias="champion")
    assert parse_reference("chest:12") == ModelReference("chest", version="12")
    assert parse_reference("timm:3") == ModelReference("timm", version="3"), "a model may be called so"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chest", "'chest': which version\\? expected name@alias or name:version"),
        ("chest:0", "version '0': expected a whole number from 1"),
        ("chest@latest", "alias 'latest': it reads like a version"),
        ("Chest@champion", "model name 'Chest': expected at most 100 lower-case letters"),
        (
            "runs/a@champion",
            "'runs/a': a path, not the name of a model in the registry; 'medformer models publish' puts",
        ),
    ],
)
def test_another_name_is_refused(text: str, said: str) -> None:
    with pytest.raises(RegistryError, match=said):
        parse_reference(text)


@pytest.mark.parametrize(
    "text", ["resnet18", "resnet18.a1_in1k", "vit_tiny_patch16_224,img_size=28", "resnet18@a.safetensors"]
)
@pytest.mark.parametrize(
    "verb", [["pull"], ["unpromote"], ["delete"], ["promote", "champion"]], ids=lambda words: words[0]
)
def test_a_network_by_name_is_no_model_of_the_registry(
    verb: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", verb[0], f"{PREFIX}{text}", *verb[1:]]) == 2
    assert capsys.readouterr().err == (
        f"medformer: error: '{PREFIX}{text}': the name of a network, not of a model in the registry; expected "
        "name@alias or name:version\n"
    )
