"""Grad-CAM: which places speak for a class, by the gradient of the evidence at a grid of features.

Selvaraju et al., Grad-CAM, ICCV 2017, eq. 1 and 2: a channel ``k`` of the last convolution counts by ``alpha_k``, the
mean of the gradient over all places, and the map is ``ReLU(sum_k alpha_k A_k)``. A Perceiver has no last convolution.
It has two grids of features: the tokens that its latents read, and the dense tokens that its decoder writes at the same
places. What speaks for a class may reach the output through either: the latents carry what is seen at one place to the
dense tokens of all others, and a head of the embedding reads no dense token at all. So the default is the tokens that
are read, through which everything goes, whatever the head.

There the mean over places is wrong. A convolution treats all places alike; in cross-attention the gradient at a token
is the attention that is paid to it times what is done with it, and the mean forgets to which one. So each place counts
by its own gradient, ``ReLU(sum_k g_k A_k)`` (HiResCAM, Draelos and Carin, arXiv 2011.08891, which is exact where the
output is linear in the features). Both layers and both weights can be asked for.

A network of timm has a last feature map, of which its embedding is the mean, and that is the one: there both weights
are the same thing for a linear head of the embedding.

Activations of a ReLU have a natural zero, tokens have not, and all share a large part that says where they are and what
is the same everywhere. So ``A`` is what sets a token apart from the mean token of its image (our reading).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.classifier.member import Member
from finetune.explain.base import CaseMethod, register_method
from finetune.explain.gradients import outputs, read_tokens, require_read_tokens
from finetune.explain.question import Question, reads_tokens, require_network
from finetune.explain.space import CellMap, of_tokens


@register_method("grad_cam")
class GradCam(CaseMethod):
    """Gradient times features, at the tokens that the latents read or at those that the decoder writes."""

    unit = "share of the log odds, at least 0"

    class Config(Document):
        """At which grid, and how a channel counts."""

        layer: Literal["input", "dense"] = Field(
            "input",
            description="input: the tokens that the latents read, of a network of timm its last feature map; dense: "
            "those that the head reads",
        )
        weights: Literal["local", "mean"] = Field(
            "local",
            description="local: each place by its own gradient; mean: by that of all places, as for convolutions",
        )
        positive: bool = Field(True, description="whether only what speaks for the class is shown")

    def check(self, member: Member) -> None:
        """There have to be tokens; at the dense layer, a head that reads them."""
        require_network(member, self.name)
        if self.config.layer == "dense" and not reads_tokens(member):
            raise ConfigError("method grad_cam: layer dense, and the head reads no dense tokens; use layer input")
        if self.config.layer == "input":
            require_read_tokens(member, self.name, "use occlusion, or layer dense with a head that reads tokens")

    def amount(self, values: np.ndarray) -> float:
        """What its parts add up to, whatever their signs."""
        return float(np.abs(values).sum())

    def maps(self, question: Question) -> list[CellMap]:
        """A map of each image of the case."""
        said: dict[tuple[int, str], Tensor] = {}
        if self.config.layer == "dense":
            for number, each in enumerate(outputs(question)):
                assert each.values.tokens_TD is not None and each.by_tokens_TD is not None
                counts = [count for _, count in each.values.images]
                pairs = zip(each.values.tokens_TD.split(counts), each.by_tokens_TD.split(counts), strict=True)
                for (name, _), pair in zip(each.values.images, pairs, strict=True):
                    said[number, name] = self.cam(*pair)
        else:
            for place, read in read_tokens(question).items():
                said[place] = self.cam(read.tokens_TD, read.by_tokens_TD)
        return [
            of_tokens(question.member.backbone, number, name, image, said[number, name].float().cpu().numpy())
            for number, study in enumerate(question.studies)
            for name, image in study.sorted_images
        ]

    def cam(self, features_TD: Tensor, gradient_TD: Tensor) -> Tensor:
        """The map of one grid, ``(T,)``.

        Raises:
            ConfigError: it is a single cell, which is nowhere rather than elsewhere.
        """
        if len(features_TD) < 2:
            raise ConfigError("method grad_cam: the network sees such an image as a single cell; use occlusion")
        apart_TD = features_TD - features_TD.mean(dim=0)
        if self.config.weights == "mean":
            gradient_TD = gradient_TD.mean(dim=0, keepdim=True)
        found_T = (gradient_TD * apart_TD).sum(dim=1)
        return found_T.clamp(min=0) if self.config.positive else found_T
