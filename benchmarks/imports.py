"""CPU of `import mlmessages`, and of a name that loads the client, against `import aiohttp`, in fresh interpreters.

python benchmarks/imports.py [--rounds 21]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

STATEMENTS = ("import aiohttp", "import mlmessages", "from mlmessages import MessagesClient")
TIMER = "import time; a = time.process_time(); {}; print(time.process_time() - a)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    taken: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for round_ in range(-1, options.rounds):  # round -1 writes the bytecode
        for statement in STATEMENTS:
            command = [sys.executable, "-c", TIMER.format(statement)]
            seconds = float(subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout)
            if round_ >= 0:
                taken[statement].append(seconds)
    aiohttp = statistics.median(taken["import aiohttp"])
    print("| | CPU, ms | of aiohttp |\n|---|---|---|")
    for statement, seconds_ in taken.items():
        median = statistics.median(seconds_)
        print(f"| `{statement}` | {median * 1e3:.0f} | {median / aiohttp:.2f} |")


if __name__ == "__main__":
    main()
