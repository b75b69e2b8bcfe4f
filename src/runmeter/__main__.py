"""The `runmeter` command: `python -m runmeter` is the same."""

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line, or say what to install for it."""
    missing = [library for library in ("click", "rich") if find_spec(library) is None]
    if missing:
        sys.exit(f"runmeter: the command line needs {' and '.join(missing)}: pip install 'runmeter[cli]'")
    from .cli.main import run  # only once its libraries are known to be there

    run()


if __name__ == "__main__":
    main()
