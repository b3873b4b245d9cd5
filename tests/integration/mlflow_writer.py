"""Puts an artifact of ours into an MLflow registry; runs beside mlflow, in its environment."""

from __future__ import annotations

import json
import sys

import mlflow
from mlflow import MlflowClient


def main(tracking: str, name: str, folder: str, digest: str) -> None:
    """Log a folder, register it under a name, and point an alias to it."""
    mlflow.set_tracking_uri(tracking)
    client = MlflowClient()
    with mlflow.start_run() as run:
        mlflow.log_artifacts(folder, artifact_path=f"artifact/{folder.rpartition('/')[2]}")
    client.create_registered_model(name)
    source = f"{run.info.artifact_uri}/artifact"
    tags = {"detent.model_version_hash": digest} if digest else {}
    version = client.create_model_version(name, source, run.info.run_id, tags=tags)
    client.set_registered_model_alias(name, "champion", version.version)
    sys.stdout.write(json.dumps({"version": str(version.version), "source": source}))


if __name__ == "__main__":
    main(*sys.argv[1:])
