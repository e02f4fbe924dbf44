"""Where MLflow is: a database of its own in a file, another database, or a server."""

from pathlib import Path
from urllib.parse import urlparse
from urllib.request import urlopen

from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from mlops_pipeline.errors import ConfigError
from mlops_pipeline.stores.settings import Settings, shown_url

REACH_SECONDS = 5  # a server on its way up is tried again with the run


def reach(uri: str) -> None:
    """See that MLflow's server or database answers: MLflow itself would try for a minute."""
    try:
        if uri.startswith(("http://", "https://")):
            urlopen(f"{uri.rstrip('/')}/health", timeout=REACH_SECONDS).close()  # noqa: S310 # http only
        elif not uri.startswith("sqlite:"):
            with create_engine(uri, connect_args={"connect_timeout": REACH_SECONDS}).connect():
                pass
    except (OSError, SQLAlchemyError) as error:
        raise ConfigError(
            "MLflow cannot be reached.",
            where=shown_url(uri),
            found=str(getattr(error, "orig", error)).splitlines()[0],
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
