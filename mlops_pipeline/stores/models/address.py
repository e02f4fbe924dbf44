"""Where MLflow is: a database of its own in a file, another database, or a server."""

import socket
from pathlib import Path
from urllib.parse import urlparse, urlsplit

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from mlops_pipeline.errors import ConfigError, without_secrets
from mlops_pipeline.stores.settings import Settings

REACH_SECONDS = 5  # a server on its way up is tried again with the run


def reach(uri: str) -> None:
    """See that MLflow's server or database answers: MLflow itself would try for a minute."""
    try:
        if uri.startswith(("http://", "https://")):
            # that something listens: whom it lets in is between it and MLflow's client
            parts = urlsplit(uri)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), REACH_SECONDS).close()
        elif not uri.startswith("sqlite:"):
            with create_engine(uri, connect_args={"connect_timeout": REACH_SECONDS}).connect():
                pass
    except (OSError, SQLAlchemyError, ValueError) as error:  # ValueError: no port or host
        raise ConfigError(
            "MLflow cannot be reached.",
            where=without_secrets(uri),
            found="no address of a server"
            if isinstance(error, ValueError)  # it may quote a password
            else str(getattr(error, "orig", error)).splitlines()[0],
            way_out="see that it runs and that MLOPS_MLFLOW_URI names it",
        ) from error


def prepare(settings: Settings) -> None:
    """Make the folder of an embedded MLflow database."""
    embedded = _embedded(settings)
    if embedded is not None:
        embedded.parent.mkdir(parents=True, exist_ok=True)


def is_in_use(settings: Settings) -> bool:
    """Whether MLflow was ever written to: a server counts as such, an embedded one has a file."""
    embedded = _embedded(settings)
    return embedded is None or embedded.exists()


def _embedded(settings: Settings) -> Path | None:
    parsed = urlparse(settings.mlflow_uri)
    return Path("/", parsed.path.lstrip("/")) if parsed.scheme == "sqlite" else None
