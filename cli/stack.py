"""The local stack: what runs, in which order it starts, and how all of it ends.

Servers first, then the schema, then what needs it; everything is waited for before the stack is called ready.
Whoever leaves the `with` block leaves no process behind. Restarting what dies is the supervisor's work. What asks the
parts whether they answer is imported while the first of them start: it takes as long as they do.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

from cli import broker, embedded, processes
from cli.descendants import end_all, require_process_list
from cli.home import Home
from cli.processes import Process, Stage
from cli.settings import DeskSettings, adopt, environment, stack_variables
from cli.supervision import Supervisor
from intake.keys import Keys
from intake.settings import IntakeSettings
from models.errors import SettingsError, UserError
from models.settings import load
from webhook_receiver.settings import ReceiverSettings
from worker.settings import WorkerSettings

ANSWER_WITHIN = 60.0
"""Seconds for one part to answer, on a busy machine."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """How the stand-in is to be run; None leaves its own default."""

    port: int
    host: str = "127.0.0.1"
    concurrency: int | None = None
    latency: float | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        given = {"--host": self.host, "--concurrency": self.concurrency, "--latency": self.latency}
        return tuple(part for name, value in given.items() if value is not None for part in (name, str(value)))

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first process starts."""

    home: Home
    variables: dict[str, str]
    processes: tuple[Process, ...]
    receiver_url: str
    intake_url: str
    emulator_url: str | None

    def has(self, name: str) -> bool:
        return any(process.name == name for process in self.processes)


def plan(settings: DeskSettings, emulator: EmulatorOptions | None) -> Plan:
    """Decide what runs, and check what can be checked beforehand. The home must be held.

    Raises:
        UserError: it cannot be started like this.
    """
    if find_spec("supervisor") is None or find_spec("psutil") is None:
        raise SettingsError(embedded.MISSING)
    require_process_list()
    home = settings.home
    _require_ports(settings, emulator)
    variables = stack_variables(
        settings,
        database_url=settings.database_url or embedded.database_url(home, emulated=emulator is not None),
        redis_url=settings.redis_url or broker.broker_url(home),
        emulator_url=emulator.url if emulator else None,
    )
    adopt(variables)
    load(WorkerSettings)
    load(ReceiverSettings)
    Keys(load(IntakeSettings))
    parts: list[Process] = []
    if settings.database_url is None:
        parts.append(embedded.postgres(home))
    if settings.redis_url is None:
        parts.append(broker.broker(home))
    if emulator:
        parts.append(processes.emulator(emulator.port, home.emulator, emulator.arguments))
    parts += [processes.receiver(settings.bind_host, settings.receiver_port)]
    parts += [processes.intake(settings.bind_host, settings.intake_port), *processes.workers()]
    emulator_url = emulator.url if emulator else None
    return Plan(home, variables, tuple(parts), settings.local_receiver, settings.local_intake, emulator_url)


def _require_ports(settings: DeskSettings, emulator: EmulatorOptions | None) -> None:
    host, ports = settings.bind_host, {"RECEIVER_PORT": settings.receiver_port, "INTAKE_PORT": settings.intake_port}
    for name, port in ports.items():
        if not embedded.is_free(host, port):
            raise SettingsError(f"Port {port} of {host} is taken; set {name} to a free one.")
    if settings.receiver_port == settings.intake_port:
        raise SettingsError(f"RECEIVER_PORT and INTAKE_PORT are both {settings.intake_port}; set one to another.")
    if emulator and (emulator.port in ports.values() or not embedded.is_free(emulator.host, emulator.port)):
        raise SettingsError(f"Port {emulator.port} is taken; give the emulator another one with --emulator-port.")


@contextmanager
def running(plan: Plan, lock: int, say: Say) -> Iterator[Supervisor]:
    """Start everything and wait until it answers; stop everything on the way out.

    Raises:
        UserError: a part does not answer in time.
    """
    supervisor = Supervisor(plan.home, plan.processes, environment(), lock)
    try:
        supervisor.wait()
        start_servers(plan, say)
        say("bringing the database to its schema")
        from cli import migrate

        migrate.upgrade(plan.variables["DATABASE_URL"])
        start_rest(plan, supervisor, say)
        plan.home.tell(plan.variables)
        yield supervisor
    finally:
        supervisor.stop()
        end_all()


def start_servers(plan: Plan, say: Say) -> None:
    """Wait for database and broker, which the supervisor starts at once."""
    from cli.readiness import ensure_database, redis_answers

    if plan.has("postgres"):
        say("starting PostgreSQL")
        url = plan.variables["DATABASE_URL"]
        _wait_for("postgres", lambda: ensure_database(url), plan)
    say("starting Redis")
    _wait_for("redis", lambda: redis_answers(plan.variables["REDIS_URL"]), plan)


def start_rest(plan: Plan, supervisor: Supervisor, say: Say) -> None:
    """Start what needs the schema, and wait for it."""
    from cli.readiness import WorkersAnswer, http_answers

    supervisor.start(Stage.FRONT)
    supervisor.start(Stage.WORKERS)
    if plan.emulator_url:
        say("starting the emulator")
        _wait_for("emulator", lambda: http_answers(f"{plan.emulator_url}/.well-known/jwks.json"), plan)
    say("starting the receiver")
    _wait_for("receiver", lambda: http_answers(f"{plan.receiver_url}/healthz"), plan)
    say("starting the intake API")
    _wait_for("intake", lambda: http_answers(f"{plan.intake_url}/healthz"), plan)
    say("starting the workers")
    _wait_for("workers", WorkersAnswer(plan.variables["REDIS_URL"], tuple(processes.LANES)), plan)


def _wait_for(name: str, answers: Callable[[], bool], plan: Plan) -> None:
    from cli.readiness import last_line, until

    if until(answers, timeout=ANSWER_WITHIN):
        return
    said = last_line(plan.home.logs / f"{name}.log")
    where = f"its last words in {plan.home.logs}: {said}" if said else f"see {plan.home.logs}"
    raise UserError(f"No answer from {name} in {ANSWER_WITHIN:.0f} s; {where}")
