"""Answers that a person looks at: the queue, a verdict, and a sample to label.

Name and reason stand in the log, where they are erased with the person whom the answer is about.
The audit chain, which is never erased, has the verdict, the name and the hash of the reason.
"""

import csv
import hashlib
import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

from mlops_pipeline.config.use_case import UseCase
from mlops_pipeline.core.data.inputs import condition
from mlops_pipeline.core.rollout.approvals import signed
from mlops_pipeline.errors import DataError, NotFoundError, ReviewedError, StateError
from mlops_pipeline.lifecycle.features.online.layout import from_us, to_us
from mlops_pipeline.stores.ops import Ledger
from mlops_pipeline.stores.predictions import LoggedPrediction, PredictionLog
from mlops_pipeline.stores.reviews import LoggedReview, Verdict, add_review, distances, find_review

HIGH_IMPACT = "high impact"  # among the reasons of an answer that a person looks at for it
VERDICTS: tuple[str, ...] = get_args(Verdict)
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute such a text
ABOUT = ("prediction_id", "entity_id", "predicted_at", "model_version", "probability", "threshold",
         "decision", "picked")  # fmt: skip


def high_impact(use_case: UseCase) -> Callable[[Mapping[str, Any]], bool] | None:
    """Return whether a person has to look at an answer because of its inputs; None: never."""
    expression = use_case.serving.high_impact
    if expression is None:
        return None
    kinds: dict[str, Any] = {name: use_case.feature_type(name) for name in use_case.features}
    return condition(expression, {**kinds, **use_case.request_columns})


@dataclass(frozen=True)
class Said:
    """What a person says about an answer; `key` is the key of the service they came with."""

    verdict: str
    by: str
    reason: str
    key: str | None = None


def review_answer(
    log: PredictionLog, ops: Ledger, use_case: str, prediction_id: str, said: Said, *, now: datetime
) -> LoggedReview:
    """Record what a person says about an answer, once; ReviewedError when it was another thing."""
    if said.verdict not in VERDICTS:
        raise NotFoundError.of("verdict", said.verdict, VERDICTS, where="verdict")
    try:
        person = signed(said.by, said.reason, now)
    except StateError as error:
        raise DataError(
            error.what, where="by, reason", expected=error.expected, found=error.found
        ) from error
    found = log.find(prediction_id)
    if found is None or found.use_case != use_case:
        raise NotFoundError(
            "the log has no prediction with this id",
            where=use_case,
            way_out="look at the id; answers that nobody has to look at leave the log with time",
        )
    verdict: Verdict = "confirmed" if said.verdict == "confirmed" else "overturned"
    made = LoggedReview(
        *(found.id, use_case, found.entity, verdict),
        decision=found.decision == (verdict == "confirmed"),
        by=person.by,
        reason=person.reason,
        at_us=to_us(now),
    )
    detail = {
        "prediction_id": made.prediction_id,
        "verdict": made.verdict,
        "reason_sha256": hashlib.sha256(made.reason.encode()).hexdigest(),
        "key": said.key,
    }

    def record() -> None:
        ops.append_audit("review", detail, use_case=use_case, actor=made.by, now=now)

    if add_review(log, made, record):
        return made
    stored = find_review(log, prediction_id)
    if stored is None or (stored.verdict, stored.by, stored.reason) != (
        *(made.verdict, made.by, made.reason),
    ):
        raise ReviewedError(
            "a person decided about this answer before",
            where=prediction_id,
            found=f"{stored.verdict} by {stored.by}" if stored else "nothing any more",
            way_out="the first verdict stands",
        )
    return stored


def review_document(review: LoggedReview | None) -> dict[str, Any] | None:
    """Return a review as plain JSON; None where there is none."""
    if review is None:
        return None
    return {
        "verdict": review.verdict,
        "decision": review.decision,
        "by": review.by,
        "reason": review.reason,
        "reviewed_at": from_us(review.at_us).isoformat(),
    }


def labelling_sample(
    log: PredictionLog,
    use_case: str,
    *,
    at_random: int,
    uncertain: int,
    days: int,
    seed: int,
    now: datetime,
) -> str:
    """Return answers to label as CSV, with an empty column `label`.

    `picked` is `random` (each answer of the last `days` equally likely: use these for estimates) or
    `uncertain` (those nearest to their threshold, for training). The same log and seed give the
    same rows.
    """
    known = distances(log, use_case, to_us(now - timedelta(days=days)))
    ids = [one for one, _ in known]
    picked = dict.fromkeys(random.Random(seed).sample(ids, min(at_random, len(ids))), "random")  # noqa: S311 - a sample, not a secret
    others = sorted((distance, one) for one, distance in known if one not in picked)
    picked |= dict.fromkeys((one for _, one in others[:uncertain]), "uncertain")
    rows = [(found, why) for one, why in picked.items() if (found := log.find(one)) is not None]
    features = list(dict.fromkeys(name for found, _ in rows for name in found.features))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*ABOUT, *features, "label"])
    for found, why in rows:
        values: Mapping[str, Any] = found.features
        writer.writerow(
            map(_cell, [*_about(found), why, *(values.get(name) for name in features), ""])
        )
    return text.getvalue()


def _about(found: LoggedPrediction) -> list[Any]:
    at = from_us(found.at_us).isoformat()
    return [found.id, found.entity, at, found.model_version, found.probability, found.threshold,
            found.decision]  # fmt: skip


def _cell(value: Any) -> Any:
    """Return a value as a cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
