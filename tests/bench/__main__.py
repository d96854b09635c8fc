"""Speeds and overheads as ratios in one run: `make bench`, never a test.

A section is a module of this folder with a function `figures()`; `python tests/bench NAME …` runs some of them. Each
writes docs/results/bench/<section>.json and .md, on a GPU <section>-cuda.json and .md.
"""

import importlib
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SECTIONS = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("__main__", "measure"))


def main() -> None:
    from paperflows.tasks.run import device_name
    from paperflows.tasks.versions import git_revision

    sys.path.insert(0, str(Path(__file__).parent))  # sections import `measure`
    for section in sys.argv[1:] or SECTIONS:
        figures = importlib.import_module(section).figures()
        result = {
            "made_by": f"python tests/bench {section}",
            "device": device_name(),
            "git": git_revision(ROOT),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "figures": figures,
        }
        target = ROOT / "docs" / "results" / "bench"
        target.mkdir(parents=True, exist_ok=True)
        name = f"{section}-cuda" if result["device"].startswith("cuda") else section
        (target / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        lines = ["| what | measured | goal | ratio |", "| --- | --- | --- | --- |"]
        for f in figures:
            ratio = f"{f['ratio']:.2f} × {f['to']}" if "ratio" in f else ""
            lines.append(f"| {f['what']} | {f['value']:.3g} {f['unit']} | {f.get('goal', '')} | {ratio} |")
        note = f"`{result['made_by']}` at {result['git']}, {result['device']}, {result['finished'][:10]}"
        (target / f"{name}.md").write_text(f"{note}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
        print(f"{section}\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
