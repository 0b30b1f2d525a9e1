"""`spec.store`: where prepared models and engines are kept."""

from typing import Annotated

from pydantic import Field, model_validator

from enginesmith_operator.api.base import ApiModel, Finding, finding_error
from enginesmith_operator.api.model import SecretReference
from enginesmith_operator.api.scalars import KubernetesName

__all__ = ["OciStore", "PvcStore", "S3Store", "StoreSpec"]

_Path = Annotated[str, Field(min_length=1, max_length=1024)]


class PvcStore(ApiModel):
    """A PersistentVolumeClaim of the same namespace; ReadWriteMany where more than one node builds or serves.

    Attributes:
        claim_name: of the claim.
        sub_path: folder inside the volume.
    """

    claim_name: KubernetesName
    sub_path: _Path | None = None


class S3Store(ApiModel):
    """A bucket that speaks S3.

    Attributes:
        bucket: name of the bucket.
        prefix: of every object's key.
        endpoint: URL of the service; omitted: Amazon's.
        region: of the bucket.
        secret_ref: credentials.
    """

    bucket: Annotated[str, Field(min_length=1, max_length=255)]
    prefix: Annotated[str, Field(max_length=512)] = ""
    endpoint: Annotated[str, Field(max_length=512)] | None = None
    region: Annotated[str, Field(max_length=63)] | None = None
    secret_ref: SecretReference | None = None


class OciStore(ApiModel):
    """A repository of an OCI registry.

    Attributes:
        repository: registry host and path, without a tag.
        plain_http: speak HTTP without TLS.
        secret_ref: credentials.
    """

    repository: Annotated[str, Field(min_length=1, max_length=512)]
    plain_http: bool = False
    secret_ref: SecretReference | None = None


class StoreSpec(ApiModel):
    """Where prepared models and engines are kept; exactly one.

    Attributes:
        pvc: a PersistentVolumeClaim.
        s3: a bucket.
        oci: a registry.
        path: a folder; only in local mode.
    """

    pvc: PvcStore | None = None
    s3: S3Store | None = None
    oci: OciStore | None = None
    path: _Path | None = None

    @model_validator(mode="after")
    def _be_one(self) -> "StoreSpec":
        if sum(way is not None for way in (self.pvc, self.s3, self.oci, self.path)) != 1:
            raise finding_error(Finding("expected exactly one of pvc, s3, oci and path", "{pvc: {claimName: engines}}"))
        return self
