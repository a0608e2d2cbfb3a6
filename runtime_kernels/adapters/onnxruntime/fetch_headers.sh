#!/usr/bin/env bash
# Unpack ONNX Runtime's C headers into a folder, without installing anything: fetch_headers.sh [FOLDER]
#
# The folder is build/onnxruntime-headers of this checkout unless another is named; CMake looks there.
# The runtime's Python wheel has no headers. Debian packages them, from trixie on; an older Debian takes that
# one package from the mirror that its own apt sources name, checked by the archive keys it already trusts.
set -euo pipefail

package=libonnxruntime-dev
newer=trixie
keys=/usr/share/keyrings/debian-archive-keyring.gpg

if [ $# -gt 1 ]; then
  echo "usage: fetch_headers.sh [FOLDER]" >&2
  exit 2
fi
folder=${1:-$(dirname "$0")/../../../build/onnxruntime-headers}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ -e "$folder/include/onnxruntime_c_api.h" ]; then
  exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
options=()
if ! apt-cache show "$package" >/dev/null 2>&1; then
  mirror=$(apt-get indextargets --format '$(RELEASE) $(ORIGIN) $(REPO_URI)' |
    awk '$2 == "Debian" && $1 !~ /(security|updates|backports)/ { print $3; exit }')
  if [ -z "$mirror" ]; then
    echo "fetch_headers.sh: apt knows no $package and no Debian mirror; set ONNXRUNTIME_INCLUDE_DIR" >&2
    exit 1
  fi
  echo "deb [signed-by=$keys] $mirror $newer main" >"$scratch/sources.list"
  mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial"
  options=(
    -o Dir::Etc::SourceList="$scratch/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$scratch/lists" -o Dir::Cache="$scratch/cache"
    -o Acquire::Languages=none -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update -qq
fi
(cd "$scratch" && apt-get "${options[@]}" download -qq "$package")
dpkg-deb -x "$scratch"/"$package"_*.deb "$scratch/unpacked"
mkdir -p "$folder/include"
cp "$scratch"/unpacked/usr/include/onnxruntime/*.h "$folder/include/"
