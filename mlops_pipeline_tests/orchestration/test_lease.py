"""Two lifecycles of one use case at once."""

from mlops_pipeline.lifecycle.alerts import list_alerts
from mlops_pipeline.lifecycle.bookkeeping import last_finished_lifecycle
from mlops_pipeline.stores.ops.lease import get_lease
from mlops_pipeline_tests.world import World


def test_second_lifecycle_fails_and_names_the_holder_and_first_ends_well(world: World) -> None:
    world.forget_registration()
    first = world.start(ops={"features": {"as_of": "2024-02-01"}})
    first.wait_until(lambda: first.has_said('Started execution of step "churn__raw_data"'))
    with world.ops() as ops:
        first.wait_until(lambda: get_lease(ops, "lifecycle:churn") is not None)
        lease = get_lease(ops, "lifecycle:churn")
    assert lease is not None

    second = world.start(ops={"features": {"as_of": "2024-02-01"}})

    assert second.wait() != 0
    assert f"LeaseError: lifecycle:churn is in use by {lease.holder}." in second.text()
    assert f"process {first.process.pid}" in second.text()
    with world.ops() as ops:
        (alert,) = list_alerts(ops, "churn", open_only=True)
    assert alert.message.startswith("raw_data: lifecycle:churn is in use by")
    assert "try again" in alert.action

    assert first.wait() == 0
    with world.ops() as ops:
        ended = last_finished_lifecycle(ops, "churn")
        assert list_alerts(ops, "churn", open_only=True) == []  # the later end resolves it
        assert get_lease(ops, "lifecycle:churn") is None
    assert ended is not None
    assert ended.run_id == lease.holder
