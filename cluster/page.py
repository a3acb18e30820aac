"""How the page of a run is opened."""

from __future__ import annotations

import shlex

from cluster.store import SQLITE, Store

# Without it MLflow 3.17 opens the page of an application of language models, with the run among its evaluations.
_KIND = "workflowType=machine_learning"


def how_to_open(store: Store, experiment_id: str, run_id: str) -> str:
    """A command, or for a server an address, under which the curves are seen."""
    path = f"/#/experiments/{experiment_id}/runs/{run_id}?{_KIND}"
    if store.uri.startswith(SQLITE):
        command = f"mlflow server --backend-store-uri {shlex.quote(store.uri)}"
        return f"'{command}', then http://127.0.0.1:5000{path}"
    return f"{store.shown.rstrip('/')}{path}" if store.uri.startswith("http") else f"run {run_id} in {store.shown}"
