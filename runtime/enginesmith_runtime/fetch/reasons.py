"""Reasons why a model could not be fetched: the stable words of `SourceError.reason`."""

from enum import StrEnum, unique
from pathlib import Path

from enginesmith_contract.errors import SourceError

__all__ = ["SourceReason", "unreadable_file"]


@unique
class SourceReason(StrEnum):
    """Reason of a SourceError. `CONNECTION_LOST` and sometimes `TRUNCATED` allow another attempt."""

    NOT_FOUND = "NotFound"
    ACCESS_DENIED = "AccessDenied"
    DIGEST_MISMATCH = "DigestMismatch"
    """The bytes do not have the digest that the user expects. Nothing was kept."""
    CONNECTION_LOST = "ConnectionLost"
    TRUNCATED = "Truncated"
    """There are fewer bytes than the source or the model announced."""
    CHANGED = "Changed"
    """The source changed while it was read."""
    PATH_ESCAPES = "PathEscapes"
    """The model names a weights file outside its own folder."""
    EXTERNAL_DATA_MISSING = "ExternalDataMissing"
    UNSUPPORTED_SCHEME = "UnsupportedScheme"
    UNKNOWN_OPTION = "UnknownOption"
    DISK_FULL = "DiskFull"
    ADDRESS_REFUSED = "AddressRefused"
    """The process may not connect to the address; see `connection_limits`."""
    MISSING_CLIENT = "MissingClient"
    SIGNATURE_MISSING = "SignatureMissing"
    SIGNATURE_INVALID = "SignatureInvalid"
    SIGNATURE_DIFFERS = "SignatureDiffers"
    """The signature is for other files."""
    SIGNER_UNKNOWN = "SignerUnknown"


def unreadable_file(path: Path, error: OSError, noun: str) -> SourceError:
    """Return the error of a local file that is missing or not readable. `noun` is the expected kind of file."""
    if isinstance(error, PermissionError):
        return SourceError(
            "this user may not read the file",
            where=str(path),
            remedy="give this user the right to read it",
            reason=SourceReason.ACCESS_DENIED,
        )
    return SourceError(
        f"there is no such {noun}",
        where=str(path),
        why=error.strerror or "no such file",
        remedy="check the path: a relative one starts from the folder of the document that names it",
        reason=SourceReason.NOT_FOUND,
    )
