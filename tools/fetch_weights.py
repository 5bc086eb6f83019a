"""Downloads backbones as safetensors, with source and licence: python tools/fetch_weights.py dinov3_l --out weights"""

import sys

import jaguar_kit

if __name__ == "__main__":
    sys.exit(jaguar_kit.main(jaguar_kit.fetch_command))
