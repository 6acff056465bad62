"""`make bench`: every benchmark, each in its own process so that none sees another's memory."""

import pkgutil
import subprocess
import sys

from tests import benchmarks


def main() -> int:
    """Run all `bench_*` modules; the exit code counts those that failed."""
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__))
    failed = 0
    for name in (n for n in names if n.startswith("bench_")):
        print(f"== {name}", flush=True)
        module = f"{benchmarks.__name__}.{name}"
        failed += subprocess.run([sys.executable, "-m", module], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
