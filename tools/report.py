"""Makes a report again, or compares experiments: python tools/report.py runs/lbe09 [runs/lbe08 ...]"""

import sys

import jaguar_kit

if __name__ == "__main__":
    sys.exit(jaguar_kit.main(jaguar_kit.report_command))
