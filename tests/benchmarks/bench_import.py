"""How long ``import statespace`` takes in a fresh interpreter."""

import subprocess
import sys

from harness import machine, race, table

TESTS = ["tests/test_packaging.py", "-k", "import"]


def main():
    print(machine(["numpy"]))
    contenders = {
        f"import {module}": lambda module=module: subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
        for module in ("statespace", "sys", "numpy", "sklearn")
    }
    table("import in a fresh interpreter", race(contenders), "import statespace", unit="ms")


if __name__ == "__main__":
    main()
