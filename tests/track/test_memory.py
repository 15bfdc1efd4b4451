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


def test_children_are_told_apart_by_their_key_and_found_by_their_tags():
    tracker = MemoryTracker("job")
    for seed in (3, 4):
        tracker.child("training", key=f"seed-{seed}", tags={"seed": str(seed)}).close()
    assert [(run, content) for run, kind, content in tracker.records if kind == "tags"] == [
        ("job/seed-3", {"seed": "3"}),
        ("job/seed-4", {"seed": "4"}),
    ]
