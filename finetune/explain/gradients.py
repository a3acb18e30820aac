"""Gradients of what is said of a case: by what the network gives of its images, and by the tokens it reads of them.

The second are made of the first by the chain rule, some studies at a time, so that no more than these are held in
memory however many a case has.

Shape suffixes: T tokens of one image, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_shards.support.errors import ConfigError
from finetune.classifier.member import Member
from finetune.explain.question import Question, require_network
from finetune.fit.encoding import StudyFeatures, encode_studies, parts_of
from finetune.fit.room import size_read, studies_at_once
from finetune.images import Study
from pretrain.backbone import Backbone, Medformer
from pretrain.backbone.modes import evaluating
from pretrain.foreign import TimmBackbone
from pretrain.tiling.windows import within


@dataclass(frozen=True)
class Outputs:
    """What the network gives of one study, and the gradient of the evidence by it.

    Attributes:
        values: without gradient.
        by_embedding_D: gradient.
        by_tokens_TD: gradient; None where the head reads no tokens.
    """

    values: StudyFeatures
    by_embedding_D: Tensor
    by_tokens_TD: Tensor | None


def outputs(question: Question, pixels_SF: Tensor | None = None) -> list[Outputs]:
    """Of each study of the case, whose head asks the network.

    Args:
        question: of the case.
        pixels_SF: raw pixels in place of those of the case, where the head reads them.
    """
    leaves: list[StudyFeatures] = [
        replace(
            each,
            embedding_D=each.embedding_D.detach().requires_grad_(),
            tokens_TD=None if each.tokens_TD is None else each.tokens_TD.detach().requires_grad_(),
        )
        for each in question.features
    ]
    pixels_SF = question.pixels_SF if pixels_SF is None else pixels_SF
    pixels = None if pixels_SF is None else pixels_SF[None]
    with torch.enable_grad():
        value = question.evidence([leaves], pixels).sum()
    embeddings = [each.embedding_D for each in leaves]
    tokens = [each.tokens_TD for each in leaves if each.tokens_TD is not None]
    found = torch.autograd.grad(value, [*embeddings, *tokens], materialize_grads=True, allow_unused=True)
    by_embedding, by_tokens = found[: len(embeddings)], found[len(embeddings) :] or (None,) * len(embeddings)
    return [Outputs(*each) for each in zip(question.features, by_embedding, by_tokens, strict=True)]


@dataclass(frozen=True)
class Pass:
    """Some studies that went through the network together, with gradient.

    Attributes:
        places: which of the case.
        given: embeddings, and tokens where the head reads them, as they came out.
        by_given: the gradient of the evidence by each.
    """

    places: list[int]
    given: list[Tensor]
    by_given: list[Tensor]

    def grad(self, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The gradient of the evidence by what the pass was made of."""
        return torch.autograd.grad(self.given, list(leaves), self.by_given, materialize_grads=True, allow_unused=True)


def passes(question: Question, found: Sequence[Outputs]) -> Iterator[Pass]:
    """The studies of the case through the network again, no more at a time than memory has room for.

    How many these are is found out at once, each pass is made when it is asked for: what hooks see is passes alone.

    Args:
        question: of the case.
        found: of :func:`outputs`.

    Raises:
        ConfigError: the network reads an image in windows, whose tokens are not those of the image.
    """
    backbone, dense = question.member.backbone, question.dense
    for study in question.studies:
        sizes = [size_read(backbone, image) for image in study.images.values()]
        if study.window is not None and any(within(study.window, size) != size for size in sizes):
            raise ConfigError(
                f"{study.name}: larger than the window in which the classifier reads images; occlusion explains it"
            )
    planned: list[tuple[list[int], list[Study]]] = []
    for part in parts_of(backbone, question.studies):
        room = studies_at_once(backbone, part.studies[0], dense=dense, train=True)
        for start in range(0, len(part.studies), room):
            here = slice(start, start + room)
            planned.append((part.places[here].tolist(), part.studies[here]))
    return (_pass(question, found, places, studies) for places, studies in planned)


def _pass(question: Question, found: Sequence[Outputs], places: list[int], studies: Sequence[Study]) -> Pass:
    backbone = question.member.backbone
    with evaluating(backbone), torch.enable_grad():
        made = encode_studies(backbone, studies, question.dense)
    given, by_given = [each.embedding_D for each in made], [found[place].by_embedding_D for place in places]
    given += [each.tokens_TD for each in made if each.tokens_TD is not None]
    by_given += [by for place in places if (by := found[place].by_tokens_TD) is not None]
    return Pass(places, given, by_given)


@dataclass(frozen=True)
class ReadTokens:
    """The tokens of one image that its embedding is made of, and the gradient of the evidence by each, ``T, D``."""

    tokens_TD: Tensor
    by_tokens_TD: Tensor


def read_tokens(question: Question, pixels_SF: Tensor | None = None) -> dict[tuple[int, str], ReadTokens]:
    """By number of the study and name of the image; what is asked for is what :func:`outputs` asks for."""
    found: dict[tuple[int, str], ReadTokens] = {}
    runs = passes(question, outputs(question, pixels_SF))
    with tokens_on_the_way(question.member.backbone) as kept:
        for run in runs:
            names = [name for name, _ in question.studies[run.places[0]].sorted_images]
            for name, tokens_BTD, by_BTD in zip(names, kept, run.grad(kept), strict=True):
                for place, tokens_TD, by_TD in zip(run.places, tokens_BTD, by_BTD, strict=True):
                    found[place, name] = ReadTokens(tokens_TD.detach(), by_TD)
            kept.clear()
    return found


def require_read_tokens(member: Member, method: str, instead: str = "use occlusion") -> None:
    """Refuse a network whose embedding is not made of tokens that can be asked.

    Raises:
        ConfigError: it is a class token's, or there is no network in it.
    """
    require_network(member, method)
    backbone = member.backbone
    if isinstance(backbone, TimmBackbone) and not backbone.places_pool:
        raise ConfigError(
            f"method {method}: the embedding of {backbone.architecture} is not made of the tokens of its last layer, "
            f"which have no gradient; {instead}"
        )


@contextmanager
def tokens_on_the_way(backbone: Backbone) -> Iterator[list[Tensor]]:
    """Within the block the tokens that the embedding is made of are leaves of the graph, ``B, T, D``, and are kept.

    Of a Medformer those of each image that the latents attend to, without what is told of the modality; of a network
    of timm those of its last feature map.
    """
    kept: list[Tensor] = []

    def as_leaf(tokens_BTD: Tensor) -> Tensor:
        kept.append(tokens_BTD.detach().requires_grad_())
        return kept[-1]

    if isinstance(backbone, Medformer):
        hook = backbone.adapter.register_forward_hook(lambda module, given, made: (as_leaf(made[0]), made[1]))
    else:
        assert isinstance(backbone, TimmBackbone)
        hook = backbone.last.register_forward_hook(lambda module, given, made: as_leaf(made))
    try:
        yield kept
    finally:
        hook.remove()
