"""The ops database as one object: `OpsDatabase.open(url)`.

Belongs here: opening and closing. What can be asked and written is in the module of its topic.
"""

from typing import Self

from sqlalchemy.exc import DatabaseError

from mlops_pipeline.errors import ConfigError
from mlops_pipeline.stores.closing import Closing
from mlops_pipeline.stores.ops.alerts import AlertRows
from mlops_pipeline.stores.ops.approvals import ApprovalRows
from mlops_pipeline.stores.ops.audit import AuditRows
from mlops_pipeline.stores.ops.audited import ToldRows
from mlops_pipeline.stores.ops.configurations import ConfigurationRows
from mlops_pipeline.stores.ops.decisions import DecisionRows
from mlops_pipeline.stores.ops.exceptions import ExceptionRows
from mlops_pipeline.stores.ops.feature_uses import FeatureUseRows
from mlops_pipeline.stores.ops.lease_rows import LeaseRows
from mlops_pipeline.stores.ops.lifecycles import LifecycleRows
from mlops_pipeline.stores.ops.pointers import PointerRows
from mlops_pipeline.stores.ops.schema import upgrade
from mlops_pipeline.stores.ops.tombstones import TombstoneRows
from mlops_pipeline.stores.ops.transactions import make_engine


class OpsDatabase(
    AlertRows,
    ApprovalRows,
    AuditRows,
    ConfigurationRows,
    DecisionRows,
    ExceptionRows,
    FeatureUseRows,
    LeaseRows,
    LifecycleRows,
    PointerRows,
    ToldRows,
    TombstoneRows,
    Closing,
):
    """State that must survive a killed run and be seen by every process.

    Each public method is one transaction. Times are timezone-aware and come back in UTC; `now`
    is always passed in. One object may be shared by threads; a child process opens its own.
    """

    @classmethod
    def open(cls, url: str) -> Self:
        """Connect, and create or migrate the tables if needed.

        Parameters
        ----------
        url : str
            ``sqlite:///path/to/file.db`` (its folder is created) or
            ``postgresql+psycopg://user@host:port/database``.

        Raises
        ------
        ConfigError
            If the URL is wrong or the database cannot be reached.
        StateError
            If the database was written by a newer version of this package.
        """
        engine = make_engine(url)
        try:
            upgrade(engine)
        except DatabaseError as error:
            engine.dispose()
            raise ConfigError(
                "The ops database cannot be opened.",
                where=engine.url.render_as_string(hide_password=True),
                found=str(error.orig),
                way_out="Check MLOPS_DATABASE_URL, and that the server runs or the file is ours.",
            ) from error
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    @property
    def url(self) -> str:
        """The URL, with its password: for opening the database again, not for showing."""
        return self._engine.url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()
