"""The CustomResourceDefinitions, generated from the pydantic models.

pydantic writes JSON Schema, of which Kubernetes takes the structural part. The translation here knows
that difference and no field by name.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from kedge.api import records, schemas, specs, statuses
from kedge.api.schemas import ApiModel, rule

NAME_MAX_LENGTH = 40
"""With a revision's hash (11 characters) and a ReplicaSet's (11) it still fits a label's 63."""

_NAME_RULES = (
    rule(
        f"self.metadata.name.size() <= {NAME_MAX_LENGTH}",
        f"must be at most {NAME_MAX_LENGTH} characters: the names of its children begin with it",
        field_path=".metadata.name",
    ),
    rule(
        "self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')",
        "must start with a letter and hold only lowercase letters, digits and dashes (no dot):"
        " it becomes the name of a Service",
        field_path=".metadata.name",
    ),
)

_PRINTER_COLUMNS = (
    {
        "name": "Ready",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
        "description": "Whether the declared revision serves and nothing needs a person.",
    },
    {
        "name": "Stable",
        "type": "string",
        "jsonPath": ".status.stableRevision",
        "description": "The accepted revision that serves.",
    },
    {
        "name": "Candidate",
        "type": "string",
        "jsonPath": ".status.candidateRevision",
        "description": "The revision that is being rolled out.",
    },
    {
        "name": "Weight",
        "type": "integer",
        "jsonPath": ".status.rollout.weightPercent",
        "description": "The share of requests that the candidate should take, in percent.",
    },
    {
        "name": "Message",
        "type": "string",
        "jsonPath": ".status.message",
        "description": "The state in one sentence.",
    },
    {
        "name": "Age",
        "type": "date",
        "jsonPath": ".metadata.creationTimestamp",
        "description": "Time since the object was created.",
    },
)


_RECORD_COLUMNS = (
    {
        "name": "Model",
        "type": "string",
        "jsonPath": ".record.modelDeployment",
        "description": "The ModelDeployment.",
    },
    {
        "name": "Candidate",
        "type": "string",
        "jsonPath": ".record.candidate",
        "description": "The revision that was judged.",
    },
    {
        "name": "Outcome",
        "type": "string",
        "jsonPath": ".record.outcome",
        "description": "How it ended; empty while it goes on.",
    },
    {
        "name": "Reason",
        "type": "string",
        "jsonPath": ".record.reason",
        "description": "Why, as one word.",
    },
    {
        "name": "Started",
        "type": "date",
        "jsonPath": ".record.startedAt",
        "description": "Time since it began.",
    },
    {
        "name": "Ended",
        "type": "date",
        "jsonPath": ".record.endedAt",
        "description": "Time since it ended.",
    },
)


def custom_resource_definitions() -> tuple[dict[str, Any], ...]:
    """Returns the manifests of all CRDs."""
    return (custom_resource_definition(), rollout_record_definition())


def custom_resource_definition() -> dict[str, Any]:
    """Returns the manifest of the CRD of ModelDeployments."""
    subresources = {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }
    names = {
        "kind": schemas.KIND,
        "plural": schemas.PLURAL,
        "singular": schemas.SINGULAR,
        "shortNames": list(schemas.SHORT_NAMES),
    }
    return _definition(names, _PRINTER_COLUMNS, _object_schema(), {"subresources": subresources})


def rollout_record_definition() -> dict[str, Any]:
    """Returns the manifest of the CRD of RolloutRecords."""
    record = structural_schema(records.Record)
    schema = {
        "type": "object",
        "description": record["description"],
        "required": ["record"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {schemas.API_VERSION}."},
            "kind": {"type": "string", "description": f"Always {records.KIND}."},
            "metadata": {"type": "object"},
            "record": {**record, "description": "What happened."},
        },
    }
    names = {
        "kind": records.KIND,
        "plural": records.PLURAL,
        "singular": records.SINGULAR,
        "shortNames": list(records.SHORT_NAMES),
    }
    return _definition(names, _RECORD_COLUMNS, schema, {})


def _definition(
    names: Mapping[str, Any],
    columns: Iterable[Mapping[str, Any]],
    schema: Mapping[str, Any],
    version: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{schemas.GROUP}"},
        "spec": {
            "group": schemas.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names["kind"],
                "listKind": f"{names['kind']}List",
                **{key: value for key, value in names.items() if key != "kind"},
                "categories": list(schemas.CATEGORIES),
            },
            "versions": [
                {
                    "name": schemas.VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [dict(column) for column in columns],
                    **version,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def structural_schema(model: type[ApiModel]) -> dict[str, Any]:
    """Returns the schema of `model` in the form that Kubernetes calls structural.

    Raises:
        ValueError: the model uses JSON Schema that has no structural form.
    """
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {})
    return _translate(schema, definitions)


def _object_schema() -> dict[str, Any]:
    status = structural_schema(statuses.ModelDeploymentStatus)
    # Without this default a new object has no status at all, and kstatus takes it for a healthy one.
    status["default"] = _without_absent(statuses.ModelDeploymentStatus().to_json())
    spec = structural_schema(specs.ModelDeploymentSpec)
    return {
        "type": "object",
        "description": spec["description"],
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {schemas.API_VERSION}."},
            "kind": {"type": "string", "description": f"Always {schemas.KIND}."},
            # The rules can point at the name only when it is declared.
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "description": "The model's name, and its Service's."}},
            },
            "spec": {**spec, "description": "What the user declares."},
            "status": status,
        },
        "x-kubernetes-validations": [dict(validation) for validation in _NAME_RULES],
    }


def _translate(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    result = _resolve(schema, definitions)
    result.pop("title", None)
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "default" in result:
        default = _without_absent(result.pop("default"))
        if default not in (None, [], {}):
            result["default"] = default
    if "properties" in result:
        result["properties"] = {name: _translate(value, definitions) for name, value in result["properties"].items()}
    for keyword in ("items", "additionalProperties"):
        if isinstance(result.get(keyword), Mapping):
            result[keyword] = _translate(result[keyword], definitions)
    if result.get("type") == "integer":
        result.setdefault("format", "int32" if result.get("maximum", 2**63) < 2**31 else "int64")
    _require_structural(result)
    return dict(sorted(result.items(), key=_place))


def _resolve(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the schema with its reference and its `anyOf [X, null]` replaced by what they stand for."""
    result = copy.deepcopy(dict(schema))
    if "anyOf" in result:
        variants = [variant for variant in result.pop("anyOf") if variant != {"type": "null"}]
        if len(variants) != 1:
            raise ValueError(f"a structural schema has one type, not any of {variants}")
        result = {**_resolve(variants[0], definitions), **result}
    if "$ref" in result:
        name = result.pop("$ref").rpartition("/")[2]
        result = {**_resolve(definitions[name], definitions), **result}
    return result


def _without_absent(value: Any) -> Any:
    """Returns a default without nulls and empty collections: left out, they mean the same to the models."""
    if isinstance(value, Mapping):
        pairs = ((name, _without_absent(item)) for name, item in value.items())
        return {name: item for name, item in pairs if item not in (None, [], {})}
    if isinstance(value, list):
        return [_without_absent(item) for item in value]
    return value


_KEYWORDS = (
    "description",
    "type",
    "format",
    "enum",
    "default",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
)
"""What a structural schema may hold, in the order in which it is written."""


def _place(entry: tuple[str, Any]) -> int:
    return _KEYWORDS.index(entry[0])


def _require_structural(schema: Mapping[str, Any]) -> None:
    if unknown := schema.keys() - set(_KEYWORDS):
        raise ValueError(f"a structural schema cannot hold {', '.join(sorted(unknown))}")
    if ("type" in schema) == ("x-kubernetes-int-or-string" in schema):
        raise ValueError(f"a structural schema needs either a type or x-kubernetes-int-or-string: {dict(schema)}")
