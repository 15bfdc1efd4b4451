from xfm.track.memory import MemoryTracker


def test_children_write_into_the_list_of_their_parent_and_params_count_once():
    tracker = MemoryTracker("job")
    tracker.params({"a": 1})
    tracker.params({"a": 2})
    child = tracker.child("probe")
    child.metrics({"mse": 0.5}, step=3)
    assert child.close()
    assert tracker.records == [
        ("job", "params", {"a": 1}),
        ("job", "child", "probe"),
        ("job/probe", "metrics", (3, {"mse": 0.5})),
        ("job/probe", "close", "FINISHED"),
    ]
    assert tracker.of("metrics") == [(3, {"mse": 0.5})]
