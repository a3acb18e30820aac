"""Running on a cluster and keeping what comes out: Ray Train, MLflow tracking and the model registry."""
