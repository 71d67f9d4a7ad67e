"""The shown paths of enterprise's pages in the vendor's other families, and the page behind each."""

from __future__ import annotations

from collections.abc import Mapping

from server.endpoints.enterprise.families import ELSEWHERE, FAMILIES
from tests.contract.parameters.stage import ENTERPRISE

FURTHER_PATHS: Mapping[str, str] = {
    f"{family.prefix}/{name}".rstrip("/"): f"{ENTERPRISE}/{'fetch/{id}' if '{id}' in name else slug}"
    for family in FAMILIES
    if family.shown
    for name, slug in (family.operations or {}).items()
    if slug not in ELSEWHERE
}
"""Path -> the path of the enterprise documentation with the same fields."""
