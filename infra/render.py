"""Containers and units of the servers, made from their one description: `python -m infra.render FOLDER --as=compose`.

What `infra/stack.py` starts on one machine for the tests is what is written here as a compose file, as a base for kustomize, or
as units of systemd. No password is in them: each process has a file of its own, readable to its owner alone, with the variables
that hold one. Passwords are made once, at random, and stay in FOLDER.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from infra.forms import compose, kubernetes, systemd
from infra.forms.shared import Places
from infra.mlflow_server import write_private
from infra.stack import MEMORY, ROLES, Process, Site, Stack
from tasks.children import LOOPBACK
from tasks.errors import UserError

PORTS: Final = {"postgres": 5432, "mlflow": 5000, "prefect": 4200}
OPTIONS: Final = ("--as", "--mlflow", "--prefect", "--bytes", "--code", "--workspace")
USAGE: Final = (
    "usage: python -m infra.render FOLDER --as=compose|kubernetes|systemd [--mlflow=https://HOST] [--prefect=https://HOST] "
    "[--bytes=s3://BUCKET] [--code=/opt/compactlm] [--workspace=/srv/compactlm]"
)
ALL: Final = "0.0.0.0"  # in a container, which is reached by its network alone
CLOUD: Final = "AWS_"  # what MLflow needs for a bucket, where it is set


def in_containers(pages: Mapping[str, str]) -> Site:
    """Return where servers are whose containers know each other by name, and hand ports out to the machine that they are on."""
    return Site(
        listen=ALL,
        hosts={name: name for name in PORTS},
        ports=PORTS,
        pages=pages,
        home="/var/lib/compactlm",
        scratch="/tmp",
        data="/var/lib/postgresql/data",
        postgres="postgres",
        sockets="/var/run/postgresql",
    )


def in_units(pages: Mapping[str, str], postgres: str) -> Site:
    """Return where servers are that systemd starts; a proxy on their machine hands them out."""
    return Site(
        ports=PORTS,
        pages=pages,
        home="/var/lib/compactlm",
        scratch="/run/compactlm-mlflow",
        postgres=postgres,
        data="/var/lib/compactlm/postgres",
    )


def described(stack: Stack) -> list[Process]:
    """Return the processes of a stack; UserError where one of them is for tests alone."""
    if stack.bytes_at == MEMORY:
        raise UserError(f"--bytes={MEMORY}: it forgets all when it ends; give a bucket, s3://NAME, or leave it out")
    return stack.processes()


def secret_files(stack: Stack, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return name -> content of the files with passwords: of each process, and of each role that works with the servers."""
    found = {process.name: dict(process.secret) for process in described(stack)}
    found["mlflow"] |= {name: value for name, value in environ.items() if name.startswith(CLOUD) and stack.bytes_at}
    found |= {role: stack.environment(role) for role in ROLES}
    found["watch"] = {**stack.environment("reader"), "COMPACTLM_WEBHOOK_SECRET": stack.password("webhook")}
    return {f"{name}.env": "".join(f"{key}={value}\n" for key, value in values.items()) for name, values in found.items()}


def write(folder: Path, files: Mapping[str, str], secrets: Mapping[str, str]) -> None:
    """Write the files of a form over those of before, and the secrets beside them, readable to their owner alone."""
    (folder / "secrets").mkdir(parents=True, exist_ok=True)
    (folder / "secrets").chmod(0o700)
    for name, text in secrets.items():
        write_private(folder / "secrets" / name, text)
    (folder.parent / ".gitignore").write_text("/settings.json\n/*.env\n/*/secrets/\n", encoding="utf-8")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def rendered(folder: Path, options: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return name -> content of the files of a form, and of those with secrets; `options` are those of the command."""
    pages = pages_of(options)
    form, bytes_at = options.get("--as", ""), options.get("--bytes", "")
    if form == "systemd":
        places = Places(*(options.get(f"--{name}", default) for name, default in Places()._asdict().items()))
        stack = Stack(folder, bytes_at, in_units(pages, systemd.postgres()))
        return systemd.files(described(stack), places), secret_files(stack)
    forms = {"compose": compose.files, "kubernetes": kubernetes.files}
    if form not in forms:
        raise UserError(f"--as={form}: is none of {', '.join([*forms, 'systemd'])}")
    stack = Stack(folder, bytes_at, in_containers(pages))
    return forms[form](described(stack)), secret_files(stack)


def pages_of(options: Mapping[str, str]) -> dict[str, str]:
    """Return server -> the address by which people and clients reach it, as the options of a command say."""
    pages = {name: options[f"--{name}"].rstrip("/") for name in ("mlflow", "prefect") if f"--{name}" in options}
    for name, address in pages.items():
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path:
            raise UserError(f"--{name}={address}: is no address of a server; write one like https://{name}.example.org")
    return {name: pages.get(name, f"http://{LOOPBACK}:{PORTS[name]}") for name in ("mlflow", "prefect")}


def parsed(arguments: list[str], known: tuple[str, ...], usage: str) -> tuple[Path, dict[str, str]]:
    """Return the folder and the options of a command line; UserError with the usage where it is none."""
    words = [word for word in arguments if not word.startswith("-")]
    options = dict(word.split("=", 1) for word in arguments if word.startswith("-") and "=" in word)
    if len(words) != 1 or len(words) + len(options) != len(arguments) or set(options) - set(known):
        raise UserError(usage)
    return Path(words[0]).absolute(), options


def main() -> None:
    """Write the files of one form, and say where they are; see infra/README.md."""
    try:
        folder, options = parsed(sys.argv[1:], OPTIONS, USAGE)
        files, secrets = rendered(folder, options)
        place = folder / options["--as"]
        write(place, files, secrets)
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write("".join(f"{place / name}\n" for name in files))
    sys.stdout.write(f"{place / 'secrets'}: passwords, for your eyes alone; infra/README.md says how to start it\n")


if __name__ == "__main__":
    main()
