"""`client.fetch` and what people would pick instead, on five workloads, against one local server process.

    python benchmarks/bulk.py                      # everything; some twelve minutes
    python benchmarks/bulk.py --workloads AB --rounds 11 --programs ours aiohttp_loop
    python benchmarks/bulk.py --memory             # 100,000 packs through `fetch`: what a client holds then
    python benchmarks/bulk.py --plot               # the picture again, of the figures that were kept

The programs stand in `benchmarks/rivals`, each in a process and, but for ours, in a virtual environment of its own,
which this script makes and fills by name from the package registry. They run by turns; medians. The server counts
requests, connections and refusals; each program its seconds, its CPU, its peak memory and the messages that it found.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RIVALS = HERE / "rivals"
FIGURES = HERE / "bulk.json"
PICTURE = HERE / "bulk.svg"

PROGRAMS: dict[str, tuple[str, list[str]]] = {  # program: what the tables call it, and what it is installed from
    "ours": ("`client.fetch`", []),
    "aiohttp_loop": ("aiohttp by hand", ["aiohttp", "aiolimiter"]),
    "httpx_loop": ("httpx by hand", ["httpx", "aiolimiter"]),
    "requests_threads": ("requests + tenacity", ["requests", "tenacity"]),
    "dlt_rest_client": ("dlt RESTClient", ["dlt"]),
    "meliapiclient_loop": ("meliapiclient", ["meliapiclient"]),
    "mercadolibre_python_loop": ("mercadolibre-python", ["mercadolibre-python"]),
}
WORKLOADS = {  # what it is, and the options of every program
    "A": ("100 packs of 120 messages, pages of at most 50, 5 ms", []),
    "B": ("400 packs of 10 messages, 50 ms", []),
    "C": ("30 packs of 120, every tenth answer a 429 with Retry-After 1", []),
    "D": ("A, asked with limit=100 and given 50", ["--limit", "100"]),
    "E": ("2,500 packs, 500 requests in 6 s", ["--budget", "500", "6"]),
}
IDEAL = {"E": (2500 / 500 - 1) * 6.0}  # seconds: the last 500 may start then
Counts = dict[str, Any]


class World:
    """The server process."""

    def __init__(self, packs: Path) -> None:
        self._packs = packs
        self._process = subprocess.Popen(
            [sys.executable, str(RIVALS / "world.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, line: str) -> Counts:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer: Counts = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def run(self, python: Path, program: str, workload: str, options: list[str]) -> Counts:
        """One run of one program in a fresh world: its counts, with the server's."""
        where = self.ask(f"{workload} {self._packs}")
        arguments = [where["base_url"], where["token"], where["seller"], str(self._packs), *options]
        ran = subprocess.run(
            [str(python), str(RIVALS / f"{program}.py"), *arguments], check=False, capture_output=True, text=True
        )
        server = self.ask("end")
        if ran.returncode:
            raise SystemExit(f"{program} on {workload}:\n{ran.stderr}")
        return {"expected": where["messages"], **json.loads(ran.stdout), **server}


@contextlib.contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as directory:
        made = World(Path(directory) / "packs")
        try:
            yield made
        finally:
            made.close()


def environment(directory: Path, name: str, packages: list[str]) -> Path:
    """The interpreter of a virtual environment with these packages; made once."""
    home = directory / name
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not (home / "complete").exists():
        print(f"installing {' '.join(packages)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(home)], check=True)
        # An environment such as the README's has no pip: the interpreter that it was made with has.
        whose = sys.executable if find_spec("pip") else Path(sys.base_prefix, python.relative_to(home)).as_posix()
        pip = [whose, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(python)]
        subprocess.run([*pip, "install", *packages], check=True)
        (home / "complete").touch()
    return python


def medians(runs: list[Counts]) -> Counts:
    """Of every number; `runs`: how many there were."""
    keys = ("seconds", "cpu", "messages", "expected", "failed", "memory", "requests", "connections", "refused")
    return {key: statistics.median(run[key] for run in runs) for key in keys} | {"runs": len(runs)}


def table(workload: str, figures: dict[str, Counts]) -> str:
    hand = figures.get("aiohttp_loop")
    columns = "messages | requests | 429s | connections | peak MB | runs"
    lines = [
        f"**{workload}**: {WORKLOADS[workload][0]}" + (f"; ideal {IDEAL[workload]:.0f} s" if workload in IDEAL else ""),
        "",
        f"| | seconds | of aiohttp by hand | CPU, s | of by hand | {columns} |",
        "|---|" + "--:|" * 10,
    ]
    for program, counts in figures.items():
        share = counts["messages"] / counts["expected"]
        ratios = [f"{counts[key] / hand[key]:.2f}" if hand else "" for key in ("seconds", "cpu")]
        lines.append(
            f"| {PROGRAMS[program][0]} | {counts['seconds']:.2f} | {ratios[0]} | {counts['cpu']:.2f} | {ratios[1]}"
            f" | {counts['messages']:,.0f} ({share:.0%}) | {counts['requests']:,.0f} | {counts['refused']:,.0f}"
            f" | {counts['connections']:,.0f} | {counts['memory']:.0f} | {counts['runs']} |"
        )
    return "\n".join(lines) + "\n"


def compare(options: argparse.Namespace) -> None:
    pythons = {
        name: environment(options.environments, name, PROGRAMS[name][1]) if PROGRAMS[name][1] else Path(sys.executable)
        for name in options.programs
    }
    kept: dict[str, dict[str, Counts]] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    with world() as server:
        for workload in options.workloads:
            arguments = ["--concurrency", str(options.concurrency), *WORKLOADS[workload][1]]
            rounds = options.slow_rounds if workload == "E" else options.rounds
            runs: dict[str, list[Counts]] = {name: [] for name in options.programs}
            for round_ in range(rounds):
                for name in options.programs if round_ % 2 else reversed(options.programs):
                    runs[name].append(server.run(pythons[name], name, workload, arguments))
            kept[workload] = kept.get(workload, {}) | {name: medians(found) for name, found in runs.items()}
            print(table(workload, {name: kept[workload][name] for name in options.programs}), flush=True)
    if options.keep:
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n")


def memory(options: argparse.Namespace) -> None:
    """100,000 packs: what a client holds more after the last than after the first 1,000."""
    with world() as server:
        counts = server.run(Path(sys.executable), "ours_memory", "memory", ["--concurrency", str(options.concurrency)])
    print(json.dumps(counts, indent=1))


def plot(options: argparse.Namespace) -> None:
    python = environment(options.environments, "plot", ["matplotlib"])
    names = {program: name.strip("`") for program, (name, _) in PROGRAMS.items()}
    titles = {workload: title for workload, (title, _) in WORKLOADS.items()}
    told = json.dumps({"figures": json.loads(FIGURES.read_text()), "names": names, "titles": titles, "ideal": IDEAL})
    subprocess.run([str(python), str(RIVALS / "plot.py"), str(options.picture)], input=told, text=True, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", default="".join(WORKLOADS))
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow-rounds", type=int, default=1, help="of E, which takes half a minute for each program")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--keep", action="store_true", help="keep the figures beside this script, and draw the picture")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--plot", action="store_true", help="draw the kept figures, and run nothing")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="the suffix says what kind")
    parser.add_argument(
        "--environments",
        type=Path,
        default=Path(tempfile.gettempdir()) / "mlmessages-rivals",
        help="where the virtual environments of the rivals are kept",
    )
    options = parser.parse_args()
    if options.memory:
        memory(options)
        return
    if not options.plot:
        compare(options)
    if options.plot or options.keep:
        plot(options)


if __name__ == "__main__":
    main()
