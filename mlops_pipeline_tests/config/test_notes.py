"""What `mlops config check` says beside errors."""

from typing import Any

from mlops_pipeline.config.checks import notes
from mlops_pipeline_tests.worlds import VISITS, shop


def label(**values: Any) -> dict[str, Any]:
    return {"kind": "event_absent", "source": "visits", "horizon_days": 30, **values}


def test_notes_say_when_labels_of_events_are_known() -> None:
    assert list(notes(shop(label=label()))) == [
        "label: known 30 + 60 days after as_of (horizon_days, delay_days)"
    ]


def test_notes_name_sources_whose_rows_are_known_by_the_day() -> None:
    columns = {**VISITS["columns"], "at": "date"}
    by_day = {"visits": {**VISITS, "columns": columns, "available_at": None}}
    assert any("at is a date" in note for note in notes(shop(sources=by_day)))
    said = {"visits": {**VISITS, "columns": columns}}
    assert not any("is a date" in note for note in notes(shop(sources=said)))


def test_notes_name_a_delay_that_late_events_outlast() -> None:
    known, warning = notes(shop(label=label(delay_days=10)))
    assert "30 + 10" in known
    assert warning.startswith("label.delay_days: 10 is less than sources.visits.lateness_days (60)")
