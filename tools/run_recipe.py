"""Runs a recipe: python tools/run_recipe.py recipes/quickstart.yaml (--help lists the options)."""

import sys

import jaguar_kit

if __name__ == "__main__":
    sys.exit(jaguar_kit.main(jaguar_kit.run_command))
