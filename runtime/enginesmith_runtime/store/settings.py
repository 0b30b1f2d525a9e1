"""Settings of a remote store from the environment: endpoint, region, TLS and credentials.

The model and the store may be in two services of one kind with different accounts. A variable with the prefix
`STORE_SECRET_PREFIX`, or a file in the folder STORE_CREDENTIALS, applies only to the store; a plain variable applies to
both.
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
    """The variables for a store's client.

    Attributes:
        variables: The environment, with the files of STORE_CREDENTIALS as variables of the store.
    """

    variables: Mapping[str, str]

    @classmethod
    def of_process(cls) -> Self:
        """Return this process's settings."""
        files = read_credentials(os.environ.get(STORE_CREDENTIALS))
        return cls(variables=dict(os.environ) | {f"{STORE_SECRET_PREFIX}{name}": text for name, text in files.items()})

    @property
    def endpoint(self) -> str | None:
        """URL of the service; None for the client's default."""
        return self.variables.get(STORE_ENDPOINT) or self.get("AWS_ENDPOINT_URL_S3") or self.get("AWS_ENDPOINT_URL")

    @property
    def region(self) -> str | None:
        """Region of the bucket; None for the client's default."""
        return self.variables.get(STORE_REGION) or self.get("AWS_REGION") or self.get("AWS_DEFAULT_REGION")

    @property
    def plain_http(self) -> bool:
        """Whether the registry does not use TLS."""
        return self.variables.get(STORE_PLAIN_HTTP, "").lower() == "true"

    @property
    def docker_config(self) -> Path | None:
        """Folder of the registry's config.json; None for the default of container tools."""
        named = self.variables.get(STORE_DOCKER_CONFIG)
        return Path(named) if named else None

    def get(self, name: str) -> str | None:
        """Return the store's value of a variable, else the plain value, else None. Empty values count as None."""
        return self.variables.get(f"{STORE_SECRET_PREFIX}{name}") or self.variables.get(name) or None
