"""The kinds of run that a search varies; that of fine-tuning stands here, as the cluster knows nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.search.document import SearchConfig
from cluster.search.kinds import Kind, Report
from cluster.search.pretraining import Pretraining
from data_shards.support.documents import parse
from data_shards.support.errors import ConfigError, DataError
from medformer.model_reference import local_model
from medformer.pulled_models import with_pulled_models


def kind_of(config: SearchConfig) -> Kind:
    """The kind of run that the document of a search names."""
    return Pretraining(with_pulled_models) if config.pretrain is not None else FineTuning(config.tracking_uri)


class FineTuning:
    """The kind of run that ``medformer finetune`` starts, judged within its labels.

    Args:
        tracking_uri: of the registry, for models that are called by name.
    """

    def __init__(self, tracking_uri: str | None) -> None:
        self._tracking_uri = tracking_uri

    def check(self, content: dict[str, Any], origin: str) -> None:
        """See :meth:`cluster.search.kinds.Kind.check`."""
        from finetune.config import FinetuneConfig
        from finetune.tuning import check

        config = parse(FinetuneConfig, content, origin)
        try:
            check(config)
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}") from None
        if not config.data.exists():
            raise DataError(f"{config.data}: no such file or folder")

    def steps(self, content: dict[str, Any]) -> int:
        """A fine-tuning is judged once."""
        return 1

    def run(self, content: dict[str, Any], out: Path, report: Report) -> None:
        """See :meth:`cluster.search.kinds.Kind.run`."""
        from finetune.config import FinetuneConfig
        from finetune.tuning import estimated

        config = parse(FinetuneConfig, content, "trial")
        with local_model(config.model, self._tracking_uri, networks=True) as backbone:
            report(estimated(config, backbone), 1)
