#!/bin/sh
# Writes envs/NAME.linux-64.pin.txt for every environment, which Snakemake takes in place of solving NAME.yaml: pin.sh
set -eu
command -v conda >/dev/null || { echo "conda is not installed; see https://conda-forge.org/download" >&2; exit 1; }
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for file in *.yaml; do
    name=${file%.yaml}
    conda env create --yes --quiet --prefix "$scratch/$name" --file "$file"
    conda list --explicit --md5 --prefix "$scratch/$name" >"$scratch/$name.txt"
    mv "$scratch/$name.txt" "$name.linux-64.pin.txt"
done
