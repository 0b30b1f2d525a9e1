"""Why a model could not be had: the stable words of `SourceError.reason`."""

from enum import StrEnum, unique
from pathlib import Path

from enginesmith_contract.errors import SourceError

__all__ = ["SourceReason", "unreadable_file"]


@unique
class SourceReason(StrEnum):
    """`CONNECTION_LOST` and, where the server may mend itself, `TRUNCATED` are worth another attempt."""

    NOT_FOUND = "NotFound"
    ACCESS_DENIED = "AccessDenied"
    DIGEST_MISMATCH = "DigestMismatch"
    """The bytes are not the ones that the user named; nothing of them was kept."""
    CONNECTION_LOST = "ConnectionLost"
    TRUNCATED = "Truncated"
    """Fewer bytes than the source or the model says there are."""
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
    """The signature is of other files."""
    SIGNER_UNKNOWN = "SignerUnknown"


def unreadable_file(path: Path, error: OSError, noun: str) -> SourceError:
    """Return the error of a local file that is not there or may not be read; `noun` is what it should be."""
    if isinstance(error, PermissionError):
        return SourceError(
            "the file may not be read",
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
