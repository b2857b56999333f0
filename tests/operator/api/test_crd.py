import pathlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import pytest
import yaml
from hack import generate
from pydantic import Field

from kedge import cli
from kedge.api import crd, specs
from kedge.api.schemas import ApiModel

VERSION = crd.custom_resource_definition()["spec"]["versions"][0]
ROOT = VERSION["schema"]["openAPIV3Schema"]


def schemas_below(path: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, value in schema.get("properties", {}).items():
        yield from schemas_below(f"{path}.{name}", value)
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from schemas_below(f"{path}[]", schema[keyword])


RECORDS = crd.rollout_record_definition()["spec"]["versions"][0]
EVERY_SCHEMA = {
    **dict(schemas_below("", RECORDS["schema"]["openAPIV3Schema"])),
    **dict(schemas_below("", ROOT)),
}


def defaulted(schema: Mapping[str, Any], value: Any) -> Any:
    """Fills in defaults as the API server does: a missing field first, then what is inside it."""
    if isinstance(value, Mapping):
        fields = schema.get("properties", {})
        absent = {name: field["default"] for name, field in fields.items() if name not in value and "default" in field}
        return {name: defaulted(fields.get(name, {}), item) for name, item in {**value, **absent}.items()}
    if isinstance(value, list):
        return [defaulted(schema["items"], item) for item in value]
    return value


def without_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        pruned = {name: without_empty(item) for name, item in value.items()}
        return {name: item for name, item in pruned.items() if item not in ([], {})}
    return [without_empty(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "path", [path for path in EVERY_SCHEMA if not path.endswith("[]") and path not in {"", ".metadata"}]
)
def test_every_field_has_a_description_that_ends_as_a_sentence(path: str) -> None:
    assert EVERY_SCHEMA[path]["description"].endswith(".")


def test_no_field_is_an_untyped_hole() -> None:
    open_ended = [path for path, schema in EVERY_SCHEMA.items() if schema.get("x-kubernetes-preserve-unknown-fields")]

    kept = ("comparisons", "spreads", "guards", "drifts")
    assert open_ended == [f".status.rollout.memory.{tests}[].state" for tests in kept]


def test_an_integer_or_string_carries_no_type() -> None:
    either = [schema for schema in EVERY_SCHEMA.values() if "x-kubernetes-int-or-string" in schema]

    assert either
    assert all("type" not in schema for schema in either)


def test_every_integer_says_its_width() -> None:
    widths = {schema.get("format") for schema in EVERY_SCHEMA.values() if schema.get("type") == "integer"}

    assert widths == {"int32", "int64"}


def test_every_list_that_a_rule_reads_is_bounded() -> None:
    spec = dict(schemas_below(".spec", ROOT["properties"]["spec"]))

    assert all("maxItems" in schema for schema in spec.values() if schema.get("type") == "array")


@pytest.mark.parametrize(
    "declared",
    [
        {"model": {"uri": "file:///model.skops"}},
        {"model": {"uri": "file:///model.skops"}, "rollout": {}, "metrics": {}, "traffic": {}},
        {"model": {"uri": "file:///model.skops"}, "rollout": {"steps": [{"weightPercent": 20}]}},
        {"model": {"uri": "file:///model.skops"}, "rollout": {"enforcement": "Observe"}, "replicas": 3},
        {
            "model": {"uri": "file:///model.skops"},
            "objectives": [
                {"name": "fast", "indicator": {"type": "Latency", "thresholdMilliseconds": 50}, "targetPercent": "99"}
            ],
        },
    ],
)
def test_the_api_server_fills_in_what_the_models_would(declared: dict[str, Any]) -> None:
    stored = defaulted(ROOT["properties"]["spec"], declared)

    assert stored == without_empty(specs.ModelDeploymentSpec.model_validate(declared).to_json())


def test_a_new_object_does_not_look_healthy() -> None:
    created = defaulted(ROOT, {"spec": {"model": {"uri": "file:///model.skops"}}})

    assert created["status"]["observedGeneration"] == -1


def test_scale_and_status_are_subresources() -> None:
    assert VERSION["subresources"] == {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }


def test_kubectl_get_shows_the_rollout_at_a_glance() -> None:
    columns = [column["name"] for column in VERSION["additionalPrinterColumns"]]

    assert columns == ["Ready", "Stable", "Candidate", "Weight", "Message", "Age"]


def test_kubectl_get_shows_how_each_rollout_ended() -> None:
    columns = [column["name"] for column in RECORDS["additionalPrinterColumns"]]

    assert columns == ["Model", "Candidate", "Outcome", "Reason", "Started", "Ended"]


def test_a_record_with_an_outcome_cannot_be_changed() -> None:
    (rule,) = EVERY_SCHEMA[".record"]["x-kubernetes-validations"]

    assert rule["rule"] == "!has(oldSelf.outcome) || self == oldSelf"


def test_every_list_and_text_of_a_record_is_bounded() -> None:
    lists = {path for path, schema in EVERY_SCHEMA.items() if path.startswith(".record") and schema["type"] == "array"}
    assert {path for path in lists if "maxItems" not in EVERY_SCHEMA[path]} == {".record.objectives[].intervalPercent"}


def test_the_command_prints_both_definitions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["crd"]) == 0

    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert printed == list(crd.custom_resource_definitions())


def test_a_rule_points_at_a_declared_field_only() -> None:
    pointed = {
        f"{path}{validation['fieldPath']}"
        for path, schema in EVERY_SCHEMA.items()
        for validation in schema.get("x-kubernetes-validations", ())
        if "fieldPath" in validation
    }

    assert ".metadata.name" in pointed
    assert pointed <= EVERY_SCHEMA.keys()


class Forked(ApiModel):
    """A model that Kubernetes cannot describe."""

    value: int | list[int] = 0
    """Either of two types."""


class Guarded(ApiModel):
    """A model with a keyword that is no part of a structural schema."""

    value: Annotated[int, Field(multiple_of=3)] = 0
    """A number."""


@pytest.mark.parametrize(("model", "complaint"), [(Forked, "one type"), (Guarded, "multipleOf")])
def test_what_has_no_structural_form_is_refused(model: type[ApiModel], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        crd.structural_schema(model)


def test_generated_files_are_fresh() -> None:
    assert generate.stale(generate.ROOT) == []


def test_a_changed_file_is_called_stale(tmp_path: pathlib.Path) -> None:
    for path, text in generate.contents().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    changed = next(iter(generate.contents()))
    (tmp_path / changed).write_text("edited by hand", encoding="utf-8")

    assert generate.stale(tmp_path) == [changed]
