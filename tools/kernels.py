"""Writes a kernel for every recipe, or for some, or checks them: python tools/kernels.py [RECIPE ...] [--check]"""

import sys

import jaguar_kit

if __name__ == "__main__":
    sys.exit(jaguar_kit.main(jaguar_kit.any_command, ["kernels", *sys.argv[1:]]))
