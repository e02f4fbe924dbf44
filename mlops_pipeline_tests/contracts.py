"""The contract type `only`: who may import what, where everybody else may not.

It names who MAY, so a new sub-package is inside every contract from its first day. A name stands
for the module and all below it; `*` in it stands for one or more names.
"""

import re
from collections.abc import Iterable
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyContract(Contract):
    """Imports of some modules by some importers are forbidden, except those named.

    Configuration options:
        - imported:          what is restricted.
        - importers:         whom the contract is about; everybody when it is left out.
        - allowed_importers: who may import it all the same.
        - allowed_imported:  what everybody may import all the same.
        - ignore_imports:    single imports that are known, as "importer -> imported".
    """

    type_name = "only"

    imported: Any = fields.SetField(subfield=fields.StringField())
    importers: Any = fields.SetField(subfield=fields.StringField(), required=False)
    allowed_importers: Any = fields.SetField(subfield=fields.StringField(), required=False)
    allowed_imported: Any = fields.SetField(subfield=fields.StringField(), required=False)
    ignore_imports: Any = fields.SetField(subfield=fields.StringField(), required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002 - fixed by import-linter
        """Find every import that nobody allowed, and every ignored one that is gone."""
        is_restricted, may_be_imported = _matcher(self.imported), _matcher(self.allowed_imported)
        is_bound = _matcher(self.importers or {"*"})
        may_import = _matcher(self.allowed_importers)
        ignored = set(self.ignore_imports or ())
        found = {
            f"{importer} -> {module}"
            for module in graph.modules
            if is_restricted(module) and not may_be_imported(module)
            for importer in graph.find_modules_that_directly_import(module)
            if is_bound(importer) and not may_import(importer) and not is_restricted(importer)
        }
        return ContractCheck(
            kept=found == ignored,
            metadata={"new": sorted(found - ignored), "gone": sorted(ignored - found)},
        )

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for each import."""
        for line in check.metadata["new"]:
            output.print_error(f"{line}: not allowed by {self.name!r}")
        for line in check.metadata["gone"]:
            output.print_error(f"{line}: ignored by {self.name!r}, but not there any more")


def _matcher(names: Iterable[str] | None) -> Any:
    patterns = [re.escape(name).replace(r"\*", r".+") for name in names or ()]
    compiled = re.compile(rf"(?:{'|'.join(patterns)})(?:\..+)?") if patterns else None
    return lambda module: compiled is not None and compiled.fullmatch(module) is not None
