"""Methods of distillation by name: the methods of dsclora, and methods of other packages.

A package adds a method by an entry point of the group `dsclora.methods`: the name of the method, and a function like
the builders in `distillation.distill`. Listing the methods imports no package, so that a broken package disturbs only
the runs with a method of the package.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

from dsclora_cli.errors import UsageError, class_and_line

DISTILL_METHODS = ("dsclora", "logits", "fd", "fakd", "facd", "augkd", "none")
"""Methods of dsclora; `distillation.distill` has a builder for every method."""

METHOD_GROUP = "dsclora.methods"
"""Group of the entry points."""


@dataclass(frozen=True)
class MethodPlugin:
    """A method of another package; the field names are keys of the JSON output of `dsclora doctor`."""

    name: str
    """Name of the method, as in `--method`."""

    package: str
    """Name of the package, as pip shows the name."""

    version: str
    """Version of the package."""

    function: str
    """Place of the function, `module:name`."""

    problem: str = ""
    """Why the method cannot be used: an ambiguous name, or an entry that leads nowhere; empty for a usable method."""

    @property
    def title(self) -> str:
        """Return method, package and version, to begin an error with."""
        return f"method {self.name} of the package {self.package} {self.version}"


def find_plugins() -> tuple[MethodPlugin, ...]:
    """Return the methods of other packages, sorted by name and package, without importing a package."""
    found = {
        (
            entry.name,
            entry.dist.name if entry.dist else "unknown",
            entry.dist.version if entry.dist else "",
            entry.value,
        )
        for entry in entry_points(group=METHOD_GROUP)
    }
    names = Counter(name for name, *_ in found)
    return tuple(
        MethodPlugin(*facts, problem=_clash(facts[0], names) or _dead_end(facts[0], facts[-1]))
        for facts in sorted(found)
    )


def _clash(name: str, names: Counter[str]) -> str:
    """Return why a name is ambiguous; empty for a unique name."""
    if name in DISTILL_METHODS:
        return f"dsclora has a method {name} of its own"
    return f"{names[name]} packages add a method {name}" if names[name] > 1 else ""


def _dead_end(name: str, function: str) -> str:
    """Return why the function of an entry cannot be there, as far as that is known without an import; else empty."""
    parts = EntryPoint.pattern.match(function)
    if parts is None or not parts["attr"]:
        return f"the entry `{name} = {function}` names no function: module:function"
    package = parts["module"].partition(".")[0]  # a module inside is found by an import of the package only
    try:
        is_there = package in sys.modules or find_spec(package) is not None
    except (ImportError, ValueError):
        is_there = False
    return "" if is_there else f"there is no module {package}"


def method_names() -> tuple[str, ...]:
    """Return the names of all methods that may be usable, the methods of dsclora first."""
    return tuple(dict.fromkeys((*DISTILL_METHODS, *(each.name for each in find_plugins() if not each.problem))))


def is_broken_method(name: str) -> bool:
    """Return whether a package adds a method of this name that cannot be used; `find_plugin` says why."""
    return any(plugin.problem for plugin in find_plugins() if plugin.name == name)


def find_plugin(method: str) -> MethodPlugin | None:
    """Return the plugin of a method; None for a method of dsclora.

    Raises UsageError for an unknown method, for an entry that leads nowhere, and for a name that two packages claim:
    with either choice a user could get results of another method than expected.
    """
    plugins = [plugin for plugin in find_plugins() if plugin.name == method]
    for plugin in plugins:
        if plugin.problem:
            packages = ", ".join(each.package for each in plugins)
            is_clash = method in DISTILL_METHODS or len(plugins) > 1
            hint = f"uninstall {packages}, or rename the entry in {METHOD_GROUP}"
            raise UsageError(
                f"method {method} of the package {packages}: {plugin.problem}",
                hint if is_clash else f"repair or uninstall {packages}",
            )
    if not plugins and method not in DISTILL_METHODS:
        raise UsageError(
            f"no method is called {method!r}", f"there are {', '.join(method_names())}; a package may add its own"
        )
    return plugins[0] if plugins else None


def load_method(plugin: MethodPlugin) -> Callable[..., object]:
    """Import the function of a method. Raises UsageError, in a single line, where the function cannot be imported."""
    hint = f"repair or uninstall {plugin.package}"
    try:
        # Standard output has the JSON of the command, so what the package prints goes to standard error.
        with redirect_stdout(sys.stderr):
            function = EntryPoint(plugin.name, plugin.function, METHOD_GROUP).load()
    # The import runs code of another package, which may raise anything; SystemExit would end the command silently.
    except (Exception, SystemExit) as error:
        raise UsageError(f"{plugin.title} cannot be imported: {class_and_line(error)}", hint) from error
    if not callable(function):
        raise UsageError(f"{plugin.title} cannot be used: {plugin.function} is no function", hint)
    checked: Callable[..., object] = function
    return checked
