"""Checks of the machine: cores, memory, disks, GPUs, and what a container may use of it.

Limits are those of Linux control groups, versions 1 and 2. Files and their meaning: the kernel's admin-guide,
cgroup-v1/memory.rst, cgroup-v2.rst and scheduler/sched-bwc.rst. A limit of any group above this process's own holds
too, so all are read.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from xfm.doctor.finding import Finding, gigabytes
from xfm.doctor.packages import ABSENT, found_version, pip_install

# Measured with scGPT of released size on the CPU: 0.66 GB a worker and a copy of its weights while they are read; Ray's
# own processes take 1 to 1.5 GB.
WORKER_BYTES = 1.0e9
RAY_BYTES = 1.5e9
CELL_BYTES = 13 * 2 * 512 * 4  # 13 layers of scGPT in two poolings
FULL, TIGHT = 1e9, 10e9  # free bytes of a disk
SPILL_STOPS = 0.95  # Ray neither spills nor falls back to a disk that is fuller (local_fs_capacity_threshold)
STORE_SHARE, STORE_CAP = 0.3, 10e9  # of free memory Ray gives its objects, and what it accepts on a slow disk
SOCKET = "/ray/session_2026-11-21_11-40-03_123456_{pid}/sockets/plasma_store"  # below RAY_TMPDIR


def usable_cores(root: Path = Path("/")) -> float:
    """Cores that this process may use: affinity and the container's limit."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(found, cpu_limit(root) or math.inf)


def cores(root: Path = Path("/")) -> Finding:
    """Cores of this process, of those that the machine has."""
    usable, there = usable_cores(root), os.cpu_count() or 1
    why = f" of this machine's {there}, by affinity or the container's limit" if usable < there else ""
    text = f"{usable:g}{why}"
    if usable < 2:
        return Finding("cores", "warn", text, "jobs run, reading and computing in turn; with 2 or more both go at once")
    return Finding("cores", "ok", text)


def free_memory(root: Path = Path("/")) -> tuple[float, float | None]:
    """Bytes that this process may use at most, and how many are free; None where the system does not say."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), None
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    total, free = kilobytes["MemTotal"] * 1024, kilobytes.get("MemAvailable", kilobytes["MemFree"]) * 1024
    limits = memory_limits(root)
    return min([total, *(limit for limit, _ in limits)]), min([free, *(left for _, left in limits)])


def memory(root: Path = Path("/")) -> Finding:
    """Whether memory holds Ray and a worker a core."""
    total, left = free_memory(root)
    workers = max(1, int(usable_cores(root)))
    free = total if left is None else left
    text = f"{gigabytes(total)}" if left is None else f"{gigabytes(free)} free of {gigabytes(total)}"
    if free < RAY_BYTES + WORKER_BYTES:
        text += f"; Ray and one worker with scGPT take {gigabytes(RAY_BYTES + WORKER_BYTES)}"
        return Finding("memory", "bad", text, "end other programs, or give the container more")
    room = int((free - RAY_BYTES) // WORKER_BYTES)
    if room < workers:
        text += f"; enough for {room} of {workers} workers with scGPT"
        return Finding("memory", "warn", text, f"start jobs with --workers {room}, or free memory")
    return Finding("memory", "ok", text)


def disk_here(folder: Path) -> Finding:
    """Room for OUTPUT and MLflow's database in the current folder."""
    name, at = "disk here", f"in {folder}"
    if problem := unwritable(folder):
        return Finding(name, "bad", f"cannot write {at} ({problem})", "start jobs in a folder of yours")
    free = shutil.disk_usage(folder).free
    cells = f"all layers of scGPT in two poolings are {CELL_BYTES / 1000:.0f} kB a cell"
    if free < FULL:
        return Finding(name, "bad", f"{gigabytes(free)} free {at}; {cells}", "free some, or use another disk")
    if free < TIGHT:
        remedy = f"{cells}: enough for {int(free / CELL_BYTES):,}. More: --output on another disk or s3://"
        return Finding(name, "warn", f"{gigabytes(free)} free {at}", remedy)
    return Finding(name, "ok", f"{gigabytes(free)} free {at}")


def ray_folder(environ: Mapping[str, str]) -> Path:
    """Where Ray keeps sockets, logs and what memory cannot hold."""
    fallback = environ.get("TMPDIR", "/tmp") if sys.platform.startswith("linux") else "/tmp"
    return Path(environ.get("RAY_TMPDIR", fallback)) / "ray"


def disk_of_ray(environ: Mapping[str, str]) -> Finding:
    """Room, rights and length of Ray's folder."""
    name, folder = "disk of Ray", ray_folder(environ)
    if problem := unwritable(nearest(folder)):
        return Finding(name, "bad", f"cannot write in {folder} ({problem})", "set RAY_TMPDIR to a folder of yours")
    longest = (103 if sys.platform == "darwin" else 107) - len(SOCKET.format(pid=os.getpid()))
    if len(os.fsencode(folder.parent)) > longest:
        text = f"{folder.parent} is too long a path for the sockets that Ray makes below it"
        return Finding(name, "bad", text, f"set RAY_TMPDIR to a path of {longest} letters at most, e.g. /tmp")
    usage = shutil.disk_usage(nearest(folder))
    text = f"{gigabytes(usage.free)} free in {folder}"
    if usage.free < FULL:
        return Finding(name, "bad", text, "free some, or set RAY_TMPDIR to a folder on another disk")
    if 1 - usage.free / usage.total > SPILL_STOPS:
        text += f", a disk that is over {SPILL_STOPS:.0%} full: Ray does not spill there"
        return Finding(name, "warn", text, "free some, or set RAY_TMPDIR to a folder on another disk")
    return Finding(name, "ok", text)


def shared_memory(folder: Path = Path("/dev/shm"), root: Path = Path("/")) -> Finding:
    """Room for Ray's object store."""
    name = "shared memory"
    if not folder.is_dir():
        return Finding(name, "ok", f"no {folder} on this system; Ray keeps its objects in its own folder")
    free, (total, left) = shutil.disk_usage(folder).free, free_memory(root)
    wanted = min(STORE_SHARE * (total if left is None else left), STORE_CAP)
    text = f"{gigabytes(free)} free in {folder}"
    if free < wanted:
        text += f": Ray wants {gigabytes(wanted)} there and takes its disk instead, which is slower"
        remedy = f"in Docker: --shm-size={math.ceil(wanted / 1e9)}g; else delete what lies there"
        return Finding(name, "warn", text, remedy)
    return Finding(name, "ok", text)


def gpu(seen: Mapping[str, Any], driver: bool) -> Finding:
    """GPUs as PyTorch sees them.

    Args:
        seen: what `gpu_probe.look` gave, or {"error": why there is nothing}.
    """
    name = "GPU"
    if (error := seen.get("error")) == ABSENT:
        return Finding(name, "bad", f"torch, which sees them: {error}", "see packages")
    if error:
        return Finding(name, "bad", f"torch does not load: {error}", f"{pip_install()} --force-reinstall torch")
    cards, warnings, torch = seen["cards"], seen["warnings"], f"torch {seen['torch']}"
    if cards and warnings:
        remedy = "install the torch that https://pytorch.org/get-started names for this card and driver"
        return Finding(name, "warn", f"{_listed(cards)}, but {torch} says: {warnings[0]}", remedy)
    if cards:
        return Finding(name, "ok", f"{_listed(cards)}; use with --gpus 1")
    if not driver:
        return Finding(name, "ok", "none; jobs compute on the CPU")
    if seen["cuda"] is None:
        remedy = f"{pip_install()} --force-reinstall torch (from PyPI it brings CUDA), or go on without the GPU"
        return Finding(name, "warn", f"NVIDIA's driver is here, but {torch} is built for CPUs", remedy)
    if seen["hidden"]:
        return Finding(name, "warn", "CUDA_VISIBLE_DEVICES hides them", "unset it to use them")
    why = f": {warnings[0]}" if warnings else ""
    remedy = "update the driver (nvidia-smi names the CUDA it takes), or install a torch built for that CUDA"
    return Finding(name, "warn", f"{torch} (CUDA {seen['cuda']}) cannot use the GPU{why}", remedy)


def see_gpus(timeout_s: float) -> dict[str, Any]:
    """Imports torch in a process of its own: a broken one takes only that down, and a slow one can be left.

    Raises:
        subprocess.TimeoutExpired: it was not done in time; it is ended.
    """
    if found_version("torch") is None:
        return {"error": ABSENT}
    script = Path(__file__).with_name("gpu_probe.py")
    # -P: neither this folder nor the current one may stand in for a package.
    done = subprocess.run([sys.executable, "-P", str(script)], capture_output=True, text=True, timeout=timeout_s)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()
        return {"error": said[-1] if said else f"its process ended with code {done.returncode}"}
    seen: dict[str, Any] = json.loads(lines[-1])
    return seen


def _listed(cards: Sequence[Mapping[str, Any]]) -> str:
    kinds = [f"{card['name']}, {gigabytes(card['memory'])}" for card in cards]
    return "; ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))


def unwritable(folder: Path) -> str:
    """Why no file can be written into a folder; empty where it can. Tried, for rights and mounts may differ."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def nearest(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    # Path.exists raises where a folder above is closed to this user.
    return next((place for place in (folder, *folder.parents) if os.path.exists(place)), folder)


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
