"""Builds the Kaggle Dataset folder: python tools/package.py --user YOUR-KAGGLE-NAME --weights weights/*.safetensors"""

import sys

import jaguar_kit

if __name__ == "__main__":
    sys.exit(jaguar_kit.main(jaguar_kit.any_command, ["package", *sys.argv[1:]]))
