"""`spec.store`: the store for prepared models and engines."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from enginesmith_operator.api.base import ApiModel, Finding, finding_error
from enginesmith_operator.api.model import SecretReference
from enginesmith_operator.api.scalars import BucketName, KubernetesName

__all__ = ["OciStore", "PvcStore", "S3Store", "StoreSpec"]


def _check_inside(text: str) -> str:
    if ".." in text.split("/"):
        raise finding_error(Finding("the path leaves its folder", hint="write it without `..`"))
    return text


_Inside = AfterValidator(_check_inside)
_Path = Annotated[str, Field(min_length=1, max_length=1024)]
_URL = r"^https?://[^\s/]+(/\S*)?$"


class PvcStore(ApiModel):
    """PersistentVolumeClaim in the same namespace. It must be ReadWriteMany if several nodes build or serve.

    Attributes:
        claim_name: Name of the PersistentVolumeClaim.
        sub_path: Folder inside the volume.
    """

    claim_name: KubernetesName
    sub_path: Annotated[_Path, _Inside] | None = None


class S3Store(ApiModel):
    """Bucket of an S3-compatible service.

    Attributes:
        bucket: Name of the bucket.
        prefix: Prefix of every object key.
        endpoint: URL of the service. If omitted, Amazon S3.
        region: Region of the bucket.
        secret_ref: Secret with credentials for the bucket.
    """

    bucket: BucketName
    prefix: Annotated[str, Field(max_length=512), _Inside] = ""
    endpoint: Annotated[str, Field(max_length=512, pattern=_URL)] | None = None
    region: Annotated[str, Field(max_length=63)] | None = None
    secret_ref: SecretReference | None = None


class OciStore(ApiModel):
    """Repository in an OCI registry.

    Attributes:
        repository: Registry host and repository path, without a tag.
        plain_http: Whether to use HTTP without TLS.
        secret_ref: Secret with credentials for the registry.
    """

    repository: Annotated[str, Field(min_length=1, max_length=512), _Inside]
    plain_http: bool = False
    secret_ref: SecretReference | None = None


class StoreSpec(ApiModel):
    """Store for prepared models and engines. Exactly one field must be set.

    Attributes:
        pvc: PersistentVolumeClaim that holds the store.
        s3: S3 bucket that holds the store.
        oci: OCI repository that holds the store.
        path: Local folder that holds the store. Only in local mode.
    """

    pvc: PvcStore | None = None
    s3: S3Store | None = None
    oci: OciStore | None = None
    path: _Path | None = None

    @model_validator(mode="after")
    def _require_exactly_one(self) -> "StoreSpec":
        if sum(way is not None for way in (self.pvc, self.s3, self.oci, self.path)) != 1:
            raise finding_error(Finding("expected exactly one of pvc, s3, oci and path", "{pvc: {claimName: engines}}"))
        return self
