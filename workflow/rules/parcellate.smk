"""Parcellate: one parcellator reads the references and every result; which, `parcellate.engine` says; `none` has none.

in:  cohort/, enhanced/<set>/<method>/
out: parcellation/hq/*, parcellation/<set>/<method>/*; models/parcellator/ or fastsurfer/, as the engine needs
"""

if CONFIG.parcellate.engine == "builtin":

    include: "parcellate_builtin.smk"

elif CONFIG.parcellate.engine == "fastsurfer":

    include: "parcellate_fastsurfer.smk"
