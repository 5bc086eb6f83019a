"""Makes an experiment's report again, or compares several: python tools/report.py runs/lbe09 [runs/lbe08 ...]"""

import sys

import jaguar_kit

if __name__ == "__main__":
    sys.exit(jaguar_kit.main(jaguar_kit.any_command, ["report", *sys.argv[1:]]))
