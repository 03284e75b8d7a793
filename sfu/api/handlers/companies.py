"""Companies, for the server's operator, and the usage of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

from sfu.api.handlers.requests import ApiRequest, ApiResponse, moment, plain
from sfu.refusals import CompanyNotFound
from sfu.store import Store
from sfu.store.records import Company
from sfu.store.tiers import NO_LIMITS
from sfu.store.usage import Figures


class CompanyHandlers:
    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    async def list_companies(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.companies.page(cursor=call.query.get("cursor"), limit=call.query["limit"])
        return ApiResponse({"items": [_company(company) for company in page.items], "next": page.next})

    async def create_company(self, call: ApiRequest) -> ApiResponse:
        company, key = await self._store.companies.create(call.body["name"], call.body["tier"], call.author)
        location = {"Location": f"companies/{company.id}"}
        return ApiResponse(_company(company) | {"key": key.reveal()}, location, {"made": company.id})

    async def get_company(self, call: ApiRequest) -> ApiResponse:
        return ApiResponse(_company(await self._found(call)))

    async def change_company(self, call: ApiRequest) -> ApiResponse:
        company = await self._found(call)
        changes = {name: value for name, value in call.body.items() if name != "is_active"}
        if changes:
            company = await self._store.companies.change(company.id, changes, call.author)
        if call.body.get("is_active", company.is_active) != company.is_active:
            company = await self._store.companies.set_active(company.id, call.body["is_active"], call.author)
        return ApiResponse(_company(company), about={"changed": ",".join(sorted(call.body))})

    async def company_usage(self, call: ApiRequest) -> ApiResponse:
        return await self._usage(await self._found(call), call)

    async def usage(self, call: ApiRequest) -> ApiResponse:
        return await self._usage(call.company, call)

    async def _found(self, call: ApiRequest) -> Company:
        """The company that the path names. Raises CompanyNotFound."""
        company = await self._store.companies.by_id(call.path["company_id"])
        if company is None:
            raise CompanyNotFound
        return company

    async def _usage(self, company: Company, call: ApiRequest) -> ApiResponse:
        first = _first(call.query.get("month"), self._clock().astimezone(UTC).date())
        found = await self._store.usage.month(company.id, first)
        limits = (await self._store.tiers.all()).get(company.tier)
        return ApiResponse(
            {
                "month": first.isoformat()[:7],
                "tier": company.tier,
                **_figures(found.total),
                "now": {"people": found.people, "rooms": found.rooms},
                "limits": asdict(limits or NO_LIMITS),
                "days": [{"date": day.isoformat(), **_figures(figures)} for day, figures in found.days],
            }
        )


def _first(month: str | None, today: date) -> date:
    """The first day of the month, such as 2026-11."""
    return today.replace(day=1) if month is None else date.fromisoformat(f"{month}-01")


def _figures(figures: Figures) -> dict[str, Any]:
    return asdict(figures) | {"minutes": round(figures.minutes, 2)}


def _company(company: Company) -> dict[str, Any]:
    names = ("id", "name", "tier", "is_active", "is_default")
    return plain(company, names) | {"created_at": moment(company.created_at)}
