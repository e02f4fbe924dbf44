"""The floor of benchmark (a), part one: the features of configs/churn.yaml, written by hand in SQL.

One query per as_of over the source files, each file scanned once, windows as FILTER aggregates:
what a good engineer writes who needs no versions, quarantine, exact sums or incremental periods.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HORIZON_DAYS = 90  # of the label
ACCOUNT = ("plan", "contract", "payment_method", "acquisition_channel")
PROTECTED = ("gender", "age_band", "region")

USAGE = """
    avg(data_gb) FILTER (recent) AS data_gb_mean_28d,
    avg(data_gb) FILTER (NOT recent) AS data_gb_mean_prior_56d,
    stddev_samp(data_gb) AS data_gb_std_84d,
    arg_max(data_gb, week_end) FILTER (recent) AS data_gb_last,
    avg(voice_minutes) FILTER (recent) AS voice_minutes_mean_28d,
    avg(voice_minutes) FILTER (NOT recent) AS voice_minutes_mean_prior_56d,
    stddev_samp(voice_minutes) FILTER (recent) AS voice_minutes_std_28d,
    avg(sms_count) FILTER (recent) AS sms_count_mean_28d,
    sum(roaming_minutes) FILTER (recent) AS roaming_minutes_sum_28d,
    avg(dropped_calls) FILTER (recent) AS dropped_calls_mean_28d,
    avg(dropped_calls) FILTER (NOT recent) AS dropped_calls_mean_prior_56d,
    max(dropped_calls) FILTER (recent) AS dropped_calls_max_28d"""

BILLING = """
    avg(amount) AS amount_mean_90d,
    arg_max(amount, billed_at) AS amount_last,
    avg(discount) AS discount_mean_90d,
    avg(overdue_days) AS overdue_days_mean_90d,
    max(overdue_days) AS overdue_days_max_90d,
    count(*) FILTER (overdue_days > 0) AS overdue_bills_count_90d,
    sum(late_fee) AS late_fee_sum_90d"""

ENGAGEMENT = """
    avg(app_sessions) FILTER (recent) AS app_sessions_mean_28d,
    avg(app_sessions) FILTER (NOT recent) AS app_sessions_mean_prior_56d,
    avg(app_minutes) FILTER (recent) AS app_minutes_mean_28d,
    avg(self_service_actions) FILTER (recent) AS self_service_mean_28d,
    avg(campaign_opens) FILTER (recent) AS campaign_opens_mean_28d,
    arg_max(nps_score, week_end) AS nps_last_84d,
    min(nps_score) AS nps_min_84d"""

SUPPORT = """
    count(*) FILTER (recent) AS tickets_count_28d,
    count(*) AS tickets_count_84d,
    count(*) FILTER (severity = 3) AS severe_tickets_count_84d,
    count(*) FILTER (category = 'network') AS network_tickets_count_84d,
    sum(severity) AS ticket_severity_sum_84d,
    avg(resolution_hours) AS resolution_hours_mean_84d,
    max(opened_at) AS last_ticket_at"""

DERIVED = """
    data_gb_mean_28d / nullif(data_gb_mean_prior_56d, 0) AS data_trend,
    voice_minutes_mean_28d / nullif(voice_minutes_mean_prior_56d, 0) AS voice_trend,
    app_sessions_mean_28d / nullif(app_sessions_mean_prior_56d, 0) AS app_trend,
    (data_trend + voice_trend + app_trend) / 3 AS usage_trend,
    100 * dropped_calls_mean_28d / nullif(voice_minutes_mean_28d, 0)
        AS dropped_calls_per_100_minutes,
    amount_mean_90d / CASE plan WHEN 'basic' THEN 15 WHEN 'plus' THEN 30 ELSE 50 END
        AS price_index,
    discount_mean_90d / nullif(amount_mean_90d + discount_mean_90d, 0) AS discount_share"""

ZERO_WHEN_UNSEEN = (
    "overdue_bills_count_90d",
    "tickets_count_28d",
    "tickets_count_84d",
    "severe_tickets_count_84d",
    "network_tickets_count_84d",
    "ticket_severity_sum_84d",
)


def feature_query(sources: Path, as_of: datetime) -> str:
    """Return the query of one as_of: customer, as_of, features, protected attributes, label.

    The label is null where its 90 days were not over at the end of the world; the caller knows
    which months those are.
    """
    at = _stamp(as_of)
    zeros = ", ".join(f"coalesce({name}, 0) AS {name}" for name in ZERO_WHEN_UNSEEN)
    return f"""
    WITH left_before AS (
        SELECT customer_id, min(churned_at) AS churned_at,
               bool_or(churned_at < {at} AND loaded_at < {at}) AS is_gone
        FROM {_file(sources, "churn_events")} GROUP BY customer_id),
    people AS (
        SELECT a.customer_id, {", ".join(f"a.{name}" for name in (*ACCOUNT, *PROTECTED))},
               round(date_diff('second', signup_at, {at}) / 86400) AS tenure_days,
               coalesce(churned_at >= {at}
                        AND churned_at < {at} + INTERVAL {HORIZON_DAYS} DAY, FALSE)::TINYINT
               AS label
        FROM {_file(sources, "accounts")} AS a LEFT JOIN left_before USING (customer_id)
        WHERE signup_at < {at} AND loaded_at < {at} AND NOT coalesce(is_gone, FALSE)),
    usage AS ({_windowed(sources, "weekly_usage", "week_end", as_of, 84, USAGE)}),
    bills AS ({_windowed(sources, "billing", "billed_at", as_of, 90, BILLING)}),
    app AS ({_windowed(sources, "engagement", "week_end", as_of, 84, ENGAGEMENT)}),
    support AS ({_windowed(sources, "tickets", "opened_at", as_of, 84, SUPPORT)}),
    joined AS (
        SELECT * FROM people LEFT JOIN usage USING (customer_id) LEFT JOIN bills USING (customer_id)
        LEFT JOIN app USING (customer_id) LEFT JOIN support USING (customer_id))
    SELECT * EXCLUDE (last_ticket_at) REPLACE ({zeros}), {at} AS as_of,
           round(date_diff('second', last_ticket_at, {at}) / 86400) AS days_since_last_ticket,
           {DERIVED}
    FROM joined"""


def write_features(sources: Path, folder: Path, points: Sequence[datetime], *, threads: int) -> int:
    """Write one Parquet file per as_of; return the rows written."""
    import duckdb

    folder.mkdir(parents=True)
    rows = 0
    with duckdb.connect(config={"threads": threads, "memory_limit": "3GB"}) as engine:
        engine.execute("SET preserve_insertion_order = false")
        for point in points:
            target = folder / f"{point.date()}.parquet"
            query = feature_query(sources, point)
            done: Any = engine.execute(
                f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
            ).fetchone()
            rows += int(done[0])
    return rows


def _windowed(  # noqa: PLR0917 # private: the parts of one subquery
    sources: Path, table: str, event_time: str, as_of: datetime, days: int, aggregates: str
) -> str:
    at = _stamp(as_of)
    rows = (
        f"SELECT *, {event_time} >= {_stamp(as_of - timedelta(days=28))} AS recent "
        f"FROM {_file(sources, table)} WHERE loaded_at < {at} AND {event_time} < {at} "
        f"AND {event_time} >= {_stamp(as_of - timedelta(days=days))}"
    )
    return f"SELECT customer_id, {aggregates} FROM ({rows}) GROUP BY customer_id"


def _file(sources: Path, table: str) -> str:
    return f"read_parquet('{sources / f'{table}.parquet'}')"


def _stamp(moment: datetime) -> str:
    plain = moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
    return f"TIMESTAMP '{plain}'"
