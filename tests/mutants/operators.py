"""Small wrongs: every place of a module where one thing can be replaced by another that a test should notice."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}
_SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}
_TALK = {"debug", "info", "warning", "error", "exception", "failpoint"}


@dataclass
class Mutant:
    """One wrong: `apply` makes it in the tree that it was found in."""

    key: str
    """The function, the operator and its number in that function: the same as long as the function is."""
    line: int
    before: str
    after: str
    apply: Callable[[], None]


def mutants(tree: ast.Module) -> list[Mutant]:
    """Return every mutant of a module, in the order of its text."""
    numbers: Counter[str] = Counter()
    found = []
    for function, statement in _statements(tree):
        for operator, node, after, apply in _wrongs(statement):
            name = f"{function}:{operator}"
            numbers[name] += 1
            key = f"{name}:{numbers[name]}"
            found.append(Mutant(key, node.lineno, _shown(node), after, apply))
    return found


def mutated(source: str, key: str) -> ast.Module:
    """Return the tree of a module with one wrong in it; LookupError where there is none of this key."""
    tree = ast.parse(source)
    for mutant in mutants(tree):
        if mutant.key == key:
            mutant.apply()
            return ast.fix_missing_locations(tree)
    raise LookupError(key)


def _statements(tree: ast.Module) -> Iterator[tuple[str, _Place]]:
    """Yield every statement inside a function with the function's name."""

    def walk(node: ast.AST, name: str, inside: bool) -> Iterator[tuple[str, _Place]]:
        for field, value in ast.iter_fields(node):
            if not isinstance(value, list):
                continue
            for index, child in enumerate(value):
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    deeper = f"{name}.{child.name}" if name else child.name
                    yield from walk(child, deeper, inside or not isinstance(child, ast.ClassDef))
                elif isinstance(child, ast.stmt):
                    if inside and not _is_docstring(child):
                        yield name, _Place(value, index, child)
                    yield from walk(child, name, inside)
                elif isinstance(child, ast.ExceptHandler | ast.match_case):
                    yield from walk(child, name, inside)

    yield from walk(tree, "", False)


@dataclass
class _Place:
    """A statement in the list that holds it."""

    siblings: list[ast.stmt]
    index: int
    statement: ast.stmt

    def replace(self, new: ast.stmt) -> Callable[[], None]:
        def apply() -> None:
            self.siblings[self.index] = new

        return apply


Wrong = tuple[str, ast.stmt | ast.expr, str, Callable[[], None]]


def _wrongs(place: _Place) -> Iterator[Wrong]:
    statement = place.statement
    for operator, new in _statement_wrongs(statement):
        yield operator, statement, _shown(new), place.replace(new)
    if isinstance(statement, ast.Try):
        yield from _try_wrongs(statement)
    if isinstance(statement, ast.Raise) or _talks(statement):
        return  # the words of an error are no behaviour, and the error is dropped as a whole
    for parent, field, index, expression in _expressions(statement):
        for operator, changed in _expression_wrongs(expression):
            yield operator, expression, _shown(changed), _setter(parent, field, index, changed)


def _setter(parent: ast.AST, field: str, index: int | None, new: ast.expr) -> Callable[[], None]:
    def apply() -> None:
        if index is None:
            setattr(parent, field, new)
        else:
            getattr(parent, field)[index] = new

    return apply


def _statement_wrongs(statement: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    match statement:
        case ast.Expr(value=ast.Call() | ast.Await()) if not _talks(statement):
            yield "drop the call", ast.Pass()
        case ast.AugAssign(target, op, value):
            yield "drop the assignment", ast.Pass()
            if type(op) in _ARITHMETIC:
                yield "arithmetic", ast.AugAssign(target, _ARITHMETIC[type(op)](), value)
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "drop the assignment", ast.Pass()
        case ast.Delete():
            yield "drop the deletion", ast.Pass()
        case ast.Return(value) if value is not None and not _is_falsy(value):
            yield "return None", ast.Return(ast.Constant(None))
        case ast.Raise():
            yield "drop the error", ast.Pass()
        case ast.Break():
            yield "drop the break", ast.Pass()
        case ast.Continue():
            yield "drop the continue", ast.Pass()


def _try_wrongs(statement: ast.Try) -> Iterator[Wrong]:
    for handler in statement.handlers:
        if not (len(handler.body) == 1 and isinstance(handler.body[0], ast.Raise)):
            again: list[ast.stmt] = [ast.Raise()]
            shown = f"except {ast.unparse(handler.type) if handler.type else ''}: raise"
            yield "do not catch", handler.body[0], shown, _body_setter(handler, again)
    if statement.finalbody:
        nothing: list[ast.stmt] = [ast.Pass()]
        yield "do not clean up", statement.finalbody[0], "finally: pass", _final_setter(statement, nothing)


def _body_setter(handler: ast.ExceptHandler, body: list[ast.stmt]) -> Callable[[], None]:
    def apply() -> None:
        handler.body = body

    return apply


def _final_setter(statement: ast.Try, body: list[ast.stmt]) -> Callable[[], None]:
    def apply() -> None:
        statement.finalbody = body

    return apply


def _expressions(statement: ast.stmt) -> Iterator[tuple[ast.AST, str, int | None, ast.expr]]:
    """Yield every expression of a statement, without those of statements inside it, with where it stands."""

    def walk(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.expr]]:
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            if isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Call) and _is_said(value)):
                continue  # words
            children = value if isinstance(value, list) else [value]
            for index, child in enumerate(children):
                if isinstance(child, ast.JoinedStr | ast.stmt | ast.ExceptHandler | ast.match_case):
                    continue
                if isinstance(child, ast.expr):
                    yield node, field, index if isinstance(value, list) else None, child
                if isinstance(child, ast.AST):
                    yield from walk(child)

    yield from walk(statement)


def _expression_wrongs(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Compare(left, [op], comparators):
            yield "comparison", ast.Compare(left, [_COMPARISONS[type(op)]()], comparators)
        case ast.BoolOp(op, values):
            yield "and/or", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            for index in range(len(values)):
                fewer = values[:index] + values[index + 1 :]
                yield "drop a condition", fewer[0] if len(fewer) == 1 else ast.BoolOp(op, fewer)
        case ast.UnaryOp(ast.Not(), operand):
            yield "drop the not", operand
        case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
            yield "arithmetic", ast.BinOp(left, _ARITHMETIC[type(op)](), right)
        case ast.Constant(value=bool() as value):
            yield "true/false", ast.Constant(not value)
        case ast.Constant(value=int() | float() as number):
            yield "number", ast.Constant(number + 1)
        case ast.Call(ast.Name(name), args, keywords) if name in _SWAPPED:
            yield "min/max", ast.Call(ast.Name(_SWAPPED[name], ast.Load()), args, keywords)
        case ast.Call(ast.Attribute(ast.Name("asyncio"), "shield"), [shielded], []):
            yield "drop the shield", shielded
        case ast.IfExp(test, body, orelse):
            yield "swap the branches", ast.IfExp(test, orelse, body)


def _talks(statement: ast.stmt) -> bool:
    """Whether it only says something: a line of a log, or a place where a test may kill the process."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and _is_said(statement.value)


def _is_said(call: ast.Call) -> bool:
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name in _TALK
    return False


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_falsy(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value in (None, False)


def _shown(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(node)).split())
    return text if len(text) <= 100 else text[:97] + "..."
