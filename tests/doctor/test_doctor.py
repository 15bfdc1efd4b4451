"""What `python -m xfm doctor` says of machines that are not as they should be."""

import http.server
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import pytest
from packaging.version import Version

from xfm.doctor import machine as checks
from xfm.doctor import packages, screen, services
from xfm.doctor.finding import Check, Finding
from xfm.doctor.machine import gpu

REPOSITORY = Path(__file__).parents[2]
GIB = 2**30
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def closed():
    """A port of this machine where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def server(status):
    """Answers every request with one status."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *words):
            pass

    asked = []
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield listening.server_address[1], asked
        finally:
            listening.shutdown()
            thread.join()


@contextmanager
def silence():
    """Accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def machine(root, files):
    """A file system with what the kernel tells."""
    meminfo = f"MemTotal: {64 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {60 * GIB // 1024} kB\n"
    for name, text in {"proc/meminfo": meminfo, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = {
    "proc/self/cgroup": "0::/pod/box\n",
    "sys/fs/cgroup/pod/box/memory.max": "max\n",
    "sys/fs/cgroup/pod/memory.max": f"{2 * GIB}\n",
    "sys/fs/cgroup/pod/memory.current": f"{int(1.5 * GIB)}\n",
    "sys/fs/cgroup/pod/memory.stat": f"anon 5\ninactive_file {GIB}\n",
    "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n",
    "sys/fs/cgroup/pod/cpu.max": "50000 100000\n",
}
V1 = {
    "proc/self/cgroup": "5:cpu,cpuacct:/pod\n4:memory:/host/path/unseen/here\n1:name=systemd:/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{int(1.5 * GIB)}\n",
    "sys/fs/cgroup/memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}\n",
    "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us": "50000\n",
    "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
}
UNLIMITED = {
    "proc/self/cgroup": "4:memory:/\n1:cpu:/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{5 * GIB}\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
}


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)


@pytest.mark.parametrize("files", [V2, V1], ids=["v2", "v1"])
def test_the_limit_of_a_container_is_what_counts(tmp_path, files, eight_cores):
    root = machine(tmp_path, files)
    # 2 GiB, of which 1.5 are used, 1 of it by file cache that the kernel would drop.
    assert checks.free_memory(root) == (2 * GIB, 1.5 * GIB)
    found = checks.memory(root)
    assert found.state == "bad"
    assert found.text.startswith("1.6 GB free of 2.1 GB")
    cores = checks.cores(root)
    assert (cores.state, cores.text.split(",")[0]) == ("warn", "0.5 of this machine's 8")


def test_a_machine_without_limits_is_taken_whole(tmp_path, eight_cores):
    root = machine(tmp_path, UNLIMITED)
    assert checks.free_memory(root) == (64 * GIB, 60 * GIB)
    assert checks.memory(root).state == "ok"
    assert checks.cores(root).text.startswith("4 of this machine's 8")


def test_memory_for_fewer_workers_than_cores_says_how_many(tmp_path, eight_cores):
    limit = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "3600000000",
        "sys/fs/cgroup/memory.current": "0",
    }
    found = checks.memory(machine(tmp_path, limit))
    assert found.state == "warn"
    assert "--workers 2" in found.remedy


def test_memory_is_known_where_there_is_no_proc(tmp_path):
    total, left = checks.free_memory(tmp_path)
    assert total == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert left is None


@pytest.mark.parametrize(("free", "here", "of_ray"), [(2e8, "bad", "bad"), (5e9, "warn", "warn"), (5e10, "ok", "ok")])
def test_a_full_disk_is_told(tmp_path, monkeypatch, free, here, of_ray):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2e11, 2e11 - free, free))
    assert checks.disk_here(tmp_path).state == here
    assert checks.disk_of_ray({"RAY_TMPDIR": "/tmp"}).state == of_ray  # 97.5 % full in the middle


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for finding in (checks.disk_here(tmp_path / "file"), checks.disk_of_ray({"RAY_TMPDIR": str(tmp_path / "file")})):
        assert (finding.state, "cannot write" in finding.text) == ("bad", True)
    assert not list(tmp_path.glob("file?*"))


def test_a_path_too_long_for_the_sockets_of_ray_is_told(tmp_path):
    long = tmp_path / ("d" * 60)
    assert "too long" in checks.disk_of_ray({"RAY_TMPDIR": str(long)}).text
    assert checks.ray_folder({"TMPDIR": "/a", "RAY_TMPDIR": "/b"}) == Path("/b/ray")


def test_shared_memory_of_a_container_by_default_is_too_small(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(64e6, 0, 64e6))  # Docker's 64 MB
    found = checks.shared_memory(tmp_path, machine(tmp_path / "root", UNLIMITED))
    assert found.state == "warn"
    assert "--shm-size=10g" in found.remedy
    assert checks.shared_memory(tmp_path / "none").state == "ok"


def test_old_and_missing_packages_are_named_with_the_command():
    wanted = ["numpy>=999", "no-such-package[extra]>=1.5", "pytest", 'absent-too>=1; extra == "dev"']
    found = packages.packages(wanted)
    assert found.state == "bad"
    assert "is older than 999" in found.text
    assert "no-such-package is missing" in found.text
    assert "absent-too" not in found.text
    assert found.remedy.endswith("-m pip install --upgrade 'numpy>=999' 'no-such-package[extra]>=1.5'")


@pytest.mark.parametrize("found", ["2.9", "2.10", "2.10.1", "2.13.0+cpu", "10.0", "2.0.post1"])
@pytest.mark.parametrize("least", ["2", "2.0", "2.10", "2.10.0", "2.13"])
def test_versions_compare_as_the_standard_says(found, least):
    is_ok = packages.packages([f"thing>={least}"], lambda _: found).state == "ok"
    assert is_ok == (Version(found) >= Version(least))


def test_what_xfm_asks_for_is_read_from_its_metadata():
    assert packages.packages(packages.required()).state == "ok"
    assert any(line.startswith("ray[") for line in packages.required() or ())
    assert packages.python(packages.required_python()).state == "ok"
    assert packages.python(packages.required_python(), (3, 9, 2)).state == "bad"
    assert packages.packages(packages.required("no-such-package")).state == "warn"


@pytest.mark.parametrize(
    ("written", "least"), [(">=3.11", "3.11"), ("<3.14,>=3.11", "3.11"), ("!=3.12.1, >= 3.11", "3.11"), ("<4", "")]
)
def test_the_least_python_is_read_from_bounds_in_any_order(written, least, monkeypatch):
    monkeypatch.setattr(packages, "metadata", lambda _: {"Requires-Python": written})
    assert packages.required_python() == least


CARD = {"name": "NVIDIA H200", "memory": 150e9}
SEEN = {"torch": "2.13.0", "cuda": "13.0", "cards": [], "warnings": [], "hidden": False}


@pytest.mark.parametrize(
    ("seen", "driver", "state", "words"),
    [
        (SEEN | {"cards": [CARD, CARD]}, True, "ok", "2 x NVIDIA H200, 150 GB"),
        (SEEN | {"cuda": None}, False, "ok", "none; jobs compute on the CPU"),
        (SEEN | {"cuda": None, "torch": "2.13.0+cpu"}, True, "warn", "torch 2.13.0+cpu is built for CPUs"),
        (
            SEEN | {"warnings": ["The NVIDIA driver on your system is too old"]},
            True,
            "warn",
            "driver on your system is",
        ),
        (SEEN | {"cards": [CARD], "warnings": ["sm_90 is not compatible"]}, True, "warn", "sm_90 is not compatible"),
        (SEEN | {"hidden": True}, True, "warn", "CUDA_VISIBLE_DEVICES hides them"),
        ({"error": "libtorch.so: cannot open"}, True, "bad", "torch does not load: libtorch.so"),
    ],
)
def test_each_way_to_lack_a_gpu_has_its_own_words(seen, driver, state, words):
    found = gpu(seen, driver)
    assert (found.state, words in found.text) == (state, True)
    assert state == "ok" or found.remedy


def test_a_cluster_that_does_not_answer_is_bad(closed):
    found = services.ray({"RAY_ADDRESS": f"127.0.0.1:{closed}"})
    assert found.state == "bad"
    assert f"127.0.0.1:{closed}" in found.text
    assert "unset RAY_ADDRESS" in found.remedy


def test_an_address_of_ray_is_understood_in_all_its_forms(tmp_path, closed):
    with silence() as port:
        for address, state in [
            ("", "ok"), ("local", "ok"), (f"127.0.0.1:{port}", "ok"), (f"ray://127.0.0.1:{port}", "ok"),
            (f"http://127.0.0.1:{port}/", "warn"), ("10.0.0.5", "bad"),
            ("127.0.0.1:99999", "bad"), (f"{'a' * 70}:1", "bad"), ("auto", "warn"),
        ]:  # fmt: skip
            found = services.ray({"RAY_ADDRESS": address, "RAY_TMPDIR": str(tmp_path)})
            assert (address, found.state) == (address, state)
        (tmp_path / "ray").mkdir()
        for where, state in [(port, "ok"), (closed, "bad")]:
            (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{where}")
            assert services.ray({"RAY_ADDRESS": "auto", "RAY_TMPDIR": str(tmp_path)}).state == state


def test_what_guards_the_cluster_is_told_and_not_shown(tmp_path):
    joined, named = {"RAY_ADDRESS": "h:1"}, tmp_path / "named"
    home = {"HOME": str(tmp_path)}

    def state(**more):
        found = services.ray_token(home | more)
        assert "s3cret" not in found.text + found.remedy
        return found.state

    assert state() == "ok"  # Ray will make one
    assert state(**joined) == "warn"
    assert state(**joined, RAY_AUTH_MODE="token") == "bad"
    assert state(RAY_AUTH_MODE="disabled") == "warn"
    assert state(**joined, RAY_AUTH_TOKEN="s3cret-s3cret") == "ok"
    assert state(RAY_AUTH_TOKEN_PATH=str(named)) == "bad"
    named.write_text("s3cret-s3cret")
    named.chmod(0o600)
    assert state(**joined, RAY_AUTH_TOKEN_PATH=str(named)) == "ok"
    (tmp_path / "file").write_text("")
    assert state(HOME=str(tmp_path / "file")) == "bad"


def test_a_token_that_everybody_can_read_is_told():
    # pytest's own folders are closed to others.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        file = Path(folder) / "token"
        file.write_text("t")
        file.chmod(0o644)
        file.parent.chmod(0o755)
        found = services.ray_token({"RAY_AUTH_TOKEN_PATH": str(file)})
        assert (found.state, found.remedy) == ("warn", f"chmod 600 {file}")
        file.parent.chmod(0o700)
        assert services.ray_token({"RAY_AUTH_TOKEN_PATH": str(file)}).state == "ok"


def test_the_hub_is_told_from_its_absence(tmp_path, closed):
    home = {"HOME": str(tmp_path), "HF_TOKEN": "hf_abcdefghijklmnopqrst"}
    with server(200) as (port, asked):
        found = services.hub(home | {"HF_ENDPOINT": f"http://me:pass@127.0.0.1:{port}"})
        assert (found.state, found.text.endswith("a token is set")) == ("ok", True)
        assert len(asked) == 1
        assert services.hub(home | {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_OFFLINE": "1"}).state == "ok"
        assert len(asked) == 1
    with server(503) as (port, _):
        assert "HTTP 503" in services.hub({"HF_ENDPOINT": f"http://127.0.0.1:{port}"}).text
    found = services.hub({"HF_ENDPOINT": f"http://me:pass@127.0.0.1:{closed}"})
    assert found.state == "warn"
    assert "HF_HUB_OFFLINE=1" in found.remedy
    assert "local folders" in found.remedy


def test_a_tracking_server_is_asked_for_its_health(monkeypatch, closed):
    def look(uri):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        return services.mlflow()

    with server(200) as (port, asked):
        assert look(f"http://bob:hunter22@127.0.0.1:{port}/prefix/").state == "ok"
        assert asked == ["/prefix/health"]
    with server(404) as (port, _):
        assert (look(f"http://127.0.0.1:{port}").state, "HTTP 404" in services.mlflow().text) == ("warn", True)
    found = look(f"http://127.0.0.1:{closed}")
    assert (found.state, "sync" in found.remedy) == ("warn", True)
    monkeypatch.setattr(services, "ANSWER_S", 0.1)
    with silence() as port:
        assert (look(f"http://127.0.0.1:{port}").state, "timed out" in services.mlflow().text) == ("warn", True)
        assert look(f"postgresql://bob:hunter22@127.0.0.1:{port}/db").state == "ok"
    assert look(f"postgresql+psycopg2://bob:hunter22@127.0.0.1:{closed}/db").state == "warn"
    for uri in ("postgresql://bob:hun:hunter22/db", "postgresql://bob:[hunter22@host/db"):
        assert (look(uri).state, "cannot be understood" in services.mlflow().text) == ("warn", True)
        assert "hunter22" not in services._database_server(uri)


def test_a_database_is_tried_without_being_changed(monkeypatch, tmp_path):
    file = tmp_path / "mlflow.db"

    def look(path=file):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        return services.mlflow()

    assert look().state == "ok"
    assert not file.exists()
    assert "no such folder" in look(tmp_path / "none" / "mlflow.db").text
    (tmp_path / "mlflow.txt").write_text("no database at all, but long enough to be read as one\n" * 9)
    assert (look(tmp_path / "mlflow.txt").state, "not a database" in services.mlflow().text) == ("warn", True)
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("CREATE TABLE t (x)")
    before = file.read_bytes()
    assert look().state == "ok"
    monkeypatch.setattr(services, "LOCK_S", 0.05)
    writer.execute("BEGIN EXCLUSIVE")
    assert "locked" in look().text
    writer.rollback()
    writer.close()
    assert file.read_bytes() == before


def late(name="slow"):
    return Finding(name, "warn", "no answer in time", "wait")


def test_a_check_that_hangs_is_left_behind_and_the_others_stand():
    release, daemon = threading.Event(), []

    def hang():
        daemon.append(threading.current_thread().daemon)
        release.wait(30)
        return Finding("slow", "ok", "too late")

    quick = Check("quick", lambda: Finding("quick", "ok", "there"), late("quick"))
    found = screen.examine([Check("slow", hang, late()), quick], limit_s=0.2)
    release.set()
    assert [(f.name, f.text) for f in found] == [("slow", "no answer in time"), ("quick", "there")]
    assert daemon == [True]  # or it would keep the process from ending


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_check_that_fails_is_bad_and_the_others_stand():
    def fail():
        raise KeyError("a bug")

    quick = Check("quick", lambda: Finding("quick", "ok", "there"), late("quick"))
    found = screen.examine([Check("broken", fail, late("broken")), quick])
    assert [(f.name, f.state) for f in found] == [("broken", "bad"), ("quick", "ok")]
    assert screen.exit_code(found) == 5


def test_findings_carry_no_secret(monkeypatch):
    monkeypatch.setenv("SOME_PASSWORD", "correct horse battery")
    said = Finding("x", "warn", "at https://me:pw1234@host/ with\ncorrect horse battery", "see hf_abcdefghijklmnopqrst")
    (found,) = screen.examine([Check("x", lambda: said, late("x"))])
    assert (found.text, found.remedy) == ("at https://***@host/ with ***", "see ***")


FINDINGS = [
    Finding("Python", "ok", "3.11"),
    Finding("disk here", "warn", "a" * 150 + " and " + "many words " * 30, "free some " * 20),
    Finding("Ray", "bad", "nobody answers", "start one"),
]


def test_the_screen_fits_and_is_plain_unless_asked():
    plain = screen.screen(FINDINGS, colour=False)
    assert max(map(len, plain.splitlines())) <= 110
    assert "\x1b" not in plain
    assert plain.splitlines()[-1] == "This machine is not ready: first see to Ray."
    assert "".join(plain.split()).count("a" * 150) == 1  # wrapped, not cut
    coloured = screen.screen(FINDINGS, colour=True)
    assert "\x1b[31mbad   \x1b[0mRay" in coloured
    assert screen.screen(FINDINGS[:1], colour=False).endswith("This machine can run jobs.")


def test_programs_read_the_same():
    read = json.loads(screen.as_json(FINDINGS))
    assert (read["state"], read["exit_code"]) == ("bad", 5)
    assert [Finding(**finding) for finding in read["findings"]] == FINDINGS
    assert screen.exit_code(FINDINGS[:2]) == 0


def test_every_check_has_words_for_being_late(tmp_path):
    wanted = screen.checks({}, tmp_path)
    assert len({check.name for check in wanted}) == len(wanted)
    assert all(check.late.state != "ok" and check.late.remedy for check in wanted)


def run(*flags, cwd, python=(), **env):
    """`python -m xfm doctor` with nothing to reach, as a process."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, *python, "-m", "xfm", "doctor", *flags]
    return subprocess.run(
        command, cwd=cwd, env=kept | {"PYTHONPATH": str(REPOSITORY)} | env, capture_output=True, text=True, timeout=60
    )


def test_a_machine_cut_off_from_everything_gets_its_screen(tmp_path, closed):
    away = f"127.0.0.1:{closed}"
    done = run(cwd=tmp_path, RAY_ADDRESS=away, HF_ENDPOINT=f"http://{away}", HF_TOKEN="hf_abcdefghijklmnopqrst",
               MLFLOW_TRACKING_URI=f"http://bob:hunter22@{away}")  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 110
    assert "hunter22" not in done.stdout
    assert "hf_abc" not in done.stdout
    states = {line[6:21].strip(): line[:6].strip() for line in lines if line[:6].strip() in ("ok", "warn", "bad")}
    assert (states["Ray"], states["Hub"], states["MLflow"], states["packages"]) == ("bad", "warn", "warn", "ok")
    assert list(tmp_path.iterdir()) == []


def test_a_python_without_any_package_gets_its_screen_too(tmp_path):
    done = run("--json", cwd=tmp_path, python=("-S",), HF_HUB_OFFLINE="1")
    assert done.returncode == 5, done.stderr
    states = {finding["name"]: finding["state"] for finding in json.loads(done.stdout)["findings"]}
    assert (states["Ray"], states["GPU"], states["MLflow"]) == ("bad", "bad", "bad")
    assert states["packages"] in ("bad", "warn")  # warn where the checkout was never installed
