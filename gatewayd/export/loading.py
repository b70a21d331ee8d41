"""
A Flow file, or a Flow's map, made into a plan; and the plan written to files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import yaml

from gatewayd.config.document import parse
from gatewayd.config.files import read_text
from gatewayd.config.loader import FlowDocument, Sources, read_flow_value
from gatewayd.config.problems import Diagnostics, Place, Source
from gatewayd.export import compose, kubernetes
from gatewayd.export.plan import ExportOptions, Plan, plan_of, with_images, with_store


@attrs.frozen
class Exported:
    """What a Flow becomes: ``files`` by their relative path, and what to tell its user."""

    files: Mapping[str, str] = attrs.field(repr=False)
    warnings: tuple[str, ...] = ()

    def write(self, folder: Path) -> tuple[Path, ...]:
        """Write the files, readable by their owner alone: some may hold secrets. Raises OSError."""
        written = []
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            written.append(path)
        return tuple(written)


@attrs.frozen
class FlowToExport:
    """A Flow's content before variables are replaced, and where it comes from."""

    content: Any = attrs.field(repr=False)
    source: Source
    base_dir: Path
    context: Mapping[str, Any] | None = attrs.field(default=None, repr=False)

    @classmethod
    def of_file(cls, path: Path, context: Mapping[str, Any] | None = None) -> FlowToExport:
        """Raises ConfigError where the file cannot be read, or is no YAML."""
        diagnostics = Diagnostics()
        source = Source(str(path), diagnostics)
        text = read_text(path, Place(source))
        diagnostics.raise_problems()
        content = parse(text or "", source)
        diagnostics.raise_problems()
        return cls(content, source, path.parent, context)

    @classmethod
    def of_mapping(cls, mapping: Mapping[str, Any], base_dir: Path) -> FlowToExport:
        """Of a Flow in Python."""
        return cls(dict(mapping), Source("Flow", Diagnostics()), base_dir)

    def kubernetes(self, options: ExportOptions) -> Exported:
        """Files ``<label>/<label>.yml``. Raises ConfigError, ExportError with all problems of the Flow."""
        document, images = self._read(options)
        name = (document.config.name or "flow").replace("_", "-").lower()
        namespace = kubernetes.namespace_of(name, options)
        plan = self._plan(document, images, options, lambda label: kubernetes.address_in(namespace, label))
        manifests = kubernetes.manifests_of(plan, options)
        files = {f"{label}/{label}.yml": _documents(each) for label, each in manifests.items()}
        return Exported(files, (*document.config.warnings, *plan.warnings))

    def compose(self, options: ExportOptions, name: str = "docker-compose.yml") -> Exported:
        """One file, ``name``. Raises as ``kubernetes`` does."""
        document, images = self._read(options)
        plan = self._plan(document, images, options, compose.address_in)
        content = compose.compose_of(plan, options)
        return Exported({name: _documents([content])}, (*document.config.warnings, *plan.warnings))

    def _read(self, options: ExportOptions) -> tuple[FlowDocument, dict[str, str]]:
        content, images = with_images(self.content)
        content, stores = with_store(content, options.secrets)
        # These are replaced in the container, not here.
        kept = {name: f"${{{{ ENV.{name} }}}}" for name in options.secrets}
        sources = Sources(self.context, {**os.environ, **kept})
        document = read_flow_value(content, self.source, self.base_dir, sources)
        for section, variable in stores.items():
            document.mapping[section]["rates_store"] = variable
        return document, images

    def _plan(
        self,
        document: FlowDocument,
        images: Mapping[str, str],
        options: ExportOptions,
        address: Callable[[str], str],
    ) -> Plan:
        return plan_of(
            document.config,
            document.mapping,
            options,
            source=self.source.name,
            address=address,
            images=images,
        )


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks: Flow files inside of manifests are to be read by people."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _documents(manifests: Iterable[Mapping[str, Any]]) -> str:
    return "---\n".join(
        yaml.dump(dict(each), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
        for each in manifests
    )
