"""What is said of a name that is not known."""

from fastsample.datasets.names import nearest


def test_near_names_are_offered_and_otherwise_all_or_where_to_find_them():
    known = {"scire": 1, "dpmpp-2m": 2}
    assert nearest("scier", known, "solver") == "unknown solver 'scier'; did you mean scire?"
    assert nearest("xyz", known, "solver") == "unknown solver 'xyz'; known: scire, dpmpp-2m"
    assert nearest("xyz", known, "solver", "see the list.") == "unknown solver 'xyz'; see the list."
    assert nearest("", known, "solver") == "unknown solver ''; known: scire, dpmpp-2m"


def test_case_does_not_count_and_the_beginning_of_a_name_does():
    assert nearest("fID", ["fd", "fid"], "metric") == "unknown metric 'fID'; did you mean fid or fd?"
    assert nearest("s_churn", ["S_churn"], "option") == "unknown option 's_churn'; did you mean S_churn?"
    known = ["rf-cifar10-2", "cifar10-tiny-flow", "cifar10-tiny-vp", "other"]
    assert nearest("cifar10", known, "model").endswith(
        "did you mean cifar10-tiny-vp or cifar10-tiny-flow or rf-cifar10-2?"
    )
