#!/bin/bash
# Installs the Debian packages that the tests use beyond the Rust toolchain, where they are
# missing. Needs root; without it, says what is missing and lets the tests skip what they must.
set -euo pipefail

# Package and a file of it that shows that it is installed.
needed=(
    "seabios /usr/share/seabios/bios-256k.bin"
    "xvfb /usr/bin/Xvfb"
    "xdotool /usr/bin/xdotool"
    "mesa-vulkan-drivers /usr/share/vulkan/icd.d"
    "libgl1-mesa-dri /usr/lib/$(uname -m)-linux-gnu/dri"
    "libxkbcommon-x11-0 /usr/lib/$(uname -m)-linux-gnu/libxkbcommon-x11.so.0"
    "libxcursor1 /usr/lib/$(uname -m)-linux-gnu/libXcursor.so.1"
    "libxi6 /usr/lib/$(uname -m)-linux-gnu/libXi.so.6"
    "mtools /usr/bin/mcopy"
    "qemu-system-x86 /usr/bin/qemu-system-i386"
    "gdb /usr/bin/gdb"
    "util-linux /usr/bin/setpriv"
)

missing=()
for line in "${needed[@]}"; do
    read -r package file <<<"$line"
    [[ -e $file ]] || missing+=("$package")
done

if [[ ${#missing[@]} -eq 0 ]]; then
    echo "All packages that the tests use are installed."
    exit 0
fi
if [[ $(id -u) -ne 0 ]]; then
    echo "Missing packages: ${missing[*]}. Install them with: sudo apt-get install ${missing[*]}"
    exit 0
fi
echo "Installing the packages that the tests use: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null
