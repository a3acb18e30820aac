"""What a fitted model says of the instances of a case: of its tokens, as maps, or of its studies.

Shape suffixes: H instances of one case, O outputs of the head, C scores a case gets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from data_shards.prepare.grid import moved
from data_shards.sample import Image
from data_shards.support.errors import ConfigError
from finetune.cases import Cases
from finetune.classifier.member import Member
from finetune.fit.encoding import encode
from finetune.fit.linear import LinearVote
from finetune.fit.network import Readout
from finetune.fit.room import blocks, size_read
from finetune.heads import create_head
from finetune.heads.instances import InstanceKind
from finetune.heads.linear import LinearHead
from finetune.images import Study
from finetune.progress import progress
from pretrain.backbone import Backbone, Medformer


@dataclass(frozen=True)
class TokenMap:
    """Where the tokens of one image stand among those of its case.

    Attributes:
        study: number of the study in its case, from 0.
        image: its name.
        grid: cells along each axis.
        first: the first of them; they follow in row-major order.
        affine: of a volume, 4x4, from the indices of a cell to mm that grow to right, anterior and superior of the
            patient; None where the file did not say where the image lies.
    """

    study: int
    image: str
    grid: tuple[int, ...]
    first: int
    affine: np.ndarray | None = None

    def of(self, values_HK: np.ndarray) -> np.ndarray:
        """The values of this image in its grid, ``(K, *grid)``."""
        mine_TK = values_HK[self.first : self.first + math.prod(self.grid)]
        return np.ascontiguousarray(mine_TK.T.reshape(-1, *self.grid))


@dataclass(frozen=True)
class StudyTold:
    """What a study is called.

    Attributes:
        name: as :class:`~finetune.images.Study` has it.
        modalities: of each of its images, by their names.
    """

    name: str
    modalities: Mapping[str, str]


@dataclass(frozen=True)
class CaseInstances:
    """What is said of the instances of one case.

    Attributes:
        kind: what they are.
        scores_HO: on the scale of the outputs of the head.
        probabilities_HC: what the model makes of these scores as it does of the score of a case, with the same
            prevalence and temperature; the numbers of a regression.
        weights_H: the share of each in the score of the case; None where the pooling has none.
        maps: where tokens stand; empty for studies.
        studies: of the case, in their order.
    """

    kind: InstanceKind
    scores_HO: np.ndarray
    probabilities_HC: np.ndarray
    weights_H: np.ndarray | None
    maps: tuple[TokenMap, ...] = ()
    studies: tuple[StudyTold, ...] = ()


def instance_readout(member: Member) -> Readout:
    """The head that tells of instances, with its link; that of a linear model on the mean of tokens, or on embeddings.

    Raises:
        ConfigError: it has none; what has is named.
    """
    head = member.head
    if isinstance(head, LinearVote):
        if len(head.models) == 1 and head.reads[0] in ("mean", "embedding"):
            return _as_readout(member.backbone, head)
        told = f"linear, which reads {', '.join(head.reads)},"
    elif head.head.instance_kind is not None:
        return head
    else:
        told = head.head.name
    raise ConfigError(
        f"head {told} says nothing of instances; fit with head mil, or linear with reads mean (of tokens) or embedding "
        "(of the studies of a bag)"
    )


def _as_readout(backbone: Backbone, vote: LinearVote) -> Readout:
    (model,) = vote.models
    head = create_head("linear", int(backbone.embed_dim), vote.target.outputs, {"reads": model.reads})
    assert isinstance(head, LinearHead)
    link = vote.target.link()
    affine = vote.target.into_link(link, model.unstandardised())
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(affine.weight_KD))
        head.linear.bias.copy_(torch.from_numpy(affine.bias_K))
    return Readout(head, link).to(next(backbone.parameters()).device).eval()


def instances_of(member: Member, cases: Cases, temperature: float) -> Iterator[CaseInstances]:
    """What a member says of the instances of each case, one after the other.

    Args:
        member: whose head has instances.
        cases: to be told.
        temperature: of the predictor.

    Raises:
        ConfigError: its head has none.
        DataError: an image cannot be read, or does not fit.
    """
    readout = instance_readout(member)
    vote = member.head if isinstance(member.head, LinearVote) else member
    offset = None if vote.offset is None else torch.from_numpy(vote.offset)
    dense = readout.head.needs_tokens
    grids: dict[tuple[int, ...], tuple[int, ...]] = {}
    with progress(len(cases), "cases", "instances") as shown:
        for block, several in blocks(member.backbone, cases, dense=dense):
            with torch.no_grad():
                found = readout.head.instances(encode(member.backbone, several, dense=dense))
            assert found is not None, "a head with instance_kind has instances"
            for place, studies in enumerate(several):
                here = slice(None) if found.present_BH is None else found.present_BH[place]
                scores_HO = found.scores_BHO[place][here]
                with torch.no_grad():
                    logits_HK = scores_HO if readout.link is None else readout.link(scores_HO)
                log_scores = member.target.log_scores(logits_HK.double().cpu(), offset).numpy()
                yield CaseInstances(
                    found.kind,
                    scores_HO.float().cpu().numpy(),
                    member.target.probabilities(log_scores, temperature),
                    None if found.weights_BH is None else found.weights_BH[place][here].float().cpu().numpy(),
                    _maps(member.backbone, studies, grids) if dense else (),
                    tuple(
                        StudyTold(each.name, {name: image.modality.name for name, image in each.sorted_images})
                        for each in studies
                    ),
                )
            shown.advance(len(block))
            del several, studies  # before the next ones are read


def _maps(
    backbone: Backbone, studies: Sequence[Study], known: dict[tuple[int, ...], tuple[int, ...]]
) -> tuple[TokenMap, ...]:
    """Where the tokens of each image stand: study by study, in each the images by name, as they are encoded."""
    maps: list[TokenMap] = []
    first = 0
    for number, study in enumerate(studies):
        for name, image in study.sorted_images:
            size = size_read(backbone, image)
            if size not in known:
                with torch.no_grad():
                    grid = encode(backbone, [[replace(study, images={name: image})]], dense=True).grid
                assert grid is not None
                known[size] = grid
            maps.append(
                TokenMap(number, name, known[size], first, _affine_of_cells(backbone, image, size, known[size]))
            )
            first += math.prod(known[size])
    return tuple(maps)


def _affine_of_cells(
    backbone: Backbone, image: Image, size: tuple[int, ...], grid: tuple[int, ...]
) -> np.ndarray | None:
    """The affine of the grid of tokens of an image that the network reads with so many voxels."""
    if not isinstance(backbone, Medformer):  # its cells share the image evenly, as class activation maps are enlarged
        steps = np.array(image.pixels.shape[1:]) / np.array(grid)
        return moved(image, (steps / 2 - 0.5).tolist(), steps.tolist())
    stem = backbone.adapter.stem
    # Voxels of the image for one that is read: the extent is the same.
    scales = np.array(image.pixels.shape[1:]) / np.array(size)
    firsts = (stem.offset + 0.5) * scales - 0.5
    return moved(image, firsts.tolist(), (stem.stride * scales).tolist())


def averaged(said: Sequence[CaseInstances]) -> CaseInstances:
    """The mean of what the members of an ensemble say of one case."""
    first = said[0]
    if len(said) == 1:
        return first
    weights = [each.weights_H for each in said if each.weights_H is not None]
    return CaseInstances(
        first.kind,
        np.mean([each.scores_HO for each in said], axis=0),
        np.mean([each.probabilities_HC for each in said], axis=0),
        np.mean(weights, axis=0) if weights else None,
        first.maps,
        first.studies,
    )
