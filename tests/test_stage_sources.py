"""The code behind a stage does not change without a new version of the stage, or somebody saying it may.

A result is kept under a stage's settings and version. If the code that made it changes its meaning and the
version stays, old results pass for new ones. So the source of every stage, of the stages before it and of all
functions of the library that they use is digested and compared with ``tests/baselines/stage_sources.json``;
CONTRIBUTING.md says what to do when this test fails. Comments, docstrings, annotations and the wording of
errors do not count.
"""

import ast
import functools
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from recamlib import stages
from recamlib.stages.infra import StageCache

ROOT = Path(stages.__file__).resolve().parents[2]
BASELINE = Path(__file__).parent / "baselines" / "stage_sources.json"
# Where results are kept, how errors and figures look: what is computed does not depend on these.
IGNORED = {
    "errors", "paths", "files", "kept", "provenance", "plots", "plots_refine", "plots_segment", "claims",
    "report", "stages.cache", "stages.infra", "stages.tables", "stages.costs", "data.check", "data.fetch",
}  # fmt: skip
_UNTOLD = {"ctx", "kind", "type_comment", "type_params"}
COMMAND = "RECAM_ACCEPT=1 python -m pytest tests/test_stage_sources.py"

Name = tuple[str, str]  # module without "recamlib.", and a name at its top level


@functools.cache
def module(name: str) -> tuple[dict[str, list[ast.stmt]], dict[str, str]]:
    """Return a module's definitions by name, and what its imports of the library stand for."""
    path = ROOT / "recamlib" / f"{name.replace('.', '/')}.py"
    if not path.is_file():
        path = ROOT / "recamlib" / name.replace(".", "/") / "__init__.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined: dict[str, list[ast.stmt]] = {}
    for node in tree.body:
        targets = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        if isinstance(node, ast.Assign | ast.AnnAssign):
            places = node.targets if isinstance(node, ast.Assign) else [node.target]
            targets = [n.id for place in places for n in ast.walk(place) if isinstance(n, ast.Name)]
        for target in targets:
            defined.setdefault(target, []).append(node)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "recamlib":
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{node.module}.{alias.name}".partition(".")[2]
    return defined, imported


def exists(name: str) -> bool:
    base = ROOT / "recamlib" / name.replace(".", "/")
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def resolve(where: str, name: str, attribute: str | None) -> Name | None:
    """Return the definition that a name (or an attribute of a module of that name) in a module stands for."""
    defined, imported = module(where)
    if name in defined:
        return where, name
    if name not in imported:
        return None
    target = imported[name]
    if exists(target):  # a module: what counts is the attribute
        return resolve(target, attribute, None) if attribute else None
    inside, _, last = target.rpartition(".")
    return resolve(inside, last, attribute) if exists(inside) else None


class Meaning(ast.NodeTransformer):
    """Drops what does not change what code computes."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        for argument in (*node.args.args, *node.args.posonlyargs, *node.args.kwonlyargs):
            argument.annotation = None
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return node


def outline(node: object) -> object:
    """Return a syntax tree as lists and texts, the same for every version of Python."""
    if isinstance(node, ast.AST):
        told = {name: value for name, value in ast.iter_fields(node) if name not in _UNTOLD}
        return [type(node).__name__, {n: outline(v) for n, v in told.items() if v not in (None, [])}]
    return [outline(item) for item in node] if isinstance(node, list) else repr(node)


@functools.cache
def definition(name: Name) -> tuple[str, frozenset[Name]]:
    """Return the digest of a definition, and the definitions of the library that it uses."""
    nodes = [Meaning().visit(node) for node in module(name[0])[0][name[1]]]  # in place
    digest = hashlib.sha256(json.dumps([outline(node) for node in nodes]).encode()).hexdigest()[:12]
    used = set()
    for node in (n for tree in nodes for n in ast.walk(tree)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used.add(resolve(name[0], node.value.id, node.attr))
        elif isinstance(node, ast.Name):
            used.add(resolve(name[0], node.id, None))
    return digest, frozenset(n for n in used if n and n[0] not in IGNORED and n != name)


def closure(start: Name) -> dict[str, str]:
    """Return the digests of a definition and of all that it uses, by name."""
    found: dict[Name, str] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name], used = definition(name)
            waiting += used
    return {".".join(name): digest for name, digest in sorted(found.items())}


def kinds() -> dict[str, type[stages.Stage]]:
    """Return every stage that keeps results."""
    return {
        name: kind for name, kind in vars(stages).items()
        if isinstance(kind, type) and issubclass(kind, stages.Stage) and "infra" in kind.model_fields
        and isinstance(kind.model_fields["infra"].default, StageCache)
    }  # fmt: skip


def current() -> dict:
    """Return versions and digests of all stages, and the digest of every definition they use."""
    definitions: dict[str, str] = {}
    record: dict[str, dict] = {}
    for name, kind in sorted(kinds().items()):
        used = closure((kind.__module__.removeprefix("recamlib."), name))
        definitions |= used
        digest = hashlib.sha256(json.dumps(used).encode()).hexdigest()[:12]
        record[name] = {"version": kind.model_fields["infra"].default.version, "digest": digest}
    return {"stages": record, "definitions": dict(sorted(definitions.items()))}


def test_no_stage_changes_without_a_new_version():
    now = current()
    if os.environ.get("RECAM_ACCEPT"):
        BASELINE.write_text(json.dumps(now, indent=1) + "\n")
        return
    before = json.loads(BASELINE.read_text())
    if now == before:
        return
    changed = sorted(
        n for n in now["definitions"].keys() | before["definitions"].keys()
        if now["definitions"].get(n) != before["definitions"].get(n)
    )  # fmt: skip
    same = [
        name for name, entry in now["stages"].items()
        if name in before["stages"] and before["stages"][name]["version"] == entry["version"]
        and before["stages"][name]["digest"] != entry["digest"]
    ]  # fmt: skip
    lines = [f"changed: {', '.join(changed)}"]
    if same:
        lines.append(f"these stages use it and have their old version: {', '.join(same)}")
        lines.append("if what they compute is another, give each a new version (infra, in its class)")
    pytest.fail("\n".join([*lines, f"then: {COMMAND}"]), pytrace=False)


def test_the_digest_follows_functions_and_not_prose(tmp_path, monkeypatch):
    """A change in a function far below trips the stages above it; a comment or another wording does not."""
    this = sys.modules[__name__]
    shutil.copytree(ROOT / "recamlib", tmp_path / "recamlib", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(this, "ROOT", tmp_path)

    def digests(file: str, old: str, new: str) -> set[str]:
        path = tmp_path / "recamlib" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        for cache in (this.module, this.definition):
            cache.cache_clear()
        made = this.current()["stages"]
        path.write_text(text)
        return {name for name in made if made[name]["digest"] != before[name]["digest"]}

    for cache in (this.module, this.definition):
        cache.cache_clear()
    before = this.current()["stages"]
    assert len(before) == 19
    assert digests("engine.py", '"""Take one step', "# said\n    \"\"\"Go one step") == set()
    assert digests("engine.py", "the loss became", "the loss is now") == set()
    walk = digests("walk.py", "cut = min([cut,", "cut = max([cut,")
    assert {"Walk", "Score"} <= walk and "ExtractCams" not in walk and "TrainClassifier" not in walk
    loop = digests("engine.py", "optimizer.step()", "optimizer.zero_grad()")
    assert {*before} - loop == {"SaliencyMaps", "SaliencyScore"}, "training is behind every other result"
    for cache in (this.module, this.definition):
        cache.cache_clear()
