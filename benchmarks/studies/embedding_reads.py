"""What can be read of a frozen network, from the stem to the projector of its objective."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from data_shards.vocabulary import Task
from finetune.cases import Cases
from pretrain.backbone import Medformer, StudyImage, normalise
from pretrain.backbone.pooling import token_mean, token_spread
from pretrain.metadata import Metadata
from pretrain.module import PretrainModule
from pretrain.objectives.projector import Projector

ROWS = 64
WHERE = {
    "embedding": "what the latents answer to the query",
    "embedding, standardised": "the same, each channel scaled by all images",
    "latents": "mean and spread of the latents",
    "stem": "mean and spread of what the stem makes",
    "tokens": "mean and spread of the tokens that the latents read: stem, place and tag",
    "found": "mean and spread of the dense answers less the tokens that asked",
    "mean": "mean of the dense answers",
    "spread": "spread of the dense answers",
    "mean, spread": "both",
    "mean, spread, narrow": "both, turned and cut at random to the width of the embedding",
    "all": "embedding, mean and spread",
    "projection": "what SimCLR's projector makes of the embedding, which is what is compared",
}
"""The reads, and what each is."""


@torch.no_grad()
def reads_of(module: PretrainModule, cases: Cases) -> dict[str, np.ndarray]:
    """All of :data:`WHERE` of images in memory, ``(N, D)`` each, in evaluation mode.

    Args:
        module: a network and SimCLR.
        cases: one image each.
    """
    backbone, projector = module.backbone.eval(), module.objectives["simclr"].projector.eval()
    assert isinstance(backbone, Medformer) and isinstance(projector, Projector)
    assert isinstance(cases.images, np.ndarray) and cases.rows is not None and cases.bags is None
    parts: list[Mapping[str, Tensor]] = []
    for rows in np.array_split(cases.rows, range(ROWS, len(cases), ROWS)):
        images = normalise(torch.from_numpy(cases.images[rows]))
        known = Metadata.uniform(len(images), cases.organ, cases.modality, Task.self_supervised)
        parts.append(_reads(backbone, projector, images, known))
    found = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    embedding_ND, both_NE = found["embedding"], found["mean, spread"]
    found["embedding, standardised"] = (embedding_ND - embedding_ND.mean(axis=0)) / (embedding_ND.std(axis=0) + 1e-6)
    turned, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(both_NE.shape[1], embedding_ND.shape[1])))
    found["mean, spread, narrow"] = both_NE @ turned
    found["all"] = np.concatenate([embedding_ND, both_NE], axis=1)
    return {name: np.ascontiguousarray(found[name], dtype=np.float32) for name in WHERE}


def _reads(backbone: Medformer, projector: Projector, images: Tensor, known: Metadata) -> dict[str, Tensor]:
    encoded = backbone.encode([StudyImage(images, known.modality_B)], known)
    (tokens_BTD,) = encoded.tokens
    embedding_BD, dense_BTD = backbone.answer(encoded, encoded.tokens)
    plain_BTD = backbone.decode(encoded.latents_BND, tokens_BTD, norm=False)
    stem_BTD = backbone.adapter.stem(images).flatten(2).transpose(1, 2)
    return {
        "embedding": embedding_BD,
        "latents": _both(encoded.latents_BND),
        "stem": _both(stem_BTD),
        "tokens": _both(tokens_BTD),
        "found": _both(plain_BTD - tokens_BTD),
        "mean": token_mean(dense_BTD),
        "spread": token_spread(dense_BTD),
        "mean, spread": _both(dense_BTD),
        "projection": projector.project(embedding_BD, len(embedding_BD)),
    }


def _both(tokens_BTD: Tensor) -> Tensor:
    return torch.cat([token_mean(tokens_BTD), token_spread(tokens_BTD)], dim=1)
