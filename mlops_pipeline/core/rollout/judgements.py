"""How each guardrail reads its evidence; which there are, and what each may err: guardrails.py.

A judgement takes the evidence, the rules and the error of its "harm"; "ok" may err by the whole of
1 - confidence, since all have to say it. None: it does not apply to the stage.
"""

from collections.abc import Callable, Mapping

import numpy as np

from mlops_pipeline.core.evaluation.outcomes import tells
from mlops_pipeline.core.metrics.delong import delong_difference
from mlops_pipeline.core.metrics.intervals import factorize
from mlops_pipeline.core.metrics.metrics import Estimate, Floats
from mlops_pipeline.core.metrics.references import ScoreReference
from mlops_pipeline.core.rollout.evidence import (
    Evidence,
    GuardrailResult,
    Indices,
    Outcome,
    Pairs,
    Rows,
    Rules,
)
from mlops_pipeline.core.rollout.sequential import (
    MOST_AT_STAKE,
    distribution_radius,
    mean_log_wealth,
    mean_lower,
    mean_upper,
    rows_until,
    sample_radius,
    share_log_wealth,
    share_lower,
    share_upper,
    stakes,
)

Judgement = Callable[[Evidence, Rules, float], GuardrailResult | None]
Share = tuple[int, int]  # of so many rows, so many
OF_CHAMPION = 0.05  # error of its bound; the new version's, which has to be above, errs by alpha
CHAMPION_TOO = "; the champion's is beyond it too: it is not the new version alone"


def judge_share(
    name: str,
    challenger: Share,
    champion: Share,
    *,
    limit: float,
    alpha: float,
    rules: Rules | None = None,
) -> GuardrailResult:
    """Hold a share of requests against the most that it may be.

    Harm when it is surely above the limit, and above the champion's. `rules` are given where "ok"
    is asked for.
    """
    hits, rows = challenger
    if rows == 0:
        return _unknown(name, "waiting", limit, "no request is known")
    value, lower = hits / rows, share_lower(hits, rows, alpha)
    of_ok = rules.alpha if rules else alpha
    upper = share_upper(hits, rows, of_ok)
    said = f"{hits:,} of {rows:,} requests, at least {lower:.3%}, at most {upper:.3%}"
    outcome: Outcome = "ok" if upper <= limit else "waiting"
    needed = None
    if lower > limit:
        is_alone = lower > share_upper(*champion, OF_CHAMPION)
        outcome, said = ("harm", said) if is_alone else ("waiting", said + CHAMPION_TOO)
    elif outcome == "waiting" and rules and value < limit:
        enough = -np.log(of_ok)
        needed = rows_until(
            lambda more: share_log_wealth(more - round(value * more), more, 1 - limit) >= enough,
            rows,
        )
    return GuardrailResult(name, outcome, value, lower, upper, limit, rows, needed, said)


def error_rate(evidence: Evidence, rules: Rules, alpha: float) -> GuardrailResult:
    """Share of requests that the new version fails on."""
    pairs, limit = evidence.pairs, rules.policy.guardrails.error_share
    shares = [(int(one.is_error.sum()), len(pairs)) for one in pairs.versions]
    return judge_share("error_rate", *shares, limit=limit, alpha=alpha, rules=rules)


SLOW_SHARE = 0.01  # p99 is within `latency_ms` where at most so many take longer


def latency(evidence: Evidence, rules: Rules, alpha: float) -> GuardrailResult:
    """Share of its answers that take longer than the limit, of those that were timed."""
    most_us = 1_000 * rules.policy.guardrails.latency_ms
    times = [one.latency_us for one in evidence.pairs.versions]
    shares = [(int((each > most_us).sum()), int((each >= 0).sum())) for each in times]
    return judge_share("latency", *shares, limit=SLOW_SHARE, alpha=alpha, rules=rules)


def default_rate(evidence: Evidence, rules: Rules, alpha: float) -> GuardrailResult:
    """Share of requests where only it gives the default."""
    pairs, limit = evidence.pairs, rules.policy.guardrails.default_share
    ours, theirs = (one.is_default for one in pairs.versions)
    shares = [(int(alone.sum()), len(pairs)) for alone in (ours & ~theirs, theirs & ~ours)]
    return judge_share("default_rate", *shares, limit=limit, alpha=alpha, rules=rules)


def score_shift(evidence: Evidence, rules: Rules, alpha: float) -> GuardrailResult:
    """Distance of its live scores from those on rows that it had not seen."""
    name, limit = "score_shift", rules.policy.guardrails.score_shift
    reference = evidence.challenger_reference
    if reference is None or reference.rows == 0:
        return _unknown(name, "not computable", limit, "no scores on unseen rows are stored")
    pairs = evidence.pairs
    scores = _first_scores(pairs, pairs.challenger.probability)
    rows = len(scores)
    if rows == 0:
        return _unknown(name, "waiting", limit, "no score is known")

    def radius(count: int, error: float) -> float:
        return distribution_radius(count, error / 2) + sample_radius(reference.rows, error / 2)

    value = reference.distance(scores)
    lower = max(0.0, value - radius(rows, alpha))
    upper = min(1.0, value + radius(rows, rules.alpha))
    said = f"distance {value:.3f}, at least {lower:.3f}, at most {upper:.3f}, of {rows:,} entities"
    outcome: Outcome = "ok" if upper <= limit else "waiting"
    needed = None
    if lower > limit:
        is_alone = not _has_shifted(pairs, evidence.champion_reference, limit)
        outcome, said = ("harm", said) if is_alone else ("waiting", said + CHAMPION_TOO)
    elif outcome == "waiting" and value + sample_radius(reference.rows, rules.alpha / 2) < limit:
        needed = rows_until(lambda more: value + radius(more, rules.alpha) <= limit, rows)
    return GuardrailResult(name, outcome, value, lower, upper, limit, rows, needed, said)


def _has_shifted(pairs: Pairs, reference: ScoreReference | None, limit: float) -> bool:
    scores = _first_scores(pairs, pairs.champion.probability)
    if reference is None or reference.rows == 0 or not len(scores):
        return False
    return reference.distance(scores) > limit


def _first_scores(pairs: Pairs, probability: Floats) -> Floats:
    scores: Floats = probability[pairs.first(~np.isnan(probability))]
    return scores


def realised(evidence: Evidence, rules: Rules, alpha: float) -> GuardrailResult:
    """Brier score above the champion's on each entity's first row whose label is complete.

    Within the margin is ok, also where it is surely a little worse.
    """
    pairs, margin = evidence.pairs, rules.policy.evidence.brier_margin
    if evidence.no_labels is not None:
        return _unknown("realised", "not computable", margin, evidence.no_labels)
    ours, theirs = (one.probability for one in pairs.versions)
    is_scored = ~np.isnan(ours) & ~np.isnan(theirs)
    rows = pairs.first(is_scored & pairs.is_complete)
    labels = pairs.label[rows].astype(np.float64)
    worse = (ours[rows] - labels) ** 2 - (theirs[rows] - labels) ** 2
    known = pairs.first(is_scored)
    needed = _needed(worse, (ours[known], theirs[known]), margin, rules.alpha)
    if not len(rows):
        reason = "no answer that both versions scored has its complete label yet"
        return _unknown("realised", "waiting", margin, reason, needed)
    value = float(worse.mean())
    lower = mean_lower(worse, alpha, most=1.0, effect=margin)
    upper = mean_upper(worse, rules.alpha, most=1.0, effect=margin)
    outcome: Outcome = "ok" if upper < margin else "harm" if lower > 0 else "waiting"
    said = f"Brier score {value:+.5f}, at least {lower:+.5f}, at most {upper:+.5f}, of "
    said += f"{len(rows):,} entities; {_auc(labels, ours[rows], theirs[rows])}"
    left_out = int((pairs.is_complete & ~is_scored).sum())
    said += f"; {left_out:,} rows that one of them did not score are left out" * (left_out > 0)
    needed = needed if outcome == "waiting" else None
    return GuardrailResult(
        "realised", outcome, value, lower, upper, margin, len(rows), needed, said
    )


def _needed(
    worse: Floats, scores: tuple[Floats, Floats], margin: float, alpha: float
) -> int | None:
    """Return how many more entities are expected to be needed to show that it is not worse.

    If it is as good: from the scores alone, with labels as likely as the two say on average.
    """
    ours, theirs = scores
    if not len(ours):
        return None
    middle = (ours + theirs) / 2
    variance = float((4 * (ours - theirs) ** 2 * middle * (1 - middle)).mean())
    bet = min(margin / (variance + margin**2), MOST_AT_STAKE / (1 + margin))
    growth = bet * margin - bet**2 * (variance + margin**2) / 2
    gained = mean_log_wealth(-worse, -margin, -1.0, stakes(-worse, margin, 0.5))
    return max(1, int(np.ceil((-np.log(alpha) - gained) / growth)))


def _auc(labels: Floats, ours: Floats, theirs: Floats) -> str:
    if len(np.unique(labels)) < 2:
        return "AUC is not computable: all labels are alike"
    found: Estimate = delong_difference(labels, ours, theirs)
    if found.low is None or found.high is None or found.width is None:
        return f"AUC {100 * (found.value or 0):+.1f} points, {found.reason}"
    power = 100 * tells(found.width)
    return (
        f"AUC {100 * (found.value or 0):+.1f} points ({100 * found.low:+.1f} to "
        f"{100 * found.high:+.1f}); so many tell a difference of {power:.1f} points"
    )


def cost(evidence: Evidence, rules: Rules, alpha: float) -> GuardrailResult | None:
    """Cost of a decision above that of the champion's, by who decided."""
    pairs, costs = evidence.pairs, rules.costs

    def of(decision: Rows) -> Floats:
        is_positive = pairs.label == 1
        missed = costs.false_negative * (~decision & is_positive)
        each: Floats = missed + costs.false_positive * (decision & ~is_positive)
        return each

    ours, theirs = (of(one.decision) for one in pairs.versions)
    most = max(costs.false_positive, costs.false_negative)
    values = np.where(pairs.is_canary, ours, theirs)
    share = rules.policy.guardrails.cost_increase
    return _by_arm("cost", evidence, values, theirs * share, most=most, alpha=alpha)


def outcome_rate(evidence: Evidence, rules: Rules, alpha: float) -> GuardrailResult | None:
    """Share of positive outcomes less that of the champion's, by who decided."""
    labels = evidence.pairs.label.astype(np.float64)
    limits = np.full(len(labels), rules.policy.guardrails.outcome_change)
    return _by_arm("outcome_rate", evidence, labels, limits, most=1.0, alpha=alpha, both=True)


def _by_arm(
    name: str,
    evidence: Evidence,
    values: Floats,
    limits: Floats,
    *,
    most: float,
    alpha: float,
    both: bool = False,
) -> GuardrailResult | None:
    """Compare what became of those whom each version decided on; the mean of `limits` is the most.

    Each entity counts once, by the first answer it got in a canary, as (1 / share or -1 / (1 -
    share)) times how far it is from the mean of those before: so what changes over time, the share
    included, cancels. Without harm it is ok: 5 % of traffic tells too little to wait for more.

    Horvitz & Thompson, JASA 47, 1952; Howard et al., Ann. Statist. 49, 2021, section 4.2.
    """
    pairs = evidence.pairs
    if not 0 < evidence.share < 1:
        return None
    rows = pairs.first((pairs.share > 0) & (pairs.share < 1))
    rows = rows[pairs.is_complete[rows]]
    if not len(rows):
        return _unknown(name, "waiting", None, "no label of the canary's time is complete yet")
    share, values, is_canary = pairs.share[rows], values[rows], pairs.is_canary[rows]
    limit = float(limits[rows].mean())
    apart = np.where(is_canary, 1 / share, -1 / (1 - share)) * (values - _mean_before(values))
    furthest = most / np.minimum(share, 1 - share)
    effect = np.maximum(_mean_before(limits[rows]), 0.01 * most)
    error = alpha / 2 if both else alpha
    lower = max(-most, mean_lower(apart, error, most=furthest, effect=effect))
    upper = min(most, mean_upper(apart, error, most=furthest, effect=effect))
    is_harm = lower > limit or (both and upper < -limit)
    value, canary = float(apart.mean()), int(is_canary.sum())
    said = f"{value:+.4f} per entity, at least {lower:+.4f}, at most {upper:+.4f}, of "
    said += f"{canary:,} that it decided on and {len(rows) - canary:,} that the champion did"
    outcome: Outcome = "harm" if is_harm else "ok"
    return GuardrailResult(name, outcome, value, lower, upper, limit, len(rows), None, said)


def _mean_before(values: Floats) -> Floats:
    """Return the mean of the values before each; 0 before the first."""
    found: Floats = (np.cumsum(values) - values) / np.maximum(np.arange(len(values)), 1)
    return found


def fairness(evidence: Evidence, rules: Rules, alpha: float) -> GuardrailResult | None:
    """Largest difference of its selection rates between groups of a protected attribute."""
    pairs, limit = evidence.pairs, rules.parity_difference
    if not pairs.protected:
        return None
    rows = pairs.first(np.ones(len(pairs), dtype=bool))
    error = alpha / len(pairs.protected)
    found, said = [], []
    for name, values in pairs.protected.items():
        codes, groups = factorize(values[rows])
        unknown = int((codes < 0).sum())
        apart = _spread(pairs, rows, codes, (len(groups), rules.fairness.min_group_rows), error)
        text = f"{name}: fewer than two groups of {rules.fairness.min_group_rows} entities"
        if apart is not None:
            found.append(apart)
            text = f"{name}: {apart['value']:.3f}, at least {apart['lower']:.3f} (the champion's "
            text += f"{apart['champion']:.3f})"
        said.append(f"{text}, {unknown:,} of {len(rows):,} entities without it")
    reason = "; ".join(said)
    if not found:
        is_known = any(any(one is not None for one in each) for each in pairs.protected.values())
        outcome: Outcome = "waiting" if is_known or not len(rows) else "not computable"
        return _unknown("fairness", outcome, limit, reason)
    harmful = [one for one in found if one["lower"] > limit >= one["champion"]]
    worst = max(harmful or found, key=lambda one: one["lower"])
    return GuardrailResult(
        *("fairness", "harm" if harmful else "ok", worst["value"], worst["lower"], worst["upper"]),
        *(limit, len(rows), None, reason),
    )


def _spread(
    pairs: Pairs, rows: Indices, codes: Indices, groups: tuple[int, int], alpha: float
) -> Mapping[str, float] | None:
    """Return the largest difference between groups with bounds; None with fewer than two groups.

    The bounds are of every group's share at once.
    """
    count, least = groups
    sizes = np.bincount(codes[codes >= 0], minlength=count)
    compared = np.flatnonzero(sizes >= least)
    if len(compared) < 2:
        return None
    error = alpha / (2 * len(compared))
    hits, theirs = (
        np.bincount(codes[(codes >= 0) & version.decision[rows]], minlength=count)[compared]
        for version in pairs.versions
    )
    shares = [(int(hit), int(size)) for hit, size in zip(hits, sizes[compared], strict=True)]
    lowers = [share_lower(*share, error) for share in shares]
    uppers = [share_upper(*share, error) for share in shares]
    return {
        "value": float(np.ptp(hits / sizes[compared])),
        "lower": max(0.0, max(lowers) - min(uppers)),
        "upper": max(uppers) - min(lowers),
        "champion": float(np.ptp(theirs / sizes[compared])),
    }


def sample_ratio(evidence: Evidence, rules: Rules, alpha: float) -> GuardrailResult | None:
    """Share of entities that the canary answered, against the stage's: whether assignment holds."""
    pairs, share = evidence.pairs, evidence.share
    if not 0 < share < 1:
        return None
    rows = pairs.first(pairs.share == share)
    if not len(rows):
        return _unknown("sample_ratio", "waiting", share, "no request of this stage is known")
    hits, count = int(pairs.is_canary[rows].sum()), len(rows)
    stages = sum(0 < stage.share < 1 for stage in rules.policy.stages)
    error = alpha / (2 * stages)
    lower, upper = share_lower(hits, count, error), share_upper(hits, count, error)
    outcome: Outcome = "ok" if lower <= share <= upper else "waiting"
    said = f"{hits:,} of {count:,} entities, {lower:.2%} to {upper:.2%}"
    said += "; assignment is broken: what the arms say cannot be trusted" * (outcome != "ok")
    return GuardrailResult(
        "sample_ratio", outcome, hits / count, lower, upper, share, count, None, said
    )


def _unknown(
    name: str, outcome: Outcome, limit: float | None, reason: str, needed: int | None = None
) -> GuardrailResult:
    return GuardrailResult(name, outcome, None, None, None, limit, 0, needed, reason)
