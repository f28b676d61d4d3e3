"""Where a batch stands, in words for a terminal; all with markup."""

from datetime import UTC, datetime
from decimal import Decimal

from cli.batches.progress import Row, counts, duration, when
from cli.output import escape, plural
from models.states import Criterion
from models.views.progress import INPUTS_COUNTED

BROKEN = {
    Criterion.TOLERATED_FAILURES: "more edits failed than were tolerated",
    Criterion.TOLERATED_FAILURE_PERCENT: "a larger share of its edits failed than was tolerated",
    Criterion.DEADLINE: "its deadline passed",
    Criterion.MAX_COST: "the next edit could have cost more than its max_cost allows",
}
"""Why the rest of a batch was not done."""
WIDEST = 24
"""Characters of `batch_summary`, at most: those of `not finished in 59 min.`"""


def batch_text(row: Row) -> str:
    """Where the batch as a whole stands."""
    if row["finished_at"]:
        cancelled = "cancelled, " if row["cancelled_at"] and not row["broken_criterion"] else ""
        pruned = ", its edits are no longer kept" if row["pruned_at"] else ""
        return f"{cancelled}finished {when(row['finished_at'])}{pruned}"
    for column, word in (("cancelled_at", "cancelled"), ("paused_at", "paused")):
        if row[column]:
            why = f": {escape(row['pause_reason'])}" if word == "paused" and row.get("pause_reason") else ""
            return f"[yellow]{word}[/] {when(row[column])}{why}"
    return f"running, about {duration(row['time_left'].total_seconds())} left" if row["time_left"] else "running"


def batch_summary(row: Row) -> str:
    """The same in a column of a list, without markup."""
    words = (("finished_at", "finished"), ("cancelled_at", "cancelled"), ("paused_at", "paused"))
    for column, word in words:
        if row[column]:
            ago = duration((datetime.now(UTC) - row[column]).total_seconds())
            return f"{word} {ago} ago"
    return "running"


def status_pairs(
    row: Row, errors: list[Row], pause: Row | None, lanes: list[Row], notification: Row | None
) -> list[tuple[str, str]]:
    """What `darkroom status` shows."""
    images = [
        f"{row[f'images_{state}']} {state}" for state in ("stored", "waiting", "failed") if row[f"images_{state}"]
    ]
    rate = f", {row['images_per_second']} a second" if row["images_per_second"] else ""
    name = f"  {escape(row['name'])}" if row["name"] else ""
    skipped = f"  ({plural(int(row['skipped']), 'faulty line')} skipped)" if row["skipped"] else ""
    pairs = [
        ("provider", paused_account(pause) if pause else ""),
        *(("paused", paused_lane(lane)) for lane in lanes),
        ("batch", f"{row['batch_id']}{name}"),
        ("created", when(row["created_at"])),
        ("priority", str(row["priority"]) if row["priority"] else ""),
        ("state", batch_text(row)),
        ("stopped", broken(row)),
        ("inputs", inputs_text(row)),
        ("deadline", deadline(row)),
        ("edits", f"{row['edits']}: {counts(row)}{skipped}"),
        ("images", ", ".join(images) + rate if images else ""),
        ("cost", _cost(row)),
        ("notified", delivery_text(notification) if notification else ""),
    ]
    return [*pairs, *error_pairs(errors)]


def inputs_text(row: Row) -> str:
    """How far the look at its inputs is, while edits wait for it."""
    number, waiting = int(row["inputs"]), row["inputs_waiting"]
    if waiting is None:
        return ""
    if waiting >= INPUTS_COUNTED:
        return f"[yellow]waits for its inputs[/]: more than {INPUTS_COUNTED - 1} of {number} are still to be looked at"
    return f"[yellow]waits for its inputs[/]: {number - waiting} of {number} looked at"


def error_pairs(errors: list[Row]) -> list[tuple[str, str]]:
    """A line for each type of errors: how many edits, of how many it is the end, and an example."""
    pairs = []
    for error in errors:
        note = "" if error["failed"] == error["edits"] else f" ({error['failed']} for good)"
        pairs.append(("error", f"[red]{error['edits']} × {escape(error['type'])}[/]{note}  {escape(error['example'])}"))
    return pairs


def unanswered_pairs(unanswered: list[Row]) -> list[tuple[str, str]]:
    """What of the batch the provider has not answered for, why, and when it is asked again."""
    return [
        (
            row["state"],
            f"[yellow]{plural(int(row['submissions']), 'submission')}[/]: {escape(row['reason'])}; "
            f"next question {when(row['asked_again_at'])}",
        )
        for row in unanswered
    ]


def paused_account(pause: Row) -> str:
    """Why nothing is submitted, and when that may change."""
    probes = f", {plural(int(pause['probes']), 'probe')} so far" if pause["probes"] else ""
    since, again = when(pause["paused_at"]), when(pause["retry_at"])
    return f"[bold yellow]paused[/] since {since}, {escape(why_paused(pause))}; next try {again}{probes}"


def paused_lane(pause: Row) -> str:
    """Which lane stands still over what, why, and when that may change."""
    since, again = when(pause["paused_at"]), when(pause["retry_at"])
    what = escape(f"{pause['lane']} ({pause['subject']})")
    return f"[bold yellow]{what}[/] since {since}, {escape(why_paused(pause))}; next try {again}"


def why_paused(pause: Row) -> str:
    """The reason, with the provider's own words where there are any; no markup."""
    reason, message = pause["reason"], pause["message"] or ""
    return message if message.startswith(reason) else f"{reason}: {message}".removesuffix(": ")


def broken(row: Row) -> str:
    """Which of its own limits the batch broke."""
    criterion = row["broken_criterion"]
    return f"[yellow]{BROKEN[Criterion(criterion)]}; the rest was cancelled[/]" if criterion else ""


def deadline(row: Row) -> str:
    """Until when edits are submitted; of no interest once all is over."""
    return when(row["deadline"]) if row["deadline"] and not row["finished_at"] else ""


def delivery_text(notification: Row) -> str:
    """How far the newest message to the caller has come."""
    attempts = plural(int(notification["attempt"]), "attempt")
    error = f": {escape(notification['last_error'])}" if notification["last_error"] else ""
    if notification["delivered_at"]:
        return f"{notification['event']} delivered {when(notification['delivered_at'])}, {attempts}"
    if notification["due_at"] is None:
        return f"[red]{notification['event']} given up[/] after {attempts}{error}"
    if not notification["attempt"]:
        return f"{notification['event']} waits to be delivered"
    again = when(notification["due_at"])
    return f"[yellow]{notification['event']} not delivered[/] after {attempts}{error}; next {again}"


def _cost(row: Row) -> str:
    twice = f", {row['doubled']} paid twice" if row["doubled"] else ""
    spent = (
        f"${row['cost']:.2f} for {plural(int(row['submissions']), 'submission')}{twice}" if row["submissions"] else ""
    )
    if row["max_cost"] is None:
        return spent
    committed = row["committed"] or Decimal(0)
    ceiling = f"${committed:.2f} of at most ${row['max_cost']:.2f} committed"
    return f"{spent}; {ceiling}" if spent else ceiling
