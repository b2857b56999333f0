import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser

from kedge.observe import distributions
from kedge.observe.exposition import ExpositionError
from kedge.observe.snapshot import EventCounts, Histogram, Sample

PAGE = """\
# TYPE kedge_server_feature_bin_total counter
kedge_server_feature_bin_total{model="m",feature="age",bin="10.0"} 3
kedge_server_feature_bin_total{model="m",feature="age",bin="+Inf"} 5
# TYPE kedge_server_feature_reference_rows gauge
kedge_server_feature_reference_rows{model="m",feature="age",bin="10.0"} 40
kedge_server_feature_reference_rows{model="m",feature="age",bin="+Inf"} 60
kedge_server_prediction_bin_total{model="m",output="predict",bin="yes"} 8
kedge_server_prediction_reference_rows{model="m",output="predict",bin="yes"} 100
kedge_server_requests_total{model="m",fault="none"} 8
"""
AGE = Histogram(bins=("10.0", "+Inf"), rows=(3, 5), reference=(40, 60))


def sample(uid: str, revision: str = "a", requests: int = 8) -> Sample:
    return Sample(uid, revision, f"start of {uid}", {"availability": EventCounts(0, requests)})


def test_live_and_reference_rows_are_read_by_bin() -> None:
    assert distributions.read(PAGE) == {
        "feature age": AGE,
        "prediction predict": Histogram(("yes",), (8,), (100,)),
    }


def test_a_model_without_a_profile_has_no_histograms() -> None:
    assert distributions.read('kedge_server_requests_total{model="m",fault="none"} 8\n') == {}


@given(
    st.dictionaries(
        st.tuples(st.text(min_size=1, max_size=8), st.text(min_size=1, max_size=8)),
        st.integers(0, 2**53),
        min_size=1,
        max_size=8,
    )
)
def test_any_names_are_read_as_the_client_library_reads_them(rows: dict[tuple[str, str], int]) -> None:
    def escaped(text: str) -> str:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    family = "kedge_server_feature_bin_total"
    page = "".join(
        f'{family}{{model="m",feature="{escaped(feature)}",bin="{escaped(label)}"}} {count}\n'
        for (feature, label), count in rows.items()
    )
    expected = {
        (one.labels["feature"], one.labels["bin"]): one.value
        for metric in parser.text_string_to_metric_families(page)
        for one in metric.samples
    }
    found = {
        (name.removeprefix("feature "), label): count
        for name, histogram in distributions.read(page).items()
        for label, count in zip(histogram.bins, histogram.rows, strict=True)
    }
    assert found == expected == rows


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (PAGE.replace("} 3", "} NaN"), "= NaN"),
        (PAGE.replace("} 3", "} -1"), "= -1"),
        (PAGE.replace("} 3", "} 2.5"), "= 2.5"),
        (PAGE.replace("} 3", "} many"), "= many"),
        (PAGE.replace('bin="+Inf"} 5', 'bin="10.0"} 5'), "twice"),
        (PAGE.replace('bin="10.0"} 40', 'bin="11.0"} 40'), "other bins for the reference of age"),
        (PAGE.replace('feature="age",bin="10.0"} 3', 'bin="10.0"} 3'), "without its labels"),
    ],
)
def test_a_page_that_contradicts_itself_is_an_error_and_never_a_number(page: str, complaint: str) -> None:
    with pytest.raises(ExpositionError, match=complaint.replace("+", r"\+")):
        distributions.read(page)


def test_the_pods_of_a_revision_are_added_up() -> None:
    read = distributions.total([(sample(uid, revision), {"feature age": AGE}) for uid, revision in ("1a", "2a", "3b")])
    assert read["a"].histograms["feature age"] == Histogram(AGE.bins, (6, 10), AGE.reference)
    assert read["a"].processes == {"1": "start of 1", "2": "start of 2"}
    assert (read["a"].requests, read["b"].requests) == (16, 8)


def test_what_two_pods_count_over_different_bins_is_left_out() -> None:
    other = Histogram(("11.0", "+Inf"), (1, 1), (1, 1))
    read = distributions.total([(sample("1"), {"feature age": AGE}), (sample("2"), {"feature age": other})])
    assert read["a"].histograms == {}


def test_large_counts_stay_exact() -> None:
    page = PAGE.replace("} 3", f"}} {2**53 - 1}")
    assert math.fsum(distributions.read(page)["feature age"].rows) == 2**53 + 4
