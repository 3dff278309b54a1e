"""Print the size of every folder against its budget, and names that a module hands on from another.

Run by `make lint`, which fails above a budget.
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGET = {"recamlib lines": 12_000, "recamlib modules": 75, "tests lines": 8_000, "re-exports": 0}
FOLDER = 11
"""Modules of one folder, its ``__init__.py`` not counted."""


def count_lines(path: Path) -> int:
    """Return the number of lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def measure(top: str) -> dict[str, tuple[int, int]]:
    """Return lines and modules of every folder below ``top``; an empty ``__init__.py`` is no module."""
    found: dict[str, tuple[int, int]] = {}
    for path in sorted((ROOT / top).rglob("*.py")):
        folder = path.parent.relative_to(ROOT).as_posix()
        lines, modules = found.get(folder, (0, 0))
        found[folder] = lines + count_lines(path), modules + (path.name != "__init__.py")
    return found


def own_imports(tree: ast.Module) -> list[tuple[str, str, str]]:
    """Return (module, name, name here) of every name that a file imports from the library."""
    return [
        (node.module, alias.name, alias.asname or alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recamlib")
        for alias in node.names
    ]


def re_exports() -> list[str]:
    """Return every name of a module that others import from there although it only imports it itself."""
    trees = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for top in ("recamlib", "tests", "benchmarks")
        for path in sorted((ROOT / top).rglob("*.py"))
    }
    imported, wanted = set(), set()
    for module, tree in trees.items():
        for source, name, here in own_imports(tree):
            wanted.add((source, name))
            imported.add((module.removesuffix(".__init__"), here))
            if module.endswith(".__init__") and not _used(tree, here):
                wanted.add((module.removesuffix(".__init__"), here))
    return sorted(f"{module} hands on {name}" for module, name in imported & wanted if module != "recamlib")


def _used(tree: ast.Module, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree))


def main() -> int:
    """Print the table and what is wrong; return 1 if anything is."""
    faults, handed = [], re_exports()
    totals = dict.fromkeys(BUDGET, 0)
    totals["re-exports"] = len(handed)
    for top in ("recamlib", "tests"):
        for folder, (lines, modules) in measure(top).items():
            print(f"{folder:24}{lines:7,} lines{modules:4} modules")
            totals[f"{top} lines"] += lines
            if top == "recamlib":
                totals["recamlib modules"] += modules
                if modules > FOLDER:
                    faults.append(f"{folder}: {modules} modules, at most {FOLDER}")
    for what, number in totals.items():
        print(f"{what:24}{number:7,}  of {BUDGET[what]:,}")
        if number > BUDGET[what]:
            faults += handed if what == "re-exports" else []
            faults.append(f"{what}: {number:,}, at most {BUDGET[what]:,}")
    print(*faults, sep="\n", end="\n" if faults else "")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
