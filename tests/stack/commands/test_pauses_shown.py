"""What stands still because a store, a disk or a model refuses is told by `status` and `doctor`."""

from sqlalchemy import Engine

from models.pauses import pause_lane
from tests.support.command_line import CommandLine
from tests.support.factories import make_batch


def test_the_reason_is_in_status_and_doctor(run_cli: CommandLine, engine: Engine, quick_doctor: None) -> None:
    why = "No space left on device [x]"
    with engine.begin() as connection:
        make_batch(connection, 1)
        pause_lane(connection, "download", "storage", reason="disk_full", message=why, retry_after=60)
        pause_lane(connection, "submit", "fal-ai/x", reason="model_down", message="503", retry_after=60)
    said = run_cli("status", "last").out
    assert "download (storage) since" in said
    assert f"disk_full: {why}" in said
    assert "next try 20" in said
    pauses = run_cli("status", "last", "--json").json["pauses"]
    assert [(pause["lane"], pause["subject"], pause["reason"]) for pause in pauses] == [
        ("download", "storage", "disk_full"),
        ("submit", "fal-ai/x", "model_down"),
    ]
    found = [line for line in run_cli("doctor", "--json").lines if line["check"] == "pauses"]
    assert [line["result"] for line in found] == ["fault", "warning"]
    assert why in found[0]["message"]
