"""``gatewayd export``, which writes a Flow for engines that run containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gatewayd.cli.checking import context_of
from gatewayd.cli.output import fail, note, warn
from gatewayd.errors import ConfigError
from gatewayd.export.loading import Exported, FlowToExport
from gatewayd.export.plan import ExportOptions


def export_kubernetes(flow: Path, output: Path, variables: Sequence[str], settings: Mapping[str, Any]) -> int:
    """Write the manifests of ``flow`` into the folder ``output``. Returns the exit code."""
    names = (*("namespace", "secret_name", "tls_secret", "max_gateways", "service_monitor", "cpu", "memory"),)
    own = {name: settings[name] for name in names}
    options = _options(settings, gateway_replicas=settings["gateways"], **own)
    try:
        exported = FlowToExport.of_file(flow, context_of(variables)).kubernetes(options)
    except ConfigError as error:
        return fail(f"{flow} cannot be exported:\n{error}")
    return _written(exported, output)


def export_compose(flow: Path, output: Path, variables: Sequence[str], settings: Mapping[str, Any]) -> int:
    """Write ``flow`` as the file ``output``. Returns the exit code."""
    options = _options(settings, network=settings["network"], tls_secret=settings["tls_secret"])
    try:
        exported = FlowToExport.of_file(flow, context_of(variables)).compose(options, output.name)
    except ConfigError as error:
        return fail(f"{flow} cannot be exported:\n{error}")
    return _written(exported, output.parent)


def _options(settings: Mapping[str, Any], **own: Any) -> ExportOptions:
    return ExportOptions(
        settings["image"],
        settings["project"],
        settings["secrets"],
        include_gateway=not settings["without_gateway"],
        **own,
    )


def _written(exported: Exported, folder: Path) -> int:
    for warning in exported.warnings:
        warn(warning)
    try:
        for path in exported.write(folder):
            note(f"written: {path}")
    except OSError as error:
        return fail(f"{error.filename or folder} cannot be written: {error.strerror or error}")
    return 0
