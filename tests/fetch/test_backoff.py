from layerfs.fetch.backoff import Backoff


def test_a_download_goes_on_as_long_as_it_makes_progress() -> None:
    backoff = Backoff(attempts=3, progress=10, chance=lambda: 1.0)
    assert [backoff.failed(10 * number) for number in range(1, 50)] == [0.5] * 49
    assert [backoff.failed(490), backoff.failed(495), backoff.failed(499)] == [1.0, 2.0, None]


def test_a_download_that_starts_again_at_zero_has_made_no_progress() -> None:
    backoff = Backoff(attempts=3, progress=10)
    delays = [backoff.failed(received) for received in (100, 0, 100, 0, 100)]
    assert [delay is None for delay in delays] == [False, False, False, True, True]


def test_a_download_in_which_nothing_comes_for_too_long_is_given_up() -> None:
    backoff = Backoff(patience=5)
    assert [backoff.failed(100_000, silent) is None for silent in (4.9, 5.0)] == [False, True]
