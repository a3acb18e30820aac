"""The classifier as MLflow's ``pyfunc`` flavour: what ``mlflow models serve`` and ``mlflow.pyfunc.load_model`` import.

``MLmodel`` names this module. Nothing that was stored is run or unpickled: code is the Medformer that is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_shards.support.errors import MedformerError
from finetune.served import ServedClassifier


class _PyFunc:
    def __init__(self, classifier: ServedClassifier) -> None:
        self._classifier = classifier

    def predict(self, model_input: Any) -> list[dict[str, Any]]:
        """Answer a data frame of pandas; see :meth:`finetune.served.ServedClassifier.predict`."""
        from mlflow.exceptions import MlflowException

        try:
            return self._classifier.predict(model_input.to_dict("records"))
        except MedformerError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


def _load_pyfunc(folder: str) -> _PyFunc:
    """What MLflow calls with the folder of the model."""
    return _PyFunc(ServedClassifier(Path(folder)))
