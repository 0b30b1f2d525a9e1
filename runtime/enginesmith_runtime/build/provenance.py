"""The provenance of an engine: what the operator told of the build, and what the builder knows."""

import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.environment import BUILD_ORIGIN
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.provenance import (
    BuildDefinition,
    Builder,
    BuildMetadata,
    BuildOrigin,
    Dependency,
    Provenance,
    RunDetails,
)
from enginesmith_contract.release import RELEASE

__all__ = ["describe_build"]

_BY_HAND: Final = "enginesmith build"


def describe_build(manifest: Manifest, request: BuildRequest, started_at: str, finished_at: str) -> Provenance:
    """Return the provenance of an engine that was just built; times are RFC 3339, UTC."""
    told = os.environ.get(BUILD_ORIGIN)
    origin = BuildOrigin.from_json(told) if told else BuildOrigin()
    toolchain, hardware = manifest.toolchain, manifest.hardware
    return Provenance(
        build_definition=BuildDefinition(
            external_parameters=_known({"engine": origin.engine})
            | {"requestSha256": sha256(request.to_json()).hexdigest()},
            internal_parameters=_known(
                {
                    "cluster": origin.cluster,
                    "namespace": origin.namespace,
                    "gpuProduct": hardware.product,
                    "migProfile": hardware.mig_profile,
                    "driver": hardware.driver,
                }
            ),
            resolved_dependencies=(
                Dependency(name="model", digest={"sha256": manifest.source_digest}),
                Dependency(name="preparation", digest={"sha256": manifest.key_inputs.preparation_key}),
                Dependency(
                    name="toolchain",
                    annotations=_known(
                        {"backend": toolchain.backend, "version": toolchain.version, "cuda": toolchain.cuda}
                    ),
                ),
                *(Dependency(name="plugin", uri=one.path, digest={"sha256": one.digest}) for one in manifest.plugins),
            ),
        ),
        run_details=RunDetails(
            builder=Builder(
                id=origin.image or _BY_HAND,
                version=_known({"enginesmith": RELEASE, "operator": origin.operator_version}),
            ),
            metadata=BuildMetadata(invocation_id=origin.job, started_on=started_at, finished_on=finished_at),
        ),
    )


def _known(parameters: Mapping[str, str | None]) -> dict[str, str]:
    return {name: str(value) for name, value in parameters.items() if value}
