"""What mypyc compiles into something else than Python runs; see runtime/compile."""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "runtime/compile"))

from compile_server import modules  # noqa: E402 - a program of a build, and of no package

_BASES_WITH_VALUES = {"Enum", "IntEnum", "NamedTuple"}


def _errors_of_two_kinds(tree: ast.AST) -> Iterator[str]:
    """Yield names that a function gives to exceptions of two classes: the first one's is the variable's."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            kinds: dict[str, set[str]] = defaultdict(set)
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler) and node.name and node.type is not None:
                    kinds[node.name].add(ast.unparse(node.type))
            yield from (f"{function.name}: {name}" for name, found in kinds.items() if len(found) > 1)


def _values_in_classes(tree: ast.AST) -> Iterator[str]:
    """Yield attributes with a value that is given in the class: an object of a subclass may not have it."""
    for one in ast.walk(tree):
        if not isinstance(one, ast.ClassDef) or _BASES_WITH_VALUES & {ast.unparse(base) for base in one.bases}:
            continue
        if any(ast.unparse(decorator).startswith("dataclass") for decorator in one.decorator_list):
            continue
        for node in one.body:
            names = ast.unparse(node).partition(" ")[0]
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and names != "__slots__":
                yield f"{one.name}.{names}"


@pytest.mark.parametrize("find", [_errors_of_two_kinds, _values_in_classes])
def test_no_compiled_module_has_what_runs_differently_when_it_is_compiled(find: object) -> None:
    assert callable(find)
    found = {str(one): list(find(ast.parse((ROOT / "runtime" / one).read_text()))) for one in modules()}
    assert {name: what for name, what in found.items() if what} == {}
