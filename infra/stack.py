"""The servers of a team on one machine: PostgreSQL, MLflow and Prefect on it, and where bytes are kept.

One description of each process, for the tests and for whoever wants to try or to copy it: `python -m infra.stack FOLDER`
starts all of them, says which file to source, and ends them with Ctrl-C. Passwords and ports are made once, at random, and
stay in the folder. `python -m infra.render` makes containers and units of the same description, for a `Site` of their own.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from flows.server import own_page
from infra.cluster import OWNER, make_cluster, make_databases, postgres_program
from infra.mlflow_server import AUTH_DATABASE, write_private
from tasks.children import LOOPBACK, QUIET_MLFLOW, answers, end, free_port, local_opener, own_path, start
from tasks.errors import ResourceError, UserError

USAGE: Final = """usage: python -m infra.stack FOLDER [--bytes=s3://BUCKET|memory] [--project=MODEL_NAME]
       python -m infra.stack FOLDER backup DEST [--bytes=s3://BUCKET]
       python -m infra.stack FOLDER restore DEST [--bytes=s3://BUCKET] [--at=TIME]"""
ROOT: Final = Path(__file__).resolve().parents[1]
ROLES: Final = ("reader", "runner", "promoter")
MEMORY: Final = "memory"  # an S3 of moto's that forgets all when it ends: for tests
BUCKET: Final = "compactlm"
START_SECONDS: Final = 180.0
GRACE_SECONDS: Final = 8.0
BENEATH: Final = ("s3", "postgres")  # what the other processes stand on
# role -> what it may do with the experiment and the registered model of a project
GRANTS: Final = {
    "reader": {"experiment": "READ", "registered_model": "READ"},
    "runner": {"experiment": "EDIT", "registered_model": "EDIT"},
    "promoter": {"experiment": "READ", "registered_model": "EDIT"},
}


@dataclass(frozen=True)
class Process:
    """A process: `python -m COMMAND` with `env`, and `secret` that holds passwords, besides ours; ready when `health` answers."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    health: str
    secret: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """Where servers are, and where their files are as they see them. As it is: on this machine, in the folder of a stack.

    `hosts`: by which name a server reaches another; `pages`: by which address people and clients reach one. What is not in a
    mapping is at LOOPBACK, at a port of the folder's settings.
    """

    listen: str = LOOPBACK
    hosts: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)
    home: str = ""  # what servers keep
    scratch: str = ""  # what they need while they run
    data: str = ""  # of PostgreSQL
    postgres: str = ""  # its program; that of this machine where empty
    sockets: str = ""  # its folder for local clients


@dataclass
class Stack:
    """The servers below a folder. `bytes_at`: `s3://BUCKET` (with AWS_* set), MEMORY, or empty for the folder itself."""

    folder: Path
    bytes_at: str = ""
    site: Site = field(default_factory=Site)
    _children: dict[str, subprocess.Popen[Any]] = field(default_factory=dict)

    # What is described

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Passwords and ports, made when there are none yet."""
        path = self.folder / "settings.json"
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"passwords": {}}
        names = (*ROLES, "admin", "database", "prefect", "session", "s3", "webhook")
        if missing := [name for name in names if name not in content["passwords"]]:
            content["passwords"] |= {name: secrets.token_urlsafe(24) for name in missing}
            content.setdefault("ports", {name: free_port() for name in ("postgres", "mlflow", "prefect", "s3")})
            write_private(path, json.dumps(content))
        return content

    def password(self, name: str) -> str:
        """Return the password of a role, of `admin`, `database`, `prefect`, `session` or `s3`."""
        return str(self.settings["passwords"][name])

    def port(self, name: str) -> int:
        """Return the port that a server listens at."""
        return int(self.site.ports.get(name) or self.settings["ports"][name])

    def url(self, name: str) -> str:
        """Return the address by which people and clients reach a server that speaks HTTP."""
        return self.site.pages.get(name) or f"http://{LOOPBACK}:{self.port(name)}"

    def health(self, name: str, path: str = "") -> str:
        """Return what a server answers beside it, on its own machine or in its container."""
        return f"{'http' if path else 'postgresql'}://{LOOPBACK}:{self.port(name)}{path}"

    def database(self, name: str, driver: str = "postgresql") -> str:
        """Return the address of a database, with its password."""
        host = self.site.hosts.get("postgres", LOOPBACK)
        return f"{driver}://{OWNER}:{self.password('database')}@{host}:{self.port('postgres')}/{name}"

    @property
    def home(self) -> str:
        """The folder of what servers keep, as they see it."""
        return self.site.home or str(self.folder.absolute())

    @property
    def storage(self) -> dict[str, str]:
        """The environment of whoever asks S3; that of ours for a bucket of a person's own."""
        if self.bytes_at != MEMORY:
            return {}
        key = {"AWS_ACCESS_KEY_ID": "compactlm", "AWS_SECRET_ACCESS_KEY": self.password("s3"), "AWS_DEFAULT_REGION": "us-east-1"}
        return {**key, "AWS_ENDPOINT_URL": self.url("s3"), "MLFLOW_S3_ENDPOINT_URL": self.url("s3")}

    def place(self, name: str) -> str:
        """Return where bytes of a kind are kept: `mlflow` or `dvc`, below the bucket or the folder."""
        bucket = f"s3://{BUCKET}" if self.bytes_at == MEMORY else self.bytes_at
        return f"{bucket.rstrip('/')}/{name}" if bucket else f"{self.home}/{name}"

    def processes(self) -> list[Process]:
        """Return all of them, in the order in which they start."""
        port = {name: str(self.port(name)) for name in self.settings["ports"]}
        listen = self.site.listen
        memory = Process("s3", ("moto.server", "-H", LOOPBACK, "-p", port["s3"]), {}, self.health("s3", "/moto-api/"))
        server, data = self.site.postgres or str(postgres_program("postgres")), self.site.data or str(self._data)
        postgres = Process(
            "postgres",
            ("infra.program", "postgres", server, "-D", data, "-p", port["postgres"], "-h", listen, "-k", self.site.sockets),
            {},
            self.health("postgres"),
            {"POSTGRES_PASSWORD": self.password("database")},
        )
        hosts = [f"{LOOPBACK}:{port['mlflow']}", f"localhost:{port['mlflow']}"]
        hosts += [f"{self.site.hosts['mlflow']}:{port['mlflow']}"] if "mlflow" in self.site.hosts else []
        hosts += [urlsplit(self.site.pages["mlflow"]).netloc] if "mlflow" in self.site.pages else []
        mlflow = Process(
            "mlflow",
            (
                *(
                    "infra.mlflow_server",
                    "--app-name",
                    "basic-auth",
                    "--host",
                    listen,
                    "--port",
                    port["mlflow"],
                    "--workers",
                    "1",
                ),
                *("--artifacts-destination", self.place("mlflow")),
                *("--allowed-hosts", ",".join(dict.fromkeys(hosts))),
            ),
            {
                **QUIET_MLFLOW,
                "MLFLOW_AUTH_CONFIG_PATH": f"{self.site.scratch or self.home}/basic_auth.ini",
                # The webhooks of `compactlm watch` go to a machine of the team's own.
                "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
                "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            },
            self.health("mlflow", "/health"),
            {
                **self.storage,
                "MLFLOW_BACKEND_STORE_URI": self.database("mlflow"),
                AUTH_DATABASE: self.database("mlflow_auth"),
                "MLFLOW_AUTH_ADMIN_PASSWORD": self.password("admin"),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": self.password("session"),
            },
        )
        prefect = Process(
            "prefect",
            ("prefect", "server", "start", "--host", listen, "--port", port["prefect"]),
            {
                **own_page(self.url("prefect")),
                "PREFECT_HOME": f"{self.home}/prefect",
                "PREFECT_SERVER_UI_STATIC_DIRECTORY": f"{self.home}/prefect/pages",  # where the program itself is read-only
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            },
            self.health("prefect", "/api/health"),
            {
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database("prefect", "postgresql+asyncpg"),
                "PREFECT_SERVER_API_AUTH_STRING": f"{OWNER}:{self.password('prefect')}",
            },
        )
        return [*([memory] if self.bytes_at == MEMORY else []), postgres, mlflow, prefect]

    def environment(self, role: str) -> dict[str, str]:
        """Return what somebody in a role (or `admin`) sets to work with these servers; readers start nothing in Prefect."""
        prefect = {
            "PREFECT_API_URL": f"{self.url('prefect')}/api",
            "PREFECT_API_AUTH_STRING": f"{OWNER}:{self.password('prefect')}",
        }
        return {
            "MLFLOW_TRACKING_URI": self.url("mlflow"),
            "MLFLOW_TRACKING_USERNAME": role,
            "MLFLOW_TRACKING_PASSWORD": self.password(role),
            **({} if role == "reader" else prefect),
            **{name: value for name, value in self.storage.items() if name.startswith("AWS_")},
        }

    # What is done

    def __enter__(self) -> Stack:
        try:
            self.prepare()
            started = {one.name: one for one in self.processes()}
            for name in BENEATH:
                if name in started:
                    self.launch(name)
                    self.wait(name)
            self._make_places()
            for name in ("mlflow", "prefect"):  # side by side: each takes seconds
                self.launch(name)
            for name in ("mlflow", "prefect"):
                self.wait(name)
            self.make_users()
        except BaseException:
            self.stop_all()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_all()

    def launch(self, name: str) -> None:
        """Start a process of the description; what it says goes to a log in the folder."""
        process = next(one for one in self.processes() if one.name == name)
        others = ("MLFLOW_", "PREFECT_")  # a person's own settings are for clients
        kept = {key: value for key, value in os.environ.items() if not key.startswith(others)}
        env = {**kept, "PATH": own_path(), "PYTHONPATH": str(ROOT), **process.env, **process.secret}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._children[name] = start(process.command, self._grace(name), env=env, stdout=log, stderr=log, cwd=self.folder)

    def wait(self, name: str) -> None:
        """Wait until a process answers; ResourceError with its last words when it does not."""
        child, health = self._children[name], next(one for one in self.processes() if one.name == name).health
        ready = answers(child, health, START_SECONDS) if health.startswith("http") else self._database_answers(child)
        if not ready:
            words = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ResourceError(f"{name}: does not answer; {self.folder / name}.log ends with: {' / '.join(words[-3:])}")

    def stop(self, name: str) -> None:
        """End a process and wait for its end."""
        end(self._children.pop(name), self._grace(name))

    def stop_all(self) -> None:
        """End them all, the databases last."""
        ending, self._children = self._children, {}
        for name, child in ending.items():
            if name not in BENEATH and child.stdin is not None:
                child.stdin.close()  # which its guard sees: so they end side by side
        with ExitStack() as endings:  # each is ended, whatever happens with another; what is pushed last is called first
            for name, child in ending.items():
                endings.callback(end, child, self._grace(name))

    def _grace(self, name: str) -> float:
        """Return the seconds that a process has to end; none where all it knows is lost in any case."""
        return 0.0 if self.bytes_at == MEMORY and name != "postgres" else GRACE_SECONDS

    def prepare_project(self, model: str) -> None:
        """Make experiment and registered model of a project, and give the roles their rights: nobody else sees either."""
        found = self._ask("POST", "2.0/mlflow/experiments/create", {"name": model})
        if "experiment_id" not in found:  # it is there already
            found = self._ask("GET", f"2.0/mlflow/experiments/get-by-name?experiment_name={model}")["experiment"]
        self._ask("POST", "2.0/mlflow/registered-models/create", {"name": model})
        for role, rights in GRANTS.items():
            for kind, right in rights.items():
                resource = found["experiment_id"] if kind == "experiment" else model
                grant = {"username": role, "resource_type": kind, "resource_id": resource, "permission": right}
                self._ask("POST", "3.0/mlflow/users/permissions/grant", grant)

    @property
    def _data(self) -> Path:
        return self.folder / "postgres"

    def prepare(self) -> None:
        """Make what the processes find on disk: a database cluster."""
        make_cluster(self._data, self.password("database"), "--no-sync")

    def _database_answers(self, child: subprocess.Popen[Any]) -> bool:
        where = ["-h", LOOPBACK, "-p", str(self.port("postgres")), "-d", "postgres", "-t", "1"]
        for _ in range(int(START_SECONDS)):
            if child.poll() is not None:
                return False
            if subprocess.run([postgres_program("pg_isready"), "-q", *where], check=False).returncode == 0:
                return True
        return False

    def _make_places(self) -> None:
        """Make the databases and the bucket that are not there yet."""
        self.make_databases()
        if self.bytes_at == MEMORY:
            local_opener.open(urllib.request.Request(f"{self.url('s3')}/{BUCKET}", method="PUT"), timeout=30).close()

    def make_databases(self) -> None:
        """Make the databases that are not there yet."""
        make_databases(self.port("postgres"), self.password("database"))

    def make_users(self) -> None:
        """Make MLflow's users of all roles, and a file for each that its members source."""
        for role in ROLES:
            self._ask("POST", "2.0/mlflow/users/create", {"username": role, "password": self.password(role)})
            lines = [f"export {name}='{value}'\n" for name, value in self.environment(role).items()]
            write_private(self.folder / f"{role}.env", "".join(lines))

    def _ask(self, method: str, path: str, content: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what MLflow answers its administrator; nothing for what is there already."""
        handler = urllib.request.HTTPBasicAuthHandler()
        handler.add_password("mlflow", self.url("mlflow"), "admin", self.password("admin"))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)
        body = json.dumps(content).encode() if content is not None else None
        request = urllib.request.Request(f"{self.url('mlflow')}/api/{path}", body, {"Content-Type": "application/json"})
        request.method = method
        try:
            with opener.open(request, timeout=60) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            with error:
                words = error.read().decode(errors="replace")
            if "RESOURCE_ALREADY_EXISTS" in words:
                return {}
            raise ResourceError(f"MLflow refuses {method} {path}: {words}") from None


def main() -> None:
    """Start the stack of a folder and keep it until Ctrl-C, or back it up, or restore it; see infra/README.md."""
    words, options = [word for word in sys.argv[1:] if "=" not in word], dict(w.split("=", 1) for w in sys.argv[1:] if "=" in w)
    keeps = len(words) == 3 and words[1] in ("backup", "restore")
    if not (len(words) == 1 or keeps) or words[0].startswith("-") or options.keys() - {"--bytes", "--project", "--at"}:
        sys.exit(USAGE)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if keeps:
            from infra import keep

            stack, place = Stack(Path(words[0]).absolute(), options.get("--bytes", "")), Path(words[2]).absolute()
            did = keep.backup(stack, place) if words[1] == "backup" else keep.restore(stack, place, options.get("--at"))
            sys.stdout.write("".join(f"{name}: {value}\n" for name, value in did.items()))
            return
        with Stack(Path(words[0]).absolute(), options.get("--bytes", "")) as stack:
            if "--project" in options:
                stack.prepare_project(options["--project"])
            for name in ("mlflow", "prefect"):
                sys.stdout.write(f"{name}: {stack.url(name)}\n")
            sys.stdout.write(f"DVC: dvc remote add --default team {stack.place('dvc')}\n")
            for role in ROLES:
                sys.stdout.write(f"as {role}: . {stack.folder / f'{role}.env'}\n")
            sys.stdout.write("Ctrl-C ends all of them\n")
            sys.stdout.flush()
            signal.pause()
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
