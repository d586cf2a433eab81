#!/bin/sh
# Creates a virtual environment with the pinned dependencies: setup.sh PYTHON FOLDER [EXTRAS]. One resolver call: with uv
# where it can be had, since that is ten times faster, else with pip.
set -eu
python=$1
venv=$2
extras=workflow,masks,dicom,export,site,test${3:+,$3}
here=$(dirname "$0")

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
if uv --version >/dev/null 2>&1; then
    uv=uv
elif "$venv/bin/python" -m pip install --quiet uv; then
    uv=$venv/bin/uv
else
    uv=
fi
set -- --constraint "$here/constraints.txt" --editable ".[$extras]"
if [ -n "$uv" ]; then
    # uv does not read pip's variable for folders of wheels.
    if [ -n "${PIP_FIND_LINKS:-}" ] && [ -z "${UV_FIND_LINKS:-}" ]; then
        UV_FIND_LINKS=$PIP_FIND_LINKS
        export UV_FIND_LINKS
    fi
    # As pip does: or every job would compile what it imports, where PYTHONDONTWRITEBYTECODE is set.
    "$uv" pip install --compile-bytecode --python "$venv/bin/python" "$@"
else
    "$venv/bin/python" -m pip install "$@"
fi
