"""What a plan needs of the chart's values where it is made elsewhere: toolchains, labels of nodes, pools."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from enginesmith_contract.errors import SpecError
from enginesmith_contract.text import one_line
from enginesmith_operator.controller.shared.settings import OperatorSettings
from enginesmith_operator.planning.catalog import read_catalog
from enginesmith_operator.planning.snapshot import Observed

__all__ = ["ChartValues", "fleet_settings", "with_catalog", "with_toolchains"]

_REMEDY = "give the values that `make images` printed, or what `helm get values enginesmith` prints"
_OF_FLEET: Final = ("labels", "nodeClasses", "buildForAbsentGpus")


@dataclass(frozen=True)
class ChartValues:
    """Files with the chart's values, read once: a pipe has its content only once.

    Attributes:
        files: names and contents; the last file that sets a value holds.
    """

    files: tuple[tuple[str, bytes], ...]

    @classmethod
    def read(cls, paths: Sequence[Path]) -> "ChartValues":
        """Read the files.

        Raises:
            SpecError: a file cannot be read.
        """
        files = []
        for path in paths:
            try:
                files.append((str(path), path.read_bytes()))
            except OSError as error:
                raise _unreadable(str(path), error) from error
        return cls(tuple(files))

    @property
    def where(self) -> str:
        """The names of the files."""
        return ", ".join(name for name, _ in self.files)

    def merged(self, loader: type[yaml.BaseLoader | yaml.SafeLoader]) -> dict[str, Any]:
        """Return the values of all files.

        Raises:
            SpecError: a file is no YAML.
        """
        merged: dict[str, Any] = {}
        for name, text in self.files:
            try:
                values = yaml.load(text, Loader=loader)  # noqa: S506 - both loaders are safe: they make plain values only
            except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
                raise _unreadable(name, error) from error
            merged = _merge(merged, values) if isinstance(values, dict) else merged
        return merged


def with_catalog(observed: Observed, values: ChartValues) -> Observed:
    """Replace the toolchains by those of the chart's values.

    Raises:
        SpecError: a file is no YAML, or none has toolchains.
    """
    # BaseLoader: a version such as 10.10 stays what was written.
    toolchains = values.merged(yaml.BaseLoader).get("toolchains")
    if not isinstance(toolchains, dict) or not toolchains:
        raise SpecError("the values have no toolchains", where=values.where, remedy=_REMEDY)
    return with_toolchains(observed, {name: yaml.safe_dump(entry) for name, entry in toolchains.items()})


def fleet_settings(values: ChartValues) -> OperatorSettings:
    """Return how the operator with these values of the chart reads nodes, and which pools it knows.

    Raises:
        SpecError: a file is no YAML, or `config` is wrong.
    """
    config = values.merged(yaml.SafeLoader).get("config")
    wanted = {name: config[name] for name in _OF_FLEET if name in config} if isinstance(config, dict) else {}
    try:
        return OperatorSettings.model_validate(wanted, by_name=False)
    except ValidationError as error:
        why = one_line(str(error))
        raise SpecError(
            "`config` of the values is wrong", where=values.where, why=why, remedy="correct the field"
        ) from error


def _unreadable(name: str, error: Exception) -> SpecError:
    return SpecError("the values cannot be read", where=name, why=one_line(str(error)), remedy=_REMEDY)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both as Helm merges values: mappings together, anything else replaced."""
    nested = {
        name: _merge(below[name], value)
        for name, value in above.items()
        if isinstance(value, dict) and isinstance(below.get(name), dict)
    }
    return {**below, **above, **nested}


def with_toolchains(observed: Observed, data: Mapping[str, str]) -> Observed:
    """Replace the toolchains by those of the catalog's ConfigMap."""
    catalog = read_catalog(data)
    return observed.model_copy(
        update={
            "toolchains": catalog.toolchains,
            "platforms": catalog.platforms,
            "unreadable_toolchains": tuple(one.found for one in catalog.problems),
        }
    )
