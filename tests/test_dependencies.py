"""docs/dependencies.md has a row for each package that setup.py names for users."""

import ast
import re

from tests.paths import ROOT

FOR_DEVELOPERS = {"test", "dev", "docs"}


def in_setup() -> set[str]:
    """What setup.py requires, for users: its constants, read as they stand."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    (call,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "setup"
    )
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    extras = given["extras_require"]
    lists = [given["install_requires"]]
    lists += [
        value
        for key, value in zip(extras.keys, extras.values, strict=True)
        if key.value not in FOR_DEVELOPERS
    ]
    found = [constants[each.id] if isinstance(each, ast.Name) else each for each in lists]
    return {re.match(r"[\w-]+", item.value)[0] for each in found for item in each.elts}


def test_every_dependency_is_told_with_what_it_is_for_and_what_it_brings():
    rows = re.findall(
        r"^\| ([\w-]+) \| (.+) \| (.+) \| (.+) \|$",
        (ROOT / "docs" / "dependencies.md").read_text(),
        re.MULTILINE,
    )
    assert {name for name, *_ in rows if name not in ("Package", "---")} == in_setup()


def test_the_gateway_alone_needs_no_docarray():
    text = (ROOT / "setup.py").read_text()
    needed = text[text.index("install_requires=[") : text.index("entry_points=")]
    assert not re.search(r'^\s+"docarray', needed, re.MULTILINE)
    assert '"executor": DOCUMENTS' in text
    assert '"client": DOCUMENTS' in text
