"""`spec.serving.tls`, `auth` and `clientLimits`: who may call a server, and how much of it one client may have."""

from typing import Annotated

from pydantic import Field, model_validator

from enginesmith_contract.serve_request import ClientLimits
from enginesmith_operator.api.base import ApiModel, Finding, finding_error
from enginesmith_operator.api.scalars import KubernetesName

__all__ = ["AuthSpec", "ClientLimitsSpec", "TlsSpec"]

_MOST_IN_FLIGHT = 65536
_MOST_PER_SECOND = 1_000_000


class TlsSpec(ApiModel):
    """Settings for TLS. Secrets that change are read again, and are used for new connections.

    Attributes:
        secret_name: Name of the Secret with the certificate of the server (`tls.crt`, with its chain) and its key
            (`tls.key`), of the type `kubernetes.io/tls`.
        client_ca_secret_name: Name of the Secret with the authority (`ca.crt`) that signs the certificates of clients.
            It may be the Secret with the server's certificate. If omitted, clients need no certificate.
        server_name: DNS name that clients use for the server. The certificate must be for this name. If omitted, it
            must be for a name of the engine's Service, such as `NAME.NAMESPACE.svc`.
    """

    secret_name: KubernetesName
    client_ca_secret_name: KubernetesName | None = Field(default=None, alias="clientCASecretName")
    server_name: KubernetesName | None = None


class AuthSpec(ApiModel):
    """Settings for the authentication of clients by bearer tokens. Health and readiness need no token.

    Attributes:
        tokens_secret_name: Name of the Secret with the tokens. Each key is the name of a client, and its value is the
            client's token, or several tokens, one on each line.
    """

    tokens_secret_name: KubernetesName


class ClientLimitsSpec(ApiModel):
    """Limits for each client. Requests beyond them get RESOURCE_EXHAUSTED, and over HTTP the status 429.

    Attributes:
        max_in_flight: Number of requests without an answer. If omitted, there is no limit.
        requests_per_second: Number of requests in a second. As many may arrive at once. If omitted, there is no limit.
    """

    max_in_flight: Annotated[int, Field(ge=1, le=_MOST_IN_FLIGHT)] | None = None
    requests_per_second: Annotated[int, Field(ge=1, le=_MOST_PER_SECOND)] | None = None

    @property
    def limits(self) -> ClientLimits:
        """Return what the server receives."""
        return ClientLimits(max_in_flight=self.max_in_flight, requests_per_second=self.requests_per_second)

    @model_validator(mode="after")
    def _require_a_limit(self) -> "ClientLimitsSpec":
        if self.max_in_flight is None and self.requests_per_second is None:
            raise finding_error(Finding("it has no limit", hint="set maxInFlight or requestsPerSecond, or remove it"))
        return self
