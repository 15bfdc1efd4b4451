"""Four words, by hand: when a difference beats, is worse, is not told apart, and when it could not have been told."""

import numpy as np
import pytest

from xfm.core.report import Estimate
from xfm.judging.comparison import Comparison, compared, corrected, few_groups, groups_needed
from xfm.metrics.paired import Difference


def a_test(value=0.1, p=0.01, groups=12, **more):
    return Comparison("a", "b", Estimate(value=value, low=value - 0.05, high=value + 0.05), p, groups, **more)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (a_test(), "beats"),
        (a_test(value=-0.1), "worse"),
        (a_test(lower_is_better=True), "worse"),
        (a_test(value=-0.1, lower_is_better=True), "beats"),
        (a_test(p=0.06), "not told apart"),
        (a_test(p=0.05), "not told apart"),
        (a_test(seeds=2), "beats"),
    ],
)
def test_a_word_is_given_by_sign_and_p(found, verdict):
    assert found.verdict == found.words == verdict


def test_what_could_not_be_told_says_what_it_takes():
    # Of 5 groups p is at least 2 / 2**5 = .0625, of 6 .031; of 3 tests of 6 groups .094, of 7 .047.
    assert a_test(groups=5).words == "not testable: takes 6 groups"
    assert a_test(groups=6, p=2 / 2**6).verdict == "beats"
    assert a_test(groups=6, tests=3).words == "not testable: takes 7 groups"
    assert a_test(seeds=1).words == "not testable: takes 2 seeds or more"
    assert a_test(tests=600).words == "not testable: takes fewer than 600 tests at once"
    assert [groups_needed(tests) for tests in (1, 2, 3, 26)] == [6, 7, 7, 11]


def test_a_difference_without_a_p_is_not_testable_whatever_its_sign():
    found = compared(
        "a", "b", Difference(0.2, None, None, float("nan"), "undefined without one of the groups"), np.nan, 20
    )
    assert found.words == "not testable: takes an interval: undefined without one of the groups"


def test_a_family_is_corrected_for_the_tests_that_were_made():
    found = corrected([a_test(p=0.01), a_test(p=0.04), a_test(p=float("nan"))])
    # Holm by hand: the smaller p twice, the larger one once; what has no p is no test.
    assert [each.p for each in found[:2]] == pytest.approx([0.02, 0.04])
    assert {each.tests for each in found} == {2}


def test_few_groups_are_said_to_be_few():
    assert few_groups(12) == ""
    assert "Only 5 groups are in the test" in few_groups(5)
    assert "no p-value can be below 0.062" in few_groups(5)
