"""Writes a Kaggle kernel for every recipe: python tools/kernels.py --user YOUR-KAGGLE-NAME (--check only looks)"""

import sys

import jaguar_kit

if __name__ == "__main__":
    sys.exit(jaguar_kit.main(jaguar_kit.kernels_command))
