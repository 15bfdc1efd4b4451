"""What a container may use of its machine: limits of Linux control groups, versions 1 and 2.

Files and their meaning: the kernel's admin-guide, cgroup-v1/memory.rst, cgroup-v2.rst and scheduler/sched-bwc.rst. A
limit of any group above this process's own holds too, so all are read.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def memory_limits(root: Path = Path("/")) -> list[tuple[int, int]]:
    """(limit, still free) in bytes of every group; file cache that can be dropped counts as free.

    Version 1 gives a group without a limit one of nearly 2**63.
    """
    limits = []
    for folder in _groups(root, "memory"):
        for limit_file, used_file, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _number(folder / limit_file), _number(folder / used_file)
            if limit is not None:
                held = max(0, (used or 0) - _statistic(folder / "memory.stat", cache))
                limits.append((limit, max(0, limit - held)))
    return limits


def cpu_limit(root: Path = Path("/")) -> float | None:
    """CPUs that the tightest group allows, e.g. 1.5; None without a limit."""
    limits = []
    for folder in _groups(root, "cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's groups and of those above them."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        group = PurePosixPath(path.lstrip("/"))
        if ".." in group.parts:  # the own group lies outside what this container sees
            group = PurePosixPath()
        mounts = (controllers, controller) if controllers and controllers != controller else (controllers,)
        for mount in mounts:
            for folder in (group, *group.parents):
                yield root / "sys/fs/cgroup" / mount / folder


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _statistic(path: Path, name: str) -> int:
    found = dict(line.split(" ", 1) for line in _text(path).splitlines() if " " in line)
    return int(found.get(name, 0))
