"""The generator is trained from a document by the command, goes on to the same weights, and is read back."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from data_shards.intensity import BYTES, Window, Windows
from data_shards.prepare import Ruled
from data_shards.support.errors import CheckpointError, ConfigError, DataError
from data_shards.writing.writer import write_dataset
from medformer.cli import main
from pretrain.brainfuse import training as module
from pretrain.brainfuse.bundle import generator_rules, load_generator
from pretrain.brainfuse.training import GeneratorRun, gain_db, train_generator
from pretrain.brainfuse.volumes import Volumes
from pretrain.config import PretrainConfig
from pretrain.preflight import remarks
from tests.data_shards.made_sources import Listed, card, toy_sample
from tests.pretrain.runs import document as pretraining


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve subjects with a blob that moves from slice to slice; splits by the command that users have."""
    home = tmp_path_factory.mktemp("volumes")
    (home / "images").mkdir()
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:16, :16]
    lines = ["path,subject,split"]
    for number in range(12):
        start, height = generator.uniform(3, 6), generator.uniform(5, 10)
        volume = np.stack([200 * np.exp(-((rows - height) ** 2 + (columns - start - z) ** 2) / 8) for z in range(8)], 1)
        nib.save(nib.Nifti1Image(volume.astype(np.int16), np.eye(4)), home / "images" / f"{number}.nii.gz")
        lines.append(f"{number}.nii.gz,s{number},{'val' if number > 8 else 'train'}")
    (home / "table.csv").write_text("\n".join(lines) + "\n")
    words = [f"root={home / 'images'}", f"table={home / 'table.csv'}", "columns.path=path", "columns.subject=subject"]
    words += ["columns.split=split", "name=blobs", "organ=brain", "modality=mri", "label=none"]
    words += ["prepare.intensity.percentile=[0,100]", "--out", str(home)]
    assert main(["shards", "build", "images", *words]) == 0
    return home / "blobs"


def document(shards: Path, out: Path, **changes) -> dict:
    size = {"width": 8, "depth": 1, "scales": [2, 1]}
    plain = {
        "out": str(out),
        "shards": str(shards),
        "axis": 0,
        "gaps": [1, 2],
        "steps": 60,
        "batch_size": 8,
        "pairs": 2,
    }
    return {**plain, "lr": 3e-3, "checkpoint_every": 20, "generator": size, **changes}


@pytest.mark.parametrize("steps", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_the_command_trains_and_the_bundle_is_read_back(steps: int, shards: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "run.yaml"
    # The axis that moves may have been turned by reading; the slices lie across the one that has eight.
    axis = Volumes(shards, "train", 0)[0].shape[1:].index(8)
    path.write_text(yaml.safe_dump(document(shards, tmp_path / "run", axis=axis, steps=steps)))
    assert main(["pretrain", str(path)]) == 0
    assert f"generator bundle: {tmp_path / 'run' / 'bundle'}" in capsys.readouterr().out
    generator = load_generator(tmp_path / "run" / "bundle")
    held_out = Volumes(shards, "val", axis)
    assert len(held_out) == 3 and (steps < 60 or gain_db(generator, held_out, 2) > 1)
    assert main(["pretrain", str(path)]) == 2 and "exists already" in capsys.readouterr().err


def test_a_run_that_was_ended_goes_on_to_the_same_weights(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = GeneratorRun(**document(shards, tmp_path / "whole", steps=12, checkpoint_every=4))
    train_generator(whole)
    expected = load_generator(tmp_path / "whole" / "bundle").state_dict()
    again = GeneratorRun(**document(shards, tmp_path / "whole", steps=12, checkpoint_every=4))
    state = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 12

    class Ended(Exception):
        pass

    shutil.rmtree(tmp_path / "whole")
    # A process that ends after its eighth step: the ninth draw is never made.
    real, count = module.triples, []

    def ending(*arguments, **options):
        count.append(1)
        if len(count) == 9:
            raise Ended
        return real(*arguments, **options)

    monkeypatch.setattr(module, "triples", ending)
    with pytest.raises(Ended):
        train_generator(again)
    monkeypatch.setattr(module, "triples", real)
    assert torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)["step"] == 8
    train_generator(again, resume=True)
    for name, tensor in load_generator(tmp_path / "whole" / "bundle").state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
    with pytest.raises(CheckpointError, match=r"another configuration \(lr: 0\.003 then, 0\.0001 now\); go on"):
        train_generator(again.model_copy(update={"lr": 1e-4}), resume=True)


def test_a_checkpoint_from_before_a_key_is_told_with_the_key_and_what_to_do(shards: Path, tmp_path: Path) -> None:
    run = GeneratorRun(**document(shards, tmp_path / "run", steps=1))
    train_generator(run)
    path, recorded = tmp_path / "run" / "checkpoint.pt", tmp_path / "run" / "config.yaml"
    state = torch.load(path, weights_only=True)
    then = yaml.safe_load(recorded.read_text())
    del then["intensity"]
    recorded.write_text(yaml.safe_dump(then))
    torch.save({**state, "config_sha256": "0" * 64}, path)
    said = r"\(intensity: nothing then, None now\); go on with the document and the version of Medformer that it is of"
    with pytest.raises(CheckpointError, match=said):
        train_generator(run, resume=True)
    torch.save({key: value for key, value in state.items() if key != "optimizer"}, path)
    with pytest.raises(CheckpointError, match="key 'optimizer' is missing, so another version .* or start anew in"):
        train_generator(run, resume=True)


@pytest.mark.parametrize("changes", [{"generator": {"axes": 3, "width": 8, "depth": 1, "scales": [2, 1]}, "slab": 3},
                                     {"generator": {"context": 1, "width": 8, "depth": 1, "scales": [1]}}])  # fmt: skip
def test_slabs_and_slices_with_context_are_learned_from(shards: Path, tmp_path: Path, changes: dict) -> None:
    run = GeneratorRun(**document(shards, tmp_path / "run", steps=4, **changes))
    generator = load_generator(train_generator(run))
    before = load_generator(train_generator(run.model_copy(update={"out": tmp_path / "short", "steps": 1})))
    assert any(
        not torch.equal(one, other) for one, other in zip(generator.parameters(), before.parameters(), strict=True)
    )


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_every_value_of_a_deeper_volume_is_learned_from_by_its_rule(dtype: str, tmp_path: Path) -> None:
    least, most = (0.0, 65535.0) if dtype == "uint16" else (-1000.5, 3071.25)
    volumes = [np.linspace(least, most, 1 << 16).reshape(1, 16, 64, 64).astype(dtype)[:, ::turn] for turn in (1, -1)]
    rule = Windows(windows=(Window(center=(least + most) / 2, width=most - least),))
    samples = [toy_sample(f"v-{place}", pixels=pixels) for place, pixels in enumerate(volumes)]
    write_dataset(Ruled(Listed(samples, card()), {"*": rule}), tmp_path / "deep")
    found = Volumes(tmp_path / "deep", "train", 0)
    for mine, pixels in zip(found, volumes, strict=True):
        expected = (pixels.astype(np.float64) - least) / (most - least) * 2 - 1
        np.testing.assert_allclose(mine.numpy(), expected, rtol=0, atol=1e-6)
        assert len(mine.unique()) == len(np.unique(pixels)) == 1 << 16
    run = GeneratorRun(**document(tmp_path / "deep", tmp_path / "run", steps=1))
    bundle = train_generator(run)
    assert [(each.channels, each.rule) for each in generator_rules(bundle)] == [(1, rule)]
    load_generator(bundle)
    two = [{"center": 0, "width": 100}, {"center": 50, "width": 100}]
    with pytest.raises(ConfigError, match="volumes of 2 channels by the rule windows.*; generator.channels is 1"):
        train_generator(GeneratorRun(**document(tmp_path / "deep", tmp_path / "two", intensity=two)))
    write_dataset(Listed(samples, card()), tmp_path / "bare")
    with pytest.raises(ConfigError, match=f"{dtype} values and no rule"):
        Volumes(tmp_path / "bare", "train", 0)


def test_a_generator_for_other_values_than_it_was_trained_on_is_said_before_the_run(
    shards: Path, tmp_path: Path
) -> None:
    bundle = train_generator(GeneratorRun(**document(shards, tmp_path / "run", steps=1)))
    assert [each.rule for each in generator_rules(bundle)] == [BYTES]
    content = pretraining(shards, tmp_path / "out")
    content["objectives"] = {"brainfuse": {"generator": str(bundle), "axis": 0, "joint": "none"}}
    assert remarks(PretrainConfig.model_validate(content)) == []
    content["data"]["datasets"][0]["intensity"] = [{"low": 0, "high": 100}]
    assert remarks(PretrainConfig.model_validate(content)) == [
        "objectives.brainfuse.generator: the model was trained with 8 bits, 0 to 255; these images come by window 0 "
        "to 100"
    ]


def test_what_it_cannot_learn_from_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has none 40 apart"):
        train_generator(GeneratorRun(**document(shards, tmp_path / "a", gaps=[20])))
    with pytest.raises(DataError):
        train_generator(GeneratorRun(**document(tmp_path, tmp_path / "b")))
    with pytest.raises(ValueError, match="context is of slices"):
        GeneratorRun(**document(shards, tmp_path / "c", generator={"axes": 3, "context": 1}))
    with pytest.raises(CheckpointError, match="config.json"):
        load_generator(tmp_path)
    run = GeneratorRun(**document(shards, tmp_path / "d", steps=1))
    bundle = train_generator(run)
    (bundle / "generator.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(CheckpointError, match="not the weights of this generator"):
        load_generator(bundle)
    with pytest.raises(ConfigError, match="exists already"):
        train_generator(run)
