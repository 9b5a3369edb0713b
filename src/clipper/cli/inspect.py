"""`clipper inspect`: a run or an agent file in, what it is out; torch is not needed."""

from __future__ import annotations

import argparse
from typing import Any

from clipper.agent_meta import check_meta
from clipper.checkpoint import dump_json, parameters_sha256, read_tensors
from clipper.cli.arguments import agent_path

HELP = """Says what a run or an agent file is: steps, environment, settings, hash, versions."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("agent", metavar="RUN|FILE", help="a run folder or a .safetensors file")
    parser.add_argument(
        "--best", action="store_true", help="of a run folder, take the best agent, not the last"
    )
    parser.add_argument("--json", action="store_true", help="print one object")


def run(args: argparse.Namespace) -> int:
    """Prints the description and returns the exit code."""
    path = agent_path(args)
    arrays, found = read_tensors(path)
    meta = check_meta(found, str(path))
    shown = {
        "step": meta.get("step"),
        "env": meta.get("env", {}).get("name"),
        "algorithm": meta.get("algorithm"),
        "preset": meta.get("preset"),
        "seed": meta.get("seed"),
        "config": meta.get("config"),
        "parameters": sum(a.size for n, a in arrays.items() if n.startswith("policy.network")),
        "parameters_sha256": parameters_sha256(arrays),
        "engine": meta.get("engine", "reference"),
        "exact": meta.get("exact"),
        "inexact": meta.get("inexact"),
        "versions": meta.get("versions"),
    }
    print(dump_json(shown) if args.json else _readable(shown))
    return 0


def _readable(shown: dict[str, Any]) -> str:
    lines = []
    for key, value in shown.items():
        if key == "inexact":
            continue
        if key == "exact":
            why = f" ({shown['inexact']})" if shown["inexact"] else ""
            lines.append(f"exact: {str(value).lower()}{why}")
        elif isinstance(value, dict):
            lines.append(f"{key}:")
            lines += [f"  {name}: {inner}" for name, inner in value.items()]
        else:
            lines.append(f"{key}: {value}")
    return "\n".join(lines)
