"""Pushes a kernel and sees it through: python tools/kaggle_run.py kernels/final --fetch out --submit -m MESSAGE"""

import sys

import jaguar_kit

if __name__ == "__main__":
    sys.exit(jaguar_kit.main(jaguar_kit.kaggle_command))
