"""`--help` of every job: all settings are named once their kinds are chosen, and nothing heavy is loaded."""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
HEAVY = (
    "torch", "ray", "mlflow", "anndata", "h5py", "scanpy", "tiledbsoma", "numba", "pandas", "matplotlib", "scipy",
    "sklearn", "optuna", "transformers",
)  # fmt: skip
ALL_HELP = f"""
import contextlib, io, json, runpy, sys
import xfm.engine.job
from xfm.engine.flags import kind_of, models_of
from xfm.engine.settings import parse

sys.path.insert(0, "jobs")
job_main, configs = xfm.engine.job.main, {{}}

def main(config, run, name):
    configs[name] = config
    job_main(config, run, name, ["--help"])

def text_of(call):
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        call()
    return text.getvalue()

xfm.engine.job.main = main
found = {{}}
for path in sys.argv[1:]:
    text = text_of(lambda: runpy.run_path(path, run_name="__main__"))
    found[path] = {{"help": text, "heavy": [name for name in {HEAVY!r} if name in sys.modules], "kinds": []}}
    (name, config), = configs.items()
    configs.clear()
    for section, field in config.model_fields.items():
        for model in models_of(field.annotation):
            argv = ["--help", *([f"--{{section}}.kind", kind_of(model)] if kind_of(model) else [])]
            fields = [f"{{section}}.{{inner}}" for inner in model.model_fields]
            found[path]["kinds"].append([fields, text_of(lambda: parse(config, argv, {{}}, name))])
    found[path]["own"] = [name for name, field in config.model_fields.items() if not models_of(field.annotation)]
print(json.dumps(found))
"""


def test_help_of_every_job_names_every_field_of_the_chosen_kinds_and_loads_nothing_heavy():
    scripts = [path for path in sorted((REPOSITORY / "jobs").glob("*.py")) if "main(" in path.read_text()]
    jobs = [str(path.relative_to(REPOSITORY)) for path in scripts if '__name__ == "__main__"' in path.read_text()]
    done = subprocess.run(
        [sys.executable, "-c", ALL_HELP, *jobs], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {"jobs/embed.py", "jobs/finetune.py", "jobs/pretrain.py", "jobs/tune.py", "jobs/demo.py"} <= set(found)
    for job, about in found.items():
        assert about["heavy"] == [], job
        assert "Exit codes" in about["help"]
        for fields, text in [(about["own"], about["help"]), *about["kinds"]]:
            words = set(text.replace(",", " ").split())
            for field in fields:
                assert {f"--{field}", f"--{field.replace('_', '-')}"} & words, (job, field)
    finetune = found["jobs/finetune.py"]["help"]
    assert "--source.path" not in finetune
    assert len(finetune.splitlines()) < 200
