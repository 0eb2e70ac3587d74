"""edgefl/_core.pyi says what the compiled module has: the same names, params, defaults and results."""

from __future__ import annotations

import ast
import inspect
import re

from conftest import ROOT

from edgefl import _core

STUB = ast.parse((ROOT / "edgefl" / "_core.pyi").read_text())
SOURCE = "".join(path.read_text() for path in sorted((ROOT / "src" / "cython").glob("*.p[yx][xi]")))


def own(value: object) -> dict[str, object]:
    """The public functions, classes, properties and numbers of the module or of one of its classes."""
    members = {name: getattr(value, name) for name in vars(value) if not name.startswith("_")}
    module = _core.__name__
    return {name: member for name, member in members.items() if getattr(member, "__module__", module) == module
            and not inspect.ismodule(member)}  # fmt: skip


def declared(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """The same as the stub has them."""
    found: dict[str, ast.stmt] = {n.name: n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    found |= {
        ast.unparse(n.target): n for n in body if isinstance(n, ast.AnnAssign) and ast.unparse(n.annotation) == "int"
    }
    return {name: node for name, node in found.items() if not name.startswith("_")}


def stub_params(node: ast.FunctionDef) -> list[tuple[str, str, str]]:
    """(name, default, kind) of each param but self."""
    args = node.args
    plain = [None] * (len(args.args) - len(args.defaults)) + args.defaults
    pairs = [(arg, default, "plain") for arg, default in zip(args.args, plain, strict=True)]
    pairs += [(arg, default, "keyword") for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return [(a.arg, ast.unparse(d) if d else "", kind) for a, d, kind in pairs if a.arg != "self"]


def real_params(function: object) -> list[tuple[str, str, str]]:
    found = []
    for param in inspect.signature(function).parameters.values():
        default = "" if param.default is param.empty else repr(param.default)
        kind = "keyword" if param.kind is param.KEYWORD_ONLY else "plain"
        found.append((param.name, default, kind))
    return [param for param in found if param[0] != "self"]


def constructor_params(name: str) -> list[tuple[str, str, str]]:
    """Those of __cinit__ in the Cython source, since no compiled class tells them."""
    found = re.search(rf"^cdef class {name}:.*?def __cinit__\(self, (.*?)\):", SOURCE, re.S | re.M)
    assert found is not None
    params = []
    for text in re.split(r",(?![^\[]*\])", found[1].replace(" not None", "")):
        declaration, _, default = text.partition("=")
        params.append((declaration.split()[-1], default.strip(), "plain"))
    return params


def assert_agrees(stub: dict[str, ast.stmt], real: dict[str, object]) -> None:
    assert sorted(stub) == sorted(real)
    for name, member in real.items():
        node = stub[name]
        if inspect.isclass(member):
            assert isinstance(node, ast.ClassDef)
            assert_agrees(declared(node.body), own(member))
            (init,) = (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
            assert stub_params(init) == constructor_params(name), name
        elif isinstance(member, int):
            assert isinstance(node, ast.AnnAssign), name
        elif inspect.isgetsetdescriptor(member):
            decorators = (
                [ast.unparse(each) for each in node.decorator_list] if isinstance(node, ast.FunctionDef) else []
            )
            assert isinstance(node, ast.AnnAssign) or decorators == ["property"], name
        else:
            assert isinstance(node, ast.FunctionDef)
            assert stub_params(node) == real_params(member), name
            result = inspect.signature(member).return_annotation
            if result is not inspect.Signature.empty:
                assert node.returns is not None and ast.unparse(node.returns).startswith(result), name


def test_stub_and_module_agree():
    assert_agrees(declared(STUB.body), own(_core))
