"""`make bench`: benchmarks, each in its own process so that none sees another's memory.

python -m tests.benchmarks                  all that need neither data nor much disk
python -m tests.benchmarks startup          the one of that name, with its options after it
"""

import pkgutil
import subprocess
import sys

from tests import benchmarks

ON_REQUEST = ("3bpa", "large_training")  # foreign data and an hour; 12 GB of disk


def main() -> int:
    """Run the named benchmark, or the common ones; the exit code counts those that failed."""
    modules = (m.name for m in pkgutil.iter_modules(benchmarks.__path__))
    names = sorted(n.removeprefix("bench_") for n in modules if n.startswith("bench_"))
    chosen = [n for n in names if n not in ON_REQUEST]
    options: list[str] = []
    if len(sys.argv) > 1:
        name, *options = sys.argv[1:]
        chosen = [name.removeprefix("bench_")]
        if chosen[0] not in names:
            print(f"no benchmark {name!r}, only {', '.join(names)}", file=sys.stderr)
            return 2
    failed = 0
    for name in chosen:
        print(f"== {name}", flush=True)
        module = f"{benchmarks.__name__}.bench_{name}"
        failed += (
            subprocess.run([sys.executable, "-m", module, *options], check=False).returncode != 0
        )
    return failed


if __name__ == "__main__":
    sys.exit(main())
