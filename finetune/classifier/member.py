"""One fitted model: a backbone with a linear vote on its frozen features, or with a head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from finetune.cases import Cases
from finetune.fit.features import frozen, summaries
from finetune.fit.linear import RAW, TANGENT, LinearVote
from finetune.fit.network import Readout
from finetune.fit.raw import raw_pixels
from finetune.fit.second_order import cases_at_once, moments
from finetune.progress import progress
from finetune.random_state import seeded
from finetune.targets import Target
from pretrain.backbone import Backbone


@dataclass(frozen=True)
class Member:
    """A fitted model.

    Attributes:
        backbone: in evaluation mode.
        head: a vote of linear models, or a head with its link.
        target: what it tells.
        offset: added to the log scores of a head, see :meth:`finetune.targets.base.Target.offset`; a vote has its own.
        sides: to which raw pixels are averaged, by image name; None where they are not read.
    """

    backbone: Backbone
    head: LinearVote | Readout
    target: Target
    offset: np.ndarray | None = None
    sides: Mapping[str, tuple[int, ...]] | None = None

    def log_scores(self, cases: Cases) -> np.ndarray:
        """Log scores ``(N, C)`` float64.

        Raises:
            DataError: an image cannot be read, or does not fit.
        """
        if isinstance(self.head, LinearVote):
            reads, step = self.head.reads, max(len(cases), 1)
            if TANGENT in reads:
                step = cases_at_once(self.backbone, cases)
            found = []
            for start in range(0, len(cases), step):
                run = cases.select(np.arange(start, min(start + step, len(cases))))
                found.append(self.head.log_scores(reads_of_cases(self.backbone, run, reads, self.sides)))
            return np.concatenate(found)
        return self.samples(cases, 0, 0)[0]

    def samples(self, cases: Cases, count: int, seed: int) -> np.ndarray:
        """Log scores ``(S, N, C)`` with the head's dropout on (Gal and Ghahramani, ICML 2016, section 4).

        The backbone stays in evaluation mode: its features are computed once per case.

        Args:
            cases: to be told.
            count: draws of dropout; 0 for one pass without it.
            seed: of the draws; the global random state is left alone.
        """
        readout = self.head
        assert isinstance(readout, Readout)
        found = []
        offset = None if self.offset is None else torch.from_numpy(self.offset)
        dense = readout.head.needs_tokens
        readout.train(count > 0)
        device = next(self.backbone.parameters()).device
        try:
            with (
                torch.no_grad(),
                seeded(seed, device),
                progress(len(cases), "cases", "predicting") as shown,
            ):
                for block, features in frozen(self.backbone, cases, dense=dense):
                    here = features.to(device)
                    logits = torch.stack([readout(here) for _ in range(max(count, 1))])
                    flat = self.target.log_scores(logits.flatten(0, 1).double().cpu(), offset)
                    found.append(flat.unflatten(0, logits.shape[:2]).numpy())
                    shown.advance(len(block))
        finally:
            readout.eval()
        return np.concatenate(found, axis=1)

    @property
    def drops(self) -> bool:
        """Whether its head has dropout that is not zero."""
        return isinstance(self.head, Readout) and any(
            isinstance(module, torch.nn.Dropout) and module.p > 0 for module in self.head.modules()
        )


def reads_of_cases(
    backbone: Backbone, cases: Cases, reads: tuple[str, ...], sides: Mapping[str, tuple[int, ...]] | None
) -> dict[str, np.ndarray]:
    """Features of cases by read.

    Args:
        backbone: stays as it is.
        cases: to be read.
        reads: summaries, ``tangent``, of which covariances are read, and ``raw``.
        sides: of raw pixels; None where they are not read.
    """
    found: dict[str, np.ndarray] = {}
    networks = [read for read in reads if read not in (RAW, TANGENT)]
    if TANGENT in reads:
        of_tokens, found[TANGENT] = moments(backbone, cases)
    elif networks:
        of_tokens = summaries(backbone, cases, dense=networks != ["embedding"])
    found |= {read: of_tokens.read(read) for read in networks}
    if RAW in reads:
        assert sides is not None
        found[RAW] = raw_pixels(cases, sides)
    return found
