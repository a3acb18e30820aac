"""BrainFuse as an objective: parents of different subjects on any ranks, its terms by hand, what it refuses."""

from pathlib import Path

import pytest
import torch

from data_shards.intensity import Window, Windows
from data_shards.support.errors import ConfigError, TrainingError
from data_shards.vocabulary import Task
from pretrain.brainfuse.bundle import save_generator
from pretrain.brainfuse.fusion import fused
from pretrain.brainfuse.generator import Generator, GeneratorConfig
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives.base import check_parameters
from pretrain.objectives.brainfuse import BrainFuse, _share_unexplained, chosen_parents
from pretrain.objectives.simclr import nt_xent
from pretrain.view_factory import ViewFactory
from pretrain.views import ViewConfig
from pretrain.views.random import sample_keys
from tests.pretrain.objective_views import batch_of, document_of, doubled, drifting_images, views_of


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    generator = Generator(GeneratorConfig(width=4, depth=1, scales=(2, 1)))
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return save_generator(tmp_path_factory.mktemp("generator") / "bundle", generator, {}, {})


def test_parents_are_of_different_subjects_whatever_the_order_of_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    sample_G = torch.randperm(200, generator=generator)[:40]
    keys_G, subject_G = sample_keys(0, 0, 0, sample_G, 0), sample_G // 5
    chosen_KG = chosen_parents(keys_G, sample_G, sample_G, subject_G, 4)
    assert chosen_KG.shape == (4, 40) and torch.equal(chosen_KG[0], torch.arange(40))
    assert all(len(set(subjects)) == 4 for subjects in subject_G[chosen_KG].T.tolist())
    assert len(sample_G[chosen_KG[1:]].unique()) > 30  # not always the same ones
    found = dict(zip(sample_G.tolist(), sample_G[chosen_KG].T.tolist(), strict=True))
    order = torch.randperm(40, generator=generator)
    mixed_G, own = sample_G[order], slice(10, 25)  # the rows of one of several ranks
    again_KB = chosen_parents(keys_G[order][own], mixed_G[own], mixed_G, subject_G[order], 4)
    assert mixed_G[again_KB].T.tolist() == [found[sample] for sample in mixed_G[own].tolist()]


def test_parents_are_evenly_drawn_among_subjects_and_their_images() -> None:
    subject_G = torch.tensor([0, 1, 1, 1, 2, 3])  # three images of one subject
    rows = torch.zeros(6000, dtype=torch.int64)
    chosen_KB = chosen_parents(sample_keys(0, 0, 0, torch.arange(6000), 0), rows, torch.arange(6), subject_G, 2)
    share = torch.bincount(chosen_KB[1], minlength=6) / 6000
    # The subject of three images is asked the more often the more images it has, as one image is drawn of all.
    torch.testing.assert_close(share, torch.tensor([0, 0.2, 0.2, 0.2, 0.2, 0.2]), atol=0.025, rtol=0)


@pytest.mark.parametrize("distance", ["relative", "squared"])
def test_the_consistency_is_that_of_its_equation(bundle: Path, distance: str) -> None:
    given = {"generator": str(bundle), "joint": "none", "consistency": 0.5, "axis": 0, "distance": distance}
    config = document_of({"brainfuse": given})
    torch.manual_seed(0)
    module = PretrainModule(create_backbone(config.model), config.objectives).double()
    views = views_of(config, drifting_images(6, (1, 8, 8, 8)), 0, 1)
    objective = module.objectives["brainfuse"]
    assert isinstance(objective, BrainFuse)
    outcome = objective(module.backbone, views)
    parents = objective._parents(views.source, views.full[0].keys_B, views.rows)
    assert parents.shape == (2, 6, 1, 8, 8)
    for row in range(6):
        slices = [views.source.images[sample, :, height] for sample in range(6) for height in range(8)]
        assert any(torch.equal(parents[0, row], each) for each in slices[8 * row : 8 * row + 8])
        assert any(torch.equal(parents[1, row], each) for each in slices[: 8 * row] + slices[8 * row + 8 :])
    with torch.no_grad():
        parents = parents.double()
        one = fused(objective.generator, parents)
        metadata = views.source.metadata
        metadata = type(metadata)(
            metadata.organ_B, metadata.modality_B, torch.full_like(metadata.organ_B, int(Task.self_supervised))
        )
        made, *others = (module.backbone.features(each, metadata).embedding_BD for each in (one, *parents))
        mean = torch.stack(others).mean(0)
        expected = 0.5 * (made - mean).square().mean()
        if distance == "relative":
            expected /= mean.var(dim=0, correction=0).mean()
    torch.testing.assert_close(outcome["loss"], expected, rtol=1e-9, atol=1e-12)
    outcome["loss"].backward()
    assert all(parameter.grad is None for parameter in objective.generator.parameters())


def test_the_relative_consistency_does_not_change_when_embeddings_are_scaled_and_shifted() -> None:
    made_BD, mean_BD = torch.randn(2, 7, 5, dtype=torch.float64).unbind()
    one = _share_unexplained(made_BD, mean_BD, 7)
    other = _share_unexplained(1e-3 * made_BD + 50, 1e-3 * mean_BD + 50, 7)
    torch.testing.assert_close(other, one, rtol=1e-9, atol=0)
    same_BD = torch.ones(7, 5, requires_grad=True)
    alike = _share_unexplained(same_BD, same_BD.detach(), 7)  # all images alike: no distance, and a finite gradient
    alike.backward()
    assert alike == 0 and torch.equal(same_BD.grad, torch.zeros(7, 5))


def test_fused_images_are_seen_without_rounding_to_8_bits() -> None:
    """SimCLR on views that change nothing is that of the fused images, all within a few of 256 levels."""
    off = dict.fromkeys(ViewConfig().transforms)
    config = document_of({"brainfuse": {"joint": "simclr", "consistency": 0, "views": off, "out": 8}})
    torch.manual_seed(0)
    module = PretrainModule(create_backbone(config.model), config.objectives).double()
    objective = module.objectives["brainfuse"]
    assert isinstance(objective, BrainFuse) and objective.projector is not None
    images = (30000 + 1000 * torch.rand(6, 1, 28, 28)).to(torch.uint16)
    rule = Windows(windows=(Window(center=32767.5, width=65535),))
    views = doubled(ViewFactory(config, torch.device("cpu"), rules=[rule])(batch_of(images, slice(6), (6,))))
    outcome = objective(module.backbone, views)
    parents = objective._parents(views.source, views.full[0].keys_B, views.rows).double()
    in_range = images.double() / 32767.5 - 1
    assert all((each - in_range).abs().flatten(1).amax(1).min() < 1e-6 for each in parents.flatten(0, 1))

    def loss_of(fused_BC: torch.Tensor) -> torch.Tensor:
        known = views.source.metadata
        known = type(known)(known.organ_B, known.modality_B, torch.full_like(known.organ_B, int(Task.self_supervised)))
        z_BD = objective.projector.project(module.backbone.features(fused_BC, known).embedding_BD, 6)
        return nt_xent(z_BD, z_BD, objective.config.temperature, (6,))

    with torch.no_grad():
        one = parents.mean(0)
        torch.testing.assert_close(outcome["loss"].detach(), loss_of(one), rtol=1e-4, atol=0)
        rounded = loss_of(((one + 1) * 127.5).round() / 127.5 - 1)
    assert (rounded - outcome["loss"]).abs() > 0.01 * outcome["loss"].abs()


def test_what_cannot_be_fused_is_refused(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="3 subjects cannot be paired up"):
        check_parameters("brainfuse", {"parents": 3})
    config = document_of({"brainfuse": {"parents": 8}})
    module = PretrainModule(create_backbone(config.model), config.objectives).double()
    with pytest.raises(TrainingError, match="8 subjects are to be fused, there are 5 in a batch"):
        module(views_of(config, drifting_images(5, (1, 8, 8)), 0, 1))
    backbone = create_backbone(config.model)
    with pytest.raises(ConfigError, match="leave nothing to learn from"):
        BrainFuse(backbone, check_parameters("brainfuse", {"joint": "none", "consistency": 0}))
    given = check_parameters("brainfuse", {"generator": str(bundle)})
    with pytest.raises(ConfigError, match="2 axes and 1 channels, those that are fused have 2 axes and 3 channels"):
        BrainFuse.check_data(given, (3, 28, 28), given.views, backbone)
    with pytest.raises(ConfigError, match="those that are fused have 3 axes"):
        BrainFuse.check_data(given, (1, 8, 28, 28), given.views, backbone)
    with pytest.raises(ConfigError, match="the images are planes"):
        BrainFuse.check_data(check_parameters("brainfuse", {"axis": 0}), (1, 28, 28), given.views, backbone)
