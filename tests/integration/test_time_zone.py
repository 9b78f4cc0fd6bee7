"""A schedule is told in a time zone."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_a_schedule_is_told_in_its_time_zone_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    from flows.deploy import Times, check_cron, deployments
    from tasks.errors import ParamsError

    check_cron("0 2 * * *", timezone="Europe/Berlin")
    for zone in ("Berlin", "../etc", ""):
        with pytest.raises(ParamsError, match="--timezone"):
            check_cron("0 2 * * *", timezone=zone)
    served = deployments(tmp_path, Times("0 2 * * *", "0 6 * * *", "Europe/Berlin"))
    zones = {entry.flow_name: getattr(entry.schedules[0].schedule, "timezone", None) for entry in served if entry.schedules}
    assert zones["compress"] == "Europe/Berlin"
    assert zones["audit"] == "Europe/Berlin"
