"""`QuantPlan` as JSON that a person can read and edit: the schema at the file boundary."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bitvox.compiler.passes.plan import (
    FORMAT_VERSION,
    Accounting,
    Activations,
    Granularity,
    Kernels,
    QuantPlan,
    Range,
    Rounding,
    SitePlan,
    Storage,
    Tier,
)
from bitvox.errors import InputError

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SiteSchema(_Schema):
    """One site of a plan file; a field that is left out has the value of `SitePlan`'s default."""

    site: Annotated[str, Field(min_length=1)]
    bits: Annotated[int, Field(ge=2, le=8)] | None
    granularity: Granularity = "channel"
    activations: Activations = "static"
    rounding: Rounding = "nearest"
    clip: Annotated[Finite, Field(gt=0, le=2)] = 1.0
    input_range: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None
    output_range: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None
    score: Finite | None = None
    costs: Annotated[list[Annotated[Finite, Field(ge=0)]], Field(min_length=7, max_length=7)] | None = None
    reason: str = ""
    stored_bytes: Annotated[int, Field(ge=0)] = 0


class PlanSchema(_Schema):
    """A plan file."""

    plan_format: Annotated[int, Field(ge=1)]
    model: str
    fingerprint: str
    target: str
    method: str = ""
    tier: Tier = "default"
    accounting: Accounting = "true"
    storage: Storage = "packed"
    kernels: Kernels = "stock"
    budget: Annotated[int, Field(gt=0)] | None = None
    fixed_bytes: Annotated[int, Field(ge=0)] = 0
    sites: list[SiteSchema]


def plan_to_json(plan: QuantPlan) -> str:
    """The plan as text: one line per site, fields at their default left out, exact and deterministic."""
    schema = PlanSchema(
        plan_format=FORMAT_VERSION,
        model=plan.model,
        fingerprint=plan.fingerprint,
        target=plan.target,
        method=plan.method,
        tier=plan.tier,
        accounting=plan.accounting,
        storage=plan.storage,
        kernels=plan.kernels,
        budget=plan.budget,
        fixed_bytes=plan.fixed_bytes,
        sites=[_site_schema(entry) for entry in plan.sites],
    )
    head = schema.model_dump(exclude={"sites"}, exclude_defaults=True)
    lines = [
        f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}," for name, value in head.items()
    ]
    sites = [
        "    " + json.dumps(site.model_dump(exclude_defaults=True), ensure_ascii=False)
        for site in schema.sites
    ]
    return "\n".join(["{", *lines, '  "sites": [', ",\n".join(sites), "  ]", "}"]) + "\n"


def plan_from_json(text: str, origin: str) -> QuantPlan:
    """The plan in a text; `origin` names the file in errors.

    Raises InputError, one line with the field and what would be right. Whether the plan fits a model is
    `verify_plan`'s question.
    """
    document = _parse(text, origin)
    try:
        schema = PlanSchema.model_validate(document)
    except ValidationError as error:
        raise InputError(_describe(error, document, origin)) from None
    sites = tuple(_site_plan(site, origin) for site in schema.sites)
    seen: set[str] = set()
    for entry in sites:
        if entry.site in seen:
            raise InputError(f"{origin}: site {entry.site} has two entries; each site has one")
        seen.add(entry.site)
    fields = schema.model_dump(exclude={"plan_format", "sites"})
    return QuantPlan(**fields, sites=sites)


def _parse(text: str, origin: str) -> dict[str, Any]:
    def refuse(word: str) -> NoReturn:
        raise InputError(f"{origin}: {word} is not a number of a plan; every number is finite")

    try:
        document = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{origin}: not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except RecursionError:
        raise InputError(f"{origin}: not a plan: nested too deep") from None
    if not isinstance(document, dict) or "plan_format" not in document:
        raise InputError(f'{origin}: not a plan: a plan is a JSON object with a "plan_format"')
    found = document["plan_format"]
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise InputError(
            f"{origin}: plan format {found} is newer than this bitvox's {FORMAT_VERSION}; upgrade bitvox"
        )
    return document


def _describe(error: ValidationError, document: dict[str, Any], origin: str) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    path = [
        part for part in first["loc"] if part not in ("constrained-int", "int", "list[constrained-float]")
    ]
    where = re.sub(r"\.\[", "[", ".".join(f"[{part}]" if isinstance(part, int) else part for part in path))
    if len(path) > 1 and path[0] == "sites" and isinstance(path[1], int):
        entry = document["sites"][path[1]]
        name = entry.get("site") if isinstance(entry, dict) else None
        where = f"site {name}: {'.'.join(str(part) for part in path[2:])}" if name else where
    if first["type"] == "missing":
        return f"{origin}: {where}: is missing"
    if first["type"] == "extra_forbidden":
        return f"{origin}: {where}: no such field"
    if path[-1] == "bits":
        return f"{origin}: {where}: {first['input']!r} is no width; use 2 to 8, or null for full precision"
    given = repr(first["input"])
    return f"{origin}: {where}: {given if len(given) < 60 else given[:57] + '...'}: {first['msg']}"


def _site_schema(entry: SitePlan) -> SiteSchema:
    fields = {name: getattr(entry, name) for name in SiteSchema.model_fields}
    for name in ("input_range", "output_range"):
        fields[name] = [fields[name].low, fields[name].high] if fields[name] else None
    fields["costs"] = list(entry.costs) if entry.costs is not None else None
    return SiteSchema(**fields)


def _site_plan(schema: SiteSchema, origin: str) -> SitePlan:
    fields = schema.model_dump()
    for name in ("input_range", "output_range"):
        if fields[name] is not None:
            low, high = fields[name]
            if low >= high:
                raise InputError(f"{origin}: site {schema.site}: {name}: low {low} is not below high {high}")
            fields[name] = Range(low, high)
    fields["costs"] = None if schema.costs is None else tuple(schema.costs)
    return SitePlan(**fields)
