"""The local stack: what runs, in which order it starts, and how all of it ends.

Servers first, then the schema, then what needs it; everything is waited for before the stack is called ready.
Whoever leaves the `with` block leaves no process behind. Restarting what dies is the supervisor's work, and so is
importing, once for all its forks: it does that while the cluster is made and the servers start.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

from cli.settings import CLISettings, environment, set_variables, stack_variables
from cli.stack import broker, embedded, processes
from cli.stack.child_processes import end_all, require_process_list
from cli.stack.home import Home
from cli.stack.processes import Process, Stage
from cli.stack.supervision import Supervisor
from core.errors import SettingsError
from core.settings import load
from intake.api_keys import ApiKeys
from intake.settings import IntakeSettings
from webhook_receiver.settings import ReceiverSettings
from worker.settings import WorkerSettings

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """How the emulator is to be run; None leaves its own default."""

    port: int
    host: str = "127.0.0.1"
    concurrency: int | None = None
    latency: float | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """What of them is given on its command line."""
        given = {"--host": self.host, "--concurrency": self.concurrency, "--latency": self.latency}
        return tuple(part for name, value in given.items() if value is not None for part in (name, str(value)))

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before the first process starts."""

    home: Home
    variables: dict[str, str]
    processes: tuple[Process, ...]
    schema: Process
    answers: Process
    receiver_url: str
    intake_url: str
    emulator_url: str | None

    def has(self, name: str) -> bool:
        """Whether a process of this name belongs to it."""
        return any(process.name == name for process in self.processes)


def plan(settings: CLISettings, emulator: EmulatorOptions | None) -> Plan:
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
    set_variables(variables)
    load(WorkerSettings)
    load(ReceiverSettings)
    ApiKeys(load(IntakeSettings))
    urls = {"receiver": f"{settings.local_receiver}/livez", "intake": f"{settings.local_intake}/livez"}
    emulated = {"emulator": f"{emulator.url}/.well-known/jwks.json"} if emulator else {}
    return Plan(
        home,
        variables,
        tuple(_choose_processes(settings, emulator)),
        processes.schema(embedded=settings.database_url is None),
        processes.wait_until_ready(emulated | urls),
        settings.local_receiver,
        settings.local_intake,
        emulator.url if emulator else None,
    )


def _choose_processes(settings: CLISettings, emulator: EmulatorOptions | None) -> Iterator[Process]:
    home = settings.home
    if settings.database_url is None:
        yield embedded.postgres(home)
    if settings.redis_url is None:
        yield broker.broker(home)
    if emulator:
        yield processes.emulator(emulator.port, home.emulator, emulator.arguments)
    yield processes.receiver(settings.bind_host, settings.receiver_port)
    yield processes.intake(settings.bind_host, settings.intake_port)
    yield from processes.local_workers()


def _require_ports(settings: CLISettings, emulator: EmulatorOptions | None) -> None:
    host, ports = settings.bind_host, {"RECEIVER_PORT": settings.receiver_port, "INTAKE_PORT": settings.intake_port}
    for name, port in ports.items():
        if not embedded.is_free(host, port):
            raise SettingsError(f"Port {port} of {host} is taken; set {name} to a free one.")
    if settings.receiver_port == settings.intake_port:
        raise SettingsError(f"RECEIVER_PORT and INTAKE_PORT are both {settings.intake_port}; set one to another.")
    if emulator and (emulator.port in ports.values() or not embedded.is_free(emulator.host, emulator.port)):
        raise SettingsError(f"Port {emulator.port} is taken; give the emulator another one with --emulator-port.")


@contextmanager
def run_stack(plan: Plan, lock: int, say: Say) -> Iterator[Supervisor]:
    """Start everything and wait until it answers; stop everything on the way out.

    Raises:
        UserError: a part does not answer in time.
    """
    supervisor = Supervisor(plan.home, (*plan.processes, plan.schema, plan.answers), environment(), lock)
    try:
        supervisor.wait()
        if plan.has("postgres"):
            say("starting PostgreSQL")
            embedded.make_cluster(plan.home)
        supervisor.start(Stage.SERVERS)
        supervisor.wait_until_warm()
        supervisor.finish(plan.schema, say)
        supervisor.start(Stage.HTTP)
        supervisor.wait_until_warm(for_workers=True)
        supervisor.start(Stage.WORKERS)
        supervisor.finish(plan.answers, say)
        plan.home.publish(plan.variables)
        yield supervisor
    finally:
        supervisor.stop()
        end_all()
