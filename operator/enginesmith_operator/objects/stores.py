"""How a pod reaches the engine store: its URI, and the mounts and variables that go with it.

| store | URI | in addition |
|---|---|---|
| pvc | file:///engines-store | the claim, mounted there |
| s3 | s3://bucket/prefix/namespace | endpoint and region in variables, the Secret's keys as files |
| oci | oci://registry/repository/namespace | the Secret's `.dockerconfigjson` as a file |

Where an administrator shares a bucket or a registry between namespaces, the namespace is left out.
"""

from typing import Any, Final

from enginesmith_contract import environment
from enginesmith_operator.api.store import OciStore, S3Store, StoreSpec
from enginesmith_operator.objects.pods import CREDENTIALS_MODE

__all__ = [
    "STORE_MOUNT",
    "claim_of_store",
    "store_environment",
    "store_mounts",
    "store_uri",
    "store_volumes",
]

STORE_MOUNT: Final = "/engines-store"
_REGISTRY_MOUNT: Final = "/etc/enginesmith/store-registry"
_VOLUME: Final = "store"
_REGISTRY_VOLUME: Final = "store-registry"
_CREDENTIALS_MOUNT: Final = "/etc/enginesmith/store-credentials"
_CREDENTIALS_VOLUME: Final = "store-credentials"

JsonObject = dict[str, Any]


def store_uri(store: StoreSpec, namespace: str, *, shared: bool = False) -> str:
    """Return the store's URI, as builders, servers and preparations receive it.

    Args:
        store: exactly one of its ways is set.
        namespace: of the engines.
        shared: whether an administrator lets all namespaces share it.
    """
    folder = "" if shared else f"/{namespace}"
    match store:
        case StoreSpec(s3=S3Store() as s3):
            prefix = s3.prefix.strip("/")
            return f"s3://{s3.bucket}{f'/{prefix}' if prefix else ''}{folder}"
        case StoreSpec(oci=OciStore() as oci):
            return f"oci://{oci.repository.rstrip('/')}{folder}"
        case _:
            # A claim belongs to one namespace as it is.
            return f"file://{STORE_MOUNT}"


def store_environment(store: StoreSpec) -> list[JsonObject]:
    """Return the variables that complete the URI."""
    found: dict[str, str | None] = {}
    if store.s3 is not None:
        found = {
            environment.STORE_ENDPOINT: store.s3.endpoint,
            environment.STORE_REGION: store.s3.region,
            environment.STORE_CREDENTIALS: _CREDENTIALS_MOUNT if store.s3.secret_ref is not None else None,
        }
    if store.oci is not None:
        found = {
            environment.STORE_PLAIN_HTTP: "true" if store.oci.plain_http else None,
            environment.STORE_DOCKER_CONFIG: _REGISTRY_MOUNT if store.oci.secret_ref is not None else None,
        }
    return [{"name": name, "value": value} for name, value in found.items() if value is not None]


def claim_of_store(store: StoreSpec) -> str | None:
    """Return the claim that a store lies in."""
    return None if store.pvc is None else store.pvc.claim_name


def store_volumes(store: StoreSpec) -> list[JsonObject]:
    """Return the volumes of the pod."""
    if store.pvc is not None:
        return [{"name": _VOLUME, "persistentVolumeClaim": {"claimName": store.pvc.claim_name}}]
    if store.oci is not None and store.oci.secret_ref is not None:
        items = [{"key": ".dockerconfigjson", "path": "config.json"}]
        return [{"name": _REGISTRY_VOLUME, "secret": _files_of(store.oci.secret_ref.name) | {"items": items}}]
    if store.s3 is not None and store.s3.secret_ref is not None:
        return [{"name": _CREDENTIALS_VOLUME, "secret": _files_of(store.s3.secret_ref.name)}]
    return []


def store_mounts(store: StoreSpec, *, read_only: bool = False) -> list[JsonObject]:
    """Return the mounts of the container that reads or writes the store."""
    if store.pvc is not None:
        mount: JsonObject = {"name": _VOLUME, "mountPath": STORE_MOUNT}
        mount |= {"subPath": store.pvc.sub_path} if store.pvc.sub_path else {}
        return [mount | ({"readOnly": True} if read_only else {})]
    if store.oci is not None and store.oci.secret_ref is not None:
        return [{"name": _REGISTRY_VOLUME, "mountPath": _REGISTRY_MOUNT, "readOnly": True}]
    if store.s3 is not None and store.s3.secret_ref is not None:
        return [{"name": _CREDENTIALS_VOLUME, "mountPath": _CREDENTIALS_MOUNT, "readOnly": True}]
    return []


def _files_of(secret: str) -> JsonObject:
    return {"secretName": secret, "defaultMode": CREDENTIALS_MODE}
