"""Counting refused steps, and giving in."""

from stablekeras.watch.recover import Policy


def test_skips_until_the_row_is_too_long():
    """`max_consecutive_skips` steps are skipped, the next one stops."""
    policy = Policy("skip", None, 2)
    assert [policy.decide() for _ in range(3)] == ["skip", "skip", "stop"]


def test_progress_ends_a_row_but_not_the_total():
    """A good step resets the row; `max_skips` counts on."""
    policy = Policy("skip", 3, 2)
    decisions = []
    for _ in range(4):
        decisions.append(policy.decide())
        policy.progress()
    assert decisions == ["skip", "skip", "skip", "stop"]


def test_no_limits():
    """`None` never gives in."""
    policy = Policy("rollback", None, None)
    assert {policy.decide() for _ in range(100)} == {"rollback"}


def test_stop_and_raise_are_not_counted():
    """They end the training at once."""
    assert Policy("stop", 0, 0).decide() == "stop"
    assert Policy("raise", 0, 0).decide() == "raise"
