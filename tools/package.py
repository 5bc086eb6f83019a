"""Builds the Kaggle Dataset folder: python tools/package.py --user YOUR-KAGGLE-NAME --weights weights/*.safetensors"""

import sys

import jaguar_kit

if __name__ == "__main__":
    sys.exit(jaguar_kit.main(jaguar_kit.package_command))
