"""The room that an operator names, for commands that work on the database."""

from __future__ import annotations

from sfu.errors import BadName
from sfu.refusals import BadValue, CompanyNotFound
from sfu.store import Store
from sfu.store.records import Company
from sfu.tenancy.links import named
from sfu.tenancy.names import canonical, sought


async def company_named(store: Store, name: str) -> Company:
    """The company with this name or id. Raises CompanyNotFound."""
    for found in (sought(name), name):
        if (company := await store.companies.by_name(found)) is not None:
            return company
    if (company := await store.companies.by_id(name)) is not None:
        return company
    raise CompanyNotFound(f"There is no company {name!r}. `sfu company list` shows all companies.")


async def place(store: Store, text: str, company: str | None = None) -> tuple[Company, str]:
    """The company and the id of a room, which need not exist, by its name, `company/room`, or a link.

    Without `company`, a name belongs to the default company unless a company's name or id stands before it.
    Raises CompanyNotFound or BadValue.
    """
    asked = named(text)
    if asked.key:
        return await company_named(store, asked.key.partition("/")[0]), asked.text
    if company is not None:
        return await company_named(store, company), _room_id(asked.text)
    parts = asked.text.split("/")
    for count in range(1, len(parts)):
        before, after = "/".join(parts[:count]), "/".join(parts[count:])
        found = await store.companies.by_name(sought(before)) or await store.companies.by_id(before)
        if found is not None:
            return found, _room_id(after)
    return await store.companies.ensure_default(), _room_id(asked.text)


def _room_id(text: str) -> str:
    try:
        return canonical(text, "room's name")
    except BadName as error:
        raise BadValue(str(error)) from None
