"""The agent file as its text shows it; running it would load vLLM."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

_OURS = "cellduality_plugin.openrlhf_hooks.executor"
_PACKAGED = Path(__file__).parents[1] / "agent.py"
_AGENT = 'pass --train.agent_func_path "$(cellduality agent-path --config DATA/cellduality.json)"'


@dataclass(frozen=True)
class AgentFile:
    """What the file given as ``--train.agent_func_path`` holds."""

    path: str
    problems: tuple[tuple[str, str], ...] = ()  # (what, hint) of each reason why OpenRLHF could not load it
    is_ours: bool = False  # whether it asks the dual of this package
    bound: Path | None = None  # its configuration; None if it reads the one that CELLDUALITY_CONFIG names

    @classmethod
    def read(cls, path: str) -> AgentFile:
        """Return what the file at ``path`` holds."""
        if not path.endswith(".py"):
            return cls(path, (("the agent is no Python file", _AGENT),))
        tree = read_python(path)
        if isinstance(tree, str):
            return cls(path, ((f"the agent file cannot be read: {tree}", _AGENT),))
        executors = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "AgentExecutor"]
        bases = {ast.unparse(base) for executor in executors for base in executor.bases}
        ours = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(_OURS)
            for alias in node.names
        }
        is_ours = bool(ours & {"AgentExecutor", *bases}) or Path(path).resolve() == _PACKAGED
        return cls(path, tuple(_problems(tree)), is_ours, next(map(_bound, executors), None))


def read_python(path: str) -> ast.Module | str:
    """Return what a Python file holds, or why it cannot be read."""
    try:
        return ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as failure:
        return str(failure)


def names_in(tree: ast.Module) -> set[str]:
    """Return what a module defines, imports and assigns, as its text shows it."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def _problems(tree: ast.Module) -> list[tuple[str, str]]:
    """Return what fails, also because the file is executed as a module in no package and not in sys.modules."""
    nodes, found = list(ast.walk(tree)), []
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    decorators = [each for node in nodes if isinstance(node, ast.ClassDef) for each in node.decorator_list]
    if any(node.level for node in imports):
        what = "the agent file has a relative import, and is loaded outside any package"
        found.append((what, "import by the full name of an installed package"))
    if any(node.module == "__future__" for node in imports) and any("dataclass" in ast.unparse(d) for d in decorators):
        what = "a dataclass with postponed annotations looks up its module, and the agent file is none"
        found.append((what, "move the class into an installed package and import it, or drop the __future__ import"))
    if "AgentExecutor" not in names_in(tree):
        found.append(("the agent file defines no AgentExecutor", _AGENT))
    return found


def _bound(executor: ast.ClassDef) -> Path | None:
    """Return the file that `super().__init__` is called with, as `cellduality agent-path --config` writes it."""
    for node in ast.walk(executor):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__" and node.args:
            first = node.args[0]
            return Path(str(first.value)) if isinstance(first, ast.Constant) else None
    return None
