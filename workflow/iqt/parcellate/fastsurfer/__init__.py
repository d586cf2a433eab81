"""FastSurfer, the external program, as a parcellator: find, plan, run, read.

`program`, `jobs` and `faults` use the standard library alone, because they run in FastSurfer's own environment or
container (`python -m iqt.parcellate.fastsurfer`); `command`, `plan` and `read` run in iqt's.
"""
