"""
Writes gatewayd/flow/keywords.py: the keywords of a Flow in Python, as types, from the table of keys.

    python tools/keywords.py            write it
    python tools/keywords.py --check    fail if it is not what the table says

Type checkers read TypedDicts only as source code, so the table is written out instead of being turned into
types when it is imported.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from gatewayd.config.keys import DEPLOYMENT, EXECUTOR, FLOW, GATEWAY, NOT_YET, SUPPORTED, Key
from gatewayd.config.routes import ROUTE_KEYS

TARGET: Final = Path(__file__).resolve().parent.parent / "gatewayd" / "flow" / "keywords.py"

HEAD: Final = '''"""
The keywords of Flow, its methods and Deployment. Made by ``make keywords`` from config/keys.py.

None is "not set" everywhere. What config/keys.py calls not supported yet takes only its default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from gatewayd.custom.gateway import Gateway
    from gatewayd.executor.executor import Executor

    Uses = type[Executor] | str | Mapping[str, Any]
    GatewayUses = type[Gateway] | str | Mapping[str, Any]

Texts = str | Path | Sequence[str | Path]
'''

# What add() names itself, and so do needs() and needs_all().
JOINS: Final = ("name", "method", "needs")
ROUTE_TYPES: Final = {
    "methods": "str | Sequence[str]",
    "tags": "Sequence[str]",
    "status_code": "int",
    "deprecated": "bool",
    "include_in_schema": "bool",
}


def literal(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def annotation(key: Key) -> str:
    if key.status == NOT_YET:
        return "None" if key.default is None else f"Literal[{literal(key.default)}] | None"
    if key.name == "needs":
        return "str | Iterable[str] | None"  # Flow.add makes a list of it
    return "Any" if key.kind.annotation == "Any" else f"{key.kind.annotation} | None"


def in_section(keys: Iterable[Key]) -> Iterator[tuple[str, str, str]]:
    """Every word of ``keys``: its name, type and explanation."""
    for key in keys:
        for word in (key.name, *key.aliases):
            yield word, annotation(key), key.doc if word == key.name else f"The same as {key.name}."


def of_flow() -> Iterator[tuple[str, str, str]]:
    """Those of ``with``: dealt out as gatewayd/config/sections.py does, the gateway's meaning first."""
    yield from in_section(key for key in FLOW.keys if key.name != "asyncio")  # Flow's own parameter
    words = dict.fromkeys((*GATEWAY.words(), *EXECUTOR.words()))
    for word in words:
        found = [key for section in (GATEWAY, EXECUTOR) if (key := section.find(word)) and key.spreads]
        if found and FLOW.find(word) is None:
            able = [key for key in found if key.status == SUPPORTED]
            refused = [key for key in found if key.status == NOT_YET]
            key = (able or refused or found)[0]
            yield word, annotation(key), key.doc if word == key.name else f"The same as {key.name}."


def typed_dict(name: str, doc: str, words: Iterable[tuple[str, str, str]], base: str = "TypedDict") -> str:
    lines = [f"class {name}({base}, total=False):", f'    """{doc}"""', ""]
    for word, type_, explained in words:
        lines += [f"    {word}: {type_}", f'    """{explained}"""']
    return "\n".join(lines) + "\n"


def source() -> str:
    joins = [key for key in EXECUTOR.keys if key.name in JOINS]
    others = [key for key in EXECUTOR.keys if key.name not in JOINS]
    routes = [(word, f"{ROUTE_TYPES.get(word, 'str')} | None", "") for word in ROUTE_KEYS if word != "path"]
    return "\n\n".join(
        [
            HEAD,
            typed_dict("FlowKeywords", "Of ``Flow``: the keys of ``with`` in a Flow file.", of_flow()),
            typed_dict("GatewayKeywords", "Of ``config_gateway``.", in_section(GATEWAY.keys)),
            typed_dict("JoinerKeywords", "Of ``needs`` and ``needs_all``.", in_section(others)),
            typed_dict("ExecutorKeywords", "Of ``add``.", in_section(joins), base="JoinerKeywords"),
            typed_dict("DeploymentKeywords", "Of ``Deployment``.", in_section(DEPLOYMENT.keys)),
            typed_dict("RouteKeywords", "Of ``expose_endpoint``.", routes).replace('    """"""\n', ""),
        ]
    )


def main(arguments: list[str]) -> int:
    wanted = source()
    if "--check" not in arguments:
        TARGET.write_text(wanted)
        return 0
    found = TARGET.read_text()
    if found != wanted:
        names = str(TARGET), "config/keys.py"
        changes = difflib.unified_diff(found.splitlines(), wanted.splitlines(), *names, lineterm="")
        sys.stderr.write("\n".join(changes) + "\nRun: make keywords\n")
    return int(found != wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
