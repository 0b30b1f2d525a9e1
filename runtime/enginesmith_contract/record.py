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

    The default of an optional field must be None, because the canonical form omits unset fields.
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
        # pydantic writes infinities as strings. Python's json module would write a literal that is not valid JSON.
        document = json.loads(self.model_dump_json(by_alias=True, exclude_none=True))
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Return the record that `data` holds.

        Raises:
            pydantic.ValidationError: `data` is not JSON, lacks a field or has an unknown field.
        """
        return cls.model_validate_json(data)
