"""Downloads backbones and detectors as safetensors: python tools/fetch_weights.py dinov3_l miewid aliked_n16"""

import sys

import jaguar_kit

if __name__ == "__main__":
    sys.exit(jaguar_kit.main(jaguar_kit.any_command, ["fetch", *sys.argv[1:]]))
