"""The automation by which Prefect marks a flow run as crashed when its process died without a word.

Run as a module against the server of $PREFECT_API_URL; running it again changes nothing.
"""

from datetime import timedelta

NAME = "paperflows: crash runs without a heartbeat"
MESSAGE = "no heartbeat: the process is gone"
SILENCE = timedelta(seconds=90)  # three missed heartbeats


def ensure() -> None:
    """Create the automation unless there is one of its name."""
    from prefect.automations import Automation
    from prefect.client.orchestration import get_client
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.states import StateType

    with get_client(sync_client=True) as client:
        if client.request("POST", "/automations/filter", json={"automations": {"name": {"any_": [NAME]}}}).json():
            return
    Automation(
        name=NAME,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", "prefect.flow-run.Completed", "prefect.flow-run.Failed",
                    "prefect.flow-run.Cancelled", "prefect.flow-run.Crashed"},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[ChangeFlowRunState(name=None, force=False, state=StateType.CRASHED, message=MESSAGE)],
    ).create()  # fmt: skip


if __name__ == "__main__":
    ensure()
