"""When a feature was first and last used, and by which kind of reader."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, select, update

from mlops_pipeline.stores.ops.records import FeatureReader, FeatureUse
from mlops_pipeline.stores.ops.tables import feature_use
from mlops_pipeline.stores.ops.transactions import Transactions


class FeatureUseRows(Transactions):
    """What can be done with the record of who used which feature."""

    def record_feature_use(
        self, use_case: str, features: Collection[str], reader: FeatureReader, *, now: datetime
    ) -> None:
        """Note that a reader used features; an earlier `now` than the noted one moves nothing.

        Parameters
        ----------
        reader : {"computation", "training", "batch_scoring", "online", "history"}
            `computation` says that the feature exists: it is no use of it.
        """
        key = {"use_case": use_case, "reader": reader}
        with self._write(f"feature_use:{use_case}") as connection:
            noted = _noted(connection, use_case, reader)
            new = [
                {**key, "feature": name, "first_used_at": now, "last_used_at": now}
                for name in sorted(set(features) - set(noted))
            ]
            older = [name for name in sorted(set(features) & set(noted)) if noted[name] < now]
            if new:
                connection.execute(insert(feature_use), new)
            if older:
                moved = update(feature_use).filter_by(**key).values(last_used_at=now)
                connection.execute(
                    moved.where(feature_use.c.feature == bindparam("name")),
                    [{"name": name} for name in older],
                )

    def feature_uses(self, use_case: str) -> list[FeatureUse]:
        """List who used which feature, by feature and reader."""
        query = (
            select(feature_use)
            .where(feature_use.c.use_case == use_case)
            .order_by(feature_use.c.feature, feature_use.c.reader)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return [FeatureUse(**row._mapping) for row in rows]


def _noted(connection: Connection, use_case: str, reader: FeatureReader) -> dict[str, datetime]:
    query = select(feature_use.c.feature, feature_use.c.last_used_at).where(
        (feature_use.c.use_case == use_case) & (feature_use.c.reader == reader)
    )
    return {row.feature: row.last_used_at for row in connection.execute(query)}
