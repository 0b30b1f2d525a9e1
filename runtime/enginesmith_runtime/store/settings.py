"""How a remote store is reached, from the environment: endpoint, region, TLS, credentials.

A model and the store may lie in two services of one kind, each with an account of its own: a variable with the prefix
`STORE_SECRET_PREFIX`, or a file in the folder STORE_CREDENTIALS, is the store's; the plain variable is anybody's.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from enginesmith_contract.environment import (
    STORE_CREDENTIALS,
    STORE_DOCKER_CONFIG,
    STORE_ENDPOINT,
    STORE_PLAIN_HTTP,
    STORE_REGION,
    STORE_SECRET_PREFIX,
)
from enginesmith_runtime.credential_files import read_credentials

__all__ = ["StoreSettings"]


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """The variables that a store's client is made with.

    Attributes:
        variables: the environment, with the files of STORE_CREDENTIALS as variables of the store.
    """

    variables: Mapping[str, str]

    @classmethod
    def of_process(cls) -> Self:
        """Return this process's settings."""
        files = read_credentials(os.environ.get(STORE_CREDENTIALS))
        return cls(variables=dict(os.environ) | {f"{STORE_SECRET_PREFIX}{name}": text for name, text in files.items()})

    @property
    def endpoint(self) -> str | None:
        """URL of the service; None: the client's own."""
        return self.variables.get(STORE_ENDPOINT) or self.get("AWS_ENDPOINT_URL_S3") or self.get("AWS_ENDPOINT_URL")

    @property
    def region(self) -> str | None:
        """Region of the bucket; None: the client's own."""
        return self.variables.get(STORE_REGION) or self.get("AWS_REGION") or self.get("AWS_DEFAULT_REGION")

    @property
    def plain_http(self) -> bool:
        """Whether the registry speaks no TLS."""
        return self.variables.get(STORE_PLAIN_HTTP, "").lower() == "true"

    @property
    def docker_config(self) -> Path | None:
        """Folder of the registry's config.json; None: where the container tools have theirs."""
        named = self.variables.get(STORE_DOCKER_CONFIG)
        return Path(named) if named else None

    def get(self, name: str) -> str | None:
        """Return the store's own value of a variable, else the plain one, else None; an empty one counts as none."""
        return self.variables.get(f"{STORE_SECRET_PREFIX}{name}") or self.variables.get(name) or None
