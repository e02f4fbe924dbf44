"""The leak check of features as a Dagster check result, and as the failure that refuses them."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import dagster as dg

from mlops_pipeline.errors import DataError

if TYPE_CHECKING:
    from mlops_pipeline.lifecycle.context import RunContext, Snapshot
    from mlops_pipeline.lifecycle.features.leak_check import LeakCheck
    from mlops_pipeline.lifecycle.features.offline import BuiltFeatures


@dataclass(frozen=True)
class JudgedLeaks:
    """A leak check, and whether the period had passed one before.

    What the accepted rows no longer give is a warning for a period that did pass (a rule may have
    changed since), and an error for one that never did: its values may be those of a leak.
    """

    found: "LeakCheck"
    has_passed_before: bool
    table: str

    @property
    def is_blocked(self) -> bool:
        """Whether nothing downstream may read the features."""
        return bool(self.found.leaking or (self.found.outdated and not self.has_passed_before))

    @property
    def reason(self) -> str:
        """One sentence with what was found."""
        found = self.found
        if found.leaking:
            return f"look ahead of period {found.period}: {', '.join(found.leaking)}"
        if found.outdated:
            return (
                f"stored values of period {found.period} are not what the accepted rows give: "
                f"{', '.join(found.outdated)}"
            )
        return f"{found.rows_compared:,} rows of period {found.period} are the same"

    def result(self, key: dg.AssetKey, name: str) -> dg.AssetCheckResult:
        """Return the check result; only an error blocks what comes after."""
        found, severity = self.found, dg.AssetCheckSeverity
        is_warning = not found.passed and not self.is_blocked
        return dg.AssetCheckResult(
            asset_key=key,
            check_name=name,
            passed=found.passed,
            severity=severity.WARN if is_warning else severity.ERROR,
            description=self.reason,
            metadata={
                "period": found.period,
                "cut": found.cut.isoformat(),
                "rows_compared": found.rows_compared,
                "leaking": dg.MetadataValue.json(list(found.leaking)),
                "outdated": dg.MetadataValue.json(list(found.outdated)),
            },
        )

    def refuse_if_blocked(self) -> None:
        """Fail the step, so that the pointer to the features does not move.

        Raises
        ------
        DataError
            Naming the features.
        """
        if self.is_blocked:
            raise DataError(
                "the features were refused; downstream keeps those of the last accepted run",
                where=self.table,
                expected="the same values with noise for a future",
                found=self.reason,
                way_out="mend the definitions (other ones are another table); where the code was "
                "mended, remove the folder of the table: it is built again",
            )


def check_leaks(run: "RunContext", snapshot: "Snapshot", built: "BuiltFeatures") -> JudgedLeaks:
    """Check the newest period that a run built or found finished."""
    from mlops_pipeline.lifecycle.bookkeeping import get_pointer
    from mlops_pipeline.lifecycle.features.leak_check import leak_check

    before = get_pointer(run.ops, run.use_case.name, "features")
    has_passed = (
        before is not None
        and before.value["definitions"] == built.definitions
        and datetime.fromisoformat(before.value["as_of"]) >= snapshot.as_of
    )
    found = leak_check(run, snapshot.accepted, period=built.periods[-1].period)
    return JudgedLeaks(found, has_passed, built.uri)
