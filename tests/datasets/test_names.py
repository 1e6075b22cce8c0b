"""What is said of a name that is not known."""

from fastsample.datasets.names import nearest


def test_near_names_are_offered_and_otherwise_all_or_where_to_find_them():
    known = {"scire": 1, "dpmpp-2m": 2}
    assert nearest("scier", known, "solver") == "unknown solver 'scier'; did you mean scire?"
    assert nearest("xyz", known, "solver") == "unknown solver 'xyz'; known: scire, dpmpp-2m"
    assert nearest("xyz", known, "solver", "see the list.") == "unknown solver 'xyz'; see the list."
