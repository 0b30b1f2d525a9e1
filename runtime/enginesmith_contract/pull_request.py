"""Request of a serving pod's init container (which engine belongs on which GPU), and its termination message.

    PullRequest ──> look at the GPU ──> the one engine for it ──> copy of its blobs in `into` ──> ServeRequest

The copy is a separate store, so the server reads a folder for every kind of source store.
"""

from enginesmith_contract.backends import Backend
from enginesmith_contract.failure import Failure
from enginesmith_contract.record import Record
from enginesmith_contract.serve_request import ModelOptions, ServedModel, ServeRequest, ServerOptions

__all__ = ["SERVE_REQUEST_FILE", "PullRequest", "PullableEngine", "ServingReport"]

SERVE_REQUEST_FILE = "serve-request.json"
"""Name of the file in `PullRequest.into` with the server's request."""


class PullableEngine(Record):
    """One engine and its device.

    Attributes:
        engine_digest: Digest that the pulled files must have; None if the digest in the manifest is used.
        product: Canonical GPU product; None if the engine needs no GPU.
        arch: CPU architecture of the node, as Kubernetes spells it.
    """

    engine_key: str
    engine_digest: str | None = None
    product: str | None = None
    mig_profile: str | None = None
    arch: str = "amd64"


class PullRequest(Record):
    """Request for one pod of a target.

    Attributes:
        store: URI of the store with the engines.
        engines: Engines in the order of the plan. Exactly one of them fits a node of the target. A single engine of the
            backend `onnxruntime` is chosen without a GPU query, because that backend does not use a GPU.
        into: Folder that becomes the server's store and receives `SERVE_REQUEST_FILE`.
        model: Name and options of the model, which do not depend on the engine.
        server: Options of the server process.
    """

    store: str
    backend: Backend
    engines: tuple[PullableEngine, ...]
    into: str = "/engines"
    model: ModelOptions
    server: ServerOptions = ServerOptions()

    def serve_request(self, engine_key: str) -> ServeRequest:
        """Return the request for the server when the engine is in `into`."""
        served = ServedModel(**self.model.model_dump(), engine_key=engine_key, store=self.into)
        return ServeRequest(**self.server.model_dump(), models=(served,))


class ServingReport(Record):
    """The termination message of the init container, and of a server container that refuses its engine.

    Attributes:
        engine_key: Key of the chosen engine; None if none fits.
        product: Product of the GPU; None if it was not queried or there is none.
        driver: Version of the driver.
        failure: Reason of the failure; None if the container succeeded.
    """

    engine_key: str | None = None
    engine_digest: str | None = None
    product: str | None = None
    mig_profile: str | None = None
    driver: str | None = None
    failure: Failure | None = None
