"""The SQL views that people and dashboards read instead of our tables.

Views are repeatable: every migration drops them first and, at the newest revision, creates them again from
`models/views/` and `models/costs.py` (`migrations/env.py`), so a view is declared in one place. `docs/monitoring.md`
explains each and runs the queries that it shows.
"""

from sqlalchemy import Connection

from models.costs import COST_VIEWS
from models.monitor_role import grant_views
from models.views.accounts import ACCOUNTING, AUDIT
from models.views.progress import BATCH_PROGRESS, EDIT_ERRORS, ERRORS_BY_TYPE
from models.views.rates import CALLBACK_LEDGER, EVENT_TOTALS, LATENCY, LATENCY_HISTOGRAM, THROUGHPUT
from models.views.timeline import EDIT_TIMELINE
from models.views.work import ACCOUNT_STATUS, IN_FLIGHT_EDITS, LANE_STATUS, OVERDUE, PAUSES, UNANSWERED

VIEWS: dict[str, str] = {
    "batch_progress": BATCH_PROGRESS,
    "edit_errors": EDIT_ERRORS,
    "errors_by_type": ERRORS_BY_TYPE,
    **COST_VIEWS,
    "accounting": ACCOUNTING,
    "audit": AUDIT,
    "overdue": OVERDUE,
    "in_flight": IN_FLIGHT_EDITS,
    "unanswered": UNANSWERED,
    "pauses": PAUSES,
    "account_status": ACCOUNT_STATUS,
    "lane_status": LANE_STATUS,
    "throughput": THROUGHPUT,
    "event_totals": EVENT_TOTALS,
    "latency": LATENCY,
    "latency_histogram": LATENCY_HISTOGRAM,
    "callback_ledger": CALLBACK_LEDGER,
    "edit_timeline": EDIT_TIMELINE,
}
"""In the order of their creation: one may read another."""


def drop_views(connection: Connection) -> None:
    """Drop every view of ours, so that the tables beneath may change."""
    for name in reversed(VIEWS):
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")


def create_views(connection: Connection) -> None:
    """Create every view as declared here, for the role that watches to read."""
    for name, query in VIEWS.items():
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {query}")
    grant_views(connection, VIEWS)
