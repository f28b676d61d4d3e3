"""`GET /metrics`: the views as Prometheus, or OpenMetrics, has them.

Nothing is counted here: every number is read from the database at the moment it is asked for, so that several
processes, and restarts, change nothing.
"""

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry
from sqlalchemy import Engine, RowMapping

from models.queries import metrics as questions


def write_metrics(engine: Engine, accept: str) -> tuple[bytes, str]:
    """All metrics in the form that is asked for, and its content type."""
    registry = CollectorRegistry()
    registry.register(_Views(read_views(engine)))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def read_views(engine: Engine) -> dict[str, Sequence[RowMapping]]:
    """Every answer that a metric is made of, all of one moment."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        return {
            name: connection.exec_driver_sql(question).mappings().all() for name, question in questions.METRICS.items()
        }


class _Views(Collector):
    def __init__(self, found: Mapping[str, Sequence[RowMapping]]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        """Each family once."""
        found = self._found
        yield _counter("events", "What happened since the database was made.", ("event",), found["events"])
        yield _histograms(found["latency"])
        yield _gauge("open_edits", "Edits that are not over, by state.", ("state",), found["open_edits"])
        yield _gauge("unfinished_batches", "Batches that are not over.", (), found["unfinished_batches"])
        lanes = found["lanes"]
        yield _gauge("lane_due", "Rows that a lane could take now; 1000 at most are counted.", ("lane",), lanes, "due")
        yield _gauge("lane_wait_seconds", "For how long its oldest row has been due.", ("lane",), lanes, "waits")
        yield _gauge("lane_turn_age_seconds", "Since its last turn.", ("lane",), lanes, "turned")
        yield _gauge("tick_age_seconds", "Since the clock looked for due work.", (), lanes[:1], "ticked")
        yield _gauge("paused", "What stands still, and why.", ("lane", "subject", "reason"), found["pauses"])
        yield _gauge("overdue", "What has waited longer than it may.", ("what", "state"), found["overdue"])
        yield _gauge("overdue_seconds", "For how long, at most.", ("what", "state"), found["overdue"], "late")
        yield _counter("callbacks", "Deliveries kept, by what they did.", ("effect",), found["callbacks"])
        yield _counter("rejected_callbacks", "Deliveries turned away.", ("reason",), found["rejected_callbacks"])
        yield _gauge("cost_dollars", "Money by client.", ("client", "amount"), found["costs"])
        yield _gauge(
            "unexplained", "What does not add up; 0 unless something is wrong.", ("account",), found["accounts"]
        )


def _gauge(name: str, text: str, labels: Sequence[str], rows: Sequence[RowMapping], value: str = "value") -> Metric:
    family = GaugeMetricFamily(f"darkroom_{name}", text, labels=labels)
    for row in rows:
        if row[value] is not None:
            family.add_metric([str(row[label]) for label in labels], float(row[value]))
    return family


def _counter(name: str, text: str, labels: Sequence[str], rows: Sequence[RowMapping]) -> Metric:
    family = CounterMetricFamily(f"darkroom_{name}", text, labels=labels)
    for row in rows:
        family.add_metric([str(row[label]) for label in labels], float(row["value"]))
    return family


def _histograms(rows: Sequence[RowMapping]) -> Metric:
    family = HistogramMetricFamily("darkroom_step_seconds", "How long each step of an edit took.", labels=("step",))
    for step in dict.fromkeys(row["step"] for row in rows):
        buckets = [row for row in rows if row["step"] == step]
        bounds = [(str(float(row["le"])), row["events"]) for row in buckets]
        family.add_metric([step], [*bounds, ("+Inf", buckets[0]["all_events"])], float(buckets[0]["seconds"]))
    return family
