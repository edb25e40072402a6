"""The agent file as its text shows it; running it would load vLLM."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

_OURS = "cellduality_plugin.openrlhf_hooks.executor"
_PACKAGED = Path(__file__).parents[1] / "agent.py"


@dataclass(frozen=True)
class AgentFile:
    """What the file given as ``--train.agent_func_path`` holds.

    Parameters
    ----------
    path
        As it was given.
    problems
        (what, mend) of each reason why OpenRLHF could not load it.
    is_ours
        Whether it asks the dual of this package.
    bound
        The configuration it is bound to; None if it reads the one ``CELLDUALITY_CONFIG`` names.
    """

    path: str
    problems: tuple[tuple[str, str], ...] = ()
    is_ours: bool = False
    bound: Path | None = None

    @classmethod
    def read(cls, path: str) -> AgentFile:
        """Return what the file at ``path`` holds."""
        if not path.endswith(".py"):
            return cls(path, (("the agent is no Python file", _AGENT),))
        try:
            tree = ast.parse(Path(path).read_text(encoding="utf-8"))
        except OSError as failure:
            return cls(path, ((f"the agent file cannot be read: {failure.strerror}", _AGENT),))
        except (SyntaxError, ValueError) as failure:
            return cls(path, ((f"the agent file is not Python: {failure}", _AGENT),))
        imported = _imports(tree)
        defined = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        ours = {name for name, module in imported.items() if module.startswith(_OURS)}
        executor = defined.get("AgentExecutor")
        bases = {ast.unparse(base) for base in executor.bases} if executor else set()
        is_ours = "AgentExecutor" in ours or bool(bases & ours) or Path(path).resolve() == _PACKAGED
        problems = list(_problems(tree))
        if executor is None and "AgentExecutor" not in imported and "AgentExecutor" not in _assigned(tree):
            problems.append(("the agent file defines no AgentExecutor", _AGENT))
        return cls(path, tuple(problems), is_ours, _bound(executor) if executor else None)


def _imports(tree: ast.Module) -> dict[str, str]:
    """Return {name: the module it comes from}."""
    return {
        alias.asname or alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _assigned(tree: ast.Module) -> set[str]:
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _problems(tree: ast.Module) -> list[tuple[str, str]]:
    """Return what fails because the file is executed as a module that is in no package and not in sys.modules."""
    found = []
    if any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree)):
        found.append(("the agent file has a relative import, and is loaded outside any package", _ABSOLUTE))
    postponed = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    decorated = any(
        "dataclass" in ast.unparse(decorator)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for decorator in node.decorator_list
    )
    if postponed and decorated:
        found.append(("a dataclass with postponed annotations looks up its module, and the agent file is none", _MOVE))
    return found


def _bound(executor: ast.ClassDef) -> Path | None:
    """Return the file that `super().__init__` is called with, as `cellduality agent-path --config` writes it."""
    for node in ast.walk(executor):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "super().__init__"
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            return Path(str(node.args[0].value))
    return None


_AGENT = 'pass --train.agent_func_path "$(cellduality agent-path --config DATA/cellduality.json)"'
_ABSOLUTE = "import by the full name of an installed package"
_MOVE = "move the class into an installed package and import it, or drop the __future__ import"
