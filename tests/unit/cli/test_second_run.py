"""A second run of a workspace ends at once: it imports nothing heavy and starts no flow whose run would stay as Failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tasks.running.start import only_run

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("prefect", "mlflow", "torch", "dvc", "transformers", "pandas")
SCRIPT = f"""
import sys
from tasks.cli.app import main
try:
    main()
finally:
    print([name for name in {HEAVY} if name in sys.modules])
"""


def test_a_second_run_is_refused_before_it_imports_anything(tmp_path: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    with only_run(tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, "run", "--set", "seed=no number"],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert "another run is under way here" in done.stderr
    assert [path.name for path in (tmp_path / ".compactlm").iterdir()] == ["run.lock"]
