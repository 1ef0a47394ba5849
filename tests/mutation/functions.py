"""Mutants of the Python: each function's expressions and statements, changed one at a time."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mutation import Mutant

_OPERATORS: dict[type[ast.AST], type[Any]] = {
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
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.Break: ast.Continue,
    ast.Continue: ast.Break,
}


def mutants(path: Path) -> Iterator[Mutant]:
    """The mutants of a module's functions; not those of its messages and annotations."""
    source = path.read_text("utf-8")
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            for node in _nodes(function.body):
                for old, new in (*_changed_operators(node), *_changed_statements(node)):
                    what = f"line {old.lineno}: {ast.unparse(old)[:70]}  ->  {new[:70]}"
                    text = _replaced(source, old, new)
                    yield Mutant(path, f"{path.stem}.{function.name}", what, text)


def _nodes(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """What is in a function, but for what is in those inside it."""
    pending: list[ast.AST] = list(body)
    while pending:
        one = pending.pop(0)
        if not isinstance(one, (ast.FunctionDef, ast.ClassDef, ast.JoinedStr)):
            yield one
            pending += ast.iter_child_nodes(one)
        if isinstance(one, ast.AnnAssign):
            pending.remove(one.annotation)


def _changed_operators(node: ast.AST) -> Iterator[tuple[Any, str]]:
    """What of an expression is to be replaced, and by what."""
    match node:
        case ast.BoolOp(op, values):
            yield node, _with(node, op=_OPERATORS[type(op)]())
            for index in range(len(values)):
                yield node, _with(node, values=values[:index] + values[index + 1 :])
        case ast.BinOp(op=op) if type(op) in _OPERATORS:
            yield node, _with(node, op=_OPERATORS[type(op)]())
        case ast.Compare(ops=[op, *others]) if type(op) in _OPERATORS:
            yield node, _with(node, ops=[_OPERATORS[type(op)](), *others])
        case ast.UnaryOp(ast.Not(), operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.IfExp(_, body, orelse):
            yield node, f"({ast.unparse(body)})"
            yield node, f"({ast.unparse(orelse)})"
        case ast.Call(keywords=keywords):
            for index in range(len(keywords)):
                yield node, _with(node, keywords=keywords[:index] + keywords[index + 1 :])


def _changed_statements(node: ast.AST) -> Iterator[tuple[Any, str]]:
    """What of a statement, and of what it is about, is to be replaced, and by what."""
    match node:
        case ast.Constant(bool(value)):
            yield node, repr(not value)
        case ast.Constant(int(value) | float(value)):
            yield node, repr(value + 1)
        case ast.If(test) | ast.While(test) if not isinstance(test, ast.Constant):
            yield test, "True"
            yield test, "False"
        case ast.Return(value) if value is not None and ast.unparse(value) != "None":
            yield node, "return None"
        case ast.Break():
            yield node, "continue"
        case ast.Continue():
            yield node, "break"
        case ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Expr(ast.Call() | ast.YieldFrom()):
            yield node, "pass"


def _with(node: Any, **fields: Any) -> str:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return f"({ast.unparse(changed)})"


def _replaced(source: str, old: Any, new: str) -> str:
    """The lines stay as they were: by them a function that runs is known for the changed one."""
    lines = source.splitlines(keepends=True)
    head = "".join(lines[: old.lineno - 1]) + lines[old.lineno - 1][: old.col_offset]
    tail = lines[old.end_lineno - 1][old.end_col_offset :]
    blank = "\n" * (old.end_lineno - old.lineno)
    return "".join([head, new, tail, blank, *lines[old.end_lineno :]])
