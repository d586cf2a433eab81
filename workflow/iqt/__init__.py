"""iqt: image quality transfer for low-field brain MRI, the package behind the Snakemake workflow."""

__version__ = "0.2.0"
