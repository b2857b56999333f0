"""What every API model shares: camelCase names, immutability, and CEL rules in the schema.

Nothing here knows a field of the API by name.
"""

from decimal import Decimal
from typing import Annotated, Any

import pydantic
from pydantic import alias_generators

GROUP = "kedge.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ModelDeployment"
PLURAL = "modeldeployments"
SINGULAR = "modeldeployment"
SHORT_NAMES = ("mdep",)
CATEGORIES = ("kedge",)


class ApiModel(pydantic.BaseModel):
    """Base of all API models: camelCase outside, snake_case inside, frozen.

    Unknown fields are dropped here because the API server prunes them first; `kubectl
    --validate=strict`, the default, refuses them with their name.
    """

    model_config = pydantic.ConfigDict(
        alias_generator=alias_generators.to_camel,
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    def to_json(self) -> dict[str, Any]:
        """Returns the camelCase form that the API server stores; unset optional fields are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rule(expression: str, message: str, *, field_path: str | None = None) -> dict[str, str]:
    """Returns one CEL validation for `x-kubernetes-validations`.

    The message names the remedy; `field_path` (such as `.sha256`) makes the API server name the field.
    """
    validation = {"rule": expression, "message": message}
    if field_path is not None:
        validation["fieldPath"] = field_path
    return validation


def validated_by(*rules: dict[str, str], **schema: Any) -> dict[str, Any]:
    """Returns extra schema with these CEL validations, for `json_schema_extra`."""
    return {"x-kubernetes-validations": list(rules), **schema}


def list_map(key: str, **schema: Any) -> dict[str, Any]:
    """Returns the extra schema of a list whose items are told apart by `key`, so that appliers can merge it."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key], **schema}


def _decimal(low: str, high: str, message: str) -> pydantic.WithJsonSchema:
    """Returns the schema of an integer or decimal string that satisfies `low` and `high` (CEL comparisons).

    The pattern holds strings only. It bounds what CEL may have to read, and where it is broken the API
    server does not evaluate the rule.
    """
    return pydantic.WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": "^[0-9]{1,3}([.][0-9]{1,9})?$",
            "x-kubernetes-validations": [rule(f"double(self) {low} && double(self) {high}", message)],
        }
    )


_AS_DECIMAL_STRING = pydantic.PlainSerializer(lambda value: f"{value.normalize():f}", return_type=str)

TargetPercent = Annotated[
    Decimal,
    _AS_DECIMAL_STRING,
    _decimal(
        "> 0.0",
        "< 100.0",
        "must lie between 0 and 100, both excluded: 100 leaves no error budget to judge by",
    ),
]
TolerancePercent = Annotated[Decimal, _AS_DECIMAL_STRING, _decimal(">= 0.0", "<= 50.0", "must lie between 0 and 50")]
RiskPercent = Annotated[Decimal, _AS_DECIMAL_STRING, _decimal(">= 0.001", "<= 20.0", "must lie between 0.001 and 20")]
Distance = Annotated[Decimal, _AS_DECIMAL_STRING, _decimal("> 0.0", "<= 10.0", "must lie above 0 and be at most 10")]
