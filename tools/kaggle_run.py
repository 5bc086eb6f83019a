"""From push to submission: python tools/kaggle_run.py kernels/X [--fetch DIR] [--submit -m MESSAGE]"""

import sys

import jaguar_kit

if __name__ == "__main__":
    sys.exit(jaguar_kit.main(jaguar_kit.any_command, ["push", *sys.argv[1:]]))
