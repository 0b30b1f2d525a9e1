"""What a serving pod's init step receives (which engine belongs on which GPU), and the pod's termination message.

    PullRequest ──> look at the GPU ──> the one engine for it ──> copy of its blobs in `into` ──> ServeRequest

The copy is a store of its own, so the server reads a folder whatever the engine came from.
"""

from enginesmith_contract.backends import Backend
from enginesmith_contract.failure import Failure
from enginesmith_contract.record import Record
from enginesmith_contract.serve_request import ModelOptions, ServedModel, ServeRequest, ServerOptions

__all__ = ["SERVE_REQUEST_FILE", "PullRequest", "PullableEngine", "ServingReport"]

SERVE_REQUEST_FILE = "serve-request.json"
"""Name of the file in `PullRequest.into` that the server is started with."""


class PullableEngine(Record):
    """One engine and the device that it is for.

    Attributes:
        engine_digest: that the pulled bytes must have; None: the manifest's own word is taken.
        product: canonical; None: no GPU is asked for.
        arch: of the node, as Kubernetes spells it.
    """

    engine_key: str
    engine_digest: str | None = None
    product: str | None = None
    mig_profile: str | None = None
    arch: str = "amd64"


class PullRequest(Record):
    """One pod of a target.

    Attributes:
        store: URI of the store that has the engines.
        engines: in the order of the plan; exactly one of them fits a node of the target. The only one of the backend
            `onnxruntime` is taken without a look at the GPU, which that backend does not use.
        into: folder that becomes the server's store and receives `SERVE_REQUEST_FILE`.
        model: name and options of the model, whichever engine it is.
        server: options of the process.
    """

    store: str
    backend: Backend
    engines: tuple[PullableEngine, ...]
    into: str = "/engines"
    model: ModelOptions
    server: ServerOptions = ServerOptions()

    def serve_request(self, engine_key: str) -> ServeRequest:
        """Return the request that the server receives once the engine is in `into`."""
        served = ServedModel(**self.model.model_dump(), engine_key=engine_key, store=self.into)
        return ServeRequest(**self.server.model_dump(), models=(served,))


class ServingReport(Record):
    """The termination message of the init step's container, and of the container of a server that refuses.

    Attributes:
        engine_key: that was taken; None where none fits.
        product: of the GPU that was found; None: not looked at, or none there.
        driver: that the device has.
        failure: None where the step succeeded.
    """

    engine_key: str | None = None
    engine_digest: str | None = None
    product: str | None = None
    mig_profile: str | None = None
    driver: str | None = None
    failure: Failure | None = None
