"""The base of every value that crosses a process or is written to the store.

Records are frozen and refuse unknown fields; on the wire their names are camelCase, as everywhere in Kubernetes.
"""

import json
from typing import Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

__all__ = ["Record"]


class Record(BaseModel):
    """A frozen value with a canonical JSON form.

    An optional field defaults to None and to nothing else, since the canonical form leaves it out.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        ser_json_inf_nan="strings",
    )

    def to_json(self) -> bytes:
        """Return the canonical form: sorted camelCase keys, no spaces, UTF-8, no unset optional field."""
        # Only pydantic's own JSON writes infinities as strings; Python's would write a literal that JSON does not have.
        document = json.loads(self.model_dump_json(by_alias=True, exclude_none=True))
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Return the record that `data` holds.

        Raises:
            pydantic.ValidationError: `data` is no JSON, lacks a field or has one that this version does not know.
        """
        return cls.model_validate_json(data)
