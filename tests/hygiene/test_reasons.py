"""Every reason word of the product has one row in the contract's `reasons.yaml`, and every row is used.

Where a word is a reason follows from names, so that a new helper needs no entry here: what is given to parameters and
fields called `reason`, `rule` or `default_reason` or assigned to such a name, and the first of several values that a
function returns or yields. Constants that stand there are looked up.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from enginesmith_cli.infer_inputs import InputError
from enginesmith_cli.protocol_client import ServerCallError
from enginesmith_contract import errors
from enginesmith_contract.reasons import Reason, ReasonGroup, ReasonPlace, list_reasons

ROOT = Path(__file__).resolve().parents[2]


_WORD = re.compile(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")
_NAMES = frozenset({"reason", "rule", "default_reason"})
_RULES = "rule"
_EVENT = "EventNote"
_SCOPES = (ast.Module, ast.ClassDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class _Collector:
    """The reason words of some modules.

    Attributes:
        used: places of each word, as `name:line`.
        rules: words that are given as a rule.
        events: words that are given to an event.
    """

    def __init__(self, modules: Mapping[str, ast.Module]) -> None:
        self.used: dict[str, list[str]] = defaultdict(list)
        self.rules: set[str] = set()
        self.events: set[str] = set()
        self._constants: dict[str, dict[str, ast.expr]] = {}
        self._positions: dict[str, set[tuple[int, str]]] = defaultdict(set)
        for name, tree in modules.items():
            self._learn(name, tree)
        for name, tree in modules.items():
            for node in ast.walk(tree):
                self._read(name, node)

    def _learn(self, module: str, tree: ast.Module) -> None:
        """Note a module's constants, and at which position its calls take a reason."""
        scopes = [node for node in ast.walk(tree) if isinstance(node, _SCOPES)]
        self._constants[module] = {name: value for scope in scopes for name, value in _assigned(scope.body)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                fields = (one.target for one in node.body if isinstance(one, ast.AnnAssign))
                self._note(node.name, [one.id for one in fields if isinstance(one, ast.Name)])
            elif isinstance(node, _FUNCTIONS):
                names = [one.arg for one in node.args.args]
                self._note(node.name, names[1:] if names[:1] in (["self"], ["cls"]) else names)

    def _note(self, callee: str, parameters: Iterable[str]) -> None:
        self._positions[callee].update((index, each) for index, each in enumerate(parameters) if each in _NAMES)

    def _read(self, module: str, node: ast.AST) -> None:
        if isinstance(node, ast.Call):
            callee = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for name, value in self._given(callee, node):
                self._add(module, name, value, is_event=callee == _EVENT)
        elif isinstance(node, ast.arguments):
            defaults = zip(reversed(node.args), reversed(node.defaults), strict=False)
            pairs = [*defaults, *zip(node.kwonlyargs, node.kw_defaults, strict=True)]
            for parameter, default in pairs:
                if parameter.arg in _NAMES and default is not None:
                    self._add(module, parameter.arg, default)
        elif isinstance(node, ast.Return | ast.Yield):
            self._add_result(module, node.value)
        elif isinstance(node, ast.stmt):
            for name, value in _assigned([node]):
                if name in _NAMES:
                    self._add(module, name, value)

    def _given(self, callee: str, call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
        yield from ((one.arg, one.value) for one in call.keywords if one.arg in _NAMES)
        yield from ((name, call.args[index]) for index, name in self._positions[callee] if index < len(call.args))

    def _add_result(self, module: str, value: ast.expr | None) -> None:
        """Add what a function returns: a word alone, or the first value of several."""
        for leaf in _leaves(value):
            result = self._constants[module].get(leaf.id) if isinstance(leaf, ast.Name) else leaf
            if leaf is result and isinstance(leaf, ast.Constant):
                self._add(module, "", leaf)
            # The state of an object is often returned as a member of an enum; a reason is not.
            elif isinstance(result, ast.Tuple) and result.elts and not isinstance(result.elts[0], ast.Attribute):
                self._add(module, "", result.elts[0])

    def _add(self, module: str, name: str, value: ast.expr, *, is_event: bool = False) -> None:
        for word in self._words(module, value):
            self.used[word].append(f"{module}:{value.lineno}")
            if name == _RULES:
                self.rules.add(word)
            if is_event:
                self.events.add(word)

    def _words(self, module: str, value: ast.expr | None) -> Iterator[str]:
        for leaf in _leaves(value):
            if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) and _WORD.fullmatch(leaf.value):
                yield leaf.value
            name = leaf.id if isinstance(leaf, ast.Name) else leaf.attr if isinstance(leaf, ast.Attribute) else ""
            if name.lstrip("_").isupper():
                places = [module] if name in self._constants[module] else self._constants
                for place in places:
                    yield from self._words(place, self._constants[place].get(name))


def _assigned(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Yield name and value of each assignment; each pair of `a, b = x, y`."""
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Tuple):
                names = [one.id if isinstance(one, ast.Name) else "" for one in target.elts]
                tuples = (leaf for leaf in _leaves(node.value) if isinstance(leaf, ast.Tuple))
                yield from (pair for each in tuples for pair in zip(names, each.elts, strict=False))


def _leaves(value: ast.expr | None) -> Iterator[ast.expr]:
    """Yield what an expression may result in."""
    if isinstance(value, ast.IfExp):
        yield from (*_leaves(value.body), *_leaves(value.orelse))
    elif isinstance(value, ast.BoolOp):
        yield from (leaf for each in value.values for leaf in _leaves(each))
    elif value is not None:
        yield value


@pytest.fixture(scope="module")
def product() -> _Collector:
    paths = [path for folder in ("operator", "runtime") for path in (ROOT / folder).rglob("*.py")]
    return _Collector(
        {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in sorted(paths) if "_pb2" not in path.name}
    )


def _rows(place: ReasonPlace) -> set[str]:
    return {row.reason for row in list_reasons() if place in row.where}


def test_every_reason_of_the_product_has_a_row(product: _Collector) -> None:
    rows = {row.reason for row in list_reasons()}
    assert {word: places for word, places in product.used.items() if word not in rows} == {}


def test_every_row_is_a_reason_of_the_product(product: _Collector) -> None:
    assert sorted({row.reason for row in list_reasons()} - product.used.keys()) == []


def test_no_reason_has_two_rows() -> None:
    words = [row.reason for row in list_reasons()]
    assert sorted({word for word in words if words.count(word) > 1}) == []


def test_rows_are_sorted_within_their_groups() -> None:
    order = list(ReasonGroup)
    keys = [(order.index(row.group), row.reason.casefold()) for row in list_reasons()]
    assert keys == sorted(keys)


def test_rows_say_which_reasons_are_rules_and_events(product: _Collector) -> None:
    assert product.rules - _rows(ReasonPlace.PLAN_RULE) == set()
    assert product.events - _rows(ReasonPlace.EVENT) == set()


def test_the_reasons_with_an_exit_code_are_those_that_errors_have_by_default() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__] + [InputError, ServerCallError]
    want = {kind.default_reason: kind.exit_code for kind in kinds}
    assert {row.reason: row.exit_code for row in list_reasons() if row.exit_code is not None} == want


def test_a_row_says_in_sentences_what_happened_and_what_to_do() -> None:
    sentence = re.compile(r"[A-Z`].*\.")
    texts = [text for row in list_reasons() for text in (row.means, row.do)]
    assert [text for text in texts if not sentence.fullmatch(text)] == []


@pytest.mark.parametrize(
    "changed",
    [{"where": ()}, {"where": ("error", "error")}, {"where": ("exit code",)}, {"exitCode": 14}, {"exitCode": 99}],
    ids=str,
)
def test_a_row_whose_places_contradict_each_other_is_refused(changed: dict[str, object]) -> None:
    row = {"reason": "Word", "group": "build", "where": ("error",), "means": "It failed.", "do": "Wait."}
    Reason.model_validate(row)
    with pytest.raises(ValidationError):
        Reason.model_validate(row | changed)


def test_the_collector_finds_a_reason_wherever_it_is_given() -> None:
    text = """
_CONSTANT = "OfAConstant"
class Kind(StrEnum):
    MEMBER = "OfAMember"
class Note:
    is_bad: bool
    reason: str = "OfAField"
def made(text, reason="OfADefault"): ...
def several(): return ("OfSeveral", "Not in a sentence") if text else _PAIR
_PAIR = ("OfAPair", "text")
def given():
    rule, other = given or ("OfARule", 1)
    made("Text", "ByPosition")
    Note(True, "OfARecord" if text else _CONSTANT)
    raise Failed("Text", reason=text or Kind.MEMBER)
def compares(error): return error.reason == "Compared" and {"Listed"}
"""
    found = _Collector({"module": ast.parse(text)})
    want = "Constant Member Field Default Several Pair Rule Record"
    assert set(found.used) == {"ByPosition", *(f"OfA{word}" for word in want.split() if word != "Several"), "OfSeveral"}
    assert found.rules == {"OfARule"}
