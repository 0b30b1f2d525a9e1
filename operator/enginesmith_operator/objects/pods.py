"""What every pod of the operator has in common: it needs no right, no token, no root and no writable image.

pod_spec(...)     the restricted pod around containers
container(...)    one step: a module of the runtime, configured by variables, with its termination message in a file
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

from enginesmith_contract import environment
from enginesmith_contract.address_rules import AddressRules
from enginesmith_contract.allowed_plugins import AllowedPlugins
from enginesmith_contract.record import Record
from enginesmith_operator.api.model import SecretReference
from enginesmith_operator.api.pod_template import EnvVar, LocalObjectReference, ResourceRequirements
from enginesmith_operator.api.quantities import spell_resource

__all__ = [
    "CREDENTIALS_MODE",
    "SCRATCH_FOLDER",
    "SECURITY",
    "JsonObject",
    "addresses_variable",
    "allowed_plugins_variable",
    "claim_mounts",
    "claim_volumes",
    "claims_of",
    "container",
    "plain_resources",
    "pod_spec",
    "request_variable",
    "resources_of",
    "secret_volume",
    "source_environment",
    "source_mounts",
    "source_volumes",
    "template_hash",
]

# The images' own user; a volume's files belong to this group too.
_USER_ID: Final = 65532
_TERMINATION_LOG: Final = "/dev/termination-log"
_SCRATCH: Final = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - an emptyDir of the pod's own
SCRATCH_FOLDER: Final = _SCRATCH["mountPath"]
_CLAIMS_FOLDER: Final = "/models"
_CLAIM_SCHEME: Final = "pvc://"
_USERS_TO_CHANGE: Final = frozenset({environment.LOG_FORMAT})
# By its whole path, and isolated: no variable, no working folder and no user's folder adds to what is imported.
_PYTHON: Final = ("/opt/enginesmith/bin/python", "-I", "-u")
_PLAIN_RESOURCES: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
_CREDENTIALS_FOLDER: Final = "/etc/enginesmith/source-credentials"
_CREDENTIALS_VOLUME: Final = "source-credentials"
CREDENTIALS_MODE: Final = 0o440
"""Files of a Secret: the pod's own group reads them."""

JsonObject = dict[str, Any]

SECURITY: Final[JsonObject] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Security context of every container."""


def pod_spec(  # noqa: PLR0913 - the parts of a pod, by keyword
    *,
    containers: list[JsonObject],
    init_containers: Iterable[JsonObject] = (),
    volumes: Iterable[JsonObject] = (),
    affinity: JsonObject,
    tolerations: list[JsonObject],
    node_selector: Mapping[str, str],
    runtime_class_name: str | None = None,
    priority_class_name: str | None = None,
    service_account_name: str | None = None,
    image_pull_secrets: Iterable[LocalObjectReference] = (),
) -> JsonObject:
    """Return the specification of a pod that the `restricted` Pod Security Standard admits."""
    optional: JsonObject = {
        "initContainers": list(init_containers),
        "nodeSelector": dict(node_selector),
        "runtimeClassName": runtime_class_name,
        "priorityClassName": priority_class_name,
        "serviceAccountName": service_account_name,
        "imagePullSecrets": [{"name": one.name} for one in image_pull_secrets],
        "tolerations": tolerations,
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER_ID,
            "runAsGroup": _USER_ID,
            "fsGroup": _USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": affinity,
        "containers": containers,
        "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
    } | {name: value for name, value in optional.items() if value}


def container(
    *,
    name: str,
    image: str,
    module: str,
    arguments: Iterable[str] = (),
    variables: list[JsonObject],
    added: Iterable[EnvVar],
    mounts: Iterable[JsonObject],
    resources: JsonObject,
) -> JsonObject:
    """Return a container that runs one module of the runtime.

    Args:
        name: of the container.
        image: by digest.
        module: of the runtime.
        arguments: of the module.
        variables: that configure the module.
        added: by the user.
        mounts: in addition to the scratch folder.
        resources: as Kubernetes spells them.
    """
    fixed = {
        environment.TERMINATION_LOG: _TERMINATION_LOG,
        environment.LOG_FORMAT: "json",
        environment.CLAIMS_FOLDER: _CLAIMS_FOLDER,
        # The root file system is read-only, and some library always wants a home.
        "HOME": _SCRATCH["mountPath"],
    }
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [*_PYTHON, "-m", module, *arguments],
        "env": _environment([*({"name": key, "value": value} for key, value in fixed.items()), *variables], added),
        "volumeMounts": [dict(_SCRATCH), *mounts],
        "resources": resources,
        "securityContext": SECURITY,
        "terminationMessagePath": _TERMINATION_LOG,
        "terminationMessagePolicy": "File",
    }


def allowed_plugins_variable(digests: Iterable[str] | None) -> list[JsonObject]:
    """Return the variable that says which plugin libraries may be loaded; None: any may, and nothing is said."""
    if digests is None:
        return []
    text = AllowedPlugins(digests=tuple(sorted(set(digests)))).to_text()
    return [{"name": environment.PLUGINS_ALLOWED, "value": text}]


def addresses_variable(rules: AddressRules) -> JsonObject:
    """Return the variable that says what the process may connect to."""
    return request_variable(environment.ADDRESSES, rules)


def _environment(own: list[JsonObject], added: Iterable[EnvVar]) -> list[JsonObject]:
    """Return all variables, each once: the API server applies no list that has one twice, and runs the last of them.

    What the operator tells a process is not for a user to change.
    """
    kept = {one["name"] for one in own} - _USERS_TO_CHANGE
    users = {one.name: one for one in added if one.name not in kept}
    found = [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in users.values()]
    return [*(one for one in own if one["name"] not in users), *found]


def request_variable(name: str, request: Record) -> JsonObject:
    """Return a request as a variable; Kubernetes would expand what looks like `$(A_VARIABLE)` in it."""
    return {"name": name, "value": request.to_json().decode().replace("$", "$$")}


def source_environment(secret: SecretReference | None) -> list[JsonObject]:
    """Return the variable that says where the model source's Secret is mounted."""
    return [{"name": environment.SOURCE_CREDENTIALS, "value": _CREDENTIALS_FOLDER}] if secret is not None else []


def secret_volume(name: str, secret: str) -> JsonObject:
    """Return the volume of a Secret: one file for each key."""
    return {"name": name, "secret": {"secretName": secret, "defaultMode": CREDENTIALS_MODE}}


def source_volumes(secret: SecretReference | None) -> list[JsonObject]:
    """Return the volume of the model source's Secret."""
    return [] if secret is None else [secret_volume(_CREDENTIALS_VOLUME, secret.name)]


def source_mounts(secret: SecretReference | None) -> list[JsonObject]:
    """Return where that volume is mounted."""
    if secret is None:
        return []
    return [{"name": _CREDENTIALS_VOLUME, "mountPath": _CREDENTIALS_FOLDER, "readOnly": True}]


def plain_resources(wanted: ResourceRequirements) -> ResourceRequirements:
    """Return the CPU, memory and local storage of `wanted`: what a step other than its own requests too."""
    kept = {
        kind: {name: value for name, value in of.items() if name in _PLAIN_RESOURCES}
        for kind, of in (("requests", wanted.requests), ("limits", wanted.limits))
    }
    return ResourceRequirements(**kept)


def resources_of(
    wanted: ResourceRequirements, defaults: Mapping[str, str], *, gpu_resource: str | None = None, gpus: int = 0
) -> JsonObject:
    """Return a container's resources.

    Args:
        wanted: by the user.
        defaults: requests for what the user does not mention at all.
        gpu_resource: extended resource to add.
        gpus: how many of it.
    """
    requests = {name: value for name, value in defaults.items() if name not in wanted.limits} | dict(wanted.requests)
    limits = dict(wanted.limits) | ({gpu_resource: gpus} if gpu_resource and gpus else {})
    found = {"requests": requests, "limits": limits}
    return {kind: {name: spell_resource(value) for name, value in of.items()} for kind, of in found.items() if of}


def template_hash(template: JsonObject) -> str:
    """Return a hash of a pod's template, to tell whether the operator would make another one now."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:20]


def claims_of(uris: Iterable[str | None]) -> tuple[str, ...]:
    """Return the claims that `pvc://claim/path` URIs name."""
    named = [uri.removeprefix(_CLAIM_SCHEME) for uri in uris if uri is not None and uri.startswith(_CLAIM_SCHEME)]
    return tuple(sorted({rest.partition("/")[0] for rest in named}))


def claim_volumes(claims: Iterable[str], written: str | None) -> list[JsonObject]:
    """Return the volumes of models that lie in claims of their own (`pvc://claim/path`).

    Args:
        claims: their names.
        written: claim of the pod's store. kubelet mounts a claim once for all volumes of a pod, and read-only if one
            of them is, so a model in this claim is read-only by its mount alone.
    """
    return [
        {
            "name": f"model-{number}",
            "persistentVolumeClaim": {"claimName": claim} | ({} if claim == written else {"readOnly": True}),
        }
        for number, claim in enumerate(claims)
    ]


def claim_mounts(claims: Iterable[str]) -> list[JsonObject]:
    """Return where those volumes are mounted: each under its claim's name."""
    return [
        {"name": f"model-{number}", "mountPath": f"{_CLAIMS_FOLDER}/{claim}", "readOnly": True}
        for number, claim in enumerate(claims)
    ]
