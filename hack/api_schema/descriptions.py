"""The text of the API's docstrings, as readers of YAML need it."""

import inspect
import re

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from enginesmith_contract.text import one_line

__all__ = ["attribute_docs", "summary"]


def attribute_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return each field's description from the `Attributes:` sections of the class and its bases, by Python name.

    The text is for readers of YAML: a field is omitted there instead of None, and its name is camelCase.
    """
    docs: dict[str, str] = {}
    for each in reversed(model.__mro__):
        text = (inspect.cleandoc(each.__doc__ or "")).partition("\nAttributes:\n")[2]
        entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
        docs |= {name: _as_yaml(one_line(words)) for name, words in entries if name in model.model_fields}
    return docs


def summary(model: type[object]) -> str:
    """Return the class docstring up to its `Attributes:` section, as one paragraph."""
    return one_line((inspect.getdoc(model) or "").partition("\nAttributes:\n")[0])


def _as_yaml(words: str) -> str:
    named = re.sub(r"`(\w*_\w*)`", lambda name: f"`{to_camel(name[1])}`", words)
    return re.sub(r"\bNone\b", "omitted", named)
