"""What a user may declare of the model server's pods, in the words of a Pod."""

from enum import StrEnum
from typing import Annotated

import pydantic
from pydantic import Field

from kedge.api.schemas import ApiModel, list_map, rule, validated_by

Quantity = Annotated[
    str,
    pydantic.BeforeValidator(str),
    pydantic.WithJsonSchema(
        {"x-kubernetes-int-or-string": True, "pattern": r"^[0-9]+([.][0-9]+)?([numkMGTPE]|[KMGTPE]i)?$"}
    ),
]


class Compile(StrEnum):
    """Whether a model may be answered by a compiled form of it."""

    OFF = "Off"
    AUTO = "Auto"


class ResourceRequirements(ApiModel):
    """Compute resources of the server's container, as in a Pod."""

    limits: dict[str, "Quantity"] | None = None
    """The most that the container may use."""
    requests: dict[str, "Quantity"] | None = None
    """What the scheduler sets aside for the container."""


class KeyReference(ApiModel):
    """One key of a ConfigMap or Secret in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the object."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key inside the object."""
    optional: bool | None = None
    """Whether the variable is left unset when the key does not exist."""


class EnvVarSource(ApiModel):
    """Where the value of a variable comes from."""

    model_config = pydantic.ConfigDict(
        json_schema_extra=validated_by(
            rule(
                "has(self.secretKeyRef) != has(self.configMapKeyRef)",
                "needs exactly one of secretKeyRef and configMapKeyRef",
            )
        )
    )

    secret_key_ref: KeyReference | None = None
    """A key of a Secret."""
    config_map_key_ref: KeyReference | None = None
    """A key of a ConfigMap."""


class EnvVar(ApiModel):
    """An environment variable of the server."""

    model_config = pydantic.ConfigDict(
        json_schema_extra=validated_by(
            rule("!(has(self.value) && has(self.valueFrom))", "has both value and valueFrom: keep one of them")
        )
    )

    name: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)] | None = None
    """Literal value."""
    value_from: EnvVarSource | None = None
    """Reference to the value."""


class LocalObjectReference(ApiModel):
    """An object of the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the object."""


class Toleration(ApiModel):
    """A taint that the pods tolerate, as in a Pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Key of the taint; empty with operator Exists means every taint."""
    operator: Annotated[str, Field(json_schema_extra={"enum": ["Exists", "Equal"]})] | None = None
    """How value is compared."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Value of the taint."""
    effect: (
        Annotated[str, Field(json_schema_extra={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]})] | None
    ) = None
    """Effect of the taint; empty means all effects."""
    toleration_seconds: int | None = None
    """Seconds that a NoExecute taint is tolerated."""


class Server(ApiModel):
    """The model server's pods. Everything has a default."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Image of the model server; the operator's default when it is not given."""
    image_pull_policy: Annotated[str, Field(json_schema_extra={"enum": ["Always", "IfNotPresent", "Never"]})] | None = (
        None
    )
    """When the image is pulled; IfNotPresent, or Always for the tag latest, when it is not given."""
    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...], Field(max_length=16)] = ()
    """Secrets to pull the image with."""
    compile: Compile = Compile.OFF
    """Auto: linear models and trees answer without scikit-learn's overhead, with the same answers, once they have given
    the package's golden rows; a sample of live rows is checked against scikit-learn."""
    resources: ResourceRequirements | None = None
    """Compute resources of the container."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=64, json_schema_extra=list_map("name"))] = ()
    """Environment variables of the container."""
    service_account_name: Annotated[str, Field(max_length=253)] | None = None
    """ServiceAccount of the pods."""
    node_selector: dict[str, str] | None = None
    """Labels of the nodes that the pods may run on."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints that the pods tolerate."""
