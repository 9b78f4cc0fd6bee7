"""The servers as a base for kustomize: Secrets are named and never contained, and nothing runs as root."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from infra.forms.containers import DATABASES_SQL, arguments, check_command, environment, image, port, user, volume
from infra.forms.shared import LIMITS, as_yaml
from infra.stack import Process

NAME: Final = "compactlm"
KEPT: Final = {"postgres": "20Gi", "mlflow": "50Gi", "prefect": "5Gi"}
Record = dict[str, Any]


def files(processes: Sequence[Process]) -> dict[str, str]:
    """Return name -> content."""
    made = {f"{process.name}.yaml": as_yaml(*_documents(process)) for process in processes}
    base: Record = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAME,
        "labels": [{"pairs": {"app.kubernetes.io/part-of": NAME}}],
        "resources": ["namespace.yaml", *made, "network.yaml"],
        "configMapGenerator": [{"name": "databases", "files": ["databases.sql"]}],
    }
    return {
        "kustomization.yaml": as_yaml(base),
        "namespace.yaml": as_yaml({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}}),
        **made,
        "network.yaml": as_yaml(_network(processes)),
        "databases.sql": DATABASES_SQL,
    }


def secret_name(process: Process) -> str:
    """Return the Secret with the variables of a process that hold a password."""
    return f"{NAME}-{process.name}"


def _documents(process: Process) -> list[Record]:
    labels = {"app.kubernetes.io/name": process.name}
    ports = [{"name": process.name, "port": port(process), "targetPort": port(process)}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": process.name, "labels": labels},
        "spec": {"selector": labels, "ports": ports},
    }
    spec: Record = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": _pod(process)},
    }
    if process.name == "postgres":
        spec |= {"serviceName": process.name, "volumeClaimTemplates": [_claim(process.name)]}
        return [service, _workload("StatefulSet", process.name, labels, spec)]
    # The volume has one user at a time, so the former pod ends first.
    spec["strategy"] = {"type": "Recreate"}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **_claim(process.name)}
    return [service, claim, _workload("Deployment", process.name, labels, spec)]


def _workload(kind: str, name: str, labels: Mapping[str, str], spec: Record) -> Record:
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "labels": dict(labels)}, "spec": spec}


def _claim(name: str) -> Record:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": KEPT[name]}}}
    return {"metadata": {"name": name}, "spec": wanted}


def _pod(process: Process) -> Record:
    is_database, number = process.name == "postgres", user(process)
    volumes: list[Record] = [{"name": "tmp", "emptyDir": {}}]
    if is_database:
        volumes += [{"name": "sockets", "emptyDir": {}}, {"name": "databases", "configMap": {"name": "databases"}}]
    else:
        volumes.append({"name": process.name, "persistentVolumeClaim": {"claimName": process.name}})
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # which would set variables such as PREFECT_PORT
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": number,
            "runAsGroup": number,
            "fsGroup": number,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(process)],
        "volumes": volumes,
    }


def _container(process: Process) -> Record:
    is_database, limits = process.name == "postgres", LIMITS[process.name]
    mounts = [{"name": process.name, "mountPath": volume(process), "subPath": "data"}, {"name": "tmp", "mountPath": "/tmp"}]
    if is_database:
        mounts += [
            {"name": "sockets", "mountPath": "/var/run/postgresql"},
            {"name": "databases", "mountPath": "/docker-entrypoint-initdb.d"},
        ]
    return {
        "name": process.name,
        "image": image(process),
        "args": arguments(process),
        "env": [{"name": name, "value": value} for name, value in environment(process).items()],
        "envFrom": [{"secretRef": {"name": secret_name(process)}}],
        "ports": [{"name": process.name, "containerPort": port(process)}],
        "startupProbe": {**_probe(process), "periodSeconds": 5, "failureThreshold": 36},
        "readinessProbe": {**_probe(process), "periodSeconds": 10, "timeoutSeconds": 10},
        "livenessProbe": {**_probe(process), "periodSeconds": 30, "timeoutSeconds": 10, "failureThreshold": 4},
        "resources": {
            "requests": {"cpu": f"{limits.cores * 250:.0f}m", "memory": f"{limits.memory // 2}Mi"},
            "limits": {"cpu": f"{limits.cores * 1000:.0f}m", "memory": f"{limits.memory}Mi"},
        },
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }


def _probe(process: Process) -> Record:
    address = urlsplit(process.health)
    if address.scheme == "postgresql":
        return {"exec": {"command": check_command(process)}}
    return {"httpGet": {"path": address.path, "port": process.name}}


def _network(processes: Sequence[Process]) -> Record:
    """Return the rule by which the servers alone reach the database."""
    servers = [process.name for process in processes if process.name != "postgres"]
    database = next(process for process in processes if process.name == "postgres")
    who = {"podSelector": {"matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": servers}]}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "postgres"},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "postgres"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [who], "ports": [{"port": port(database)}]}],
        },
    }
